"""What one statistical rule has seen, and what follows: bad, healthy, or nothing yet."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from secure_pipeline.canary.model import Counts, Health
from secure_pipeline.canary.sequential import (
    RESERVE,
    OverLimit,
    Units,
    WithinLimit,
    WorseThanBaseline,
)
from secure_pipeline.canary.target import AnalysisConfig

STATISTICAL_RULES = 2
"""Latency and errors: each gets an equal part of the false aborts that are allowed."""


@dataclass(frozen=True)
class Bounds:
    """One version in one window, as favourable, as likely and as unfavourable as it may be."""

    low: Units
    value: Units
    high: Units

    @classmethod
    def latency(cls, counts: Counts, per_unit: float) -> Bounds:
        """Requests, and the part of them that the share of slow tokens stands for."""
        count = counts.requests / per_unit if counts.tokens else 0.0

        def units(slow: float) -> Units:
            return Units(count, min(count, count * (slow / counts.tokens)) if count else 0.0)

        return cls(units(counts.slow.low), units(counts.slow.value), units(counts.slow.high))

    @classmethod
    def errors(cls, counts: Counts, per_unit: float) -> Bounds:
        """Requests, and those that failed."""
        units = Units(counts.requests / per_unit, counts.errors / per_unit)
        return cls(units, units, units)


@dataclass(frozen=True)
class Certainty:
    """Logarithms of the wealth that concludes."""

    abort: float
    advance: float

    @classmethod
    def of(cls, config: AnalysisConfig) -> Certainty:
        """What a configuration asks of each statistical rule."""
        return cls(
            math.log(STATISTICAL_RULES / float(config.false_abort)),
            -math.log(float(config.false_advance)),
        )


@dataclass(frozen=True)
class Evidence:
    """Everything that one rule knows."""

    over: OverLimit
    worse: WorseThanBaseline
    within: WithinLimit
    """Of this step."""
    canary: Units = field(default_factory=Units)
    """Since the step began."""
    baseline: Units = field(default_factory=Units)
    """Since the step began."""
    broken: bool = False
    """Whether it was concluded, once, that the canary breaks the rule."""

    @classmethod
    def none(cls, limit: float) -> Evidence:
        """Nothing was seen."""
        return cls(OverLimit(limit), WorseThanBaseline(limit), WithinLimit(limit))

    @property
    def limit(self) -> float:
        """Greatest share that is allowed."""
        return self.over.limit

    def __post_init__(self) -> None:
        if not self.over.limit == self.worse.limit == self.within.limit:
            raise ValueError("evidence about different limits")

    def renewed(self) -> Evidence:
        """A step begins: nothing speaks for the canary yet, all that speaks against it stays."""
        return replace(self, within=WithinLimit(self.limit), canary=Units(), baseline=Units())

    def seen(self, canary: Bounds, baseline: Bounds, certainty: Certainty) -> Evidence:
        """Add one window. Raises: ValueError if numbers leave all bounds."""
        for_abort = certainty.abort + math.log(RESERVE)
        over = self.over.seen(canary.low, for_abort)
        worse = self.worse.seen(canary.low, baseline.high, for_abort)
        within = self.within.seen(canary.high, certainty.advance + math.log(RESERVE))
        return Evidence(
            over,
            worse,
            within,
            self.canary + canary.value,
            self.baseline + baseline.value,
            self.broken or min(over.bets.log, worse.bets.log) >= certainty.abort,
        )

    def worse_shown(self, certainty: Certainty) -> bool:
        """Whether the canary is shown to be worse than the baseline, be it within the limit."""
        return self.worse.bets.log >= certainty.abort

    def health(self, certainty: Certainty) -> Health:
        """What all of it says."""
        if self.broken:
            return Health.BAD
        shown = self.within.log >= certainty.advance and self.over.bets.log < certainty.abort
        return Health.HEALTHY if shown else Health.UNDETERMINED

    def figures(self, certainty: Certainty) -> dict[str, float]:
        """Numbers for people and plots, all finite: docs/reference/canary.md."""
        against = min(self.over.bets.log, self.worse.bets.log) / certainty.abort
        return {
            "limit": self.limit,
            "canary_share_step": self.canary.share,
            "baseline_share_step": self.baseline.share,
            "units_step": self.canary.count,
            "baseline_units_step": self.baseline.count,
            "toward_abort": 1.0 if self.broken else clamp(against),
            "toward_over_limit": clamp(self.over.bets.log / certainty.abort),
            "toward_worse": clamp(self.worse.bets.log / certainty.abort),
            "toward_health": clamp(self.within.log / certainty.advance),
        }


def clamp(part: float) -> float:
    """From 0 to 1."""
    return min(1.0, max(0.0, part))
