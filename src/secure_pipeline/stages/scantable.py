"""Findings of a scan as a plain table."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from secure_pipeline.findings import Finding

_HEADER = ("SEVERITY", "ID", "WHERE", "INSTALLED", "FIXED", "LINE", "SET ASIDE")
_WIDTH = 48


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
