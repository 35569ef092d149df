"""Signed summaries of a look at what runs: that its builds were verified (SLSA VSA v1).

A summary is about a build. One that ran unchanged wherever it was seen gets PASSED; one whose
own evidence is denied gets FAILED. What was changed in a container, or belongs to no build,
says nothing about a build: then there is no summary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from secure_pipeline.attestations import dsse
from secure_pipeline.attestations.predicates import VSA, bind
from secure_pipeline.attestations.statement import make_statement
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.oci.store import Source
from secure_pipeline.policy.decision import Decision, Outcome
from secure_pipeline.ports import Signer
from secure_pipeline.stages.result import Evidence
from secure_pipeline.stages.running import ContainerCheck, Judged, RunningReport, Standing
from secure_pipeline.stages.verify import make_vsa


@dataclass(frozen=True)
class Summary:
    """A signed summary of one build."""

    image: ImageReference
    source: Source
    """Where the build is, and its evidence."""
    predicate: Mapping[str, Any]
    envelope: bytes
    """DSSE, one line of JSON."""
    made: datetime


Publish = Callable[[Summary, Signer], None]
"""Attaches a summary to its build. Raises: Unavailable, VerificationFailed, UsageError."""


def summaries(report: RunningReport, signer: Signer) -> tuple[Summary, ...]:
    """Sign a summary of each build that the report shows something about.

    Raises: what the signer raises.
    """
    builds: dict[ImageReference, list[ContainerCheck]] = {}
    for check in report.checks:
        if check.image is not None:
            builds.setdefault(check.image, []).append(check)
    made = (_summary(checks, report.time, signer) for checks in builds.values())
    return tuple(summary for summary in made if summary is not None)


def to_lines(made: Sequence[Summary]) -> bytes:
    """The envelopes as JSON Lines (in-toto bundle.md)."""
    return b"".join(summary.envelope + b"\n" for summary in made)


def _summary(checks: Sequence[ContainerCheck], time: datetime, signer: Signer) -> Summary | None:
    judged = checks[0].judged
    decision = _decision(checks, judged) if judged else None
    if judged is None or decision is None:
        return None
    predicate = make_vsa(judged.inputs, decision, judged.answer, time)
    if predicate is None:
        return None
    if judged.answer.run is not None:
        predicate = bind(Evidence(VSA, predicate), judged.answer.run)
    image = judged.inputs.image
    payload = make_statement(image.name, image.digest, VSA, predicate)
    envelope = dsse.sign_envelope(payload, signer)
    return Summary(image, judged.inputs.source, predicate, envelope, time)


def _decision(checks: Sequence[ContainerCheck], judged: Judged) -> Decision | None:
    if all(check.standing is Standing.MATCH for check in checks):
        return Decision(tuple(rule for check in checks for rule in check.decision.rules))
    evidence = judged.answer.decision
    return evidence if evidence.outcome is Outcome.DENY and judged.answer.used else None
