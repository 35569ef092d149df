"""The test stage over real programs: pytest with coverage, a shell that hangs, kills, floods."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fakes.evidence import StepClock
from secure_pipeline import config, events
from secure_pipeline.config import CoverageConfig
from secure_pipeline.documents import Size
from secure_pipeline.errors import Interrupted, Unavailable
from secure_pipeline.stages import test as stage
from secure_pipeline.stages.result import StageResult, Verdict
from secure_pipeline.tools.process import Processes
from secure_pipeline.tools.testrunner import ProcessTestRunner

pytestmark = pytest.mark.integration

WRITE = (
    'mkdir -p reports && echo \'<testsuite tests="1"><testcase name="a"/></testsuite>\''
    " > reports/junit.xml"
)


def inputs_for(root: Path, *command: str) -> stage.TestInputs:
    settings = config.TestConfig(command=command, junit="reports/junit.xml")
    return stage.TestInputs(root, settings, {}, None)


def shell(root: Path, script: str) -> stage.TestInputs:
    return inputs_for(root, "sh", "-c", script)


def run(inputs: stage.TestInputs) -> StageResult:
    runner = ProcessTestRunner(Processes(threading.Event()))
    return stage.test(inputs, runner, StepClock(), events.ignore)


@pytest.fixture
def project(tmp_path: Path) -> stage.TestInputs:
    """A small Python project whose tests are run by the real pytest under coverage.py."""
    (tmp_path / "doubling.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "test_code.py").write_text(
        "import pytest\nfrom doubling import double\n\n\n"
        "def test_double():\n    assert double(2) == 4\n\n\n"
        "@pytest.mark.skip(reason='not yet')\ndef test_later():\n    pass\n"
    )
    python = f"{sys.executable} -m coverage"
    script = (
        f"{python} run --include=doubling.py -m pytest -p no:cacheprovider -q"
        f" --junitxml=reports/junit.xml; code=$?; {python} xml -o reports/coverage.xml; exit $code"
    )
    inputs = shell(tmp_path, script)
    settings = replace(inputs.config, coverage=CoverageConfig("reports/coverage.xml"))
    return replace(inputs, config=settings, minimum_coverage=95.0)


def test_real_pytest_and_coverage_pass(project: stage.TestInputs) -> None:
    """Counts and coverage of a real project arrive as pytest and coverage.py wrote them."""
    result = run(project)
    assert (result.verdict, result.reasons) == (Verdict.PASS, ())
    figures = result.figures
    assert [figures[k] for k in ("tests", "failures", "errors", "skipped")] == [2, 0, 0, 1]
    assert figures["coverage"] == 100.0
    assert [r.name for r in result.reports] == ["output.log", "junit.xml", "coverage.xml"]


def test_a_real_failure_and_too_little_coverage_fail(project: stage.TestInputs) -> None:
    """A failing test and an untested function are both named."""
    (project.root / "doubling.py").write_text(
        "def double(x):\n    return 3 * x\n\n\ndef other(x):\n    y = x\n    return y\n"
    )
    result = run(project)
    assert result.verdict is Verdict.FAIL
    assert "failed: test_code::test_double" in result.reasons
    assert "60.00 % of lines are covered, 95 % are needed" in result.reasons


def test_a_real_collection_error_is_not_a_pass(project: stage.TestInputs) -> None:
    """A test file that cannot be imported is an error that pytest reports and counts."""
    (project.root / "test_broken.py").write_text("import no_such_module\n")
    assert run(project).verdict is Verdict.FAIL


def test_a_hanging_test_is_ended_with_its_children(tmp_path: Path) -> None:
    """After the deadline nothing that the tests started is left."""
    inputs = shell(tmp_path, f"{WRITE}; sleep 600 & echo $! > child; wait")
    settings = replace(inputs.config, timeout=timedelta(seconds=1))
    result = run(replace(inputs, config=settings))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "timed out" in result.reasons[0]
    child = int((tmp_path / "child").read_text())
    assert not alive(child)


def test_a_process_that_the_tests_leave_behind_is_ended(tmp_path: Path) -> None:
    """A server in the background does not outlive the stage."""
    result = run(shell(tmp_path, f"{WRITE}; sleep 600 >/dev/null 2>&1 & echo $! > child"))
    assert result.verdict is Verdict.PASS
    assert not alive(int((tmp_path / "child").read_text()))


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


ENDS = {
    "killed": ("kill -9 $$", "SIGKILL"),
    "flood": ("head -c 100000 /dev/zero", "'test.output'"),
    "report is a pipe": ("rm reports/junit.xml; mkfifo reports/junit.xml", "regular file"),
    "report is a device": ("ln -sf /dev/zero reports/junit.xml", "cannot be read"),
    "report cut off": ("head -c 20 reports/junit.xml > x; mv x reports/junit.xml", "whole report"),
}


@pytest.mark.parametrize("case", ENDS)
def test_an_end_that_proves_nothing_is_inconclusive(case: str, tmp_path: Path) -> None:
    """Signals, floods and reports that are no files end as INCONCLUSIVE, with the reason."""
    script, reason = ENDS[case]
    inputs = shell(tmp_path, f"{WRITE}; {script}")
    result = run(replace(inputs, config=replace(inputs.config, output=Size(10_000))))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert reason in " ".join(result.reasons)


def test_limits_of_memory_hold(tmp_path: Path) -> None:
    """A test that takes more memory than allowed fails, and not the machine."""
    script = f"{WRITE}; {sys.executable} -c 'x = bytearray(900 << 20)'"
    inputs = shell(tmp_path, script)
    result = run(replace(inputs, config=replace(inputs.config, memory=Size(512 << 20))))
    assert result.verdict is Verdict.FAIL
    assert "MemoryError" in result.reports[0].content.decode()


def test_sbx_08_tests_see_no_variable_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret in the pipeline's environment does not reach the project's tests."""
    monkeypatch.setenv("COSIGN_PASSWORD", "sentinel")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sentinel")
    result = run(shell(tmp_path, f"{WRITE}; env"))
    assert result.verdict is Verdict.PASS
    assert b"sentinel" not in result.reports[0].content
    assert os.fsencode(Path.home()) + b"\n" not in result.reports[0].content


def test_a_command_that_is_missing_is_unavailable(tmp_path: Path) -> None:
    """Exit 4 and a hint, before anything has run."""
    with pytest.raises(Unavailable) as caught:
        run(inputs_for(tmp_path, "./run-tests"))
    assert caught.value.hint


def test_cli_03_an_interrupt_ends_the_tests(tmp_path: Path) -> None:
    """Cancelling raises Interrupted and leaves no process."""
    cancelled = threading.Event()
    runner = ProcessTestRunner(Processes(cancelled))

    def on_event(event: events.Event) -> None:
        if "ready" in str(event):
            cancelled.set()

    inputs = shell(tmp_path, "echo $$ > child; echo ready; sleep 600")
    with pytest.raises(Interrupted):
        stage.test(inputs, runner, StepClock(), on_event)
    assert not alive(int((tmp_path / "child").read_text()))
