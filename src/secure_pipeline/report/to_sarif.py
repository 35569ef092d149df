"""Findings as SARIF 2.1.0, within what GitHub code scanning takes.

Limits: docs.github.com, "SARIF support for code scanning": 20 runs a file, 25,000 results a
run, 1,000 locations a result, 20 tags a rule. What does not fit is said in a notification.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from secure_pipeline.findings import Finding, Severity
from secure_pipeline.ports import ToolIdentity

MEDIA_TYPE = "application/sarif+json"
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
MAX_RUNS = 20
MAX_RESULTS = 25_000
MAX_TEXT = 1_000
MAX_NOTIFICATIONS = 1_000
FINGERPRINT = "securePipelineFinding/v1"
_LEVELS = {
    Severity.CRITICAL: "error",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "note",
    Severity.INFO: "note",
    Severity.UNKNOWN: "error",
}
_SCORES = {
    Severity.CRITICAL: "9.5",
    Severity.HIGH: "8.0",
    Severity.MEDIUM: "5.5",
    Severity.LOW: "2.5",
    Severity.INFO: "0.1",
    Severity.UNKNOWN: "8.0",
}


def to_sarif(tool: ToolIdentity, findings: Iterable[Finding], errors: Sequence[str] = ()) -> bytes:
    """Write findings of one tool; ``errors`` say why its work is incomplete, one line each.

    The most severe come first, so that a limit leaves out the least; with any error the
    invocation is marked as not successful. Same input, same bytes.
    """
    ordered = sorted(findings, key=_rank)
    fitting = ordered[: MAX_RUNS * MAX_RESULTS]
    notes = list(errors)
    if len(fitting) < len(ordered):
        notes.append(f"{len(ordered) - len(fitting)} findings are left out of this file")
    parts = [fitting[i : i + MAX_RESULTS] for i in range(0, len(fitting), MAX_RESULTS)] or [[]]
    runs = [_run(tool, part, notes, number) for number, part in enumerate(parts, start=1)]
    document = {"$schema": SCHEMA, "version": "2.1.0", "runs": runs}
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def _rank(finding: Finding) -> tuple[bool, int, str, str, int, str]:
    place = finding.location
    return (
        finding.ignored is not None,
        list(_LEVELS).index(finding.severity),
        finding.rule,
        place.path if place else "",
        (place.line or 0) if place else 0,
        finding.fingerprint,
    )


def _run(
    tool: ToolIdentity, findings: Sequence[Finding], errors: Sequence[str], number: int
) -> dict[str, Any]:
    rules: dict[str, Finding] = {}
    for finding in findings:
        rules.setdefault(finding.rule, finding)
    index = {name: position for position, name in enumerate(rules)}
    return {
        "tool": {
            "driver": {
                "name": tool.name,
                "version": tool.version,
                "rules": [_rule(finding) for finding in rules.values()],
                "properties": {"digest": tool.digest},
            }
        },
        # GitHub takes several runs of one tool only under different categories.
        "automationDetails": {"id": f"secure-pipeline/{tool.name}/{number}/"},
        "invocations": [_invocation(errors)],
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, index[finding.rule]) for finding in findings],
    }


def _invocation(errors: Sequence[str]) -> dict[str, Any]:
    shown = list(errors[:MAX_NOTIFICATIONS])
    if len(errors) > len(shown):
        shown[-1] = f"{len(errors) - len(shown) + 1} more errors"
    return {
        "executionSuccessful": not errors,
        "toolExecutionNotifications": [
            {"level": "error", "message": {"text": _cut(text)}} for text in shown
        ],
    }


def _rule(finding: Finding) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "id": finding.rule,
        "shortDescription": {"text": _cut(finding.rule)},
        "defaultConfiguration": {"level": _LEVELS[finding.severity]},
        "properties": {
            "tags": ["security", finding.kind.value],
            "security-severity": _SCORES[finding.severity],
        },
    }
    return rule | ({"helpUri": finding.url} if finding.url else {})


def _result(finding: Finding, index: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": _LEVELS[finding.severity],
        "message": {"text": _cut(_message(finding))},
        "locations": [_location(finding)],
        "partialFingerprints": {FINGERPRINT: finding.fingerprint},
        "properties": {"severity": finding.severity.value},
    }
    if finding.ignored is not None:
        reason = finding.reason or finding.ignored.value
        result["suppressions"] = [
            {"kind": "external", "status": "accepted", "justification": _cut(reason)}
        ]
    return result


def _message(finding: Finding) -> str:
    if finding.package is None:
        return finding.message
    fix = f", fixed in {finding.fixed}" if finding.fixed else ""
    return f"{finding.package} {finding.installed or ''}{fix}: {finding.message}"


def _location(finding: Finding) -> dict[str, Any]:
    """GitHub wants a place: a finding in an image without a file gets its package's name."""
    place = finding.location
    path = place.path if place else finding.package or "image"
    line = (place.line if place else finding.dockerfile_line) or 1
    region: dict[str, int] = {"startLine": line}
    if place and place.column:
        region["startColumn"] = place.column
    if place and place.end_line:
        region["endLine"] = max(line, place.end_line)
    uri = quote(path.lstrip("/").encode("utf-8", "surrogateescape"), safe="/@+,~")
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": uri or "image", "uriBaseId": "%SRCROOT%"},
            "region": region,
        }
    }


def _cut(text: str) -> str:
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
