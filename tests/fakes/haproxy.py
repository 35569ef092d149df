"""A real HAProxy of its own, on loopback, in front of two given servers."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fakes.prometheus import free_port
from fakes.routerprocess import SECONDS, RouterProcess, wait_until
from secure_pipeline.canary.target import HaproxyRouter

CONFIG = """\
global
    stats socket {socket} mode 600 level admin

defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s

frontend public
    bind 127.0.0.1:{port}
    default_backend inference

backend inference
    balance roundrobin
    option httpchk GET {check}
    default-server check inter 200ms fall 2 rise 2
    server blue 127.0.0.1:{blue} weight 100
    server green 127.0.0.1:{green} weight 0
"""
"""docs/how-to/routers.md shows the same backend."""


@dataclass
class RunningHaproxy(RouterProcess):
    """Where it is, and how to do to it what operators do."""

    name = "haproxy"

    @property
    def config(self) -> Path:
        return self.directory / "haproxy.cfg"

    @property
    def socket(self) -> Path:
        """The stats socket."""
        return self.directory / "admin.sock"

    @property
    def target_router(self) -> HaproxyRouter:
        """What a target says about it."""
        return HaproxyRouter(str(self.socket), "inference", {slot: slot for slot in self.slots})

    def command(self, text: str) -> str:
        """Give one command of the runtime API, past the adapter."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS)
            connection.connect(str(self.socket))
            connection.sendall(text.encode() + b"\n")
            return b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()

    def command_line(self) -> list[str]:
        program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/sbin:/bin")
        assert program, "haproxy is not here: tools/system-packages"
        # Master and worker: SIGUSR2 reloads it, as systemctl reload does.
        return [program, "-W", "-f", str(self.config)]

    def answers(self) -> bool:
        return bool(self._worker())

    def reload(self) -> None:
        """A new worker with the configured weights."""
        before = self._worker()
        sent = 0.0

        def renewed() -> bool:
            nonlocal sent
            if time.monotonic() - sent > 2:  # a master that has just begun ignores the signal
                sent = time.monotonic()
                self.process.send_signal(signal.SIGUSR2)
            return self._worker() not in ("", before)

        wait_until(renewed, "HAProxy has a new worker")

    def kill(self) -> None:
        """End it at once, as a crash does; its socket's file stays."""
        worker = self._worker()
        self.process.kill()
        self.process.wait(SECONDS)
        if worker:  # follows its master, but not at once
            with suppress(ProcessLookupError):
                os.kill(int(worker), signal.SIGKILL)

    def _worker(self) -> str:
        try:
            lines = self.command("show info").splitlines()
        except OSError:
            return ""
        return next((line.split()[1] for line in lines if line.startswith("Pid:")), "")


@contextmanager
def haproxy(
    directory: Path, slots: Mapping[str, int], *, check: str = "/", config: str = CONFIG
) -> Iterator[RunningHaproxy]:
    """Run it in ``directory`` (a short path: sockets) until the end of the block.

    ``slots``: blue and green to the ports of their servers; blue begins with everything.
    ``check``: path that the servers answer 2xx or 3xx.
    """
    directory.mkdir(parents=True, exist_ok=True)
    running = RunningHaproxy(free_port(), directory, slots)
    running.config.write_text(
        config.format(socket=running.socket, port=running.port, check=check, **slots)
    )
    running.start()
    try:
        yield running
    finally:
        running.stop()
