"""``secure-pipeline resign``."""

from __future__ import annotations

from typing import Annotated

import typer

from secure_pipeline.cli._options import (
    ConfigOption,
    JsonOption,
    LayoutOption,
    LedgerOption,
    OneImageArgument,
    PlainHttpOption,
    PolicyOption,
    RealmOption,
    RegistryCaOption,
    StateOption,
)
from secure_pipeline.errors import ExitCode


def resign(
    image: OneImageArgument,
    key: Annotated[str, typer.Option("--key", help="URI of the new key.")],
    old: Annotated[
        str | None,
        typer.Option("--old", help="Id, in the policy, of the key that it takes the place of."),
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
    """Sign the evidence of an image that verifies again, with a new key."""
    from secure_pipeline.cli._output import Output
    from secure_pipeline.cli._verified import show_one
    from secure_pipeline.wiring import resign_image
    from secure_pipeline.wiring.options import Options, RegistryOptions
    from secure_pipeline.wiring.resigning import ResignRequest

    out = Output(as_json=as_json)
    registry = RegistryOptions(registry_ca, plain_http, tuple(realm or ()))
    options = Options(
        config=config, policy=policy, state=state, ledger=ledger, registry=registry
    )  # fmt: skip
    request = ResignRequest(image, layout, key, old)
    ended = resign_image(request, options, out.warn)
    if ended.done is None:
        code = show_one(out, ended.image, ended.before)
        out.text("nothing was signed: only what verifies now is signed again")
        return code
    done = ended.done
    out.text(f"image {ended.image}")
    out.text(
        f"{done.statements} statements of key '{done.old}' are signed by key '{done.new}' too, "
        f"{done.signed} of them now"
    )
    if done.left:
        out.text(f"{done.left} signatures in cosign's older form (.sig) stay as they are")
    out.text(f"without key '{done.old}': {done.after.verdict.value}: {done.after.summary}")
    for reason in done.after.reasons:
        out.text(f"  {reason}")
    out.document(
        "Resigned",
        {
            "image": str(ended.image),
            "old": done.old,
            "new": done.new,
            "statements": done.statements,
            "signed": done.signed,
            "added": {"bundle": done.published.bundles, "att": done.published.att},
            "olderSignatures": done.left,
            "withoutOld": {
                "verdict": done.after.verdict.value,
                "exitCode": int(done.after.code),
                "reasons": list(done.after.reasons),
            },
        },
    )
    return done.after.code
