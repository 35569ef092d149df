"""``verify file``: decide whether a file is, byte for byte, one whose bundle meets the policy.

Needs the file, the bundle beside it, the policy and public keys, nothing else. Writes nothing.
docs/stages/verify.md lists the rules.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.attestations import bundle
from secure_pipeline.attestations.attachments import Attachment
from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.files import CHUNK_BYTES
from secure_pipeline.oci.blobfile import open_plain
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.imagefiles import BUNDLE_SUFFIX
from secure_pipeline.policy.decision import Decision, Outcome, Rule, allow, unsure, wrong
from secure_pipeline.policy.document import Algorithm, LoadedPolicy
from secure_pipeline.policy.filerules import FileAnswer, FileQuestion, decide_file
from secure_pipeline.policy.keyless import Keyless
from secure_pipeline.policy.trust import OperatorIdentity, trusted_identities, trusted_signers
from secure_pipeline.ports import Clock, IdentityVerifier
from secure_pipeline.stages.result import StageResult
from secure_pipeline.stages.verify import STAGE, VERDICTS, reason, refusal

MAX_FILE_BYTES = 64 << 30


@dataclass(frozen=True)
class VerifyFileInputs:
    """What to verify, and against what."""

    path: Path
    policy: LoadedPolicy
    bundle: Path | None = None
    """The bundle; PATH.sigstore.json if None."""
    operator_keys: tuple[tuple[bytes, Algorithm], ...] = ()
    """As for images."""
    operator_identity: OperatorIdentity | None = None
    identity_verifier: IdentityVerifier | None = None


def verify_file(inputs: VerifyFileInputs, clock: Clock, on_event: OnEvent) -> StageResult:
    """Verify one file and the bundle beside it against the policy.

    PASS only if every rule allows; codes as for images (11, 12, 14). Figures: ``decision``,
    ``digest`` (None if the file could not be read), ``signedName``, ``run`` and ``image``
    (``name@sha256:…`` that it was taken from), each None where nothing says so.
    Raises: ConfigError (a key of the policy), Unavailable.
    """
    started, begun = clock.now(), clock.monotonic()
    # (1) the roots of trust, from the policy and the operator only (SIG-23)
    signers = trusted_signers(inputs.policy, inputs.operator_keys)
    identities = trusted_identities(inputs.policy, inputs.operator_identity)
    # (2) every byte of the file
    on_event(Progress(STAGE, "hashing the file"))
    digest, rules = _content(inputs.path)
    # (3) the bundle, bounded before it is parsed (SIG-15)
    attachment, read = _bundle(inputs.bundle or bundle_of(inputs.path))
    rules += read
    answer = FileAnswer(Decision(()))
    if digest and attachment:
        keyless = Keyless(identities, inputs.identity_verifier)
        policy = inputs.policy.policy
        name = inputs.path.name
        answer = decide_file(
            FileQuestion(name, digest, policy, signers, started, keyless), attachment
        )
    # (4) one decision over everything
    decision = Decision((*rules, *answer.decision.rules))
    return StageResult(
        stage=STAGE,
        verdict=VERDICTS[decision.outcome],
        summary=_summary(decision, answer),
        started=started,
        finished=clock.now(),
        seconds=clock.monotonic() - begun,
        reasons=tuple(reason(rule) for rule in decision.objections),
        figures={
            "decision": [rule.to_json() for rule in decision.rules],
            "digest": str(digest) if digest else None,
            "signedName": answer.signed_name,
            "run": answer.run.run_id if answer.run else None,
            "image": answer.origin.image if answer.origin else None,
        },
        exit_code=None if decision.outcome is Outcome.ALLOW else decision.code,
    )


def bundle_of(path: Path) -> Path:
    """Where a file's bundle is looked for."""
    return path.with_name(path.name + BUNDLE_SUFFIX)


def _content(path: Path) -> tuple[Digest | None, tuple[Rule, ...]]:
    """Hash a plain file, piece by piece."""
    try:
        with open_plain(path) as stream:
            hasher, size = hashlib.sha256(), 0
            while chunk := stream.read(CHUNK_BYTES):
                hasher.update(chunk)
                size += len(chunk)
                if size > MAX_FILE_BYTES:
                    raise Inconclusive(f"larger than {MAX_FILE_BYTES} bytes", where=str(path))
    except VerificationFailed as error:
        return None, (wrong("content", str(error)),)
    except Inconclusive as error:
        return None, (unsure("content", str(error)),)
    digest = Digest(hasher.hexdigest())
    return digest, (allow("content", f"{size} bytes are {digest}"),)


def _bundle(path: Path) -> tuple[Attachment | None, tuple[Rule, ...]]:
    """Read the one bundle; what it says is not looked at yet."""
    try:
        with open_plain(path) as stream:
            data = stream.read(bundle.MAX_BUNDLE_BYTES + 1)
        if len(data) > bundle.MAX_BUNDLE_BYTES:
            raise Inconclusive(f"over {bundle.MAX_BUNDLE_BYTES} bytes", where=str(path))
        read = bundle.read_bundle(data, str(path))
    except VerificationFailed as error:
        return None, (wrong("attachments", str(error), hint="--bundle FILE names another one"),)
    except Inconclusive as error:
        return None, (unsure("attachments", str(error)),)
    proof = data if read.certificate else None
    attachment = Attachment("bundle", read.envelope, Digest.of(data), read.certificate, proof)
    return attachment, (allow("attachments", f"one bundle, {len(data)} bytes"),)


def _summary(decision: Decision, answer: FileAnswer) -> str:
    if decision.outcome is not Outcome.ALLOW:
        return refusal(decision)
    whose = f", run {answer.run.run_id}" if answer.run else ""
    return f"verified: all {len(decision.rules)} rules allow{whose}"
