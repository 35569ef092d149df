"""``secure-pipeline quarantine``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from secure_pipeline.cli._options import (
    ConfigOption,
    JsonOption,
    LayoutOption,
    LedgerOption,
    OneImageArgument,
    PlainHttpOption,
    PolicyOption,
    PublicKeysOption,
    RealmOption,
    RegistryCaOption,
    StateOption,
)
from secure_pipeline.errors import ExitCode

if TYPE_CHECKING:
    from secure_pipeline.cli._output import Output
    from secure_pipeline.policy.quarantine import Standing
    from secure_pipeline.stages.quarantine import Found
    from secure_pipeline.wiring.quarantining import QuarantineDone

app = typer.Typer(
    help="Images that must not serve, until a release is signed.", no_args_is_help=True
)

SigningKeyOption = Annotated[str, typer.Option("--key", help="URI of the key that signs it.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, in a line; it is signed.")]


@app.command("list")
def list_(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="[HOST/]NAME@sha256:DIGEST. Never a tag."),
    ],
    key: PublicKeysOption = None,
    layout: LayoutOption = None,
    config: ConfigOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    registry_ca: RegistryCaOption = None,
    plain_http: PlainHttpOption = False,
    realm: RealmOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """List the quarantines of images; 12 if any is open."""
    from secure_pipeline.cli._output import Output
    from secure_pipeline.wiring import list_quarantine
    from secure_pipeline.wiring.options import Options, RegistryOptions
    from secure_pipeline.wiring.verifying import VerifyTarget

    out = Output(as_json=as_json)
    registry = RegistryOptions(registry_ca, plain_http, tuple(realm or ()))
    options = Options(config=config, policy=policy, state=state, registry=registry)
    target = VerifyTarget(None, None, layout, tuple(key or ()))
    documents, codes = [], []
    for image, found in list_quarantine(images, target, options):
        out.text(f"image {image}")
        _show(out, found)
        documents.append({"image": str(image), **_found(found)})
        codes.append(found.code)
    order = (ExitCode.DENIED, ExitCode.VERIFICATION, ExitCode.INCONCLUSIVE, ExitCode.PASS)
    code = next(code for code in order if code in codes)
    out.document("Quarantines", {"exitCode": int(code), "images": documents})
    return code


@app.command()
def add(
    image: OneImageArgument,
    reason: ReasonOption,
    key: SigningKeyOption,
    layout: LayoutOption = None,
    config: ConfigOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    ledger: LedgerOption = None,
    registry_ca: RegistryCaOption = None,
    plain_http: PlainHttpOption = False,
    realm: RealmOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Keep an image out: sign that it must not serve."""
    from secure_pipeline.cli._output import Output
    from secure_pipeline.wiring import add_quarantine
    from secure_pipeline.wiring.options import Options, RegistryOptions
    from secure_pipeline.wiring.quarantining import QuarantineRequest

    out = Output(as_json=as_json)
    registry = RegistryOptions(registry_ca, plain_http, tuple(realm or ()))
    options = Options(
        config=config, policy=policy, state=state, ledger=ledger, registry=registry
    )  # fmt: skip
    done = add_quarantine(QuarantineRequest(image, layout, key, reason), options, out.warn)
    out.text(f"image {done.image}")
    out.text(f"in quarantine since now, signed by key '{done.key}': {done.statement}")
    _show(out, done.found)
    out.document("Quarantined", _done(done))
    return ExitCode.PASS


@app.command()
def release(
    image: OneImageArgument,
    reason: ReasonOption,
    key: SigningKeyOption,
    statement: Annotated[
        list[str] | None,
        typer.Option(
            "--statement", help="sha256:… of a quarantine to end; all that are open by default."
        ),
    ] = None,
    layout: LayoutOption = None,
    config: ConfigOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    ledger: LedgerOption = None,
    registry_ca: RegistryCaOption = None,
    plain_http: PlainHttpOption = False,
    realm: RealmOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Let an image in again: sign that these quarantines end."""
    from secure_pipeline.cli._output import Output
    from secure_pipeline.wiring import release_quarantine
    from secure_pipeline.wiring.options import Options, RegistryOptions
    from secure_pipeline.wiring.quarantining import QuarantineRequest

    out = Output(as_json=as_json)
    registry = RegistryOptions(registry_ca, plain_http, tuple(realm or ()))
    options = Options(
        config=config, policy=policy, state=state, ledger=ledger, registry=registry
    )  # fmt: skip
    request = QuarantineRequest(image, layout, key, reason, tuple(statement or ()))
    done = release_quarantine(request, options, out.warn)
    out.text(f"image {done.image}")
    out.text(f"{len(done.ended)} quarantines end, signed by key '{done.key}': {done.statement}")
    _show(out, done.found)
    out.document("Released", _done(done))
    return ExitCode.PASS


def _show(out: Output, found: Found) -> None:
    from secure_pipeline.shape import rfc3339

    for one in found.standings:
        by = f" by {one.quarantine.by}" if one.quarantine else ""
        keys = ", ".join(sorted(one.item.everyone))
        out.text(f"  {'OPEN' if one.open else 'released'}  {one.why}{by}, key {keys}")
        for ended in one.releases:
            said = ended.release
            keys = ", ".join(sorted(ended.item.signers))
            out.text(
                f"            released: {said.reason} ({rfc3339(said.time)}; "
                f"{ended.item.digest}) by {said.by}, key {keys}"
            )
    for rule in found.unread:
        out.text(f"  {rule.id}: {rule.why}")
    out.text(f"{len(found.open)} of {len(found.standings)} quarantines are open")


def _done(done: QuarantineDone) -> dict[str, Any]:
    return {
        "image": str(done.image),
        "key": done.key,
        "statement": str(done.statement),
        "ended": [str(digest) for digest in done.ended],
        "added": {"bundle": done.published.bundles, "att": done.published.att},
        **_found(done.found),
    }


def _found(found: Found) -> dict[str, Any]:
    return {
        "open": [_standing(one) for one in found.standings if one.open],
        "released": [_standing(one) for one in found.standings if not one.open],
        "unread": [rule.to_json() for rule in found.unread],
        "standing": int(found.code),
    }


def _standing(one: Standing) -> dict[str, Any]:
    from secure_pipeline.shape import rfc3339

    said = one.quarantine
    return {
        "statement": one.item.digest,
        "keys": sorted(one.item.everyone),
        "problem": one.problem or None,
        "reason": said.reason if said else None,
        "cause": said.cause if said else None,
        "target": said.target if said else None,
        "promotion": str(said.promotion) if said and said.promotion else None,
        "by": said.by if said else None,
        "time": rfc3339(said.time) if said else None,
        "releases": [
            {
                "statement": ended.item.digest,
                "keys": sorted(ended.item.signers),
                "reason": ended.release.reason,
                "by": ended.release.by,
                "time": rfc3339(ended.release.time),
            }
            for ended in one.releases
        ],
    }
