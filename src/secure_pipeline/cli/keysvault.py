"""``secure-pipeline keys status`` and ``keys rotate``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secure_pipeline.cli._options import (
    ConfigOption,
    JsonOption,
    LedgerOption,
    PolicyOption,
    StateOption,
)
from secure_pipeline.errors import ExitCode

if TYPE_CHECKING:
    from secure_pipeline.cli._output import Output
    from secure_pipeline.keys.verify import PublicKey
    from secure_pipeline.wiring.keys import Measured


def status(
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[KEY]",
            envvar="SECURE_PIPELINE_KEY",
            show_envvar=False,
            help="vault-transit://MOUNT/KEY or vault-kv://…; the configured one by default.",
        ),
    ] = None,
    config: ConfigOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Show which version of a key in Vault is in use, how old it is, and when it is due."""
    from secure_pipeline.cli._output import Output
    from secure_pipeline.wiring import key_status
    from secure_pipeline.wiring.options import Options

    out = Output(as_json=as_json)
    options = Options(config=config, policy=policy, state=state, ledger=ledger)
    found = key_status(key, options, out.warn)
    versions = f"{found.state.version} (newest: {found.state.latest})"
    out.text(f"key:         {found.state.ref}")
    out.text(f"version:     {versions}")
    if found.state.public is not None:
        out.text(f"id:          {found.state.public.hint}")
    if found.pinned is False:
        out.text("             none of the policy's keys: it does not sign")
    _show_age(out, "age", found.key)
    for item in found.credentials:
        _show_age(out, item.issued.kind, item)
    out.document(
        "KeyStatus",
        {
            "key": str(found.state.ref),
            "version": found.state.version,
            "latestVersion": found.state.latest,
            "id": found.state.public.hint if found.state.public else None,
            "pinned": found.pinned,
            **_age(found.key),
            "credentials": [{"kind": item.issued.kind, **_age(item)} for item in found.credentials],
            "exitCode": int(found.exit_code),
        },
    )
    return found.exit_code


def rotate(
    key: Annotated[str, typer.Argument(metavar="KEY", help="vault-transit://MOUNT/KEY.")],
    config: ConfigOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Add a version to a key of Vault's transit engine; it is recorded in the ledger."""
    from secure_pipeline.cli._output import Output
    from secure_pipeline.wiring import rotate_key
    from secure_pipeline.wiring.options import Options

    out = Output(as_json=as_json)
    options = Options(config=config, policy=policy, state=state, ledger=ledger)
    done = rotate_key(key, options, out.warn)
    public, version = done.after.public, done.after.version
    assert public is not None
    out.text(f"key:         {done.after.ref}")
    out.text(f"version:     {version} (before: {done.before.version})")
    out.text(f"id:          {public.hint}")
    out.text("It signs once the policy has it; add this under 'keys', beside the old one:")
    out.text(policy_entry(public, f"{_name(str(done.after.ref))}-v{version}"))
    out.document(
        "RotatedKey",
        {
            "key": str(done.after.ref),
            "version": version,
            "previousVersion": done.before.version,
            "algorithm": public.algorithm.value,
            "id": public.hint,
            "pem": public.pem.decode(),
        },
    )
    return ExitCode.PASS


def policy_entry(public: PublicKey, name: str) -> str:
    """The lines that a policy needs to trust a key."""
    return (
        f"  - id: {name}\n    algorithm: {public.algorithm.value}\n"
        f"    public-key: {json.dumps(public.pem.decode())}"
    )


def _name(ref: str) -> str:
    return ref.rpartition("/")[2][:50]


def _show_age(out: Output, label: str, item: Measured) -> None:
    from secure_pipeline.policy.rotation import days
    from secure_pipeline.shape import rfc3339

    label = f"{label}:".ljust(12)
    if item.age is None:
        out.text(f"{label} unknown: {item.problem}")
        return
    age = item.age
    verdict = "TOO OLD, was due" if age.over else "due"
    out.text(
        f"{label} {days(age.age)}, made {rfc3339(age.created)}; limit {days(age.limit)}, "
        f"{verdict} {rfc3339(age.due)}"
    )


def _age(item: Measured) -> dict[str, Any]:
    from secure_pipeline.shape import rfc3339

    if item.age is None:
        return {"created": None, "ageSeconds": None, "limitSeconds": None, "due": None,
                "tooOld": None, "problem": item.problem}  # fmt: skip
    age = item.age
    return {
        "created": rfc3339(age.created),
        "ageSeconds": int(age.age.total_seconds()),
        "limitSeconds": int(age.limit.total_seconds()),
        "due": rfc3339(age.due),
        "tooOld": age.over,
        "problem": None,
    }
