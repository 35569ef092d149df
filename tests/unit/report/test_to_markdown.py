"""A run on a job's page: within its size, and without markup from outside."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.findings import Finding, Kind, Location, Severity
from secure_pipeline.report.to_markdown import CUT, MAX_BYTES, markdown, plain
from secure_pipeline.runs import StoredResult
from secure_pipeline.stages.result import StageResult, Verdict

NOW = datetime(2027, 1, 1, tzinfo=UTC)


def stored(
    *findings: Finding, summary: str = "2 findings", reason: str = "over the gate"
) -> StoredResult:
    result = StageResult(
        "analyze", Verdict.FAIL, summary, NOW, NOW, 1.5, reasons=(reason,), findings=findings
    )
    return StoredResult(result, (), "r-1")


def finding(message: str, rule: str = "rule", severity: Severity = Severity.HIGH) -> Finding:
    return Finding(rule, Kind.CODE, severity, message, "f", Location("src/a.py", 3))


def test_a_failed_stage_says_why() -> None:
    """Verdict, reasons and findings are there, the worst finding first."""
    text = markdown(
        "r-1",
        {"analyze": stored(finding("low one", severity=Severity.LOW), finding("high one"))},
        "name@sha256:aa",
    ).replace("\\", "")
    assert "| analyze | FAIL | 1.5 s | 2 findings |" in text
    assert "- over the gate" in text
    assert text.index("high one") < text.index("low one")
    assert "src/a.py:3" in text
    assert "Image name@sha256:aa" in text


def test_a_stage_without_a_result_is_no_pass() -> None:
    """What did not end is said to have no result."""
    assert "| scan | no result |" in markdown("r-1", {"scan": None}, None)


def test_a_page_is_never_too_large() -> None:
    """100,000 findings stay below 1 MiB, and what is left out is said."""
    text = markdown("r-1", {"analyze": stored(*[finding("é" * 400)] * 100_000)}, None)
    assert len(text.encode()) <= MAX_BYTES < 1 << 20
    assert text.endswith(CUT.rstrip("\n") + "\n")


@given(st.integers(0, 3000))
def test_any_limit_is_kept(limit: int) -> None:
    """The text is within the limit wherever it is cut, if there is room to say so."""
    text = markdown("r-1", {"analyze": stored(*[finding("message")] * 50)}, None, limit)
    assert len(text.encode()) <= max(limit, len(CUT.encode()))


@given(st.text())
def test_foreign_text_is_no_markup(text: str) -> None:
    """One line, within its length, and no character of it has a meaning in Markdown or HTML."""
    shown = plain(text)
    assert "\n" not in shown
    assert "\r" not in shown
    assert all(shown[i - 1] == "\\" for i, c in enumerate(shown) if c in "<>|`*_[]()#!~&@:")
    assert len(shown) <= 1001


def test_a_finding_cannot_break_the_table() -> None:
    """Bars, line ends, tags and links of a message stay text in its cell."""
    text = markdown("r-1", {"a": stored(finding("a | b\n| c <img src=x> [x](http://y) ```"))}, None)
    (row,) = [line for line in text.splitlines() if "img" in line]
    assert row.replace("\\|", "").count("|") == 5
    assert "<img" not in row.replace("\\<", "")
    assert "](" not in row
