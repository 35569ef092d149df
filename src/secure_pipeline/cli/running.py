"""``secure-pipeline verify running``: what runs, against its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secure_pipeline.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from secure_pipeline.wiring.binding import Options

ImagesOption = Annotated[
    list[str] | None,
    typer.Option("--image", help="running: a build it may be, NAME@sha256:DIGEST; repeatable."),
]
NoDriftOption = Annotated[
    bool, typer.Option("--no-drift", help="running: do not look for changed executables.")
]
WatchOption = Annotated[
    bool, typer.Option("--watch", help="running: look again and again; one line a change.")
]
IntervalOption = Annotated[
    str, typer.Option("--interval", help="running: time between two looks of --watch.")
]
CountOption = Annotated[
    int | None, typer.Option("--count", help="running: end --watch after this many looks.")
]
VsaKeyOption = Annotated[
    str | None,
    typer.Option("--vsa-key", help="running: sign a summary with this key, file:release.key."),
]
VsaOutputOption = Annotated[
    Path | None, typer.Option("--vsa-output", help="running: file for the signed summaries.")
]


@dataclass(frozen=True)
class RunningOptions:
    """What only ``verify running`` takes, as typed."""

    images: tuple[str, ...]
    drift: bool
    watch: bool
    interval: str
    count: int | None
    vsa_key: str | None
    vsa_output: Path | None

    @property
    def given(self) -> bool:
        """Whether any was typed."""
        return self != RunningOptions((), True, False, self.interval, None, None, None)


def verify_running(
    targets: list[str],
    asked: RunningOptions,
    layout: Path | None,
    keys: tuple[Path, ...],
    options: Options,
    *,
    as_json: bool,
) -> ExitCode:
    """Look at what runs once, or again and again; print it and return the exit code."""
    raise UsageError("not there yet")
