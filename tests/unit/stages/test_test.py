"""The verdict on the project's own tests, over what a fake runner leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.evidence import StepClock
from fakes.testrunner import ENDED, FakeTestRunner
from secure_pipeline import config, events, ports
from secure_pipeline.attestations.predicates import TEST_RESULT
from secure_pipeline.config import CoverageConfig
from secure_pipeline.errors import ConfigError, ExitCode
from secure_pipeline.stages import test as stage
from secure_pipeline.stages.result import StageResult, Verdict

PASSING = '<testsuite tests="2"><testcase name="a"/><testcase name="b"/></testsuite>'
FAILING = (
    '<testsuite tests="2"><testcase name="a"/><testcase name="b"><failure/></testcase></testsuite>'
)
BROKEN = '<testsuite tests="1"><testcase name="a"><error/></testcase></testsuite>'
SKIPPED = '<testsuite tests="1"><testcase name="a"><skipped/></testcase></testsuite>'
COVERED = (
    "SF:a.py\n" + "".join(f"DA:{n},{int(n <= 19)}\n" for n in range(1, 21)) + "end_of_record\n"
)

Act = Callable[[ports.TestRequest], ports.TestOutcome]


@pytest.fixture
def inputs(tmp_path: Path) -> stage.TestInputs:
    root = tmp_path / "repository"
    root.mkdir()
    settings = config.TestConfig(command=("make", "check"), junit="reports/junit.xml")
    return stage.TestInputs(root, settings, {"OWN": "secret-value"}, None)


def with_coverage(inputs: stage.TestInputs, minimum: float | None) -> stage.TestInputs:
    settings = replace(inputs.config, coverage=CoverageConfig("reports/lcov.info"))
    return replace(inputs, config=settings, minimum_coverage=minimum)


def leaves(
    junit: str | None, coverage: str | None = None, outcome: ports.TestOutcome = ENDED
) -> Act:
    """A command that writes these reports and ends so."""

    def act(request: ports.TestRequest) -> ports.TestOutcome:
        (request.cwd / "reports").mkdir(exist_ok=True)
        if junit is not None:
            (request.cwd / "reports" / "junit.xml").write_text(junit)
        if coverage is not None:
            (request.cwd / "reports" / "lcov.info").write_text(coverage)
        return outcome

    return act


def run(inputs: stage.TestInputs, act: Act) -> StageResult:
    return stage.test(inputs, FakeTestRunner(act), StepClock(), events.ignore)


EXIT_1 = replace(ENDED, returncode=1, description="make exited with 1")
TIMED_OUT = replace(ENDED, returncode=-9, timed_out=True, description="make timed out after 9 s")
KILLED = replace(ENDED, returncode=-9, description="make was killed by SIGKILL")
FLOODED = replace(ENDED, truncated=True, description="make exited with 0")


def test_passing_tests_pass(inputs: stage.TestInputs) -> None:
    """PASS comes with counts, names and evidence of the right form."""
    result = run(inputs, leaves(PASSING))
    assert (result.verdict, result.code) == (Verdict.PASS, ExitCode.PASS)
    evidence = result.evidence[0]
    assert evidence.predicate_type == TEST_RESULT
    assert evidence.predicate["result"] == "PASSED"
    assert evidence.predicate["passedTests"] == ["a", "b"]
    assert evidence.predicate["failedTests"] == []
    assert evidence.predicate["configuration"][0]["name"] == "test"
    figures = evidence.predicate["secure-pipeline"]["figures"]
    assert [figures[k] for k in ("tests", "failures", "errors", "skipped")] == [2, 0, 0, 0]
    assert [report.name for report in result.reports] == ["output.log", "junit.xml"]


def test_values_of_variables_are_in_no_evidence(inputs: stage.TestInputs) -> None:
    """Names of variables are bound by a digest; values, which may be secret, are nowhere."""
    result = run(inputs, leaves(PASSING))
    assert "secret-value" not in repr(result)


VERDICTS: dict[str, tuple[Act, Verdict, str]] = {
    "a failed test": (leaves(FAILING, outcome=EXIT_1), Verdict.FAIL, "failed: b"),
    "an error": (leaves(BROKEN, outcome=EXIT_1), Verdict.FAIL, "failed: a"),
    "exit 0 in spite of a failure": (leaves(FAILING), Verdict.FAIL, "in spite of failed tests"),
    "exit 1 without a failure": (
        leaves(PASSING, outcome=EXIT_1),
        Verdict.FAIL,
        "no test failed, and yet make exited with 1",
    ),
    "a failure in a report of a killed run": (
        leaves(FAILING, outcome=KILLED),
        Verdict.FAIL,
        "failed: b",
    ),
    "no report": (leaves(None), Verdict.INCONCLUSIVE, "was not written"),
    "no report and exit 1": (leaves(None, outcome=EXIT_1), Verdict.INCONCLUSIVE, "not written"),
    "half a report": (leaves(PASSING[:-20]), Verdict.INCONCLUSIVE, "no whole report"),
    "an empty report": (leaves(""), Verdict.INCONCLUSIVE, "no whole report"),
    "a report with entities": (
        leaves('<!DOCTYPE a [<!ENTITY x "y">]>' + PASSING),
        Verdict.INCONCLUSIVE,
        "no whole report",
    ),
    "an inconsistent report": (
        leaves(PASSING.replace('tests="2"', 'tests="3"')),
        Verdict.INCONCLUSIVE,
        "says 3 tests and holds 2",
    ),
    "no test": (leaves('<testsuite tests="0"/>'), Verdict.INCONCLUSIVE, "no test ran"),
    "all skipped": (leaves(SKIPPED), Verdict.INCONCLUSIVE, "all 1 were skipped"),
    "a time-out": (leaves(PASSING, outcome=TIMED_OUT), Verdict.INCONCLUSIVE, "timed out"),
    "a signal": (leaves(PASSING, outcome=KILLED), Verdict.INCONCLUSIVE, "SIGKILL"),
    "output over the limit": (
        leaves(PASSING, outcome=FLOODED),
        Verdict.INCONCLUSIVE,
        "'test.output'",
    ),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_every_other_end_is_not_a_pass(case: str, inputs: stage.TestInputs) -> None:
    """FAIL is what is proven, INCONCLUSIVE what is open; both say why and are never exit 0."""
    act, verdict, reason = VERDICTS[case]
    result = run(inputs, act)
    assert result.verdict is verdict
    assert reason in " ".join(result.reasons)
    assert result.code is not ExitCode.PASS
    expected = ["FAILED"] if verdict is Verdict.FAIL else []
    assert [e.predicate["result"] for e in result.evidence] == expected


COVERAGE: dict[str, tuple[str | None, float | None, Verdict, str]] = {
    "above": (COVERED, 90.0, Verdict.PASS, ""),
    "exactly": (COVERED, 95.0, Verdict.PASS, ""),
    "below": (COVERED, 95.01, Verdict.FAIL, "95.00 % of lines are covered, 95.01 % are needed"),
    "no minimum": (COVERED, None, Verdict.PASS, ""),
    "missing": (None, 90.0, Verdict.INCONCLUSIVE, "was not written"),
    "missing without a minimum": (None, None, Verdict.INCONCLUSIVE, "was not written"),
    "no lines": ("TN:\n", 0.0, Verdict.INCONCLUSIVE, "no line was measured"),
    "half": (COVERED[:-14], 90.0, Verdict.INCONCLUSIVE, "has no end"),
}


@pytest.mark.parametrize("case", COVERAGE)
def test_coverage_is_a_gate(case: str, inputs: stage.TestInputs) -> None:
    """Below the minimum fails; a report that gives no number is inconclusive."""
    coverage, minimum, verdict, reason = COVERAGE[case]
    result = run(with_coverage(inputs, minimum), leaves(PASSING, coverage))
    assert result.verdict is verdict
    assert reason in " ".join(result.reasons)


@pytest.mark.parametrize("minimum", [float("nan"), -1.0, 100.5])
def test_a_minimum_that_is_no_percentage_is_refused(
    minimum: float, inputs: stage.TestInputs
) -> None:
    """NaN compares false with everything and must not become a gate."""
    with pytest.raises(ValueError, match="minimum coverage"):
        replace(inputs, minimum_coverage=minimum)


def test_a_minimum_without_a_report_is_inconclusive(inputs: stage.TestInputs) -> None:
    """A policy that asks for coverage is not satisfied by a repository that measures none."""
    result = run(replace(inputs, minimum_coverage=1.0), leaves(PASSING))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "'test.coverage' is not set" in result.reasons[0]


def test_low_coverage_of_a_run_that_broke_off_proves_nothing(inputs: stage.TestInputs) -> None:
    """A killed run covers less: the verdict stays open."""
    act = leaves(PASSING, COVERED, KILLED)
    assert run(with_coverage(inputs, 99.0), act).verdict is Verdict.INCONCLUSIVE


def test_a_report_from_yesterday_does_not_count(inputs: stage.TestInputs) -> None:
    """Reports are removed before the tests run."""
    both = with_coverage(inputs, 90.0)
    run(both, leaves(PASSING, COVERED))
    result = run(both, lambda request: ENDED)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert sum("was not written" in reason for reason in result.reasons) == 2
    assert not (inputs.root / "reports" / "junit.xml").exists()


def test_a_file_that_is_no_report_is_not_removed(inputs: stage.TestInputs) -> None:
    """A configuration that names a source file as its report does not lose the file."""
    source = inputs.root / "app.py"
    source.write_text("print(1)\n")
    wrong = replace(inputs, config=replace(inputs.config, junit="app.py"))
    with pytest.raises(ConfigError, match="no test report"):
        run(wrong, leaves(PASSING))
    assert source.read_text() == "print(1)\n"


@pytest.mark.parametrize("name", ["../junit.xml", "/etc/passwd", "linked/junit.xml", ".", "src"])
def test_a_report_outside_the_repository_is_refused(name: str, inputs: stage.TestInputs) -> None:
    """Neither dots, nor absolute paths, nor linked directories leave the repository."""
    outside = inputs.root.parent / "outside"
    outside.mkdir()
    (outside / "junit.xml").write_text(PASSING)
    (inputs.root / "linked").symlink_to(outside)
    (inputs.root / "src").mkdir()
    wrong = replace(inputs, config=replace(inputs.config, junit=name))
    with pytest.raises(ConfigError):
        run(wrong, leaves(PASSING))
    assert (outside / "junit.xml").read_text() == PASSING


def test_a_report_that_becomes_a_link_is_not_read(inputs: stage.TestInputs, tmp_path: Path) -> None:
    """A test that links its report to another file gives no report."""
    target = tmp_path / "elsewhere.xml"
    target.write_text(PASSING)

    def link(request: ports.TestRequest) -> ports.TestOutcome:
        (request.cwd / "reports").mkdir()
        (request.cwd / "reports" / "junit.xml").symlink_to(target)
        return ENDED

    assert run(inputs, link).verdict is Verdict.INCONCLUSIVE


def test_a_report_behind_a_directory_that_becomes_a_link_is_not_read(
    inputs: stage.TestInputs, tmp_path: Path
) -> None:
    """Linking the report's directory out of the repository during the run gives no report."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "junit.xml").write_text(PASSING)

    def link(request: ports.TestRequest) -> ports.TestOutcome:
        (request.cwd / "reports").symlink_to(outside)
        return ENDED

    result = run(inputs, link)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "leaves the repository" in result.reasons[0]


def test_names_in_evidence_are_bounded(inputs: stage.TestInputs) -> None:
    """Thousands of tests give a bounded list, and how many names were left out."""
    cases = "".join(f'<testcase name="t{n}"/>' for n in range(1_500))
    predicate = run(inputs, leaves(f"<testsuite>{cases}</testsuite>")).evidence[0].predicate
    assert len(predicate["passedTests"]) == 1_000
    assert predicate["secure-pipeline"]["namesLeftOut"] == 500
    assert predicate["secure-pipeline"]["figures"]["tests"] == 1_500
