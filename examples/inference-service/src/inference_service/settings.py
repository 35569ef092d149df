"""Settings from the environment, parsed once and refused when wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\Z")


class SettingsError(ValueError):
    """A variable has a value that the service does not understand."""


@dataclass(frozen=True)
class Settings:
    """Everything that can be set. Defaults are those of the image."""

    host: str = "0.0.0.0"
    port: int = 8080
    """0 takes any free port."""
    version: str = "dev"
    """Label of every metric, so that two versions can be told apart."""
    token_delay: float = 0.0
    """Seconds that one token takes, standing in for a large model."""
    fault_latency: float = 0.0
    """Seconds added to each token: a fault to inject."""
    fault_error_rate: float = 0.0
    """Share of requests answered with 500: a fault to inject."""
    redis_url: str | None = None
    """Conversations are kept there, or in memory when None."""
    max_generations: int = 16
    """Requests that generate at the same time; more are answered with 503."""
    max_connections: int = 128
    """Open connections; more are answered with 503 and closed."""
    max_contexts: int = 10_000
    """Conversations in memory; the least recently used one goes first."""
    receive_timeout: float = 10.0
    """Seconds for a whole request to arrive, idle time of the connection included."""
    generation_timeout: float = 60.0
    """Seconds for one answer; it is cut there and says so."""
    drain_timeout: float = 10.0
    """Seconds that running requests get after SIGTERM."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings. Raises: SettingsError naming the variable."""
        read = _Reader(environment)
        return cls(
            host=read.text("HOST", cls.host),
            port=int(read.number("PORT", cls.port, 0, 65535, whole=True)),
            version=read.version(cls.version),
            token_delay=read.number("TOKEN_DELAY_MS", 0, 0, 10_000) / 1000,
            fault_latency=read.number("FAULT_LATENCY_MS", 0, 0, 10_000) / 1000,
            fault_error_rate=read.number("FAULT_ERROR_RATE", 0, 0, 1),
            redis_url=environment.get("REDIS_URL") or None,
            max_generations=int(read.number("MAX_GENERATIONS", 16, 1, 1024, whole=True)),
            max_connections=int(read.number("MAX_CONNECTIONS", 128, 1, 8192, whole=True)),
            max_contexts=int(read.number("MAX_CONTEXTS", 10_000, 1, 1_000_000, whole=True)),
        )


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str, default: str) -> str:
        return self._environment.get(name) or default

    def version(self, default: str) -> str:
        value = self.text("VERSION", default)
        if not _VERSION.match(value):
            raise SettingsError("VERSION must be 1 to 64 letters, digits and . _ + -")
        return value

    def number(
        self, name: str, default: float, low: float, high: float, *, whole: bool = False
    ) -> float:
        text = self.text(name, str(default))
        try:
            value = float(int(text)) if whole else float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # NaN is in no range
            kind = "a whole number" if whole else "a number"
            raise SettingsError(f"{name} must be {kind} from {low} to {high}")
        return value
