"""The real sample service as a process of its own, with faults that a test asks for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fakes.prometheus import Program, free_port

_SOURCE = Path(__file__).resolve().parents[2] / "examples/inference-service/src"


@dataclass
class RunningService(Program):
    """One version of the service."""

    version: str = ""

    @property
    def host(self) -> str:
        """127.0.0.1:PORT, where it serves and is scraped."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.host}"

    def set(self, **settings: float) -> None:
        """Other settings, such as ``latency_ms=400``, from its next start on."""
        self.environment = {**(self.environment or {}), **_environment(**settings)}


def _environment(**settings: float) -> dict[str, str]:
    names = {
        "latency_ms": "FAULT_LATENCY_MS",
        "error_rate": "FAULT_ERROR_RATE",
        "token_delay_ms": "TOKEN_DELAY_MS",
    }
    return {names[name]: str(value) for name, value in settings.items()}


@contextmanager
def inference(
    directory: Path,
    version: str = "v1",
    *,
    latency_ms: float = 0,
    error_rate: float = 0,
    token_delay_ms: float = 5,
) -> Iterator[RunningService]:
    """Run one until the block ends.

    ``latency_ms`` is added to each token; ``error_rate``, 0 to 1, of requests get 500.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings = _environment(
        latency_ms=latency_ms, error_rate=error_rate, token_delay_ms=token_delay_ms
    )
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(_SOURCE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "VERSION": version,
        "MAX_GENERATIONS": "64",
        **settings,
    }
    running = RunningService(
        [sys.executable, "-m", "inference_service"],
        directory / f"{version}-{port}.log",
        port,
        environment,
        version=version,
    )
    running.start()
    try:
        yield running
    finally:
        running.kill()
