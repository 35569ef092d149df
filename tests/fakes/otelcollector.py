"""OpenTelemetry's receiver of Splunk's protocol, compiled from its pinned module, on loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secure_pipeline.events import ignore
from secure_pipeline.files import locked, sha256_file
from secure_pipeline.tools.golang import build_go
from secure_pipeline.tools.locate import default_store
from secure_pipeline.tools.pins import GoModule
from secure_pipeline.wiring import tool_installer

_SOURCE = Path(__file__).with_name("otel-collector")
_SECONDS = 60


def build() -> Path:
    """Compile it with the tools' own Go, once; kept between test runs, like the tools."""
    version = "-".join(sha256_file(_SOURCE / name)[:8] for name in ("go.sum", "main.go"))
    program = default_store(os.environ).parent / f"otel-collector-{version}"
    with locked(program.with_suffix(".lock")):
        if not program.exists():
            installer = tool_installer(ignore)
            made = program.with_suffix(".new")
            module = GoModule(_SOURCE, ".", "", {}, {})
            build_go("otel-collector", module, made, installer.pins, installer.steps)
            made.rename(program)
    return program


@dataclass
class OtelCollector:
    """Its address, the file that it writes to, and its process."""

    program: Path
    port: int
    output: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def events(self) -> list[dict[str, Any]]:
        """Every event that it has taken; a line that a kill cut off is none."""
        return [
            json.loads(line)
            for line in self.output.read_bytes().splitlines(keepends=True)
            if line.endswith(b"\n")
        ]

    def start(self) -> None:
        """Start it, again after ``kill``."""
        with self.output.open("ab") as stream:
            self.process = subprocess.Popen(
                [str(self.program), f"127.0.0.1:{self.port}"], stdout=stream
            )
        limit = time.monotonic() + _SECONDS
        while time.monotonic() < limit:
            assert self.process.poll() is None, "it does not start"
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError("it does not listen")

    def kill(self) -> None:
        """End the process that was started, at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(_SECONDS)


@contextmanager
def otel_collector(directory: Path) -> Iterator[OtelCollector]:
    """Run it until the end of the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    collector = OtelCollector(build(), port, directory / "collected.jsonl")
    collector.start()
    try:
        yield collector
    finally:
        collector.kill()
