"""A metrics service in memory: time series that a test feeds, on a clock of its own.

Answers about samples are worked out from what was scraped; expressions, alerts and faults are
what the test says. It keeps the contract of ``ports.Metrics`` (tests/contracts).
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from secure_pipeline.canary.metricnames import Names, resolve
from secure_pipeline.canary.target import MetricNames, Target
from secure_pipeline.errors import Inconclusive, Unavailable
from secure_pipeline.ports import Alert, Series

EDGES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, math.inf)
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)?(?:\{(.*)\})?", re.DOTALL)
_MATCHER = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)(=~|=)("(?:[^"\\]|\\.)*")(?:,|\Z)')
_ESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|U([0-9a-f]{8})|(.))")
_SHORT = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass
class Instance:
    """One process that is scraped: its counters as they are now."""

    labels: Mapping[str, str]
    """Of the slot, with ``job`` and ``instance``."""
    names: Names
    started: float
    edges: tuple[float, ...] = EDGES
    up: bool = True
    """Whether scrapes reach it."""
    buckets: dict[float, float] = field(default_factory=dict)
    seconds: float = 0.0
    codes: dict[str, float] = field(default_factory=dict)

    def serve(self, requests: float, tokens: float, *, slow: float = 0, errors: float = 0) -> None:
        """Count ``requests`` with ``errors`` among them, and ``tokens``, ``slow`` ones among them.

        A slow token takes 0.4 s, another one 0.02 s.
        """
        self.observe(0.02, tokens - slow)
        self.observe(0.4, slow)
        self.count("200", requests - errors)
        self.count("500", errors)

    def observe(self, seconds: float, times: float = 1) -> None:
        """Count tokens that take so long."""
        for edge in self.edges:
            self.buckets[edge] = self.buckets.get(edge, 0.0) + (times if seconds <= edge else 0)
        self.seconds += seconds * times

    def count(self, code: str, times: float = 1) -> None:
        """Count requests; the series of a code appears with its first one."""
        if times or code in self.codes:
            self.codes[code] = self.codes.get(code, 0.0) + times

    def restart(self, now: float) -> None:
        """Begin anew at 0."""
        self.started = now
        self.buckets, self.seconds, self.codes = {}, 0.0, {}

    def exposed(self) -> list[tuple[dict[str, str], float]]:
        """What a scrape gives: labels and values."""
        latency, labels = self.names.latency, dict(self.labels)
        (error,) = self.names.errors
        found = [
            (
                {"__name__": f"{latency}_bucket", "le": _le(edge), **labels},
                self.buckets.get(edge, 0),
            )
            for edge in self.edges
        ]
        found.append(({"__name__": f"{latency}_count", **labels}, self.buckets.get(math.inf, 0)))
        found.append(({"__name__": f"{latency}_sum", **labels}, self.seconds))
        found.append(({"__name__": self.names.started, **labels}, self.started))
        found += [
            ({"__name__": self.names.requests, error: code, **labels}, value)
            for code, value in {"200": 0.0, **self.codes}.items()
        ]
        return found


class FakeMetrics:
    """The service. ``now`` is its clock, seconds since 1970."""

    def __init__(self, now: Callable[[], float], target: Target | None = None) -> None:
        """With a target each slot has one instance, ``metrics.slots["green"]``."""
        self.now = now
        self.series: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
        self.instances: list[Instance] = []
        self.slots: dict[str, Instance] = {}
        self.fault: Callable[[str], Exception | None] = lambda call: None
        """Asked at each call by its name; an error that it gives is raised."""
        self.values: dict[str, float | Exception | None] = {}
        """What expressions give; one that is not there is refused."""
        self.rules: dict[str, list[Mapping[str, str]] | Exception] = {}
        """Alerting rules that are there, with the labels of what fires."""
        self.calls: list[str] = []
        names = resolve(target.metrics if target else MetricNames())
        for slot in target.slots if target else ():
            self.slots[slot] = self.instance(target.slots[slot].labels, slot, names)

    def instance(
        self,
        labels: Mapping[str, str],
        name: str,
        names: Names | None = None,
        edges: tuple[float, ...] = EDGES,
    ) -> Instance:
        """Add one more process, which is scraped from now on."""
        made = Instance(
            {"job": "service", "instance": name, **labels},
            names or resolve(MetricNames()),
            self.now(),
            edges,
        )
        self.instances.append(made)
        return made

    def restart(self, slot: str) -> None:
        """A slot's instance begins anew."""
        self.slots[slot].restart(self.now())

    def scrape(self, *slots: str) -> None:
        """Scrape all instances now, or those of some slots."""
        for instance in self.instances:
            if instance.up and (not slots or instance in [self.slots[slot] for slot in slots]):
                for labels, value in instance.exposed():
                    self.put(labels, value)

    def put(self, labels: Mapping[str, str], value: float) -> None:
        """A sample of one series, now."""
        listed = self.series.setdefault(frozenset(labels.items()), [])
        if not listed or listed[-1][0] < self.now():
            listed.append((self.now(), value))

    def clock(self) -> float:
        self._called("clock")
        return self.now()

    def samples(self, selector: str, seconds: float) -> tuple[Series, ...]:
        self._called("samples")
        matches = _matcher(selector)
        since, until = self.now() - seconds, self.now()
        found = []
        for key, samples in self.series.items():
            begin, end = bisect_left(samples, (since,)), bisect_right(samples, (until, math.inf))
            if begin < end and matches(dict(key)):
                found.append(Series(dict(key), tuple(samples[begin:end])))
        return tuple(found)

    def value(self, query: str) -> float | None:
        self._called("value")
        value = self.values.get(query, Inconclusive(f"answers 400: {query} is not known here"))
        if isinstance(value, Exception):
            raise value
        if value is not None and not math.isfinite(value):
            raise Inconclusive(f"{query!r} gave {value}")
        return value

    def alerts(self, names: Sequence[str]) -> tuple[Alert, ...]:
        if not names:
            return ()
        self._called("alerts")
        found: list[Alert] = []
        for name in names:
            rule = self.rules.get(name, Inconclusive(f"has no alerting rule {name!r}"))
            if isinstance(rule, Exception):
                raise rule
            found += [Alert(name, {"alertname": name, **labels}) for labels in rule]
        return tuple(found)

    def down(self, *calls: str) -> None:
        """Fail from now on, at all calls or some; ``well`` ends it."""
        error = Unavailable("no answer: refused", where="metrics")
        self.fault = lambda call: error if not calls or call in calls else None

    def well(self) -> None:
        """Answer again."""
        self.fault = lambda call: None

    def _called(self, call: str) -> None:
        self.calls.append(call)
        error = self.fault(call)
        if error is not None:
            raise error


def _le(edge: float) -> str:
    return "+Inf" if edge == math.inf else str(edge)


def _matcher(selector: str) -> Callable[[Mapping[str, str]], bool]:
    """Understand the selectors that this program writes."""
    parsed = _SELECTOR.fullmatch(selector)
    if parsed is None or not selector:
        raise Inconclusive(f"answers 400: {selector!r} is no selector")
    tests = [("__name__", "=", parsed[1])] if parsed[1] else []
    rest = parsed[2] or ""
    while rest:
        found = _MATCHER.match(rest)
        if found is None:
            raise Inconclusive(f"answers 400: {selector!r} is no selector")
        text = _ESCAPE.sub(_unescaped, found[3][1:-1])
        tests.append((found[1], found[2], text))
        rest = rest[found.end() :]

    def matches(labels: Mapping[str, str]) -> bool:
        return all(
            (value == labels.get(name, ""))
            if operator == "="
            else re.fullmatch(value, labels.get(name, "")) is not None
            for name, operator, value in tests
        )

    return matches


def _unescaped(found: re.Match[str]) -> str:
    return _SHORT.get(found[3], found[3]) if found[3] else chr(int(found[1] or found[2], 16))
