"""Put images into quarantine, release them, and list what is said about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.attestations.publishing import Published
from secure_pipeline.attestations.quarantine import MAX_NAME, one_line
from secure_pipeline.audit.recording import recorded
from secure_pipeline.errors import UsageError
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.ports import SecretUse
from secure_pipeline.stages import quarantine
from secure_pipeline.stages.quarantine import STAGE, Found
from secure_pipeline.stages.result import Evidence
from secure_pipeline.stages.verify import VerifyInputs
from secure_pipeline.wiring.auditing import ledger_path, open_ledger, os_user
from secure_pipeline.wiring.options import Options, World
from secure_pipeline.wiring.signing import Warn, opened_key, public_half, publish_statements
from secure_pipeline.wiring.stores import Stores
from secure_pipeline.wiring.verifying import VerifyTarget, verify_inputs


@dataclass(frozen=True)
class QuarantineRequest:
    """What to sign about one image."""

    image: str
    layout: Path | None
    key: str
    reason: str
    statements: tuple[str, ...] = ()
    """``sha256:…`` of the quarantine statements to end; all that are open if empty."""


@dataclass(frozen=True)
class QuarantineDone:
    """What was signed, and how the image stands since."""

    image: ImageReference
    key: str
    """Id in the policy."""
    statement: Digest
    """Of the payload that was signed."""
    ended: tuple[Digest, ...]
    """The quarantine statements that it ends."""
    published: Published
    found: Found


def list_quarantine(
    images: Sequence[str], target: VerifyTarget, options: Options, world: World, stores: Stores
) -> Iterator[tuple[ImageReference, Found]]:
    """Look at images in turn. Raises: UsageError, ConfigError, Unavailable."""
    every = [
        verify_inputs(replace(target, image=image), options, world, stores) for image in images
    ]
    for inputs in every:
        yield inputs.image, quarantine.look(inputs, SystemClock().now())


def add_quarantine(
    request: QuarantineRequest, options: Options, world: World, stores: Stores, warn: Warn
) -> QuarantineDone:
    """Sign that an image must not serve, and attach it.

    Raises: UsageError, ConfigError, PolicyDenied, VerificationFailed, Inconclusive, Unavailable.
    """
    inputs = _inputs(request, options, world, stores)
    now = SystemClock().now()
    made = quarantine.added(request.reason, _user(), now)
    found = quarantine.look(inputs, now)
    return _signed(_Work(request, inputs, made, (), found), options, world, warn)


def release_quarantine(
    request: QuarantineRequest, options: Options, world: World, stores: Stores, warn: Warn
) -> QuarantineDone:
    """Sign that an image may serve again, and attach it. Raises: like ``add_quarantine``."""
    inputs = _inputs(request, options, world, stores)
    now = SystemClock().now()
    found = quarantine.look(inputs, now)
    made, ended = quarantine.released(found, request.statements, request.reason, _user(), now)
    return _signed(_Work(request, inputs, made, ended, found), options, world, warn)


@dataclass(frozen=True)
class _Work:
    request: QuarantineRequest
    inputs: VerifyInputs
    evidence: Evidence
    ended: tuple[Digest, ...]
    before: Found


def _signed(work: _Work, options: Options, world: World, warn: Warn) -> QuarantineDone:
    """Sign and attach, each recorded before it happens; then look whether it counts."""
    inputs, clock = work.inputs, SystemClock()
    ref, ledger = KeyRef.parse(work.request.key), open_ledger(ledger_path(options, world))
    image, kind = inputs.image, work.evidence.predicate_type
    details = {"key": str(ref), "predicateType": kind, "reason": work.request.reason[:200]}
    with (
        recorded(ledger, SecretUse("sign", STAGE, str(image), None, details)) as ended,
        opened_key(STAGE, ref, inputs.policy, options, world, warn) as signer,
    ):
        der = signer.public_key_der
        name = quarantine.check_key(inputs.policy, der, kind, clock.now())
        (envelope,) = quarantine.signed_statements(image, [work.evidence], work.before.run, signer)
        digest = Digest.of(envelope.payload)
        ended |= {"keyId": public_half(signer).hint, "statement": str(digest)}
        use = SecretUse("push", STAGE, f"{inputs.source.name}@{image.digest}")
        with recorded(ledger, use) if inputs.source.remote else nullcontext():
            published = publish_statements(inputs.source, image, [envelope], signer, clock)
    after = quarantine.look(inputs, clock.now())
    quarantine.check_effect(after, work.ended, None if work.ended else digest)
    return QuarantineDone(image, name, digest, work.ended, published, after)


def _inputs(
    request: QuarantineRequest, options: Options, world: World, stores: Stores
) -> VerifyInputs:
    if options.policy is None:
        raise UsageError(
            "no policy is named, and the built-in one trusts no key", hint="--policy POLICY.yaml"
        )
    KeyRef.parse(request.key)
    target = VerifyTarget(request.image, None, request.layout, ())
    inputs = verify_inputs(target, options, world, stores)
    inputs.source.find(inputs.image.digest)
    return inputs


def _user() -> str:
    return one_line(os_user().id, MAX_NAME)
