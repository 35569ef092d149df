"""``secure-pipeline analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_pipeline.cli._options import (
    ConfigOption,
    JsonOption,
    PolicyOption,
    ResultsOption,
    RunOption,
    StateOption,
)
from secure_pipeline.errors import ExitCode


def analyze(
    config: ConfigOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    run: RunOption = None,
    write_baseline: Annotated[
        Path | None,
        typer.Option("--write-baseline", help="Write all open findings as a baseline file."),
    ] = None,
    results: ResultsOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Analyse the source with Semgrep and gate on new findings."""
    from secure_pipeline.cli._execute import execute
    from secure_pipeline.wiring.options import Options

    options = Options(config=config, policy=policy, state=state, run=run)
    export = {"baseline.json": write_baseline} if write_baseline else None
    return execute(("analyze",), options, as_json=as_json, results=results, export=export)
