"""The verdict of static analysis, over reports of a fake analyser."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from fakes.analyzer import FakeAnalyzer
from fakes.evidence import StepClock
from secure_pipeline import events
from secure_pipeline.attestations.predicates import TEST_RESULT
from secure_pipeline.config import AnalyzeConfig
from secure_pipeline.documents import Size
from secure_pipeline.errors import ExitCode, Inconclusive
from secure_pipeline.findings import Ignored, Severity
from secure_pipeline.policy.document import AnalyzeGate, PolicyException
from secure_pipeline.ports import AnalysisReport
from secure_pipeline.stages.analyze import AnalyzeInputs, analyze, baseline_document, read_baseline
from secure_pipeline.stages.result import StageResult, Verdict

TODAY = date(2026, 11, 23)
Inputs = Callable[..., AnalyzeInputs]


@pytest.fixture
def inputs(tmp_path: Path) -> AnalyzeInputs:
    root = tmp_path / "repository"
    root.mkdir()
    (root / "clean.py").write_text("x = 1\n")
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: []\n")
    return AnalyzeInputs(root, (rules,), AnalyzeConfig(), AnalyzeGate(), TODAY)


def dirty(inputs: AnalyzeInputs) -> AnalyzeInputs:
    (inputs.root / "dirty.py").write_text("FINDING(1)\n")
    return inputs


def run(
    inputs: AnalyzeInputs,
    change: Callable[[AnalysisReport], AnalysisReport] = lambda report: report,
    seen: list[events.Event] | None = None,
) -> StageResult:
    on_event = events.ignore if seen is None else seen.append
    return analyze(inputs, FakeAnalyzer(change), StepClock(), on_event)


def fingerprints(inputs: AnalyzeInputs) -> frozenset[str]:
    return frozenset(f.fingerprint for f in run(inputs).findings)


def allowing(inputs: AnalyzeInputs) -> AnalyzeInputs:
    return replace(inputs, gate=AnalyzeGate(repository_may_ignore=True))


def test_no_finding_and_a_whole_analysis_pass(inputs: AnalyzeInputs) -> None:
    """PASS comes with evidence that names rules, engine and what was scanned."""
    result = run(inputs)
    assert (result.verdict, result.code) == (Verdict.PASS, ExitCode.PASS)
    evidence = result.evidence[0]
    assert evidence.predicate_type == TEST_RESULT
    assert evidence.predicate["result"] == "PASSED"
    assert evidence.predicate["configuration"][0]["name"] == "analyze"
    assert len(evidence.predicate["configuration"][0]["digest"]["sha256"]) == 64
    figures = evidence.predicate["secure-pipeline"]["figures"]
    assert figures == result.figures
    assert (figures["filesScanned"], figures["engineVersion"]) == (1, "1")


def test_a_finding_at_the_gate_fails(inputs: AnalyzeInputs) -> None:
    """FAIL, exit 10, evidence FAILED, and a reason that names rule and place."""
    result = run(dirty(inputs))
    assert (result.verdict, result.code) == (Verdict.FAIL, ExitCode.FINDINGS)
    assert result.evidence[0].predicate["result"] == "FAILED"
    assert "contract-rule at dirty.py:1" in result.reasons[0]


@pytest.mark.parametrize(
    ("severity", "verdict"),
    [
        (Severity.CRITICAL, Verdict.FAIL),
        (Severity.HIGH, Verdict.FAIL),
        (Severity.MEDIUM, Verdict.PASS),
        (Severity.UNKNOWN, Verdict.FAIL),
    ],
)
def test_the_gate_is_a_severity(
    inputs: AnalyzeInputs, severity: Severity, verdict: Verdict
) -> None:
    """Findings from the gate up fail; an unknown severity always counts (SCN-10)."""

    def change(report: AnalysisReport) -> AnalysisReport:
        return replace(
            report, findings=tuple(replace(f, severity=severity) for f in report.findings)
        )

    assert run(dirty(inputs), change).verdict is verdict


@pytest.mark.parametrize(
    ("own", "verdict"), [(Severity.CRITICAL, Verdict.FAIL), (Severity.LOW, Verdict.FAIL)]
)
def test_the_repository_cannot_raise_the_gate(
    inputs: AnalyzeInputs, own: Severity, verdict: Verdict
) -> None:
    """The stricter of policy and configuration counts."""
    config = AnalyzeConfig(severity=own)
    assert run(dirty(replace(inputs, config=config))).verdict is verdict


def test_errors_make_it_inconclusive(inputs: AnalyzeInputs) -> None:
    """Without findings an incomplete analysis proves nothing: exit 14."""
    result = run(inputs, lambda report: replace(report, errors=("a.py: does not parse",)))
    assert (result.verdict, result.code) == (Verdict.INCONCLUSIVE, ExitCode.INCONCLUSIVE)
    assert result.reasons == ("incomplete: a.py: does not parse",)
    assert result.evidence == ()
    sarif = json.loads(result.reports[0].content)
    assert sarif["runs"][0]["invocations"][0]["executionSuccessful"] is False


def test_nothing_scanned_is_inconclusive(inputs: AnalyzeInputs) -> None:
    """An analysis that looked at no file is no analysis."""
    (inputs.root / "clean.py").unlink()
    result = run(inputs)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "no file was analysed" in result.reasons[0]


def test_a_finding_fails_an_incomplete_analysis_and_both_are_said(inputs: AnalyzeInputs) -> None:
    """FAIL wins, because the finding is proven; the missing part is said too."""
    result = run(dirty(inputs), lambda report: replace(report, errors=("half",)))
    assert result.verdict is Verdict.FAIL
    assert result.reasons[-1] == "incomplete: half"


def test_an_exception_of_the_policy_sets_a_finding_aside_aloud(inputs: AnalyzeInputs) -> None:
    """The finding stays in the result with the policy's reason, counted."""
    exception = PolicyException("contract-rule", "a reason of enough length", TODAY)
    result = run(dirty(replace(inputs, exceptions=(exception,))))
    assert result.verdict is Verdict.PASS
    assert result.findings[0].ignored is Ignored.EXCEPTION
    assert result.figures["ignored"] == {"exception": 1}
    assert "1 ignored by exception" in result.summary
    assert b"a reason of enough length" in result.reports[0].content


def test_an_expired_exception_counts_no_more(inputs: AnalyzeInputs) -> None:
    """The day after it expires the finding fails again, and the stage says so."""
    exception = PolicyException("contract-rule", "a reason of enough length", date(2026, 11, 22))
    seen: list[events.Event] = []
    result = run(dirty(replace(inputs, exceptions=(exception,))), seen=seen)
    assert result.verdict is Verdict.FAIL
    assert any("expired on 2026-11-22" in str(event) for event in seen)


def test_only_new_findings_gate_with_a_baseline(inputs: AnalyzeInputs) -> None:
    """Known findings are set aside aloud; a second one of the same kind is new."""
    known = read_baseline(baseline_document(run(dirty(inputs)).findings), "baseline.json")
    assert known == fingerprints(inputs)
    after = run(replace(inputs, baseline=known))
    assert after.verdict is Verdict.PASS
    assert after.figures["ignored"] == {"baseline": 1}
    (inputs.root / "dirty.py").write_text("FINDING(1)\nFINDING(1)\n")
    assert run(replace(inputs, baseline=known)).verdict is Verdict.FAIL


def test_scn_09_the_repositorys_own_baseline_needs_the_policys_word(
    inputs: AnalyzeInputs,
) -> None:
    """A baseline file in the pull request hides nothing unless the policy allows it."""
    own = replace(
        dirty(inputs),
        config=AnalyzeConfig(baseline="baseline.json"),
        repository_baseline=fingerprints(inputs),
    )
    seen: list[events.Event] = []
    assert run(own, seen=seen).verdict is Verdict.FAIL
    assert any("'analyze.baseline' of the repository has no effect" in str(e) for e in seen)
    assert run(allowing(own)).verdict is Verdict.PASS


def test_scn_09_the_repositorys_own_excludes_need_the_policys_word(
    inputs: AnalyzeInputs,
) -> None:
    """Paths that the repository excludes are analysed unless the policy allows it."""
    own = replace(dirty(inputs), config=AnalyzeConfig(exclude=("dirty.py",)))
    denied = run(own)
    assert denied.verdict is Verdict.FAIL
    assert len(denied.figures["withoutEffect"]) == 1
    assert run(allowing(own)).verdict is Verdict.PASS
    assert run(allowing(own)).figures["filesSkipped"] == {"excluded by the policy": 1}
    trusted = replace(own, gate=AnalyzeGate(exclude=("dirty.py",)))
    assert run(trusted).verdict is Verdict.PASS


def test_scn_09_the_repository_cannot_shrink_what_is_analysed(inputs: AnalyzeInputs) -> None:
    """A size limit below the policy's is not used."""
    small = replace(dirty(inputs), config=AnalyzeConfig(max_file_size=Size(1)))
    assert run(small).verdict is Verdict.FAIL


def test_an_error_of_the_analyser_is_not_swallowed(inputs: AnalyzeInputs) -> None:
    """A crash goes up as it is, with its own exit code."""

    class Crashing:
        def analyze(self, request: object, on_event: object) -> AnalysisReport:
            raise Inconclusive("killed by SIGKILL")

    with pytest.raises(Inconclusive, match="SIGKILL"):
        analyze(inputs, Crashing(), StepClock(), events.ignore)


def test_thousands_of_findings_give_a_bounded_list_of_reasons(inputs: AnalyzeInputs) -> None:
    """Reasons are for people; the rest is in the reports."""
    (inputs.root / "dirty.py").write_text("FINDING(1)\n" * 500)
    result = run(inputs)
    assert len(result.findings) == 500
    assert len(result.reasons) == 50
    assert result.reasons[-1] == "and 451 more"
