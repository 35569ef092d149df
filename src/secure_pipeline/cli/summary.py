"""``secure-pipeline summary``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_pipeline.cli._engine import append
from secure_pipeline.cli._options import ConfigOption, JsonOption, RunOption, StateOption
from secure_pipeline.cli._output import Output
from secure_pipeline.errors import ExitCode, UsageError


def summary(
    stages: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STAGE...]", help="Stages to show; all that ended by default."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="File to add it to, as GITHUB_STEP_SUMMARY; below 1 MiB."),
    ] = None,
    config: ConfigOption = None,
    state: StateOption = None,
    run: RunOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Show what the stages of a run found, as Markdown."""
    from secure_pipeline.report.to_markdown import MAX_BYTES, markdown
    from secure_pipeline.run import GRAPH
    from secure_pipeline.wiring import open_state
    from secure_pipeline.wiring.options import Options

    for name in stages or ():
        if name not in GRAPH:
            raise UsageError(f"{name[:80]!r} is no stage", hint=", ".join(GRAPH))
    opened = open_state(Options(config=config, state=state, run=run))
    found = {name: opened.run.load(name) for name in stages or GRAPH}
    if not stages:
        found = {name: stored for name, stored in found.items() if stored is not None}
    before = file.stat().st_size if file and file.exists() else 0
    text = markdown(opened.run.id, found, opened.image, MAX_BYTES - before)
    output = Output(as_json=as_json)
    if file:
        append(file, text)
    else:
        output.text(text.rstrip("\n"))
    output.document("Summary", {"run": opened.run.id, "image": opened.image, "markdown": text})
    return ExitCode.PASS
