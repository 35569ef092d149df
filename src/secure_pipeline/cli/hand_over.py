"""``secure-pipeline hand-over``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secure_pipeline.cli._options import (
    ConfigOption,
    IdentityOption,
    IssuerOption,
    JsonOption,
    LedgerOption,
    PlainHttpOption,
    PolicyOption,
    PublicKeysOption,
    RealmOption,
    RegistryCaOption,
    StateOption,
    TrustRootOption,
)
from secure_pipeline.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from secure_pipeline.stages.handed_over import HandedOver


def hand_over(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="HOST/NAME@sha256:DIGEST. Never a tag.")
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="https address of an EventListener, exactly as it knows itself.",
            envvar="SECURE_PIPELINE_HAND_OVER",
        ),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--target",
            help="Name of the promotion target, as the cluster knows it.",
            envvar="SECURE_PIPELINE_TARGET",
        ),
    ],
    secret_file: Annotated[
        Path | None,
        typer.Option(
            "--secret-file",
            help="File of the shared secret; else SECURE_PIPELINE_HAND_OVER_SECRET holds it.",
            envvar="SECURE_PIPELINE_HAND_OVER_SECRET_FILE",
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            "--listener-ca",
            help="PEM file of the authorities that the listener is trusted by.",
            envvar="SECURE_PIPELINE_HAND_OVER_CA",
        ),
    ] = None,
    wait: Annotated[
        str,
        typer.Option(
            "--wait",
            help="Longest time to wait for the verdict that the cluster signs.",
            envvar="SECURE_PIPELINE_HAND_OVER_WAIT",
        ),
    ] = "1h",
    no_wait: Annotated[
        bool,
        typer.Option("--no-wait", help="Only send: 0 then says no more than that it was taken."),
    ] = False,
    key: PublicKeysOption = None,
    identity: IdentityOption = None,
    issuer: IssuerOption = None,
    trust_root: TrustRootOption = None,
    config: ConfigOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    ledger: LedgerOption = None,
    registry_ca: RegistryCaOption = None,
    plain_http: PlainHttpOption = False,
    realm: RealmOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Let a cluster promote an image: send a signed event, wait for the signed verdict."""
    from secure_pipeline.cli._output import Output
    from secure_pipeline.report.foreign import visible
    from secure_pipeline.wiring import open_hand_over
    from secure_pipeline.wiring.handing import HandOverRequest
    from secure_pipeline.wiring.keyless import Trust, operator_identity
    from secure_pipeline.wiring.options import Options, RegistryOptions
    from secure_pipeline.wiring.verifying import VerifyTarget

    registry = RegistryOptions(registry_ca, plain_http, tuple(realm or ()))
    options = Options(config=config, policy=policy, state=state, ledger=ledger, registry=registry)
    trust = Trust(operator_identity(identity, issuer), trust_root)
    asked = VerifyTarget(image, None, None, tuple(key or ()), trust=trust)
    work = open_hand_over(HandOverRequest(asked, to, target, secret_file, ca), options)
    output = Output(as_json=as_json)
    seconds = _seconds(wait)
    inputs = None if no_wait else work.check()
    event = work.send()
    output.text(f"{work.event.image} to {target}: taken as event {event}, run {work.event.run}")
    said = {"image": image, "target": target, "event": event, "run": work.event.run}
    if inputs is None:
        output.text("not waited for: whether the run was started, only the cluster knows")
        output.document("HandOver", {**said, "exitCode": int(ExitCode.PASS), "verdict": None})
        return ExitCode.PASS
    ended = work.wait(inputs, seconds)
    output.text(f"{ended.result}: {visible(ended.why, 300)}")
    output.text(f"signed by {', '.join(ended.signers)}: {ended.statement}")
    output.text(f"{ended.verification.verdict.value}: {ended.verification.summary}")
    output.document("HandOver", {**said, "exitCode": int(ended.code), "verdict": _verdict(ended)})
    return ended.code


def _verdict(ended: HandedOver) -> dict[str, Any]:
    return {
        "result": ended.result,
        "why": ended.why,
        "statement": ended.statement,
        "signers": list(ended.signers),
        "verification": ended.verification.verdict.value,
        "summary": ended.verification.summary,
    }


def _seconds(wait: str) -> float:
    from secure_pipeline.stages.running_watch import parse_interval

    try:
        return parse_interval(wait).total_seconds()
    except UsageError:
        raise UsageError(f"{wait[:40]!r} is no time from 1s to 24h", hint="--wait 1h") from None
