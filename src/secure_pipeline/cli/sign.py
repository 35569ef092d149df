"""``secure-pipeline sign``."""

from __future__ import annotations

from secure_pipeline.cli._options import (
    AnchorOption,
    ConfigOption,
    ExpectOption,
    ImageArgument,
    JsonOption,
    KeyOption,
    LedgerOption,
    PlainHttpOption,
    PolicyOption,
    PushOption,
    RealmOption,
    RegistryCaOption,
    ResultsOption,
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
    push: PushOption = None,
    ledger: LedgerOption = None,
    ledger_anchor: AnchorOption = None,
    registry_ca: RegistryCaOption = None,
    plain_http: PlainHttpOption = False,
    realm: RealmOption = None,
    results: ResultsOption = None,
    expect: ExpectOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Sign the evidence, attach it to the image and seal it."""
    from secure_pipeline.cli._execute import execute
    from secure_pipeline.wiring.options import Options, RegistryOptions

    options = Options(
        config=config, policy=policy, state=state, run=run, image=image, key=key,
        registry=RegistryOptions(registry_ca, plain_http, tuple(realm or ())),
        ledger=ledger, anchor=ledger_anchor, expect=tuple(expect or ()),
    )  # fmt: skip
    return execute(("sign",), options, as_json=as_json, results=results, push=push)
