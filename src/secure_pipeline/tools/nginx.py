"""nginx's own checks and reloads, as its command line offers them.

https://nginx.org/en/docs/switches.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from secure_pipeline.errors import Unavailable
from secure_pipeline.tools.locate import SYSTEM_PATH
from secure_pipeline.tools.process import Command, Processes

SECONDS = 30.0
MAX_OUTPUT = 1 << 20
_SERIOUS = re.compile(r"\[(?:emerg|alert|crit|error)\]")


class NginxCommand:
    """One nginx, named by its program and its ``-c`` and ``-p``. Fits adapters.nginx.Control."""

    def __init__(
        self,
        program: Path,
        arguments: Sequence[str],
        processes: Processes,
        timeout: float = SECONDS,
    ) -> None:
        """``program``: absolute path. ``timeout``: seconds for one command.

        ``processes`` must not be cancelled by the Ctrl-C that asks for an abort: the abort
        itself needs a reload.
        """
        self._argv = (str(program), *arguments)
        self._processes = processes
        self._timeout = timeout

    def check(self) -> None:
        """Check the whole configuration as it is on disk. Raises: Unavailable."""
        self._run("-t")

    def reload(self) -> None:
        """Ask the running nginx to take the configuration; it does so later, or not at all.

        Raises: Unavailable (it does not run, or may not be signalled).
        """
        self._run("-s", "reload")

    def _run(self, *more: str) -> None:
        command = Command(
            argv=(*self._argv, *more),
            cwd=Path("/"),
            env={"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8"},
            timeout=self._timeout,
            output_limit=MAX_OUTPUT,
        )
        outcome = self._processes.run(command)
        if not outcome.ok:
            what = "refuses its configuration" if more == ("-t",) else "does not reload"
            said = _said(outcome.tail()) or outcome.describe()
            raise Unavailable(f"nginx {what}: {said}", where=" ".join(command.argv))


def _said(text: str) -> str:
    """The line that says what is wrong, else the last one; printable."""
    lines = [line for line in text.splitlines() if line.strip()]
    serious = [line for line in lines if _SERIOUS.search(line)]
    line = (serious or lines or [""])[-1]
    return "".join(mark if mark.isprintable() else "?" for mark in line)[:400]
