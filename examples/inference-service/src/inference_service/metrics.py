"""What Prometheus reads. Every series exists from the start, at 0."""

from __future__ import annotations

from contextlib import AbstractContextManager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 10.0)
"""Seconds. 0.15 is an edge, so that the share of slower tokens is exact."""
STATUS_CODES = ("200", "400", "405", "408", "411", "413", "415", "499", "500", "501", "503")
"""499 is a client that went away before the answer was complete."""


class Metrics:
    """The metrics of one version of the service."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # has process_start_time_seconds
        self._latency = Histogram(
            "inference_token_latency_seconds",
            "Time to make one token.",
            ["version"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._requests = Counter(
            "inference_requests",
            "Generation requests by HTTP status code.",
            ["version", "code"],
            registry=self._registry,
        )
        self._tokens = Counter(
            "inference_tokens", "Tokens made.", ["version"], registry=self._registry
        )
        self._running = Gauge(
            "inference_requests_running",
            "Generations in progress.",
            ["version"],
            registry=self._registry,
        )
        self._latency.labels(version)
        self._tokens.labels(version)
        self._running.labels(version)
        for code in STATUS_CODES:
            self._requests.labels(version, code)

    def token(self, seconds: float) -> None:
        """Count one token and the time it took."""
        self._latency.labels(self._version).observe(seconds)
        self._tokens.labels(self._version).inc()

    def request(self, code: int) -> None:
        """Count one generation request. Probes and scrapes must not dilute the error rate."""
        self._requests.labels(self._version, str(code)).inc()

    def running(self) -> AbstractContextManager[None]:
        """Count a generation while it runs."""
        return self._running.labels(self._version).track_inprogress()

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)
