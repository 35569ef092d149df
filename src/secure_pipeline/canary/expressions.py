"""A target's rules as expressions of PromQL with bounds, for controllers that only compare.

An expression gives one finite number, or nothing: where there is no data, too little, NaN, or
more than one series. Nothing must never count as healthy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from secure_pipeline.canary import promql
from secure_pipeline.canary.metricnames import Names, resolve
from secure_pipeline.canary.target import AlertRule, QueryRule, Slot, Target
from secure_pipeline.errors import ConfigError

_STRINGS = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|`[^`]*`')


@dataclass(frozen=True)
class Bounded:
    """One rule: an expression and what its value may be."""

    name: str
    """Short, for names of Kubernetes."""
    expression: str
    minimum: float | None
    maximum: float | None
    hard: bool

    def __post_init__(self) -> None:
        if self.minimum is None and self.maximum is None:
            raise ValueError(f"{self.name} has no bound: every value would be right")


def bounded(target: Target, canary: str, window: str) -> tuple[Bounded, ...]:
    """All rules of a target for the slot ``canary`` over a window such as ``60s``.

    Raises: ConfigError, for an own expression that a template of others would change.
    """
    return tuple(_bounded(target, canary, window))


def _bounded(target: Target, canary: str, window: str) -> Iterator[Bounded]:
    names, rules = resolve(target.metrics), target.rules
    tokens = _Tokens(names.latency, target.slots[canary], window, target.analysis.minimum_tokens)
    latency = rules.latency
    edge = latency.limit.total_seconds()
    yield Bounded("latency", tokens.slower(edge), None, float(latency.share), True)
    if latency.mean is not None:
        yield Bounded("mean", tokens.mean(), None, latency.mean.total_seconds(), False)
    if latency.p95 is not None:
        yield Bounded("p95", tokens.quantile(0.95), None, latency.p95.total_seconds(), False)
    yield Bounded("errors", _errors(target, names, canary, window), None,
                  float(rules.errors.share), True)  # fmt: skip
    started = selector(names.started, target.slots[canary].labels)
    restarts = f"sum(changes({started}[{window}])) >= 0"
    yield Bounded("restarts", restarts, None, float(rules.restarts), True)
    for number, alert in enumerate(rules.alerts, start=1):
        yield Bounded(f"alert-{number}", _alert(alert), None, 0.0, alert.hard)
    for query in rules.queries:
        expression = _own(query, target, canary)
        yield Bounded(f"query-{query.name}", expression, query.minimum, query.maximum, query.hard)


@dataclass(frozen=True)
class _Tokens:
    """Expressions over the histogram of seconds a token."""

    metric: str
    slot: Slot
    window: str
    least: int

    def slower(self, edge: float) -> str:
        """Share of tokens over the edge of a bucket; nothing where no bucket has that edge."""
        # Prometheus 3 and Python's client write 1.0 where others write 1.
        edges = "|".join(re.escape(text) for text in dict.fromkeys((repr(edge), f"{edge:g}")))
        below = f"sum(rate({self._series('_bucket', {'le': edges})}[{self.window}]))"
        return self._enough(f"clamp_min(1 - {below} / {self._rate('_count')}, 0)")

    def mean(self) -> str:
        """Seconds a token."""
        return self._enough(f"{self._rate('_sum')} / {self._rate('_count')}")

    def quantile(self, share: float) -> str:
        """A quantile of the seconds a token, interpolated by Prometheus."""
        buckets = f"sum by (le) (rate({self._series('_bucket')}[{self.window}]))"
        return self._enough(f"histogram_quantile({share}, {buckets})")

    def _series(self, suffix: str, patterns: Mapping[str, str] | None = None) -> str:
        return selector(self.metric + suffix, self.slot.labels, patterns or {})

    def _rate(self, suffix: str) -> str:
        return f"sum(rate({self._series(suffix)}[{self.window}]))"

    def _enough(self, expression: str) -> str:
        """Only with enough tokens; a comparison drops NaN."""
        count = f"sum(increase({self._series('_count')}[{self.window}]))"
        return f"({expression}) >= 0 < Inf and {count} >= {self.least}"


def _errors(target: Target, names: Names, canary: str, window: str) -> str:
    """Share of requests that failed; without any failure there may be no series of failures."""

    def increase(metric: str, patterns: Mapping[str, str]) -> str:
        series = selector(metric, target.slots[canary].labels, patterns)
        return f"sum(increase({series}[{window}]))"

    failed, total = [], increase(names.requests, {})
    if names.errors:
        failed.append(f"({increase(names.requests, names.errors)} or vector(0))")
    if names.error_counter:
        others = f"({increase(names.error_counter, {})} or vector(0))"
        failed.append(others)
        total = f"({total} + {others})"
    share = f"({' + '.join(failed)}) / {total}"
    return f"({share}) >= 0 < Inf and {total} >= {target.analysis.minimum_requests}"


def _alert(alert: AlertRule) -> str:
    """How many alerts of a name fire."""
    labels = {**alert.labels, "alertname": alert.name, "alertstate": "firing"}
    return f"count({selector('ALERTS', labels)}) or vector(0)"


def _own(query: QueryRule, target: Target, canary: str) -> str:
    """An own expression, only where it gives exactly one finite number."""
    bare = _STRINGS.sub("", query.query)
    if "{{" in query.query or "#" in bare:
        raise ConfigError(
            f"query {query.name} holds '{{{{' or a comment, which other controllers would change",
            where=target.name,
        )
    (baseline,) = set(target.slots) - {canary}
    labels = (matchers(target.slots[slot].labels) for slot in (canary, baseline))
    text = promql.with_slots(query.query, *labels)
    return f"({text}) > -Inf < Inf and on() count({text}) == 1"


def selector(
    metric: str, labels: Mapping[str, str], patterns: Mapping[str, str] | None = None
) -> str:
    """A metric with matchers that neither a template nor a squeezing of spaces changes."""
    return f"{metric}{{{matchers(labels, patterns or {})}}}"


def matchers(labels: Mapping[str, str], patterns: Mapping[str, str] | None = None) -> str:
    """As ``promql.matchers``. Raises: ConfigError for what is no label."""
    try:
        text = promql.matchers(labels, patterns or {})
    except ValueError as error:
        raise ConfigError(f"labels: {error}") from None
    # Both controllers take {{ for the start of a variable; Flagger makes one space of many.
    return text.replace("{{", "{\\u007b").replace("  ", " \\u0020")
