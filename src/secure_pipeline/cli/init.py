"""``secure-pipeline init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_pipeline.cli._options import JsonOption
from secure_pipeline.cli._output import Output
from secure_pipeline.errors import ExitCode


def init(
    directory: Annotated[Path, typer.Argument(help="The repository.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    as_json: JsonOption = False,
) -> ExitCode:
    """Write a secure-pipeline.yaml by looking at the repository."""
    from secure_pipeline import starter

    output = Output(as_json=as_json)
    path, found = starter.write(directory, force=force)
    output.text(f"wrote {path}")
    output.text(f"  image name  {found.name}")
    output.text(f"  Dockerfile  {found.dockerfile or 'none found: write one'}")
    output.text(f"  tests       {found.test.reason if found.test else 'none recognised'}")
    output.text(f"  CI          {', '.join(found.ci) or 'none found'}")
    output.text("next: secure-pipeline keys generate, then secure-pipeline run")
    output.document(
        "Init",
        {
            "path": str(path),
            "name": found.name,
            "dockerfile": found.dockerfile,
            "testCommand": list(found.test.command) if found.test else None,
            "ci": list(found.ci),
        },
    )
    return ExitCode.PASS
