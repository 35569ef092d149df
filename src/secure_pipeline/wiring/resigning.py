"""Sign the evidence of an image again with another key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.audit.log import FileLedger
from secure_pipeline.audit.recording import recorded
from secure_pipeline.errors import UsageError
from secure_pipeline.events import OnEvent
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.oci.store import Target
from secure_pipeline.ports import SecretUse
from secure_pipeline.stages.resign import STAGE, Resigned, passes, plan_resign, resign
from secure_pipeline.stages.result import StageResult
from secure_pipeline.stages.verify import VerifyInputs, verify
from secure_pipeline.wiring.auditing import ledger_path, open_ledger
from secure_pipeline.wiring.options import Options, World
from secure_pipeline.wiring.signing import Warn, opened_key, public_half
from secure_pipeline.wiring.stores import Stores
from secure_pipeline.wiring.verifying import VerifyTarget, verify_inputs


@dataclass(frozen=True)
class ResignRequest:
    """What to sign again, and with what."""

    image: str
    layout: Path | None
    key: str
    old: str | None
    """Id in the policy of the key that is replaced."""


@dataclass(frozen=True)
class ResignOutcome:
    """``done`` is None if the image did not verify before: then nothing was signed."""

    image: ImageReference
    before: StageResult
    done: Resigned | None


def resign_image(
    request: ResignRequest,
    options: Options,
    world: World,
    stores: Stores,
    warn: Warn,
    on_event: OnEvent,
) -> ResignOutcome:
    """Verify, sign, attach, verify without the old key; each step recorded before it happens.

    Raises: UsageError, ConfigError, PolicyDenied, VerificationFailed, Inconclusive, Unavailable.
    """
    if options.policy is None:
        raise UsageError(
            "no policy is named, and the built-in one trusts no key", hint="--policy POLICY.yaml"
        )
    ref = KeyRef.parse(request.key)
    target = VerifyTarget(request.image, None, request.layout, ())
    inputs = verify_inputs(target, options, world, stores)
    before = verify(inputs, SystemClock(), on_event)
    if not passes(before):
        return ResignOutcome(inputs.image, before, None)
    ledger, image = open_ledger(ledger_path(options, world)), str(inputs.image)
    details = {"key": str(ref), "old": request.old}
    with (
        recorded(ledger, SecretUse("sign", STAGE, image, None, details)) as ended,
        opened_key(STAGE, ref, inputs.policy, options, world, warn) as signer,
    ):
        plan = plan_resign(inputs, signer.public_key_der, request.old, SystemClock().now())
        with _pushed(inputs, ledger):
            place = cast(Target, inputs.source)
            done = resign(plan, inputs, place, signer, SystemClock(), on_event)
        ended |= {"keyId": public_half(signer).hint, "old": done.old, "statements": done.statements}
        ended["signed"] = done.signed
    return ResignOutcome(inputs.image, before, done)


@contextmanager
def _pushed(inputs: VerifyInputs, ledger: FileLedger) -> Iterator[None]:
    """Record what goes into a registry; a layout is no registry."""
    use = SecretUse("push", STAGE, f"{inputs.source.name}@{inputs.image.digest}")
    with recorded(ledger, use) if inputs.source.remote else nullcontext():
        yield
