"""``verify``: decide whether an image is, byte for byte, one whose evidence meets the policy.

Needs the store of image and evidence, the policy and public keys, nothing else; offline for a
layout. Writes nothing. docs/stages/verify.md lists the rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from secure_pipeline.attestations.attachments import collect
from secure_pipeline.attestations.buildkit import collect_contained
from secure_pipeline.attestations.predicates import NAMESPACE, VSA
from secure_pipeline.attestations.signatures import collect_signatures
from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.oci.store import Source
from secure_pipeline.oci.walk import check_image
from secure_pipeline.policy import vex
from secure_pipeline.policy.decision import Decision, Outcome, Rule, allow, unsure, wrong
from secure_pipeline.policy.document import Algorithm, LoadedPolicy
from secure_pipeline.policy.keyless import Keyless
from secure_pipeline.policy.rules import Answer, Question, decide
from secure_pipeline.policy.trust import (
    OperatorIdentity,
    TrustedSigner,
    trusted_identities,
    trusted_signers,
)
from secure_pipeline.ports import Clock, IdentityVerifier
from secure_pipeline.shape import rfc3339
from secure_pipeline.stages.result import Evidence, Report, StageResult, Verdict

STAGE = "verify"
SLSA_VERSION = "1.2"
VERDICTS = {
    Outcome.ALLOW: Verdict.PASS,
    Outcome.DENY: Verdict.FAIL,
    Outcome.UNDETERMINED: Verdict.INCONCLUSIVE,
}


@dataclass(frozen=True)
class VerifyInputs:
    """What to verify, and against what."""

    source: Source
    """Layout or repository that holds the image and its evidence."""
    image: ImageReference
    policy: LoadedPolicy
    operator_keys: tuple[tuple[bytes, Algorithm], ...] = ()
    """Public keys (PEM) that the operator trusts besides the policy's, each with the one
    algorithm it is used with."""
    operator_identity: OperatorIdentity | None = None
    """An identity that the operator trusts besides the policy's."""
    identity_verifier: IdentityVerifier | None = None
    """Checks what identities signed; without it they prove nothing."""
    layers: bool = True
    """Whether the image's layers are hashed too; else only its manifests and configs."""
    run_id: str | None = None
    """The run whose evidence counts; the one sealed last if None."""
    verifier_id: str = f"{NAMESPACE}/verifier/local"
    """URI of who verifies, for the VSA."""
    resource_uri: str | None = None
    """What the image is verified as, for the VSA; its package URL if None."""
    policy_uri: str | None = None
    """Where the policy is published, for the VSA; a name of ours if None."""


def verify(inputs: VerifyInputs, clock: Clock, on_event: OnEvent) -> StageResult:
    """Verify an image and all its evidence against the policy.

    PASS only if every rule allows. FAIL with code 11 if content or evidence is missing,
    removed, added, mixed or altered, with 12 if a gate or a rule of the policy is not met;
    INCONCLUSIVE (14) if nothing is denied and something cannot be told. Figures: ``decision``
    (one object per rule: rule, outcome, why, fault, hint, evidence), ``digest``, ``run``,
    ``statements``, ``untrusted``. Reports: decision.json, and vsa.json unless INCONCLUSIVE.
    Raises: ConfigError (a key of the policy), Unavailable.
    """
    return examine(inputs, clock, on_event)[0]


def examine(inputs: VerifyInputs, clock: Clock, on_event: OnEvent) -> tuple[StageResult, Answer]:
    """Do what ``verify`` does, and return what it was decided from besides. Raises: the same."""
    started, begun = clock.now(), clock.monotonic()
    decision, answer = judge(inputs, started, on_event)
    vsa = make_vsa(inputs, decision, answer, started)
    result = StageResult(
        stage=STAGE,
        verdict=VERDICTS[decision.outcome],
        summary=_summary(decision, answer),
        started=started,
        finished=clock.now(),
        seconds=clock.monotonic() - begun,
        reasons=tuple(reason(rule) for rule in decision.objections),
        evidence=(Evidence(VSA, vsa),) if vsa else (),
        reports=_reports(inputs, decision, answer, vsa),
        figures=_figures(inputs, decision, answer),
        exit_code=None if decision.outcome is Outcome.ALLOW else decision.code,
    )
    return result, answer


def judge(inputs: VerifyInputs, now: datetime, on_event: OnEvent) -> tuple[Decision, Answer]:
    """Return the one decision over content and evidence, and what it was made from.

    Raises: ConfigError (a key of the policy), Unavailable.
    """
    # (1) the roots of trust, from the policy and the operator only (SIG-23)
    signers = trusted_signers(inputs.policy, inputs.operator_keys)
    # (2) every byte of the image against its digest
    on_event(Progress(STAGE, "hashing the image"))
    content = check_content(inputs.source, inputs.image, layers=inputs.layers)
    # (3) the evidence beside it, bounded before it is read (SIG-15)
    on_event(Progress(STAGE, "checking the evidence"))
    answer = check_evidence(inputs, signers, now)
    # (4) one decision over everything
    return Decision((content, *answer.decision.rules)), answer


def check_content(source: Source, image: ImageReference, *, layers: bool = True) -> Rule:
    """Hash the image from its manifest to the last layer (REG-02)."""
    try:
        checked = check_image(source, image.digest, layers=layers)
    except VerificationFailed as error:
        return wrong("content", str(error))
    except Inconclusive as error:
        return unsure("content", str(error), hint=error.hint)
    if not layers:
        parts = f"{len(checked.manifests)} manifests and their configs"
        return allow("content", f"{parts} agree with {image.digest}; layers were not read")
    return allow("content", f"{checked.total} bytes agree with {image.digest}")


def check_evidence(
    inputs: VerifyInputs, signers: tuple[TrustedSigner, ...], now: datetime
) -> Answer:
    """Collect the attachments and decide; attachments that cannot be read decide too."""
    identities = trusted_identities(inputs.policy, inputs.operator_identity)
    source, digest = inputs.source, inputs.image.digest
    try:
        attachments = (*collect(source, digest), *collect_signatures(source, digest))
        contained = collect_contained(source, digest)
    except VerificationFailed as error:
        return Answer(Decision((wrong("attachments", str(error)),)), None)
    except Inconclusive as error:
        rule = unsure("attachments", str(error), hint=error.hint)
        return Answer(Decision((rule,)), None)
    policy = inputs.policy.policy
    documents = (vex.load(inputs.policy.source.parent / name) for name in policy.gates.scan.vex)
    excuses = tuple(statement for document in documents for statement in document)
    keyless = Keyless(identities, inputs.identity_verifier)
    question = Question(inputs.image, policy, signers, now, inputs.run_id, excuses, keyless)
    return decide(question, attachments, contained)


def make_vsa(
    inputs: VerifyInputs, decision: Decision, answer: Answer, now: datetime
) -> Mapping[str, Any] | None:
    """Return a SLSA verification summary; None when there is no result to summarise.

    ``inputAttestations`` lists all statements that were looked at (the VSA specification
    asks for all or none), each by the SHA-256 of its signed payload.
    """
    if decision.outcome is Outcome.UNDETERMINED:
        return None
    passed = decision.outcome is Outcome.ALLOW
    policy = inputs.policy
    vsa: dict[str, Any] = {
        "verifier": {"id": inputs.verifier_id},
        "timeVerified": rfc3339(now),
        "resourceUri": inputs.resource_uri or package_url(inputs.image),
        "policy": {
            "uri": inputs.policy_uri or f"secure-pipeline:policy/{quote(policy.source.name)}",
            "digest": {"sha256": policy.digest.removeprefix("sha256:")},
        },
        "verificationResult": "PASSED" if passed else "FAILED",
        "verifiedLevels": ["SLSA_BUILD_LEVEL_UNEVALUATED" if passed else "FAILED"],
        "slsaVersion": SLSA_VERSION,
    }
    if answer.used:
        vsa["inputAttestations"] = [
            {"name": item.type, "digest": {"sha256": item.digest.removeprefix("sha256:")}}
            for item in answer.used
        ]
    return vsa


def package_url(image: ImageReference) -> str:
    """Return the package URL of an image (purl-spec, type oci)."""
    name = quote(image.name.rpartition("/")[2], safe="")
    version = quote(str(image.digest), safe="")
    return f"pkg:oci/{name}@{version}?repository_url={quote(image.name, safe='')}"


def _summary(decision: Decision, answer: Answer) -> str:
    if decision.outcome is Outcome.ALLOW:
        whose = f"run {answer.run.run_id}" if answer.run else "without a seal"
        return (
            f"verified: all {len(decision.rules)} rules allow, "
            f"{len(answer.used)} statements, {whose}"
        )
    return refusal(decision)


def refusal(decision: Decision) -> str:
    """Return why a decision does not allow, in one line."""
    objections = decision.objections
    if not objections:
        return "refused: no rule was evaluated"
    more = f" (and {len(objections) - 1} more)" if len(objections) > 1 else ""
    words = "refused" if decision.outcome is Outcome.DENY else "cannot tell"
    hint = f"; {objections[0].hint}" if objections[0].hint else ""
    return f"{words}: {objections[0].why}{more}{hint}"


def reason(rule: Rule) -> str:
    """A rule that did not allow, in one line."""
    return f"{rule.id}: {rule.why}" + (f" (hint: {rule.hint})" if rule.hint else "")


def _figures(inputs: VerifyInputs, decision: Decision, answer: Answer) -> dict[str, Any]:
    return {
        "decision": [rule.to_json() for rule in decision.rules],
        "digest": str(inputs.image.digest),
        "run": answer.run.run_id if answer.run else None,
        "statements": len(answer.used),
        "untrusted": answer.untrusted,
    }


def _reports(
    inputs: VerifyInputs, decision: Decision, answer: Answer, vsa: Mapping[str, Any] | None
) -> tuple[Report, ...]:
    document = {
        "image": str(inputs.image),
        "run": answer.run.run_id if answer.run else None,
        "policy": inputs.policy.digest,
        "untrustedAttachments": answer.untrusted,
        **decision.to_json(),
    }
    reports = [Report("decision.json", "application/json", _json(document))]
    if vsa is not None:
        reports.append(Report("vsa.json", "application/json", _json(vsa)))
    return tuple(reports)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
