"""``secure-pipeline report``."""

from __future__ import annotations

from typing import Annotated

import typer

from secure_pipeline.cli._options import ConfigOption, JsonOption, RunOption, StateOption
from secure_pipeline.errors import ExitCode


def report(
    stages: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STAGE=STATUS...]",
            help="How an engine says that a stage ended: Succeeded, Failed, None.",
        ),
    ] = None,
    config: ConfigOption = None,
    state: StateOption = None,
    run: RunOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Write the dashboard of a run whose stages an engine ran; 0 whatever it tells."""
    from secure_pipeline.cli._output import Output
    from secure_pipeline.report import to_text
    from secure_pipeline.wiring import report_run
    from secure_pipeline.wiring.options import Options

    output = Output(as_json=as_json)
    reported = report_run(stages or (), Options(config=config, state=state, run=run))
    for line in to_text.run_summary(reported.outcome):
        output.text(line)
    code = reported.outcome.code
    output.text(f"dashboard {reported.path}" if reported.path else "no stage began the run")
    output.text("passed" if code is ExitCode.PASS else f"not passed (exit {code})")
    path = str(reported.path) if reported.path else None
    output.document("Report", {"dashboard": path, "exitCode": int(code)})
    return ExitCode.PASS
