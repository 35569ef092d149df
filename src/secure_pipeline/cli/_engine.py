"""Files by which an engine takes over what a command found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_pipeline.errors import Unavailable, UsageError

OutputsOption = Annotated[
    Path | None,
    typer.Option("--outputs", help="File that NAME=VALUE lines are added to, as GITHUB_OUTPUT."),
]


def add_outputs(path: Path, values: dict[str, str]) -> None:
    """Add ``name=value`` lines; each value is one line. Raises: UsageError, Unavailable."""
    for name, value in values.items():
        if not value.isprintable():
            raise UsageError(f"{name} is not one line of text")
    append(path, "".join(f"{name}={value}\n" for name, value in values.items()))


def append(path: Path, text: str) -> None:
    """Add text to the end of a file. Raises: Unavailable."""
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise Unavailable(f"cannot write: {error.strerror}", where=str(path)) from error
