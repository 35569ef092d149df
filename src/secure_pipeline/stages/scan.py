"""scan: what is known to be wrong with the image, and whether the policy accepts it.

PASS needs a complete report about exactly this image, made with a database that is known,
young enough and about the packages found. Whatever is set aside is counted aloud.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from secure_pipeline.attestations.scans import Judged, scan_evidence
from secure_pipeline.config import BuildConfig, ScanConfig
from secure_pipeline.dockerfile import parser
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.findings import Finding, Ignored, Kind, Severity
from secure_pipeline.oci.history import MAX_CONFIG_BYTES, ImageLayer, image_layers
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import INDEX_TYPES, Descriptor
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy import vex
from secure_pipeline.policy.document import PolicyException, ScanGate
from secure_pipeline.policy.exceptions import ExceptionReport, account
from secure_pipeline.ports import Clock, Database, Scanner, ScanReport, ScanRequest
from secure_pipeline.shape import rfc3339
from secure_pipeline.stages.layerlines import layer_lines
from secure_pipeline.stages.result import StageResult, Verdict
from secure_pipeline.stages.scanreports import scan_reports

NAME = "scan"
CLOCK_SKEW = timedelta(minutes=5)
_REFERENCE_TYPE = "vnd.docker.reference.type"
_LISTED = 3


@dataclass(frozen=True)
class ScanInputs:
    """What to scan and what decides."""

    layout: Path
    """OCI layout directory."""
    image: ImageReference
    """Image or index."""
    config: ScanConfig
    gate: ScanGate
    """The effective one: policy and configuration, the stricter of both."""
    exceptions: tuple[PolicyException, ...]
    today: date
    root: Path
    """The repository: ``config.vex`` and the Dockerfile are relative to it."""
    build: BuildConfig | None = None
    """Names Dockerfile and target, to find the line of a finding."""
    policy_directory: Path | None = None
    """Where ``gate.vex`` is relative to."""


@dataclass(frozen=True)
class _Vex:
    trusted: tuple[vex.Statement, ...]
    repository: tuple[vex.Statement, ...]


def scan(inputs: ScanInputs, scanner: Scanner, clock: Clock, on_event: OnEvent) -> StageResult:
    """Scan every platform of the image and judge the findings.

    Raises: Unavailable (tool, database), Inconclusive (no complete report), ConfigError
    (VEX), VerificationFailed (the layout's content is not what its digests say).
    """
    started, begun = clock.now(), clock.monotonic()
    documents = _load_vex(inputs)
    judged, exceptions, unheeded, layers = [], [], 0, 0
    for descriptor in _platforms(inputs):
        report = _scan_one(inputs, scanner, descriptor, on_event)
        located, count = _located(inputs, descriptor, report.findings)
        layers += count
        item, account_, would = _judge(inputs, documents, descriptor, report, located)
        judged.append(item)
        exceptions.append(account_)
        unheeded += would
    finished = clock.now()
    findings = tuple(finding for item in judged for finding in item.findings)
    over = [item for item in findings if _counts(item, inputs.gate.severity)]
    doubts = _doubts(inputs, [item.report for item in judged], finished)
    figures = _figures(inputs, judged, over, finished)
    figures |= {"layers": layers, "vex_unheeded": unheeded}
    notes = _notes(inputs, judged, exceptions, unheeded)
    for note in notes:
        on_event(Progress(NAME, note))
    verdict = Verdict.FAIL if over else Verdict.INCONCLUSIVE if doubts else Verdict.PASS
    own = {**_own(inputs, judged[0].report, verdict), "figures": figures, "notes": notes}
    return StageResult(
        stage=NAME,
        verdict=verdict,
        summary=_summary(inputs, judged, over, doubts),
        started=started,
        finished=finished,
        seconds=clock.monotonic() - begun,
        reasons=(*_over_lines(over, inputs.gate.severity), *doubts),
        findings=findings,
        # An undecided scan gives no evidence: who reads only its list would take it for clean.
        evidence=() if verdict is Verdict.INCONCLUSIVE else scan_evidence(judged, own),
        reports=scan_reports(
            judged, notes, doubts, inputs.build.dockerfile if inputs.build else None
        ),
        figures={**figures, "notes": notes},
    )


def _load_vex(inputs: ScanInputs) -> _Vex:
    directory = inputs.policy_directory or inputs.root
    return _Vex(
        trusted=tuple(
            replace(statement, document=name)
            for name in inputs.gate.vex
            for statement in vex.load(directory / name)
        ),
        repository=tuple(
            statement for name in inputs.config.vex for statement in vex.load(inputs.root / name)
        ),
    )


def _platforms(inputs: ScanInputs) -> tuple[Descriptor, ...]:
    """The manifests to scan: the image itself, or those of an index without attestations."""
    layout = Layout.open(inputs.layout)
    descriptor = layout.find(inputs.image.digest)
    if descriptor.media_type not in INDEX_TYPES:
        return (descriptor,)
    found = tuple(
        item
        for item in layout.read_index(descriptor).manifests
        if _REFERENCE_TYPE not in item.annotations
    )
    if not found:
        raise VerificationFailed("the index lists no image", where=str(inputs.image.digest))
    return found


def _scan_one(
    inputs: ScanInputs, scanner: Scanner, descriptor: Descriptor, on_event: OnEvent
) -> ScanReport:
    request = ScanRequest(
        layout=inputs.layout,
        digest=str(descriptor.digest),
        name=inputs.image.name,
        timeout=inputs.config.timeout,
    )
    return scanner.scan(request, on_event)


def _located(
    inputs: ScanInputs, descriptor: Descriptor, findings: Iterable[Finding]
) -> tuple[tuple[Finding, ...], int]:
    """Give findings the Dockerfile line of their layer; return the number of layers too."""
    layers = _layers(Layout.open(inputs.layout), descriptor)
    if inputs.build is None:
        return tuple(findings), len(layers)
    name = inputs.build.dockerfile
    dockerfile = parser.load(inputs.root / name, name)
    lines = layer_lines(layers, dockerfile, inputs.build.target)
    located = (
        replace(item, dockerfile_line=lines.get(item.layer or "", item.dockerfile_line))
        for item in findings
    )
    return tuple(located), len(layers)


def _layers(layout: Layout, descriptor: Descriptor) -> tuple[ImageLayer, ...]:
    manifest = layout.read_manifest(descriptor)
    where = manifest.config
    config = layout.read_blob(where.digest, MAX_CONFIG_BYTES, where.size)
    return image_layers(manifest, config, str(where.digest))


def _judge(
    inputs: ScanInputs,
    documents: _Vex,
    descriptor: Descriptor,
    report: ScanReport,
    findings: tuple[Finding, ...],
) -> tuple[Judged, ExceptionReport, int]:
    """Set findings aside in this order: trusted VEX, exceptions, then what has no fix.

    The last number counts what only the repository's own VEX would have set aside.
    """
    image = vex.Subject(inputs.image.name, str(descriptor.digest))
    findings, by = vex.apply_vex(findings, documents.trusted, image)
    exceptions = account(findings, inputs.exceptions, inputs.today)
    findings = tuple(_without_fix(item, inputs.gate) for item in exceptions.findings)
    _, unheeded = vex.apply_vex(findings, documents.repository, image)
    platform = str(descriptor.platform) if descriptor.platform else "image"
    return Judged(platform, report, findings, by), exceptions, len(unheeded)


def _without_fix(finding: Finding, gate: ScanGate) -> Finding:
    if (
        gate.fixed_only
        and finding.kind is Kind.VULNERABILITY
        and not finding.fixed
        and finding.ignored is None
    ):
        return replace(finding, ignored=Ignored.UNFIXED, reason="no fixed version exists")
    return finding


def _counts(finding: Finding, gate: Severity) -> bool:
    """A secret is never less than HIGH: whoever pulls the image has it."""
    severity = finding.severity
    if finding.kind is Kind.SECRET:
        severity = max(severity, Severity.HIGH)
    return finding.ignored is None and severity.reaches(gate)


def _doubts(inputs: ScanInputs, reports: Sequence[ScanReport], now: datetime) -> tuple[str, ...]:
    """Why a clean result would prove nothing; each line once."""
    wanted = {str(item.digest) for item in _platforms(inputs)}
    lines = [line for report in reports for line in _report_doubts(report)]
    if {report.artifact_digest for report in reports} != wanted:
        lines.append("the report is about another image than the one asked for")
    if len({report.database.digest for report in reports}) != 1:
        lines.append("the platforms were scanned with different databases")
    lines += _database_doubts(reports[0].database, inputs.gate, now)
    return tuple(dict.fromkeys(lines))


def _report_doubts(report: ScanReport) -> Iterable[str]:
    if report.os is None:
        yield "the operating system of the image is unknown, so its packages cannot be judged"
    if report.packages == 0:
        yield "no package was found in the image: nothing was scanned"
    for kind in report.uncovered:
        yield f"the database has no advisories for {kind}"


def _database_doubts(database: Database, gate: ScanGate, now: datetime) -> Iterable[str]:
    age = now - database.updated
    if database.demonstration and not gate.allow_demonstration_database:
        yield "only the demonstration database was there, and the policy does not accept it"
    if age < -CLOCK_SKEW:
        yield f"the database is dated {rfc3339(database.updated)}, which is in the future"
    if age > gate.max_database_age:
        yield (
            f"the database is {_words(age)} old (of {rfc3339(database.updated)}); "
            f"the policy allows {_words(gate.max_database_age)}"
        )
    if gate.database is not None and database.digest != gate.database:
        yield f"the database is {database.digest}, the policy names {gate.database}"


def _words(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


def _figures(
    inputs: ScanInputs, judged: Sequence[Judged], over: Sequence[Finding], now: datetime
) -> dict[str, Any]:
    findings = [finding for item in judged for finding in item.findings]
    reports = [item.report for item in judged]
    first = reports[0]
    vulnerabilities = [item for item in findings if item.kind is Kind.VULNERABILITY]
    return {
        "digest": str(inputs.image.digest),
        "platforms": [item.platform for item in judged],
        "findings": len(findings),
        "over_gate": len(over),
        "severities": _count(item.severity.value for item in findings),
        "kinds": _count(item.kind.value for item in findings),
        "ignored": _count(item.ignored.value for item in findings if item.ignored),
        "unfixed": sum(not item.fixed for item in vulnerabilities),
        "packages": sum(report.packages for report in reports),
        "components": sum(len(report.cyclonedx.get("components") or ()) for report in reports),
        "os": first.os or "unknown",
        "os_end_of_life": any(report.os_end_of_life for report in reports),
        "database": {
            "digest": first.database.digest,
            "metadata_digest": first.database.metadata_digest,
            "version": first.database.version,
            "updated": rfc3339(first.database.updated),
            "age_hours": round((now - first.database.updated).total_seconds() / 3600, 1),
            "source": first.database.source,
            "demonstration": first.database.demonstration,
        },
    }


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _own(inputs: ScanInputs, report: ScanReport, verdict: Verdict) -> dict[str, Any]:
    """What the verifier asks and the standard predicate has no field for."""
    return {
        "verdict": verdict.value,
        "gate": {
            "severity": inputs.gate.severity.value,
            "fixedOnly": inputs.gate.fixed_only,
            "maxDatabaseAgeSeconds": int(inputs.gate.max_database_age.total_seconds()),
        },
        "databaseDigest": report.database.digest,
        "databaseMetadataDigest": report.database.metadata_digest,
        "demonstrationDatabase": report.database.demonstration,
        "toolDigest": report.tool.digest,
    }


def _notes(
    inputs: ScanInputs,
    judged: Sequence[Judged],
    exceptions: Sequence[ExceptionReport],
    unheeded: int,
) -> list[str]:
    """Everything that a reader must not overlook, one line each."""
    lines = [line for report in exceptions for line in report.lines]
    aside = Counter(item.ignored for scan in judged for item in scan.findings)
    if aside[Ignored.VEX]:
        lines.append(f"{aside[Ignored.VEX]} set aside by VEX that the policy names")
    if aside[Ignored.UNFIXED]:
        lines.append(f"{aside[Ignored.UNFIXED]} without a fix do not count: the policy says so")
    if inputs.config.vex:
        lines.append(
            f"VEX of the repository is for information: {unheeded} findings it excuses still count"
        )
    unknown = sum(item.severity is Severity.UNKNOWN for scan in judged for item in scan.findings)
    if unknown:
        lines.append(f"{unknown} of unknown severity count at every gate")
    if any(scan.report.os_end_of_life for scan in judged):
        lines.append(f"{judged[0].report.os} has reached its end of life: fixes end")
    if judged[0].report.database.demonstration:
        lines.append("made with the demonstration database, which knows a few advisories only")
    return list(dict.fromkeys(lines))


def _over_lines(over: Sequence[Finding], gate: Severity) -> tuple[str, ...]:
    if not over:
        return ()
    named = "; ".join(_line(item) for item in over[:_LISTED])
    more = f"; and {len(over) - _LISTED} more" if len(over) > _LISTED else ""
    return (f"{len(over)} findings reach {gate.value}: {named}{more}",)


def _line(finding: Finding) -> str:
    place = finding.package or finding.location or "image"
    line = f" (Dockerfile line {finding.dockerfile_line})" if finding.dockerfile_line else ""
    return f"{finding.rule} {finding.severity.value} in {place}{line}"


def _summary(
    inputs: ScanInputs,
    judged: Sequence[Judged],
    over: Sequence[Finding],
    doubts: Sequence[str],
) -> str:
    findings = sum(len(item.findings) for item in judged)
    packages = sum(item.report.packages for item in judged)
    aside = sum(bool(finding.ignored) for item in judged for finding in item.findings)
    database = judged[0].report.database
    words = "demonstration database" if database.demonstration else "database"
    text = f"{packages} packages, {findings} findings, {len(over)} over the gate"
    text += f" ({inputs.gate.severity.value}), {aside} set aside; "
    text += f"{words} of {rfc3339(database.updated)}"
    return f"{text}; undecided: {doubts[0]}" if doubts else text
