"""``secure-pipeline keys blast-radius`` and ``keys revoke``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secure_pipeline.cli._options import (
    ConfigOption,
    JsonOption,
    LedgerOption,
    PlainHttpOption,
    PolicyOption,
    RealmOption,
    RegistryCaOption,
    StateOption,
)
from secure_pipeline.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from secure_pipeline.audit.usage import Use
    from secure_pipeline.cli._output import Output

VersionArgument = Annotated[
    str, typer.Argument(metavar="KEY@VERSION", help="Such as vault-transit://transit/release@3.")
]
PublicKeyOption = Annotated[
    Path | None,
    typer.Option("--public-key", help="PEM file of that version, where Vault does not show it."),
]


def blast_radius(
    key: VersionArgument,
    places: Annotated[
        list[str] | None,
        typer.Option(
            "--in", help="Look there too: HOST/NAME[@sha256:…] or layout:DIR; may be repeated."
        ),
    ] = None,
    public_key: PublicKeyOption = None,
    config: ConfigOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    ledger: LedgerOption = None,
    registry_ca: RegistryCaOption = None,
    plain_http: PlainHttpOption = False,
    realm: RealmOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """List everything that one version of a key in Vault has signed, and what cannot be seen."""
    from secure_pipeline.cli._output import Output
    from secure_pipeline.wiring import blast_radius as look
    from secure_pipeline.wiring.options import Options, RegistryOptions

    out = Output(as_json=as_json)
    registry = RegistryOptions(registry_ca, plain_http, tuple(realm or ()))
    options = Options(config=config, policy=policy, state=state, ledger=ledger, registry=registry)
    found = look(key, tuple(places or ()), public_key, options, out.warn)
    images = [use for use in found.usage.uses if "@" in use.artifact]
    others = [use for use in found.usage.uses if "@" not in use.artifact]
    out.text(f"key:         {found.ref}")
    for use in images:
        _show_use(out, use)
    if others:
        out.text(f"{len(others)} heads of the ledger")
    if found.usage.loose:
        out.text(f"{found.usage.loose} uses that belong to no artifact in the ledger")
    for seen in found.seen:
        known = "" if seen.recorded else "  NOT IN THE LEDGER"
        out.text(f"found in {seen.image}: {len(seen.types)} statements{known}")
    if not (images or others or found.seen or found.usage.loose):
        out.text("nothing that this version has signed was found")
    out.text("not seen:")
    for blind in (*found.blind, *found.limits):
        out.text(f"  {blind}")
    code = ExitCode.INCONCLUSIVE if found.blind else ExitCode.PASS
    out.document(
        "BlastRadius",
        {
            "key": str(found.ref),
            "version": found.version,
            "id": found.key_id,
            "uses": [_use(use) for use in found.usage.uses],
            "looseUses": found.usage.loose,
            "found": [
                {"image": s.image, "predicateTypes": list(s.types), "inLedger": s.recorded}
                for s in found.seen
            ],
            "notSeen": [*found.blind, *found.limits],
            "exitCode": int(code),
        },
    )
    return code


def revoke(
    key: VersionArgument,
    since: Annotated[
        str, typer.Option("--from", help="RFC 3339 time or date from which it is not trusted.")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the ledger.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Proposed policy; POLICY.proposed.yaml by default."),
    ] = None,
    public_key: PublicKeyOption = None,
    config: ConfigOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Take a version out of trust: Vault signs with it no more, and a policy is proposed."""
    from secure_pipeline.cli._ledger import moment
    from secure_pipeline.cli._output import Output
    from secure_pipeline.wiring import revoke_key
    from secure_pipeline.wiring.keyhistory import RevokeRequest
    from secure_pipeline.wiring.options import Options

    out = Output(as_json=as_json)
    options = Options(config=config, policy=policy, state=state, ledger=ledger)
    time = moment(since)
    if time is None:
        raise UsageError("no time is named", hint="--from 2027-01-31")
    request = RevokeRequest(key, time, reason, output, public_key)
    done = revoke_key(request, options, out.warn)
    proposal = done.proposal
    out.text(f"key:         {done.ref}")
    out.text(f"Vault signs with versions {done.least} to {done.newest} only; {done.version} is out")
    if proposal is None:
        out.text("the policy does not trust this version: nothing to change there")
    elif not proposal.diff:
        out.text(f"the policy trusts key '{proposal.key}' until {proposal.last_day} already")
    else:
        out.text(f"last trusted day: {proposal.last_day}, UTC, as whole days count")
        out.text(f"review {done.written}, then put it in the place of the trusted policy:")
        out.text(proposal.diff.rstrip())
    out.text(f"what it has signed: secure-pipeline keys blast-radius {key}")
    out.document(
        "RevokedKey",
        {
            "key": str(done.ref),
            "version": done.version,
            "id": done.key_id,
            "leastVersion": done.least,
            "policyKey": proposal.key if proposal else None,
            "notAfter": str(proposal.last_day) if proposal else None,
            "proposal": str(done.written) if done.written else None,
        },
    )
    return ExitCode.PASS


def _show_use(out: Output, use: Use) -> None:
    from secure_pipeline.shape import rfc3339

    count = f", {use.signatures} signatures" if use.signatures else ""
    run = f" in run {use.run}" if use.run else ""
    out.text(f"{rfc3339(use.time)} {use.artifact}: {use.stage}{run}{count}, {use.outcome}")
    for place in use.pushed:
        out.text(f"{'':20} sent to {place}")


def _use(use: Use) -> dict[str, Any]:
    from secure_pipeline.shape import rfc3339

    return {
        "artifact": use.artifact,
        "stage": use.stage,
        "run": use.run,
        "time": rfc3339(use.time),
        "outcome": use.outcome,
        "signatures": use.signatures,
        "pushed": list(use.pushed),
    }
