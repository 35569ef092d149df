"""``secure-pipeline sign``."""

from __future__ import annotations

from secure_pipeline.cli._options import (
    ConfigOption,
    ImageArgument,
    JsonOption,
    KeyOption,
    PolicyOption,
    RunOption,
    StateOption,
)
from secure_pipeline.errors import ExitCode


def sign(
    image: ImageArgument = None,
    key: KeyOption = None,
    config: ConfigOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    run: RunOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Sign the evidence, attach it to the image and seal it."""
    from secure_pipeline.cli._execute import execute
    from secure_pipeline.wiring.binding import Options

    options = Options(config=config, policy=policy, state=state, run=run, image=image, key=key)
    return execute(("sign",), options, as_json=as_json)
