"""Runs the project's own tests: their variables, a home of their own, limits, nothing else."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from secure_pipeline.errors import Unavailable
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.ports import TestOutcome, TestRequest
from secure_pipeline.tools.locate import SYSTEM_PATH
from secure_pipeline.tools.process import Command, Limits, Processes

MAX_FILE_BYTES = 4 << 30


class ProcessTestRunner:
    """Implements ports.TestRunner. Tests may use the network: many need loopback."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def run(self, request: TestRequest, on_event: OnEvent) -> TestOutcome:
        """Run the command to its end or to the deadline, then end what it left running.

        Raises: Unavailable if the program is not found or cannot start.
        """
        with tempfile.TemporaryDirectory(
            prefix="secure-pipeline-test-", ignore_cleanup_errors=True
        ) as directory:
            environment = _environment(Path(directory)) | dict(request.environment)
            outcome = self._processes.run(
                Command(
                    argv=(_program(request, environment["PATH"]), *request.command[1:]),
                    cwd=request.cwd,
                    env=environment,
                    timeout=request.timeout.total_seconds(),
                    output_limit=request.output,
                    limits=Limits(
                        address_space=request.memory,
                        processes=request.processes,
                        file_size=MAX_FILE_BYTES,
                    ),
                ),
                lambda line: on_event(Progress("test", line, detail=True)),
            )
        return TestOutcome(
            returncode=outcome.returncode,
            timed_out=outcome.timed_out,
            description=outcome.describe(),
            output=outcome.stdout + outcome.stderr,
            truncated=outcome.truncated,
            seconds=outcome.seconds,
        )


def _environment(work: Path) -> dict[str, str]:
    home, temporary = work / "home", work / "tmp"
    home.mkdir()
    temporary.mkdir()
    return {
        "PATH": SYSTEM_PATH,
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "CI": "true",
    }


def _program(request: TestRequest, path: str) -> str:
    """The absolute path of the command; one with a slash is relative to the repository."""
    name = request.command[0]
    if "/" in name:
        found: str | None = os.path.join(request.cwd, name)
    else:
        found = shutil.which(name, path=path)
    if found is None or not os.access(found, os.X_OK) or not os.path.isfile(found):
        raise Unavailable(
            f"the test command {name!r} is not there",
            where=str(request.cwd) if "/" in name else path,
            hint="name it by path, or put PATH under 'test.environment' or 'pass-environment'",
        )
    return os.path.abspath(found)
