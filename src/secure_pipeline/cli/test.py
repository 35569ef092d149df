"""``secure-pipeline test``."""

from __future__ import annotations

from secure_pipeline.cli._options import (
    ConfigOption,
    JsonOption,
    PolicyOption,
    ResultsOption,
    RunOption,
    StateOption,
)
from secure_pipeline.errors import ExitCode


def test(
    config: ConfigOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    run: RunOption = None,
    results: ResultsOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Run the project's tests and gate on failures and coverage."""
    from secure_pipeline.cli._execute import execute
    from secure_pipeline.wiring.options import Options

    options = Options(config=config, policy=policy, state=state, run=run)
    return execute(("test",), options, as_json=as_json, results=results)
