"""What every ports.TestRunner promises; the fake and the real one both pass."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fakes.testrunner import FakeTestRunner
from secure_pipeline import events, ports
from secure_pipeline.errors import Unavailable
from secure_pipeline.tools.process import Processes
from secure_pipeline.tools.testrunner import ProcessTestRunner


@pytest.fixture(
    params=[
        pytest.param(FakeTestRunner, id="fake"),
        pytest.param(lambda: ProcessTestRunner(Processes(threading.Event())), id="process"),
    ]
)
def runner(request: pytest.FixtureRequest) -> ports.TestRunner:
    make: Callable[[], ports.TestRunner] = request.param
    return make()


@pytest.fixture
def request_(tmp_path: Path) -> ports.TestRequest:
    return ports.TestRequest(
        command=("sh", "-c", "true"),
        cwd=tmp_path,
        environment={},
        timeout=timedelta(seconds=60),
        memory=1 << 30,
        processes=4_096,
        output=1 << 20,
    )


def shell(request: ports.TestRequest, script: str) -> ports.TestRequest:
    return replace(request, command=("sh", "-c", script))


def test_the_environment_is_clean(
    runner: ports.TestRunner, request_: ports.TestRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the runner's own variables and the request's are seen; the directory is the root."""
    monkeypatch.setenv("SENTINEL_SECRET", "x")
    request = replace(shell(request_, 'env; echo "in $PWD"'), environment={"OWN": "1"})
    outcome = runner.run(request, events.ignore)
    lines = outcome.output.decode().splitlines()
    names = {line.partition("=")[0] for line in lines if "=" in line}
    assert outcome.returncode == 0
    assert names - {"PWD", "OLDPWD", "_", "SHLVL"} == {
        "PATH", "HOME", "TMPDIR", "LANG", "CI", "OWN",
    }  # fmt: skip
    assert f"in {request_.cwd}" in lines
    assert "OWN=1" in lines


@pytest.mark.parametrize("code", [0, 1, 5])
def test_the_exit_code_is_told(
    runner: ports.TestRunner, request_: ports.TestRequest, code: int
) -> None:
    """A command's own exit code is neither an error nor lost."""
    outcome = runner.run(shell(request_, f"exit {code}"), events.ignore)
    assert (outcome.returncode, outcome.timed_out, outcome.truncated) == (code, False, False)
    assert outcome.description.endswith(f"exited with {code}")


def test_a_hanging_command_is_ended(runner: ports.TestRunner, request_: ports.TestRequest) -> None:
    """The deadline ends the command and is told."""
    request = replace(shell(request_, "sleep 600"), timeout=timedelta(milliseconds=200))
    assert runner.run(request, events.ignore).timed_out


def test_a_killed_command_is_told(runner: ports.TestRunner, request_: ports.TestRequest) -> None:
    """A signal is a negative code and named."""
    outcome = runner.run(shell(request_, "kill -9 $$"), events.ignore)
    assert outcome.returncode == -9
    assert "SIGKILL" in outcome.description


def test_output_is_limited_aloud(runner: ports.TestRunner, request_: ports.TestRequest) -> None:
    """What goes over the limit is dropped and said so."""
    flood = "flood() { head -c 5000 /dev/zero; }; flood"
    outcome = runner.run(replace(shell(request_, flood), output=1_000), events.ignore)
    assert outcome.truncated
    assert len(outcome.output) <= 2_000


def test_a_command_that_is_missing_is_unavailable(
    runner: ports.TestRunner, request_: ports.TestRequest
) -> None:
    """A program that cannot be found is an error with a name."""
    with pytest.raises(Unavailable, match="no-such-program"):
        runner.run(replace(request_, command=("no-such-program",)), events.ignore)
