"""``sign``: one signed statement per piece of evidence, attached to the image, sealed last.

A run that is killed before the seal leaves a set without one, which verification refuses.
Signing again uses what is there, so any number of kills ends in the same set.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from secure_pipeline.attestations import dsse, predicates
from secure_pipeline.attestations.attachments import attach, collect
from secure_pipeline.attestations.author import author
from secure_pipeline.attestations.predicates import RunContext
from secure_pipeline.attestations.seal import check_seal, parse_seal, seal_over
from secure_pipeline.attestations.statement import Statement, make_statement, parse_statement
from secure_pipeline.errors import ExitCode, VerificationFailed
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import Descriptor
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.oci.walk import check_image
from secure_pipeline.ports import AnySigner, Clock
from secure_pipeline.stages.result import Report, StageResult, Verdict

_NO_FILE_NAME = re.compile(r"[^A-Za-z0-9.]+")
STAGE = "sign"
NEEDED = ("analyze", "test", "build", "scan")
"""Stages whose results are signed; all of them, each with PASS."""


@dataclass(frozen=True)
class SignInputs:
    """What to sign."""

    layout: Path
    """OCI layout directory that holds the image."""
    image: ImageReference
    context: RunContext
    results: tuple[StageResult, ...]
    """Results of the stages in NEEDED."""
    required: tuple[str, ...]
    """Predicate types that the policy requires; the seal promises them."""


def sign(inputs: SignInputs, signer: AnySigner, clock: Clock, on_event: OnEvent) -> StageResult:
    """Sign, attach and seal the evidence of one run.

    Returns FAIL or INCONCLUSIVE, having written nothing, if a stage result is missing or no
    PASS, has no evidence, or is about another image. Figures: ``digest``, ``statements``
    (without the seal), ``seal`` (digest of its payload), and who signed: ``key`` (the key's hint),
    of a key in a store ``keyUri`` and ``keyVersion`` too; without a key ``identity``, ``issuer``,
    ``certificate`` and ``logIndex``.
    Raises: VerificationFailed (image altered; other evidence under this run's id),
    Unavailable, and what the signer raises.
    """
    started, begun = clock.now(), clock.monotonic()
    refused = _refusal(inputs)
    if refused:
        verdict, reasons, code = refused
        return StageResult(
            stage=STAGE,
            verdict=verdict,
            summary=f"nothing signed: {reasons[0]}",
            started=started,
            finished=clock.now(),
            seconds=clock.monotonic() - begun,
            reasons=reasons,
            exit_code=code,
        )
    session = _Session(inputs, signer, clock, on_event)
    envelopes = session.statements()
    seal = session.seal(envelopes)
    count = len(envelopes)
    figures = session.author.figures([*envelopes, seal])
    by = f"with key {figures['key']}" if "key" in figures else f"by {figures['identity']}"
    return StageResult(
        stage=STAGE,
        verdict=Verdict.PASS,
        summary=f"{count} statements signed, attached and sealed {by}",
        started=started,
        finished=clock.now(),
        seconds=clock.monotonic() - begun,
        reports=session.reports([*envelopes, seal]),
        figures={
            "digest": str(inputs.image.digest),
            "statements": count,
            "seal": str(Digest.of(seal.payload)),
            **figures,
        },
    )


class _Session:
    """One signing of one image."""

    def __init__(
        self, inputs: SignInputs, signer: AnySigner, clock: Clock, on_event: OnEvent
    ) -> None:
        self.inputs = inputs
        self.clock = clock
        self.on_event = on_event
        self.author = author(signer)
        self.layout = Layout.open(inputs.layout)
        self._progress("hashing the image")
        self.image: Descriptor = check_image(self.layout, inputs.image.digest).descriptor
        self.present = self._present()
        self._parsed: dict[bytes, Statement] = {}

    def statements(self) -> list[dsse.Envelope]:
        """Sign one statement per piece of evidence and attach them all."""
        payloads = [
            self._payload(
                item.predicate_type,
                predicates.bind(item, self.inputs.context, result.started, result.finished),
            )
            for result in self.inputs.results
            for item in result.evidence
        ]
        self._refuse_others(payloads)
        envelopes = self._envelopes(list(dict.fromkeys(payloads)))
        self._attach(envelopes)
        return envelopes

    def seal(self, envelopes: Sequence[dsse.Envelope]) -> dsse.Envelope:
        """Attach the seal over these envelopes: the run's own if there is one already."""
        required = sorted(set(self.inputs.required) - predicates.AFTER_SEAL)
        statements = [self._statement(envelope.payload) for envelope in envelopes]
        seal = self._present_seal(statements, required)
        if seal is None:
            predicate = seal_over(statements, required, self.inputs.context, self.clock.now())
            (seal,) = self._envelopes([self._payload(predicates.SEAL, predicate)])
        self._attach([seal])
        return seal

    def reports(self, envelopes: Sequence[dsse.Envelope]) -> tuple[Report, ...]:
        """Return what people and other tools may want to keep."""
        types = [self._statement(envelope.payload).predicate_type for envelope in envelopes]
        return _reports(envelopes, types)

    def _payload(self, predicate_type: str, predicate: dict[str, object]) -> bytes:
        image = self.inputs.image
        return make_statement(image.name, image.digest, predicate_type, predicate)

    def _envelopes(self, payloads: Sequence[bytes]) -> list[dsse.Envelope]:
        """Return the envelopes that are attached already, or sign; never an unchecked one."""
        wanted = [self._statement(item) for item in payloads if item not in self.present]
        for statement in wanted:
            self._progress(f"signing {statement.predicate_type}")
        made = {item.payload: item for item in self.author.sign(wanted)}
        return [self.present.get(item) or made[item] for item in payloads]

    def _attach(self, envelopes: Sequence[dsse.Envelope]) -> None:
        typed = [(item, self._statement(item.payload).predicate_type) for item in envelopes]
        attach(
            self.layout,
            self.image,
            self.inputs.image.name,
            typed,
            self.author.der,
            self.clock.now(),
        )

    def _present(self) -> dict[bytes, dsse.Envelope]:
        """Payloads beside the image that this author signed, alone, with their envelopes."""
        envelopes = (
            replace(item.envelope, proof=item.bundle)
            for item in collect(self.layout, self.image.digest)
            if item.source == "bundle" or item.bundle is None
        )
        return {
            envelope.payload: envelope
            for envelope in envelopes
            if len(envelope.signatures) == 1 and self.author.signed(envelope)
        }

    def _present_seal(
        self, statements: Sequence[Statement], required: Sequence[str]
    ) -> dsse.Envelope | None:
        for payload, envelope in self.present.items():
            seal = self._statement(payload)
            if seal.predicate_type != predicates.SEAL or self._run(seal) != self.inputs.context:
                continue
            try:
                check_seal(seal, statements)
            except VerificationFailed:
                continue
            if list(parse_seal(seal.predicate).required) == list(required):
                return envelope
        return None

    def _refuse_others(self, payloads: Sequence[bytes]) -> None:
        """A run's evidence is made once: a second set under its id could only confuse."""
        for payload in self.present.keys() - set(payloads):
            statement = self._statement(payload)
            if statement.predicate_type in predicates.AFTER_SEAL:
                continue
            run = self._run(statement)
            if run and run.run_id == self.inputs.context.run_id:
                raise VerificationFailed(
                    f"run {run.run_id} has other evidence on this image already "
                    f"({statement.predicate_type})",
                    where=str(self.inputs.image),
                    hint="start a new run",
                )

    def _statement(self, payload: bytes) -> Statement:
        """Parse each payload once: some are bills of materials of many megabytes."""
        if payload not in self._parsed:
            self._parsed[payload] = parse_statement(payload)
        return self._parsed[payload]

    @staticmethod
    def _run(statement: Statement) -> RunContext | None:
        try:
            return predicates.read_run(statement.predicate_type, statement.predicate)
        except VerificationFailed:
            return None

    def _progress(self, message: str) -> None:
        self.on_event(Progress(STAGE, message))


def _refusal(inputs: SignInputs) -> tuple[Verdict, tuple[str, ...], ExitCode | None] | None:
    """Say why there is nothing to sign, or None. Empty, missing and mixed never pass."""
    digest = str(inputs.image.digest)
    results = {result.stage: result for result in inputs.results}
    # (1) what failed, and what is about another image, is proven wrong
    failed = [
        f"{r.stage} is FAIL: {r.summary}" for r in inputs.results if r.verdict is Verdict.FAIL
    ]
    if failed:
        return Verdict.FAIL, tuple(failed), None
    mixed = [
        f"{r.stage} is about {r.figures['digest']}, not {digest}"
        for r in inputs.results
        if r.figures.get("digest", digest) != digest
    ]
    if mixed:
        return Verdict.FAIL, tuple(mixed), ExitCode.VERIFICATION
    # (2) what is missing, undecided or empty proves nothing
    reasons = [f"{name} has no result" for name in NEEDED if name not in results]
    reasons += [
        f"{r.stage} is {r.verdict.value}: {r.summary}"
        for r in inputs.results
        if r.verdict is not Verdict.PASS
    ]
    reasons += [f"{r.stage} has no evidence" for r in inputs.results if not r.evidence]
    if len(results) != len(inputs.results) or not results.keys() <= set(NEEDED):
        reasons.append(f"results are not exactly those of {', '.join(NEEDED)}")
    if "build" in results and "digest" not in results["build"].figures:
        reasons.append("build does not say which image it made")
    reasons += _uncovered(inputs)
    return (Verdict.INCONCLUSIVE, tuple(reasons), None) if reasons else None


def _uncovered(inputs: SignInputs) -> list[str]:
    """Required predicate types that no stage brought."""
    required = set(inputs.required) - predicates.AFTER_SEAL
    if not required:
        return ["the policy requires no evidence"]
    brought = {item.predicate_type for result in inputs.results for item in result.evidence}
    return [f"no stage brought the required {kind}" for kind in sorted(required - brought)]


def _reports(envelopes: Sequence[dsse.Envelope], types: Sequence[str]) -> tuple[Report, ...]:
    """Return all envelopes as JSON Lines, their bundles, and each statement as it was signed.

    Only what no key signed is proven by a bundle of its own.
    """
    lines = b"".join(envelope.raw + b"\n" for envelope in envelopes)
    reports = [Report("evidence.intoto.jsonl", "application/jsonl", lines)]
    bundles = b"".join(item.proof + b"\n" for item in envelopes if item.proof)
    if bundles:
        reports.append(Report("evidence.sigstore.jsonl", "application/jsonl", bundles))
    for number, (envelope, kind) in enumerate(zip(envelopes, types, strict=True), 1):
        slug = _NO_FILE_NAME.sub("-", kind.partition("://")[2] or kind)[:80]
        reports.append(Report(f"{number:02}-{slug}.json", dsse.PAYLOAD_TYPE, envelope.payload))
    return tuple(reports)
