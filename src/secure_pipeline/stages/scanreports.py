"""The files that a scan leaves for people and other tools."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from secure_pipeline.attestations.scans import Judged
from secure_pipeline.findings import Finding, Location
from secure_pipeline.report.to_sarif import MEDIA_TYPE, to_sarif
from secure_pipeline.stages.result import Report

_HEADER = ("SEVERITY", "ID", "WHERE", "INSTALLED", "FIXED", "LINE", "SET ASIDE")
_WIDTH = 48


def scan_reports(
    scans: Sequence[Judged], notes: Sequence[str], doubts: Sequence[str], dockerfile: str | None
) -> tuple[Report, ...]:
    """Return the scanner's report, both bills of materials and a table a platform, and SARIF.

    One platform needs no name in its file names. ``dockerfile`` is its path in the repository.
    """
    reports = [
        report
        for scan in scans
        for report in _platform(
            scan, "" if len(scans) == 1 else "-" + scan.platform.replace("/", "-"), notes
        )
    ]
    findings = [_in_repository(item, dockerfile) for scan in scans for item in scan.findings]
    sarif = to_sarif(scans[0].report.tool, findings, doubts)
    return (*reports, Report("scan.sarif", MEDIA_TYPE, sarif))


def _platform(scan: Judged, suffix: str, notes: Sequence[str]) -> Iterator[Report]:
    report = scan.report
    yield Report(f"trivy{suffix}.json", "application/json", _json(report.raw))
    kind = "application/vnd.cyclonedx+json"
    yield Report(f"sbom{suffix}.cdx.json", kind, _json(report.cyclonedx))
    yield Report(f"sbom{suffix}.spdx.json", "application/spdx+json", _json(report.spdx))
    yield Report(f"scan{suffix}.txt", "text/plain", table(scan.findings, notes).encode())


def _in_repository(finding: Finding, dockerfile: str | None) -> Finding:
    """Place a finding where the repository can show it: files of the image are not in there."""
    if dockerfile is None or finding.dockerfile_line is None:
        return finding
    path = f" ({finding.location.path})" if finding.location else ""
    return replace(
        finding,
        location=Location(dockerfile, finding.dockerfile_line),
        message=f"{finding.message}{path}",
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"


def table(findings: Iterable[Finding], notes: Sequence[str]) -> str:
    """Return one line a finding, in the order given, and the notes below."""
    rows = [_HEADER, *(_row(item) for item in findings)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", *(_clean(note, 400) for note in notes)]).rstrip() + "\n"


def _row(finding: Finding) -> tuple[str, ...]:
    where = finding.package or (str(finding.location) if finding.location else "")
    aside = f"{finding.ignored.value}: {finding.reason}" if finding.ignored else ""
    return (
        finding.severity.value,
        _clean(finding.rule),
        _clean(where),
        _clean(finding.installed or ""),
        _clean(finding.fixed or "-"),
        str(finding.dockerfile_line or "-"),
        _clean(aside, 120),
    )


def _clean(text: str, width: int = _WIDTH) -> str:
    """One line without control characters: names in an image may hold terminal commands."""
    shown = "".join(c if unicodedata.category(c)[0] != "C" else "?" for c in text)
    return shown if len(shown) <= width else shown[: width - 1] + "…"
