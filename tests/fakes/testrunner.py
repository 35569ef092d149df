"""A test runner for unit tests: does what a function says instead of starting a program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from secure_pipeline.errors import Unavailable
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.ports import TestOutcome, TestRequest

Act = Callable[[TestRequest], TestOutcome]

ENDED = TestOutcome(0, False, "command exited with 0", b"", False, 0.5)


class FakeTestRunner:
    """Implements ports.TestRunner for commands known by their first word."""

    def __init__(self, act: Act | None = None) -> None:
        self.requests: list[TestRequest] = []
        self._act = act or _command

    def run(self, request: TestRequest, on_event: OnEvent) -> TestOutcome:
        self.requests.append(request)
        outcome = self._act(request)
        for line in outcome.output.decode("utf-8", "replace").splitlines():
            on_event(Progress("test", line, detail=True))
        kept = outcome.output[: request.output]
        cut = outcome.truncated or len(kept) < len(outcome.output)
        return replace(outcome, output=kept, truncated=cut)


def _command(request: TestRequest) -> TestOutcome:
    """The commands of the contract suite: a shell script known by its text."""
    if request.command[0] != "sh":
        raise Unavailable(f"the test command {request.command[0]!r} is not there")
    script = request.command[-1]
    if script.startswith("sleep"):
        return replace(ENDED, returncode=-9, timed_out=True, description="sh timed out after 1 s")
    if script.startswith("kill"):
        return replace(ENDED, returncode=-9, description="sh was killed by SIGKILL")
    if script.startswith("exit"):
        code = int(script.split()[1])
        return replace(ENDED, returncode=code, description=f"sh exited with {code}")
    if script.startswith("flood"):
        return replace(ENDED, output=b"x" * 5_000)
    names = sorted({"PATH", "HOME", "TMPDIR", "LANG", "CI", *request.environment})
    lines = [f"{name}={request.environment.get(name, '')}" for name in names]
    return replace(ENDED, output="\n".join([*lines, f"in {request.cwd}"]).encode())
