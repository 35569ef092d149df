"""``resign``: the statements that an old key signed get signatures of a new one.

Payloads stay what they are, so seal, quorum and every digest hold; only what verifies now, by a
key that is trusted now, is signed again. The old signatures stay too: nothing is removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from secure_pipeline.attestations import dsse
from secure_pipeline.attestations.attachments import Attachment, collect
from secure_pipeline.attestations.predicates import read_time
from secure_pipeline.attestations.publishing import Published, publish
from secure_pipeline.attestations.signatures import collect_signatures
from secure_pipeline.attestations.statement import parse_statement
from secure_pipeline.errors import PolicyDenied, UsageError
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.keys.verify import PublicKey
from secure_pipeline.oci.store import Target
from secure_pipeline.policy.document import LoadedPolicy, Policy, QuarantineRule, Requirement
from secure_pipeline.policy.trust import TrustedSigner, trusted_signers
from secure_pipeline.ports import Clock, Signer
from secure_pipeline.shape import rfc3339
from secure_pipeline.stages.result import StageResult, Verdict
from secure_pipeline.stages.verify import VerifyInputs, verify

STAGE = "resign"


@dataclass(frozen=True)
class ResignPlan:
    """What is to be signed again."""

    old: TrustedSigner
    new: TrustedSigner
    payloads: tuple[bytes, ...]
    """Of statements that the old key signed, each once."""
    present: tuple[dsse.Envelope, ...]
    """Those among them that the new key has signed already."""
    left: int
    """Signatures of the old key over the image itself, in cosign's older form: they stay."""


@dataclass(frozen=True)
class Resigned:
    """What was signed again, and whether the old key is still needed."""

    old: str
    new: str
    """Ids in the policy."""
    statements: int
    signed: int
    """Of these, how many had no signature of the new key yet."""
    published: Published
    after: StageResult
    """The verification by a policy without the old key."""
    left: int


def plan_resign(
    inputs: VerifyInputs, new_key: bytes, old_id: str | None, now: datetime
) -> ResignPlan:
    """Find what the old key signed; the image has verified already.

    ``new_key``: DER; ``old_id``: of the policy, where more than one other key has signed.
    Raises: PolicyDenied (a key that is not trusted now, or not at a statement's time),
    UsageError (no such key, or several), VerificationFailed, Inconclusive, Unavailable.
    """
    signers = trusted_signers(inputs.policy)
    # (1) both keys are the policy's, and trusted at this moment
    new = next((item for item in signers if item.key.der == new_key), None)
    if new is None:
        raise PolicyDenied(
            "the new key is none of the policy's keys",
            where=str(inputs.policy.source),
            hint="secure-pipeline keys show KEY, and put it into the policy beside the old one",
        )
    found = collect(inputs.source, inputs.image.digest)
    others = [item for item in signers if item is not new]
    old = _old(others, [a for a in found if a.certificate is None], old_id)
    for item in (old, new):
        if not item.trusted_at(now):
            raise PolicyDenied(
                f"today is outside the window of key '{item.id}': what it signed cannot be told "
                "from what somebody signs with it now",
                where=str(inputs.policy.source),
                hint="build and sign the release again with a key of the present",
            )
    # (2) the bytes that the old key signed, whatever else signed them
    signed = [a for a in found if a.certificate is None and old.key.signed(a.envelope)]
    payloads = tuple(dict.fromkeys(item.envelope.payload for item in signed))
    for payload in payloads:
        _check(payload, inputs, (old, new))
    # (3) what the new key has signed already is not signed again
    ours = [a.envelope for a in found if len(a.envelope.signatures) == 1]
    present = {e.payload: e for e in ours if e.payload in payloads and new.key.signed(e)}
    left = collect_signatures(inputs.source, inputs.image.digest)
    kept = sum(1 for item in left if old.key.signed(item.envelope))
    return ResignPlan(old, new, payloads, tuple(present.values()), kept)


def resign(
    plan: ResignPlan,
    inputs: VerifyInputs,
    target: Target,
    signer: Signer,
    clock: Clock,
    on_event: OnEvent,
) -> Resigned:
    """Sign, attach in both layouts, and verify by a policy without the old key.

    Raises: PolicyDenied where that policy could not be met by anybody; what the signer raises;
    VerificationFailed, Inconclusive, Unavailable.
    """
    policy = without(inputs.policy, plan.old.id, plan.new.id)
    present = {envelope.payload: envelope for envelope in plan.present}
    envelopes: list[dsse.Envelope] = []
    for number, payload in enumerate(plan.payloads, 1):
        on_event(Progress(STAGE, f"statement {number} of {len(plan.payloads)}"))
        known = present.get(payload)
        envelopes.append(known or dsse.parse_envelope(dsse.sign_envelope(payload, signer)))
    image = target.find(inputs.image.digest)
    key = PublicKey(plan.new.id, plan.new.key.algorithm, plan.new.key.der)
    published = publish(target, image, envelopes, key, clock.now())
    after = verify(replace(inputs, source=target, policy=policy), clock, on_event)
    signed = len(plan.payloads) - len(plan.present)
    return Resigned(
        plan.old.id, plan.new.id, len(plan.payloads), signed, published, after, plan.left
    )


def without(loaded: LoadedPolicy, old: str, new: str) -> LoadedPolicy:
    """The same policy where the new key stands wherever the old one did, and that is gone.

    Raises: PolicyDenied where a quorum would need more keys than are left.
    """
    policy = loaded.policy
    try:
        changed: Policy = replace(
            policy,
            keys=tuple(key for key in policy.keys if key.id != old),
            require=tuple(_replaced(rule, old, new) for rule in policy.require),
            seal=replace(policy.seal, keys=_names(policy.seal.keys, old, new)),
            quarantine=QuarantineRule(
                _names(policy.quarantine.keys, old, new),
                _names(policy.quarantine.release_keys, old, new),
            ),
        )
    except ValueError as error:
        raise PolicyDenied(
            f"without key '{old}' the policy could not be met: {error}",
            where=str(loaded.source),
            hint="a quorum needs as many other keys; add one more before this one goes",
        ) from None
    return replace(loaded, policy=changed)


def _replaced(rule: Requirement, old: str, new: str) -> Requirement:
    return replace(rule, keys=_names(rule.keys, old, new))


def _names(keys: tuple[str, ...] | None, old: str, new: str) -> tuple[str, ...] | None:
    if keys is None:
        return None
    return tuple(dict.fromkeys(new if name == old else name for name in keys))


def _old(
    others: Sequence[TrustedSigner], found: Sequence[Attachment], old_id: str | None
) -> TrustedSigner:
    """The one key whose statements are meant: signing another's too would forge a quorum."""
    signed = [item for item in others if any(item.key.signed(a.envelope) for a in found)]
    if old_id is not None:
        named = next((item for item in others if item.id == old_id), None)
        if named is None or named not in signed:
            why = "signed nothing here" if named else "is none of the policy's other keys"
            raise UsageError(
                f"key {old_id!r} {why}", hint=f"one of {', '.join(i.id for i in signed) or 'none'}"
            )
        return named
    if not signed:
        raise UsageError(
            "no other key of the policy has signed anything here", hint="nothing to do"
        )
    if len(signed) > 1:
        raise UsageError(
            f"{len(signed)} keys have signed: {', '.join(item.id for item in signed)}",
            hint=f"--old {signed[0].id}: the new key takes the place of one of them",
        )
    return signed[0]


def _check(payload: bytes, inputs: VerifyInputs, keys: Sequence[TrustedSigner]) -> None:
    """A statement is about this image, and both keys are trusted at the time it names."""
    statement = parse_statement(payload)
    statement.require_subject(inputs.image.digest)
    time = read_time(statement.predicate_type, statement.predicate)
    for item in keys:
        if time is not None and not item.trusted_at(time):
            raise PolicyDenied(
                f"{statement.predicate_type} was made at {rfc3339(time)}, when key '{item.id}' "
                "was not trusted",
                where=str(inputs.policy.source),
                hint=f"the policy's not-before and not-after of '{item.id}' decide",
            )


def passes(result: StageResult) -> bool:
    """Whether a verification is positive proof."""
    return result.verdict is Verdict.PASS
