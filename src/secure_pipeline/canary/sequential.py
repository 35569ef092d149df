"""Evidence that may be looked at after every window: wealth of bets against a hypothesis.

A bet whose expected payoff under the hypothesis is at most its stake makes the wealth a
nonnegative supermartingale that starts at 1, so the chance that it ever reaches 1/α is at most α
(Ville 1939): there is no wrong moment to look. The unit is a request, or a group of them that
share one fate; a token is none. Formulas, proofs, sources: docs/reference/canary-statistics.md.

All wealth is held as natural logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

CAP = math.log(10)
"""One window multiplies the evidence for an abort by at most 10: a single pause decides nothing."""
RESERVE = 10.0
"""Wealth is given away beyond this many times what a conclusion needs: old evidence fades."""
_NOTHING = -1e300
"""Logarithm of no wealth, as a finite number: adding to it and ``exp`` of it are exact."""
_STEPS = 8
_ODDS = (1.5, 2.0, 4.0, 8.0, 16.0, 64.0, 1024.0)
_BETTER = (0.0, 1 / 8, 1 / 4, 1 / 2)


@dataclass(frozen=True)
class Units:
    """So many independent units, of which so many were bad; both may be fractions."""

    count: float = 0.0
    bad: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.count) and 0 <= self.bad <= self.count):
            raise ValueError(f"{self.bad} bad ones of {self.count}")

    @property
    def share(self) -> float:
        """Share that was bad; 0 of nothing."""
        return self.bad / self.count if self.count else 0.0

    def __add__(self, other: Units) -> Units:
        return Units(self.count + other.count, self.bad + other.bad)


@dataclass(frozen=True)
class Bets:
    """Wealth spread over several bets, with cash from which each round begins bets anew.

    Before round j the share 1/(j (j + 1)) of the first wealth leaves the cash, in equal parts to
    all bets. So a version that turns bad late is not shielded by the bets that it made lose.
    """

    logs: tuple[float, ...]
    rounds: int = 0

    def __post_init__(self) -> None:
        if not self.logs or not all(math.isfinite(log) for log in self.logs) or self.rounds < 0:
            raise ValueError("no wealth")

    @classmethod
    def none(cls, number: int) -> Bets:
        """All wealth is cash: 1."""
        return cls((_NOTHING,) * number)

    @property
    def log(self) -> float:
        """Logarithm of all wealth."""
        return log_sum((*self.logs, -math.log(self.rounds + 1)))

    def play(self, payoffs: Sequence[float], ceiling: float) -> Bets:
        """Play one round. ``payoffs``: logarithm of each bet's factor, counted up to ``CAP``."""
        j = self.rounds + 1
        fresh = -math.log(j) - math.log(j + 1) - math.log(len(self.logs))
        logs = tuple(
            max(_NOTHING, _plus(log, fresh) + min(payoff, CAP))
            for log, payoff in zip(self.logs, payoffs, strict=True)
        )
        return Bets(lowered(logs, ceiling), j)


@dataclass(frozen=True)
class OverLimit:
    """Evidence against: of every unit, given the past, a share of at most ``limit`` is bad."""

    limit: float
    bets: Bets = Bets.none(_STEPS)

    def __post_init__(self) -> None:
        _check(self.limit, self.bets.logs, _STEPS)

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares that are bet on, from just over the limit to 1, evenly on a logarithmic scale."""
        return tuple(self.limit ** (1 - k / _STEPS) for k in range(1, _STEPS + 1))

    def seen(self, canary: Units, ceiling: float) -> OverLimit:
        """Add one window."""
        if not canary.count:
            return self
        payoffs = [likelihood(canary, share, self.limit) for share in self.shares]
        return replace(self, bets=self.bets.play(payoffs, ceiling))


@dataclass(frozen=True)
class WorseThanBaseline:
    """Evidence against: in each window the canary's share is at most the baseline's.

    The baseline's share may be any, and another in each window.
    """

    limit: float
    """What the baseline's share is guessed to be as long as nothing was seen of it, twice."""
    baseline: Units = Units()
    """All that was seen of the baseline before."""
    bets: Bets = Bets.none(len(_ODDS))

    def __post_init__(self) -> None:
        _check(self.limit, self.bets.logs, len(_ODDS))

    def seen(self, canary: Units, baseline: Units, ceiling: float) -> WorseThanBaseline:
        """Add one window."""
        bets = self.bets
        if canary.count and baseline.count:
            payoffs = [self.payoff(odds, canary, baseline) for odds in _ODDS]
            bets = bets.play(payoffs, ceiling)
        return replace(self, baseline=self.baseline + baseline, bets=bets)

    def payoff(self, odds: float, canary: Units, baseline: Units) -> float:
        """Logarithm of the factor of the bet on this odds ratio."""
        there = (self.baseline.bad + self.limit / 2) / (self.baseline.count + 1)
        here = odds * there / (1 - there + odds * there)
        part = canary.count / (canary.count + baseline.count)
        pooled = there + part * (here - there)
        if not 0 < pooled < 1:
            return 0.0  # rounded to an end of the scale: no bet is placed
        return likelihood(canary, here, pooled) + likelihood(baseline, there, pooled)


@dataclass(frozen=True)
class WithinLimit:
    """Evidence against: of every unit, given the past, a share of at least ``limit`` is bad."""

    limit: float
    logs: tuple[float, ...] = (-math.log(len(_BETTER)),) * len(_BETTER)

    def __post_init__(self) -> None:
        _check(self.limit, self.logs, len(_BETTER))

    @property
    def log(self) -> float:
        """Logarithm of all wealth."""
        return log_sum(self.logs)

    def seen(self, canary: Units, ceiling: float) -> WithinLimit:
        """Add one window."""
        shares = (self.limit * part for part in _BETTER)
        logs = tuple(
            max(_NOTHING, log + likelihood(canary, share, self.limit))
            for log, share in zip(self.logs, shares, strict=True)
        )
        return replace(self, logs=lowered(logs, ceiling))


def likelihood(seen: Units, share: float, under: float) -> float:
    """Logarithm of ``(share/under)^bad · ((1-share)/(1-under))^good``.

    For a bad part y of one unit, from 0 to 1, this is at most the payoff 1 + λ (y - under) of a
    bet that is linear in y: a weighted geometric mean is at most the arithmetic one.
    """
    good = seen.count - seen.bad
    return max(_NOTHING, _power(seen.bad, share / under) + _power(good, (1 - share) / (1 - under)))


def _power(exponent: float, base: float) -> float:
    if exponent <= 0:
        return 0.0
    return exponent * math.log(base) if base > 0 else _NOTHING


def log_sum(logs: Sequence[float]) -> float:
    """Logarithm of the sum of what ``logs`` are the logarithms of."""
    top = max(logs)
    return top + math.log(sum([math.exp(log - top) for log in logs]))


def _plus(one: float, other: float) -> float:
    top, low = (one, other) if one > other else (other, one)
    return top + math.log1p(math.exp(low - top))


def lowered(logs: tuple[float, ...], ceiling: float) -> tuple[float, ...]:
    """Give away what exceeds the ceiling (logarithm), in equal proportion."""
    excess = log_sum(logs) - ceiling
    return logs if excess <= 0 else tuple(max(_NOTHING, log - excess) for log in logs)


def _check(limit: float, logs: Sequence[float], number: int) -> None:
    if not 0 < limit < 1:
        raise ValueError(f"a limit of {limit} is not between 0 and 1")
    if len(logs) != number or not all(math.isfinite(log) for log in logs):
        raise ValueError("no wealth")
