"""The project's own tests: run once, believed only with a whole, fresh and consistent report."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secure_pipeline.attestations.predicates import TEST_RESULT
from secure_pipeline.config import TestConfig
from secure_pipeline.errors import ConfigError, Unavailable
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.files import digest_of
from secure_pipeline.ports import Clock, TestOutcome, TestRequest, TestRunner
from secure_pipeline.report.coverage import MAX_BYTES as MAX_COVERAGE_BYTES
from secure_pipeline.report.coverage import Coverage, InvalidCoverage, read_coverage
from secure_pipeline.report.junit import JUnit, Outcome, read_junit
from secure_pipeline.stages.result import Evidence, Report, StageResult, Verdict
from secure_pipeline.strictxml import InvalidXml

STAGE = "test"
MAX_JUNIT_BYTES = 64 << 20
MAX_NAMES = 1_000
MAX_REASONS = 50


@dataclass(frozen=True)
class TestInputs:
    """What to run and what it must reach."""

    __test__ = False

    root: Path
    """The repository; the command runs there."""
    config: TestConfig
    environment: Mapping[str, str]
    """All variables of the command beyond the runner's own; values are not recorded."""
    minimum_coverage: float | None
    """Effective gate: least line coverage in per cent (policy.gates.minimum_coverage)."""

    def __post_init__(self) -> None:
        if self.minimum_coverage is not None and not 0 <= self.minimum_coverage <= 100:
            raise ValueError(f"minimum coverage {self.minimum_coverage} is not from 0 to 100")


@dataclass
class _Judgement:
    """Reasons gathered so far, by what they prove."""

    failed: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        if self.failed:
            return Verdict.FAIL
        return Verdict.INCONCLUSIVE if self.unclear else Verdict.PASS

    @property
    def reasons(self) -> tuple[str, ...]:
        every = [*self.failed, *self.unclear]
        if len(every) > MAX_REASONS:
            every = [*every[: MAX_REASONS - 1], f"and {len(every) - MAX_REASONS + 1} more"]
        return tuple(every)


def test(inputs: TestInputs, runner: TestRunner, clock: Clock, on_event: OnEvent) -> StageResult:
    """Run the tests and judge their reports.

    FAIL for failed tests, a non-zero exit with a whole report, or coverage below the minimum;
    INCONCLUSIVE for anything that leaves the result open: no test ran, time-out, signal, a
    report that is missing, half or inconsistent.
    Raises: ConfigError when a report path leaves the repository or names something else than a
    report; Unavailable when the command cannot start.
    """
    started, begun = clock.now(), clock.monotonic()
    config = inputs.config
    junit_path = _report_path(inputs.root, config.junit, "test.junit")
    coverage_path = (
        _report_path(inputs.root, config.coverage.file, "test.coverage.file")
        if config.coverage
        else None
    )
    for path in filter(None, (junit_path, coverage_path)):
        _remove_stale(path)
    on_event(Progress(STAGE, "running the tests"))
    outcome = runner.run(
        TestRequest(
            command=config.command,
            cwd=inputs.root,
            environment=inputs.environment,
            timeout=config.timeout,
            memory=config.memory,
            processes=config.processes,
            output=config.output,
        ),
        on_event,
    )
    judgement = _Judgement()
    junit_bytes, junit = _junit(inputs.root, junit_path, config.junit, judgement)
    _judge_run(outcome, junit, judgement)
    coverage_bytes, coverage = _coverage(inputs, coverage_path, judgement)
    _judge_coverage(inputs, coverage, judgement)
    figures = _figures(outcome, junit, coverage, inputs)
    return StageResult(
        stage=STAGE,
        verdict=judgement.verdict,
        summary=_summary(junit, coverage, outcome),
        started=started,
        finished=clock.now(),
        seconds=clock.monotonic() - begun,
        reasons=judgement.reasons,
        evidence=_evidence(inputs, junit, judgement.verdict, figures),
        reports=_reports(outcome, junit_bytes, coverage_bytes),
        figures=figures,
    )


def _report_path(root: Path, name: str, key: str) -> Path:
    """The report's place, which must be a file below the repository and not behind a link."""
    path = Path(os.path.normpath(root / name))
    home = root.resolve()
    if not path.is_relative_to(root) or not path.parent.resolve().is_relative_to(home):
        raise ConfigError(f"{key} {name!r} leaves the repository", where=str(root))
    if path == root or path.is_dir():
        raise ConfigError(f"{key} {name!r} is a directory, not a report", where=str(root))
    return path


def _remove_stale(path: Path) -> None:
    """A report from yesterday must not count, and nothing but a report may be removed."""
    try:
        if path.is_symlink():
            path.unlink()
            return
        with path.open("rb") as stream:
            head = stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
        if head and not head.startswith((b"<", b"TN:", b"SF:")):
            raise ConfigError(
                "this file exists and is no test report; it would be removed before the tests",
                where=str(path),
                hint="name a path under 'test' that only the tests write",
            )
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unavailable(f"cannot remove: {error.strerror}", where=str(path)) from error


def _read(root: Path, path: Path, limit: int) -> bytes:
    """Read a fresh report. Raises: ValueError saying what is wrong with the file."""
    if not path.parent.resolve().is_relative_to(root.resolve()):
        raise ValueError("is behind a link that leaves the repository")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ValueError("was not written") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("is not a regular file")
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"is larger than {limit} bytes")
    return data


def _junit(
    root: Path, path: Path, name: str, judgement: _Judgement
) -> tuple[bytes | None, JUnit | None]:
    data = None
    try:
        data = _read(root, path, MAX_JUNIT_BYTES)
        return data, read_junit(data)
    except InvalidXml as error:
        judgement.unclear.append(f"the JUnit report {name} is no whole report: {error}")
    except ValueError as error:
        judgement.unclear.append(f"the JUnit report {name} {error}")
    return data, None


def _judge_run(outcome: TestOutcome, junit: JUnit | None, judgement: _Judgement) -> None:
    if outcome.timed_out or outcome.returncode < 0:
        judgement.unclear.append(f"the command did not end by itself: {outcome.description}")
    elif outcome.truncated:
        judgement.unclear.append("the command wrote more than 'test.output' allows")
    if junit is None:
        if outcome.returncode > 0:
            judgement.unclear.append(f"the command failed: {outcome.description}")
        return
    bad = junit.names(Outcome.FAILED, Outcome.ERROR)
    judgement.failed += [f"failed: {name}" for name in bad]
    judgement.unclear += [f"the JUnit report is inconsistent: {t}" for t in junit.inconsistent]
    if bad and outcome.returncode == 0:
        judgement.failed.append("the command ended with 0 in spite of failed tests")
    if not bad and outcome.returncode > 0 and not outcome.timed_out:
        judgement.failed.append(f"no test failed, and yet {outcome.description}")
    if not junit.cases:
        judgement.unclear.append("no test ran: the JUnit report holds none")
    elif junit.count(Outcome.SKIPPED) == len(junit.cases):
        judgement.unclear.append(f"no test ran: all {len(junit.cases)} were skipped")


def _coverage(
    inputs: TestInputs, path: Path | None, judgement: _Judgement
) -> tuple[bytes | None, Coverage | None]:
    config = inputs.config.coverage
    if path is None or config is None:
        if inputs.minimum_coverage is not None:
            judgement.unclear.append("a minimum coverage is asked and 'test.coverage' is not set")
        return None, None
    data = None
    try:
        data = _read(inputs.root, path, MAX_COVERAGE_BYTES)
        return data, read_coverage(data, config.format)
    except InvalidCoverage as error:
        judgement.unclear.append(f"the coverage report {config.file} cannot be used: {error}")
    except ValueError as error:
        judgement.unclear.append(f"the coverage report {config.file} {error}")
    return data, None


def _judge_coverage(inputs: TestInputs, coverage: Coverage | None, judgement: _Judgement) -> None:
    minimum = inputs.minimum_coverage
    if coverage is None or minimum is None or coverage.percent >= minimum:
        return
    text = f"{coverage.percent:.2f} % of lines are covered, {minimum:g} % are needed"
    # A run that broke off covers less than the tests would: that proves nothing about them.
    (judgement.unclear if judgement.unclear else judgement.failed).append(text)


def _figures(
    outcome: TestOutcome, junit: JUnit | None, coverage: Coverage | None, inputs: TestInputs
) -> dict[str, Any]:
    counts = {
        "tests": len(junit.cases) if junit else None,
        "failures": junit.count(Outcome.FAILED) if junit else None,
        "errors": junit.count(Outcome.ERROR) if junit else None,
        "skipped": junit.count(Outcome.SKIPPED) if junit else None,
    }
    return {
        **counts,
        "coverage": coverage.percent if coverage else None,
        "linesCovered": coverage.covered if coverage else None,
        "lines": coverage.lines if coverage else None,
        "minimumCoverage": inputs.minimum_coverage,
        "exit": outcome.description,
        "commandSeconds": round(outcome.seconds, 3),
    }


def _summary(junit: JUnit | None, coverage: Coverage | None, outcome: TestOutcome) -> str:
    if junit is None:
        return f"no usable JUnit report: {outcome.description}"
    parts = [
        f"{junit.count(Outcome.PASSED)} passed",
        f"{junit.count(Outcome.FAILED) + junit.count(Outcome.ERROR)} failed",
        f"{junit.count(Outcome.SKIPPED)} skipped",
    ]
    if coverage is not None:
        parts.append(f"{coverage.percent:.2f} % of lines covered")
    return ", ".join(parts)


def _evidence(
    inputs: TestInputs, junit: JUnit | None, verdict: Verdict, figures: Mapping[str, Any]
) -> tuple[Evidence, ...]:
    """An in-toto test result. An open question is no fact, so it leaves none."""
    if verdict is Verdict.INCONCLUSIVE:
        return ()
    settings = {
        "command": list(inputs.config.command),
        "junit": inputs.config.junit,
        "coverage": inputs.config.coverage.file if inputs.config.coverage else None,
        "minimumCoverage": inputs.minimum_coverage,
        "environment": sorted(inputs.environment),
    }
    passed = junit.names(Outcome.PASSED) if junit else ()
    failed = junit.names(Outcome.FAILED, Outcome.ERROR) if junit else ()
    predicate = {
        "result": "PASSED" if verdict is Verdict.PASS else "FAILED",
        "configuration": [
            {
                "name": STAGE,
                "digest": {"sha256": digest_of(settings)},
                "annotations": {"command": list(inputs.config.command)},
            }
        ],
        "passedTests": list(passed[:MAX_NAMES]),
        "failedTests": list(failed[:MAX_NAMES]),
        "secure-pipeline": {
            "verdict": verdict.value,
            "figures": dict(figures),
            "namesLeftOut": max(0, len(passed) - MAX_NAMES) + max(0, len(failed) - MAX_NAMES),
        },
    }
    return (Evidence(TEST_RESULT, predicate),)


def _reports(
    outcome: TestOutcome, junit: bytes | None, coverage: bytes | None
) -> tuple[Report, ...]:
    reports = [Report("output.log", "text/plain", outcome.output)]
    if junit is not None:
        reports.append(Report("junit.xml", "application/xml", junit))
    if coverage is not None:
        xml = coverage.lstrip().startswith(b"<")
        name, kind = ("coverage.xml", "application/xml") if xml else ("lcov.info", "text/plain")
        reports.append(Report(name, kind, coverage))
    return tuple(reports)
