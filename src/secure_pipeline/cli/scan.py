"""``secure-pipeline scan``."""

from __future__ import annotations

from secure_pipeline.cli._options import (
    ConfigOption,
    DatabaseOption,
    ExpectOption,
    ImageArgument,
    JsonOption,
    PolicyOption,
    ResultsOption,
    RunOption,
    StateOption,
)
from secure_pipeline.errors import ExitCode


def scan(
    image: ImageArgument = None,
    config: ConfigOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    run: RunOption = None,
    database: DatabaseOption = None,
    results: ResultsOption = None,
    expect: ExpectOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Scan the image for vulnerabilities, secrets and bad settings."""
    from secure_pipeline.cli._execute import execute
    from secure_pipeline.wiring.options import Options

    options = Options(
        config=config, policy=policy, state=state, run=run, image=image, database=database,
        expect=tuple(expect or ()),
    )  # fmt: skip
    return execute(("scan",), options, as_json=as_json, results=results)
