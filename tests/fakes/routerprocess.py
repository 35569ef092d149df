"""What real HAProxy and nginx servers have in common, as tests run them."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

SECONDS = 30


def wait_until(true: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    """Wait for something that is about to happen; fail loudly if it does not."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@dataclass
class RouterProcess:
    """A router with a directory of its own, on loopback."""

    port: int
    directory: Path
    slots: Mapping[str, int]
    """blue and green to the ports of their servers."""
    process: subprocess.Popen[bytes] = field(init=False)
    name: ClassVar[str]

    @property
    def url(self) -> str:
        """The front end."""
        return f"http://127.0.0.1:{self.port}"

    def command_line(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether its own socket does."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it, and return when it serves."""
        log = self.directory / f"{self.name}.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(self.command_line(), stdout=output, stderr=output)

        def serves() -> bool:
            assert self.process.poll() is None, log.read_text()
            return listens(self.port) and self.answers()

        wait_until(serves, f"{self.name} serves")

    def stop(self) -> None:
        """End it in its own way, if it has not ended."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(SECONDS)
