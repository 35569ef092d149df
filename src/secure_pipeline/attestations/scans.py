"""Predicates of an image scan: in-toto vulns v0.2, cosign vuln v1, CycloneDX and SPDX."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secure_pipeline.attestations.predicates import COSIGN_VULN, CYCLONEDX, SPDX, VULNS
from secure_pipeline.findings import Finding, Ignored, Kind
from secure_pipeline.ports import Database, ScanReport
from secure_pipeline.shape import rfc3339
from secure_pipeline.stages.result import Evidence

OWN = "secure-pipeline"
"""Member for what the standards have no field for; never inside a bill of materials."""
_LEFT_OUT = ("Packages",)
"""Parts of the scanner's report that the bills of materials hold already."""


@dataclass(frozen=True)
class Judged:
    """One platform's report with its findings after exceptions and VEX."""

    platform: str
    """Such as linux/amd64."""
    report: ScanReport
    findings: tuple[Finding, ...]
    vex: Mapping[str, str]
    """Fingerprint of a finding set aside by VEX to the name of the document."""


def scan_evidence(scans: Sequence[Judged], own: Mapping[str, Any]) -> tuple[Evidence, ...]:
    """Return all evidence of a scan; ``scans`` is not empty, ``own`` holds our figures."""
    bills = [
        evidence
        for scan in scans
        for evidence in (
            Evidence(CYCLONEDX, scan.report.cyclonedx),
            Evidence(SPDX, scan.report.spdx),
        )
    ]
    return (Evidence(VULNS, _vulns(scans, own)), *map(_cosign_vuln, scans), *bills)


def _vulns(scans: Sequence[Judged], own: Mapping[str, Any]) -> dict[str, Any]:
    first = scans[0].report
    return {
        "scanner": {
            **_scanner(first),
            "result": [entry for scan in scans for entry in _entries(scan)],
        },
        "metadata": _times([scan.report for scan in scans]),
        OWN: dict(own),
    }


def _cosign_vuln(scan: Judged) -> Evidence:
    raw = scan.report.raw
    results = [
        {key: value for key, value in item.items() if key not in _LEFT_OUT}
        for item in raw.get("Results") or ()
    ]
    return Evidence(
        COSIGN_VULN,
        {
            "invocation": {"parameters": [], "uri": "", "event_id": "", "builder.id": ""},
            "scanner": {**_scanner(scan.report), "result": {**raw, "Results": results}},
            "metadata": _times([scan.report]),
        },
    )


def _scanner(report: ScanReport) -> dict[str, Any]:
    tool = report.tool
    return {
        "uri": f"pkg:github/aquasecurity/{tool.name}@v{tool.version}",
        "version": tool.version,
        "db": {
            "uri": database_uri(report.database),
            "version": str(report.database.version),
            "lastUpdate": rfc3339(report.database.updated),
        },
    }


def database_uri(database: Database) -> str:
    """Name the database by its content; a path of the machine that scanned says nothing."""
    name = "demonstration-database" if database.demonstration else "trivy-db"
    return f"pkg:generic/{name}?checksum={database.digest}"


def _times(reports: Iterable[ScanReport]) -> dict[str, str]:
    listed = list(reports)
    return {
        "scanStartedOn": rfc3339(min(report.started for report in listed)),
        "scanFinishedOn": rfc3339(max(report.finished for report in listed)),
    }


def _entries(scan: Judged) -> Iterable[dict[str, Any]]:
    for finding in scan.findings:
        if finding.kind is Kind.VULNERABILITY:
            yield {
                "id": finding.rule,
                "severity": [{"method": "trivy", "score": finding.severity.value}],
                "annotations": [_annotations(scan, finding)],
            }


def _annotations(scan: Judged, finding: Finding) -> dict[str, str]:
    values = {
        "package": finding.package,
        "installed": finding.installed,
        "fixed": finding.fixed,
        "purl": finding.purl,
        "path": finding.location.path if finding.location else None,
        "layer": finding.layer,
        "platform": scan.platform,
        "ignored": finding.ignored.value if finding.ignored else None,
        "reason": finding.reason,
        "vex": scan.vex.get(finding.fingerprint) if finding.ignored is Ignored.VEX else None,
    }
    return {name: value for name, value in values.items() if value}
