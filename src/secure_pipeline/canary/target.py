"""A promotion target: where traffic goes, what is watched, how far each step may go.

Operators write it and name it (``--to``); a repository under test cannot. Limits have defaults,
places have none: a target without a router, metrics or identities is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from itertools import pairwise
from pathlib import Path

from secure_pipeline.documents import MAX_BYTES, Percent, decode, field, parse_yaml
from secure_pipeline.files import read_bounded, sha256_bytes

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
MAX_STEPS = 50
MAX_QUERIES = 50


def _check_name(what: str, name: str) -> None:
    if not _NAME.match(name):
        raise ValueError(f"{what} {name!r} is not a short name such as blue or production")


def _check_matchers(what: str, labels: Mapping[str, str]) -> None:
    for label in labels:
        if not _LABEL.match(label):
            raise ValueError(f"{what}: {label!r} is not a label of Prometheus")


@dataclass(frozen=True)
class Slot:
    """One of the two places that a version can run in."""

    labels: Mapping[str, str] = field("Labels that only this slot's series have.")
    runtime: str | None = field(
        "What runs there: docker://NAME or k8s://NAMESPACE[/KIND/NAME].", default=None
    )
    health: str | None = field("URL that answers 2xx while the slot can serve.", default=None)

    def __post_init__(self) -> None:
        if not self.labels:
            raise ValueError("labels is empty: both slots' series would count as one")
        _check_matchers("labels", self.labels)


@dataclass(frozen=True)
class HaproxyRouter:
    """HAProxy on this machine, through its runtime API."""

    socket: str = field("Path of the stats socket, level admin.")
    backend: str = field("Backend that holds both servers.")
    servers: Mapping[str, str] = field("Slot to name of its server.")


@dataclass(frozen=True)
class NginxRouter:
    """nginx on this machine, through a file that it includes and a reload."""

    file: str = field("File with the upstream, included in nginx's http block; written by us.")
    upstream: str = field("Name of the upstream.")
    servers: Mapping[str, str] = field("Slot to host:port or unix:PATH.")
    read_back: str = field("Socket that nginx tells the weights in force on: unix:PATH.")
    command: tuple[str, ...] = field("nginx with its -c and -p.", default=("nginx",))


@dataclass(frozen=True)
class GatewayRouter:
    """An HTTPRoute of the Kubernetes Gateway API."""

    namespace: str = field("Namespace of the route.")
    route: str = field("Name of the HTTPRoute.")
    services: Mapping[str, str] = field("Slot to name of its Service.")


@dataclass(frozen=True)
class RouterConfig:
    """What splits the traffic: exactly one of these."""

    haproxy: HaproxyRouter | None = field("HAProxy.", default=None)
    nginx: NginxRouter | None = field("nginx.", default=None)
    gateway_api: GatewayRouter | None = field("Kubernetes Gateway API.", default=None)

    def __post_init__(self) -> None:
        if sum(router is not None for router in (self.haproxy, self.nginx, self.gateway_api)) != 1:
            raise ValueError("exactly one of haproxy, nginx and gateway-api is needed")

    @property
    def places(self) -> Mapping[str, str]:
        """Slot to its server or service."""
        if self.haproxy:
            return self.haproxy.servers
        if self.nginx:
            return self.nginx.servers
        assert self.gateway_api is not None
        return self.gateway_api.services


@dataclass(frozen=True)
class ServiceAccess:
    """How to reach an HTTP service: Prometheus, or Alertmanager."""

    url: str = field("Address, http or https; http only to this machine.")
    ca: str | None = field("PEM file of the authorities to trust.", default=None)
    token_file: str | None = field("File with a bearer token.", default=None)
    username: str | None = field("Name for basic authentication.", default=None)
    password_file: str | None = field("File with its password.", default=None)
    timeout: timedelta = field("Longest time for one answer.", default=timedelta(seconds=10))

    def __post_init__(self) -> None:
        if not re.match(r"https?://[^/@\s]+", self.url):
            raise ValueError("url is no http address without a user")
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password-file belong together")
        if self.token_file is not None and self.username is not None:
            raise ValueError("give a token or a user name, not both")
        if not timedelta(milliseconds=100) <= self.timeout <= timedelta(minutes=2):
            raise ValueError("timeout must be from 100ms to 2m")


class Preset(Enum):
    """Names of metrics that are known."""

    INFERENCE_SERVICE = "inference-service"
    """The sample of this project."""
    VLLM = "vllm"
    """vLLM 0.10 and newer."""
    VLLM_OLD = "vllm-old"
    """vLLM before it renamed time_per_output_token."""
    CUSTOM = "custom"
    """Only what the target names."""


@dataclass(frozen=True)
class MetricNames:
    """Which metrics are read. What is left out comes from the preset."""

    preset: Preset = field("Known names.", default=Preset.INFERENCE_SERVICE)
    latency: str | None = field("Histogram of seconds a token, without _bucket.", default=None)
    requests: str | None = field("Counter of finished requests.", default=None)
    errors: Mapping[str, str] | None = field(
        "Labels (regular expressions, whole value) of requests that failed.", default=None
    )
    error_counter: str | None = field(
        "Counter of failed requests, where they are not part of 'requests'.", default=None
    )
    started: str | None = field("Gauge with the start time of the process.", default=None)

    def __post_init__(self) -> None:
        for name in (self.latency, self.requests, self.error_counter, self.started):
            if name is not None and not _METRIC.match(name):
                raise ValueError(f"{name!r} is not the name of a metric")
        if self.errors is not None:
            if not self.errors:
                raise ValueError("errors is empty: every request would count as failed")
            _check_matchers("errors", self.errors)
        if self.preset is Preset.CUSTOM:
            missing = [n for n in ("latency", "requests", "started") if getattr(self, n) is None]
            if missing or (self.errors is None and self.error_counter is None):
                raise ValueError("the custom preset needs latency, requests, errors and started")


@dataclass(frozen=True)
class LatencyRule:
    """Seconds a token. The share over the limit decides; mean and 95th percentile are soft."""

    limit: timedelta = field(
        "A token that takes longer is slow.", default=timedelta(milliseconds=150)
    )
    share: Percent = field("Most tokens that may be slow.", default=Percent("5%"))
    mean: timedelta | None = field("Greatest mean; soft.", default=timedelta(milliseconds=150))
    p95: timedelta | None = field("Greatest 95th percentile; soft.", default=None)

    def __post_init__(self) -> None:
        if self.limit <= timedelta(0):
            raise ValueError("limit must be more than 0")
        if not 0 < self.share < 1:
            raise ValueError("share must be over 0% and under 100%")


@dataclass(frozen=True)
class ErrorRule:
    """Requests that failed."""

    share: Percent = field("Most requests that may fail.", default=Percent("1%"))

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError("share must be over 0% and under 100%")


@dataclass(frozen=True)
class AlertRule:
    """An alert of Prometheus that must not fire."""

    name: str = field("Name of the alerting rule.")
    labels: Mapping[str, str] = field("Only alerts that have these labels.", factory=dict)
    hard: bool = field("Abort at once; else it costs the failure budget.", default=True)

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("name is empty")


@dataclass(frozen=True)
class QueryRule:
    """An expression of the operator's own; $canary and $baseline stand for label matchers."""

    name: str = field("Short name.")
    query: str = field("PromQL that gives exactly one sample.")
    minimum: float | None = field("Least value that is right.", default=None)
    maximum: float | None = field("Greatest value that is right.", default=None)
    hard: bool = field("Abort at once; else it costs the failure budget.", default=False)

    def __post_init__(self) -> None:
        _check_name("query", self.name)
        if self.minimum is None and self.maximum is None:
            raise ValueError("neither minimum nor maximum: every value would be right")
        if None not in (self.minimum, self.maximum) and self.minimum > self.maximum:  # type: ignore[operator]
            raise ValueError("minimum is over maximum")
        if not self.query.strip() or len(self.query) > 4000:
            raise ValueError("query is empty or longer than 4000 characters")


@dataclass(frozen=True)
class Rules:
    """What a canary has to keep."""

    latency: LatencyRule = field("Seconds a token.", default=LatencyRule())
    errors: ErrorRule = field("Failed requests.", default=ErrorRule())
    restarts: int = field("Restarts of the canary that are allowed.", default=0)
    alerts: tuple[AlertRule, ...] = field("Alerts that must not fire.", default=())
    queries: tuple[QueryRule, ...] = field("Own expressions.", default=())
    failure_budget: int = field("Breaches of soft rules that are allowed in all.", default=3)

    def __post_init__(self) -> None:
        if self.restarts < 0 or self.failure_budget < 0:
            raise ValueError("restarts and failure-budget must be 0 or more")
        names = [query.name for query in self.queries] + [alert.name for alert in self.alerts]
        if len(set(names)) != len(names) or len(names) > MAX_QUERIES:
            raise ValueError(f"alerts and queries need different names, at most {MAX_QUERIES}")


@dataclass(frozen=True)
class AnalysisConfig:
    """How certain a verdict has to be: docs/reference/canary-statistics.md."""

    false_abort: Percent = field(
        "Greatest probability, over the whole promotion, of aborting a version that is within "
        "the limits or no worse than the baseline.",
        default=Percent("1%"),
    )
    false_advance: Percent = field(
        "Greatest probability of a step's passing a version that is over a limit.",
        default=Percent("5%"),
    )
    healthy_looks: int = field("Healthy looks in a row that a step needs.", default=3)
    minimum_tokens: int = field("Fewer tokens of the canary make no window.", default=20)
    minimum_requests: int = field("Fewer requests of the canary make no window.", default=1)
    requests_per_unit: float = field(
        "How many requests share one fate: 1 if they fail independently.", default=1.0
    )
    interval: timedelta = field("Time between two looks.", default=timedelta(seconds=5))
    stale_after: timedelta = field(
        "A last sample older than this is no data.", default=timedelta(seconds=60)
    )

    def __post_init__(self) -> None:
        if not 0 < self.false_abort <= Percent("20%") or not 0 < self.false_advance <= Percent(
            "20%"
        ):
            raise ValueError("false-abort and false-advance must be over 0% and at most 20%")
        if min(self.healthy_looks, self.minimum_tokens, self.minimum_requests) < 1:
            raise ValueError("healthy-looks, minimum-tokens, minimum-requests: 1 or more")
        if not 1 <= self.requests_per_unit <= 1000:
            raise ValueError("requests-per-unit must be from 1 to 1000")
        if not timedelta(milliseconds=100) <= self.interval <= timedelta(minutes=10):
            raise ValueError("interval must be from 100ms to 10m")
        if self.stale_after < self.interval:
            raise ValueError("stale-after is less than interval")


@dataclass(frozen=True)
class Step:
    """How far one step may go, and how long it may take."""

    share: Percent = field("Greatest share of requests to the canary.")
    minimum: timedelta = field("Shortest time in this step.", default=timedelta(minutes=1))
    deadline: timedelta = field(
        "Without enough healthy looks until then, the promotion is aborted.",
        default=timedelta(minutes=30),
    )

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError("share must be over 0% and under 100%: the end is not a step")
        if not timedelta(0) <= self.minimum < self.deadline <= timedelta(days=7):
            raise ValueError("minimum must be less than deadline, and that at most 7d")


@dataclass(frozen=True)
class Target:
    """The whole document."""

    version: int = field("Version of this format: 1.")
    name: str = field("Name of the target.")
    slots: Mapping[str, Slot] = field("The two places that a version can run in.")
    router: RouterConfig = field("What splits the traffic.")
    prometheus: ServiceAccess = field("Where the metrics are.")
    alertmanager: ServiceAccess | None = field("Where alerts are, besides.", default=None)
    metrics: MetricNames = field("Which metrics are read.", default=MetricNames())
    rules: Rules = field("What a canary has to keep.", default=Rules())
    analysis: AnalysisConfig = field("How certain a verdict has to be.", default=AnalysisConfig())
    steps: tuple[Step, ...] = field(
        "The way up, 5%, 25%, 50% by default; 100% comes after the last.",
        default=(Step(Percent("5%")), Step(Percent("25%")), Step(Percent("50%"))),
    )
    identity_unchecked: str | None = field(
        "Why nothing has to show that the slots run what is promoted.", default=None
    )

    def __post_init__(self) -> None:
        if self.version != 1:
            raise ValueError(f"version {self.version} is not known; this program reads 1")
        _check_name("name", self.name)
        if len(self.slots) != 2:
            raise ValueError("slots must be two, such as blue and green")
        for slot in self.slots:
            _check_name("slot", slot)
        if set(self.router.places) != set(self.slots):
            raise ValueError(f"the router must name the slots {' and '.join(sorted(self.slots))}")
        if len(set(self.router.places.values())) != 2:
            raise ValueError("both slots are one and the same place at the router")
        first, second = self.slots.values()
        if all(second.labels.get(k, v) == v for k, v in first.labels.items()):
            raise ValueError("the labels of both slots match the same series")
        self._check_steps()
        self._check_identity()

    def _check_steps(self) -> None:
        shares = [step.share for step in self.steps]
        if not shares or len(shares) > MAX_STEPS:
            raise ValueError(f"steps: 1 to {MAX_STEPS} are needed")
        if any(later <= earlier for earlier, later in pairwise(shares)):
            raise ValueError("steps: each share must be greater than the one before")

    def _check_identity(self) -> None:
        unknown = [name for name, slot in self.slots.items() if slot.runtime is None]
        if self.identity_unchecked is None and unknown:
            raise ValueError(
                f"slot {unknown[0]} has no runtime, so nothing shows what runs there; name one, "
                "or say why not under identity-unchecked"
            )
        if self.identity_unchecked is not None and len(self.identity_unchecked.strip()) < 10:
            raise ValueError("identity-unchecked must say why, in at least 10 characters")


@dataclass(frozen=True)
class LoadedTarget:
    """A target with where it came from and the digest of its bytes."""

    target: Target
    source: Path
    digest: str
    """``sha256:…`` of the file."""


def load(path: Path) -> LoadedTarget:
    """Read and check a target. Raises: ConfigError naming file:line."""
    data = read_bounded(path, MAX_BYTES)
    return LoadedTarget(
        decode(Target, parse_yaml(data, str(path))), path, f"sha256:{sha256_bytes(data)}"
    )
