"""A real nginx of its own, on loopback, in front of two given servers."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fakes.prometheus import free_port
from fakes.routerprocess import SECONDS, RouterProcess, listens, wait_until
from secure_pipeline.adapters.nginx import render
from secure_pipeline.canary.target import NginxRouter
from secure_pipeline.tools.nginx import NginxCommand
from secure_pipeline.tools.process import Processes

USER = "user root; " if os.geteuid() == 0 else ""
"""Without it the workers of root are 'nobody', who may not use a test's directory."""
CONFIG = """\
{user}worker_processes 2;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    include {directory}/inference.conf;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://inference;
            proxy_next_upstream off;
            proxy_buffering off;
        }}
    }}
}}
"""
"""docs/how-to/routers.md shows the same include and location."""


@dataclass
class RunningNginx(RouterProcess):
    """Where it is, and how to do to it what operators do."""

    name = "nginx"

    @property
    def config(self) -> Path:
        return self.directory / "nginx.conf"

    @property
    def file(self) -> Path:
        """What the adapter writes."""
        return self.directory / "inference.conf"

    @property
    def socket(self) -> Path:
        """Where workers tell their weights."""
        return self.directory / "sockets" / "told.sock"

    @property
    def target_router(self) -> NginxRouter:
        """What a target says about it."""
        return NginxRouter(
            file=str(self.file),
            upstream="inference",
            servers={slot: f"127.0.0.1:{port}" for slot, port in self.slots.items()},
            read_back=f"unix:{self.socket}",
            command=(program(), "-c", str(self.config), "-p", str(self.directory)),
        )

    @property
    def control(self) -> NginxCommand:
        """Its command line, as wiring makes it."""
        path, *arguments = self.target_router.command
        return NginxCommand(Path(path), arguments, Processes(threading.Event()))

    def command_line(self) -> list[str]:
        return list(self.target_router.command)

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as told:
            return told.connect_ex(str(self.socket)) == 0

    def kill(self) -> None:
        """End master and workers at once, as a crash does; its socket's file stays."""
        pid = self.process.pid
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self.process.kill()
        self.process.wait(SECONDS)
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(int(worker), signal.SIGKILL)
        wait_until(lambda: not listens(self.port), "nginx is gone")


def program() -> str:
    found = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert found, "nginx is not here: tools/system-packages"
    return found


@contextmanager
def nginx(
    directory: Path, slots: Mapping[str, int], *, config: str = CONFIG
) -> Iterator[RunningNginx]:
    """Run it in ``directory`` (a short path: sockets) until the end of the block.

    ``slots``: blue and green to the ports of their servers; blue begins with everything.
    """
    directory.mkdir(parents=True, exist_ok=True)
    running = RunningNginx(free_port(), directory, slots)
    running.socket.parent.mkdir(mode=0o700)
    running.config.write_text(config.format(user=USER, directory=directory, port=running.port))
    running.file.write_bytes(render(running.target_router, {"blue": 100, "green": 0}))
    running.start()
    try:
        yield running
    finally:
        running.stop()
