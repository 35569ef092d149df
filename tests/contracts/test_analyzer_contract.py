"""What every ports.Analyzer promises; the fake and the real Semgrep both pass."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fakes.analyzer import FakeAnalyzer
from secure_pipeline import events
from secure_pipeline.errors import Inconclusive
from secure_pipeline.ports import AnalysisReport, AnalysisRequest, Analyzer
from secure_pipeline.tools.locate import locate
from secure_pipeline.tools.process import Processes
from secure_pipeline.tools.semgrep import Semgrep

RULES = """
rules:
  - id: contract-rule
    languages: [python]
    severity: HIGH
    message: found
    pattern: FINDING(...)
"""


def _real() -> Analyzer:
    return Semgrep(locate("semgrep"), Processes(threading.Event()))


@pytest.fixture(
    params=[
        pytest.param(FakeAnalyzer, id="fake"),
        pytest.param(_real, id="semgrep", marks=pytest.mark.integration),
    ]
)
def analyzer(request: pytest.FixtureRequest) -> Analyzer:
    make: Callable[[], Analyzer] = request.param
    return make()


@pytest.fixture
def request_(tmp_path: Path) -> AnalysisRequest:
    root = tmp_path / "repository"
    (root / "package").mkdir(parents=True)
    (root / "clean.py").write_text("print(1)\n")
    (root / "package" / "dirty.py").write_text("x = 1\nFINDING(x)\nFINDING(x)\n")
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    return AnalysisRequest(root, (rules,), (), timedelta(minutes=5), 1 << 20)


def places(report: AnalysisReport) -> list[tuple[str, int | None]]:
    return sorted((f.location.path, f.location.line) for f in report.findings if f.location)


def test_findings_name_rule_and_repository_path(
    analyzer: Analyzer, request_: AnalysisRequest
) -> None:
    """Findings are reported with paths relative to the root and nothing else is."""
    report = analyzer.analyze(request_, events.ignore)
    assert {f.rule for f in report.findings} == {"contract-rule"}
    assert places(report) == [("package/dirty.py", 2), ("package/dirty.py", 3)]
    assert report.scanned == ("clean.py", "package/dirty.py")
    assert report.errors == ()
    assert report.rules_count == 1
    assert report.rules_digest.startswith("sha256:")


def test_fingerprints_differ_and_survive_an_unrelated_edit(
    analyzer: Analyzer, request_: AnalysisRequest
) -> None:
    """Lines added above and below change no fingerprint; equal findings have different ones."""
    before = analyzer.analyze(request_, events.ignore)
    dirty = request_.root / "package" / "dirty.py"
    dirty.write_text(f"import os\n\n\n{dirty.read_text()}print(os)\n")
    after = analyzer.analyze(request_, events.ignore)
    assert len({f.fingerprint for f in before.findings}) == 2
    assert {f.fingerprint for f in after.findings} == {f.fingerprint for f in before.findings}
    assert places(after) != places(before)


def test_what_is_excluded_or_too_large_is_listed(
    analyzer: Analyzer, request_: AnalysisRequest
) -> None:
    """Excluded files are skipped with a reason; a too large one makes the analysis incomplete."""
    (request_.root / "large.py").write_text("#" * 2_000)
    (request_.root / "other.py").write_text("print(2)\n")
    limited = replace(request_, exclude=("package",), max_file_size=1_000)
    report = analyzer.analyze(limited, events.ignore)
    assert report.findings == ()
    assert report.scanned == ("clean.py", "other.py")
    assert [path for path, _ in report.skipped] == ["large.py", "package/dirty.py"]
    assert all(reason for _, reason in report.skipped)
    assert len(report.errors) == 1
    assert "large.py" in report.errors[0]


def test_an_empty_repository_scans_nothing(analyzer: Analyzer, request_: AnalysisRequest) -> None:
    """Nothing to analyse is an empty list of scanned files, for the stage to judge."""
    empty = request_.root.parent / "empty"
    empty.mkdir()
    report = analyzer.analyze(replace(request_, root=empty), events.ignore)
    assert (report.scanned, report.findings) == ((), ())


def test_a_timeout_is_inconclusive(analyzer: Analyzer, request_: AnalysisRequest) -> None:
    """An analyser that runs out of time gives no report at all."""
    with pytest.raises(Inconclusive):
        analyzer.analyze(replace(request_, timeout=timedelta(milliseconds=10)), events.ignore)
