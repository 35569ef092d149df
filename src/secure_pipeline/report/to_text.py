"""Results as lines of text for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from secure_pipeline.findings import Finding, Severity
from secure_pipeline.run import RunOutcome, StageOutcome
from secure_pipeline.stages.result import StageResult

MAX_FINDINGS = 20


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align columns; the last one is left as it is."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]


def run_summary(outcome: RunOutcome) -> list[str]:
    """One row a stage: verdict, time in this run, where the evidence came from, summary."""
    rows = [("STAGE", "VERDICT", "TIME", "EVIDENCE", "SUMMARY")]
    for stage in outcome.stages:
        rows.append(
            (stage.stage, verdict_word(stage), seconds(stage.seconds), _origin(stage), _said(stage))
        )
    rows += [(name, "-", "-", "-", "not run") for name in outcome.not_run]
    return [*table(rows), f"total {seconds(outcome.seconds)}"]


def verdict_word(outcome: StageOutcome) -> str:
    """PASS, FAIL, INCONCLUSIVE, or ERROR when there is no result."""
    return outcome.stored.result.verdict.value if outcome.stored else "ERROR"


def seconds(value: float) -> str:
    """A duration for people: 0.03 s, 12.4 s, 3 min 05 s."""
    if value < 1:
        return f"{value:.2f} s"
    if value < 60:
        return f"{value:.1f} s"
    return f"{int(value // 60)} min {int(value % 60):02d} s"


def stage_details(result: StageResult) -> list[str]:
    """Why a stage did not pass, with its findings that count, worst first."""
    lines = [f"  - {reason}" for reason in result.reasons]
    counted = [f for f in result.findings if f.ignored is None]
    for finding in sorted(counted, key=_worst_first)[:MAX_FINDINGS]:
        lines.append(f"  {finding_line(finding)}")
    if len(counted) > MAX_FINDINGS:
        lines.append(f"  … and {len(counted) - MAX_FINDINGS} more in the report")
    lines += [f"  {line}" for line in ignored_summary(result.findings)]
    return lines


def finding_line(finding: Finding) -> str:
    """One finding in one line."""
    place = f" {finding.location}" if finding.location else ""
    package = f" {finding.package} {finding.installed or ''}".rstrip() if finding.package else ""
    fixed = f" (fixed in {finding.fixed})" if finding.fixed else ""
    line = f" [Dockerfile:{finding.dockerfile_line}]" if finding.dockerfile_line else ""
    message = " ".join(finding.message.split())[:160]
    return (
        f"{finding.severity.value.upper():8} {finding.rule}{package}{fixed}{place}{line} {message}"
    )


def ignored_summary(findings: Iterable[Finding]) -> list[str]:
    """What did not count and why, counted aloud."""
    causes: dict[str, int] = {}
    for finding in findings:
        if finding.ignored is not None:
            causes[finding.ignored.value] = causes.get(finding.ignored.value, 0) + 1
    return [f"{count} not counted: {cause}" for cause, count in sorted(causes.items())]


def decision_lines(decision: Sequence[Any]) -> list[str]:
    """The verifier's decision, one row a rule."""
    rows = [(str(r["outcome"]).upper(), str(r["rule"]), str(r["why"])) for r in decision]
    return [f"  {line}" for line in table(rows)]


def _worst_first(finding: Finding) -> tuple[int, str]:
    return (-list(Severity).index(finding.severity), finding.rule)


def _origin(outcome: StageOutcome) -> str:
    if outcome.stored is None:
        return "-"
    return f"reused from {outcome.stored.origin}" if outcome.cached else "new"


def _said(outcome: StageOutcome) -> str:
    if outcome.error is not None:
        return str(outcome.error)
    return outcome.stored.result.summary if outcome.stored else ""
