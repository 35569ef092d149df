"""What is seen of two versions side by side, and what the rules say about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum


class Health(Enum):
    """What one rule, or all of them, say about the canary at one look."""

    HEALTHY = "healthy"
    """Shown to be within the rule."""
    BAD = "bad"
    """Shown to break it."""
    UNDETERMINED = "undetermined"
    """There are samples, and they show neither yet."""
    NO_DATA = "no-data"
    """There is nothing to judge by; never a pass, never a breach."""


@dataclass(frozen=True)
class Estimate:
    """A number between two bounds, which are equal where it is exact."""

    low: float
    value: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and 0 <= self.low <= self.value <= self.high):
            raise ValueError(f"no estimate: {self.low}, {self.value}, {self.high}")

    @property
    def exact(self) -> bool:
        """Whether nothing had to be interpolated."""
        return self.low == self.high


@dataclass(frozen=True)
class Counts:
    """What one version did in one window: increases of its counters, exact."""

    tokens: float
    slow: Estimate
    """Tokens over the latency limit."""
    token_seconds: float
    """Sum of the latencies of all tokens."""
    p95: Estimate | None
    """Seconds a token, 95th percentile; None without tokens, or over the last bucket's edge."""
    requests: float
    errors: float
    """Requests among them that failed."""
    restarts: int
    """Times that an instance began anew, seen by its start time or by a counter that fell."""

    def __post_init__(self) -> None:
        numbers = (self.tokens, self.token_seconds, self.requests, self.errors)
        if not all(math.isfinite(n) and n >= 0 for n in numbers) or self.restarts < 0:
            raise ValueError(f"no counts: {numbers}, {self.restarts}")
        if self.errors > self.requests or self.slow.high > self.tokens:
            raise ValueError("more errors than requests, or more slow tokens than tokens")

    @property
    def mean(self) -> float | None:
        """Seconds a token; None without tokens."""
        return self.token_seconds / self.tokens if self.tokens else None


@dataclass(frozen=True)
class Window:
    """Both versions over the same stretch of time, between two scrapes of each."""

    begun: float
    """Seconds since 1970 by the metrics service's clock."""
    ended: float
    canary: Counts
    baseline: Counts

    def __post_init__(self) -> None:
        if not self.begun < self.ended:
            raise ValueError(f"a window from {self.begun} to {self.ended}")


@dataclass(frozen=True)
class NoData:
    """Why there is no window to judge."""

    why: str


@dataclass(frozen=True)
class QueryResult:
    """What an expression of the operator gave: a finite number, or why there is none."""

    name: str
    value: float | NoData


@dataclass(frozen=True)
class AlertState:
    """Whether a named alert fires, or why that cannot be told."""

    name: str
    firing: bool | NoData


@dataclass(frozen=True)
class Sample:
    """Everything that one look at the metrics gave."""

    window: Window | NoData
    queries: tuple[QueryResult, ...] = ()
    alerts: tuple[AlertState, ...] = ()


@dataclass(frozen=True)
class RuleState:
    """One rule at one look."""

    rule: str
    """``latency``, ``errors``, ``restarts``, ``mean``, ``p95``, ``alert:NAME``, ``query:NAME``."""
    hard: bool
    """A conclusive breach aborts at once; a soft rule's breach costs the failure budget."""
    health: Health
    why: str
    """One line for people, with the numbers that decide."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Finite numbers, keys stable: docs/reference/canary.md lists them."""


@dataclass(frozen=True)
class Look:
    """One look at the canary, and what all rules say."""

    number: int
    time: datetime
    window: Window | NoData
    rules: tuple[RuleState, ...]
    budget_left: int
    """Breaches of soft rules that are still allowed."""

    @property
    def health(self) -> Health:
        """BAD over NO_DATA over UNDETERMINED over HEALTHY; without rules there is no data.

        A soft breach within the budget stands as BAD at its rule, and makes the look
        UNDETERMINED.
        """
        found = {self._counted(rule) for rule in self.rules}
        order = (Health.BAD, Health.NO_DATA, Health.UNDETERMINED, Health.HEALTHY)
        return next((health for health in order if health in found), Health.NO_DATA)

    @property
    def decider(self) -> RuleState | None:
        """The first rule that makes the health what it is; None without rules."""
        return next((rule for rule in self.rules if self._counted(rule) is self.health), None)

    def _counted(self, rule: RuleState) -> Health:
        tolerated = rule.health is Health.BAD and not rule.hard and self.budget_left >= 0
        return Health.UNDETERMINED if tolerated else rule.health


Looks = Sequence[Look]
