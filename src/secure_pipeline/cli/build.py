"""``secure-pipeline build``."""

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


def build(
    config: ConfigOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    run: RunOption = None,
    results: ResultsOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Build the image into an OCI layout, by digest."""
    from secure_pipeline.cli._execute import execute
    from secure_pipeline.wiring.options import Options

    options = Options(config=config, policy=policy, state=state, run=run)
    return execute(("build",), options, as_json=as_json, results=results)
