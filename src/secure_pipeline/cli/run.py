"""``secure-pipeline run``."""

from __future__ import annotations

from typing import Annotated

import typer

from secure_pipeline.cli._options import (
    AnchorOption,
    ConfigOption,
    DatabaseOption,
    JsonOption,
    KeyOption,
    LedgerOption,
    PlainHttpOption,
    PolicyOption,
    PushOption,
    RealmOption,
    RegistryCaOption,
    RunOption,
    StateOption,
)
from secure_pipeline.errors import ExitCode


def run(
    key: KeyOption = None,
    config: ConfigOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    run: RunOption = None,
    database: DatabaseOption = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Execute every stage; reuse and keep nothing.")
    ] = False,
    push: PushOption = None,
    ledger: LedgerOption = None,
    ledger_anchor: AnchorOption = None,
    registry_ca: RegistryCaOption = None,
    plain_http: PlainHttpOption = False,
    realm: RealmOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Run all stages and verify the image."""
    from secure_pipeline.cli._execute import execute
    from secure_pipeline.cli._output import Output
    from secure_pipeline.run import GRAPH
    from secure_pipeline.wiring import shipping_behind
    from secure_pipeline.wiring.options import Options, RegistryOptions

    options = Options(
        config=config, policy=policy, state=state, run=run, key=key, database=database,
        cache=not no_cache, registry=RegistryOptions(registry_ca, plain_http, tuple(realm or ())),
        ledger=ledger, anchor=ledger_anchor,
    )  # fmt: skip
    with shipping_behind(options, Output(as_json=as_json).warn):
        return execute(tuple(GRAPH), options, as_json=as_json, push=push)
