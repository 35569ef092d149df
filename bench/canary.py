"""The canary's analysis beside the decision rules of Flagger, Argo Rollouts and Kayenta, simulated.

All judge the same seeded traces: requests of several tokens each, of unequal length, whose tokens
share a factor, so that slow tokens cluster; 5 % of the traffic for half an hour,
a scrape every 5 s.
All have the same limits: 5 % of tokens over 150 ms (a 95th percentile of 150 ms), 1 % of requests
failed. What each rule does, and where it was read: docs/reference/canary-statistics.md.

    python bench/canary.py [--seed N] [--traces PERCENT] [--processes N]
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, Protocol

from secure_pipeline.canary.analysis import Analysis
from secure_pipeline.canary.model import Counts, Estimate, Health, Sample, Window
from secure_pipeline.canary.target import AnalysisConfig, Rules

RESULTS = Path(__file__).resolve().parent / "results"
SCRAPE, LENGTH = 5, 1800
LIMIT, SLOW_SHARE, ERROR_SHARE = 0.150, 0.05, 0.01
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


class Seen(NamedTuple):
    """What one version did in a while; also one request."""

    requests: int = 0
    tokens: int = 0
    slow: int = 0
    seconds: float = 0.0
    errors: int = 0
    bad: int = 0
    """Requests that failed, or most of whose tokens were slow."""

    def plus(self, other: Seen) -> Seen:
        """Both together."""
        return Seen(*map(sum, zip(self, other, strict=True)))


@dataclass(frozen=True)
class Profile:
    """How a version behaves for a while."""

    seconds: float = 0.030
    hiccups: float = 0.005
    """Share of requests that are eight times as slow."""
    errors: float = 0.002

    def request(self, draw: random.Random, place: float) -> Seen:
        """Draw one; one that fails has no token. ``place``: 0 to 1, so that shares are exact."""
        if place < self.errors:
            return Seen(1, errors=1, bad=1)
        pace = self.seconds * math.exp(draw.gauss(0, 0.35))
        if place < self.errors + self.hiccups:
            pace *= 8
        tokens = [
            pace * math.exp(draw.gauss(0, 0.3)) for _ in range(1 + int(draw.expovariate(1 / 9)))
        ]
        slow = sum(token > LIMIT for token in tokens)
        return Seen(1, len(tokens), slow, sum(tokens), 0, int(2 * slow > len(tokens)))


GOOD, PAUSED = Profile(), Profile(seconds=0.240)
OVER = Profile(hiccups=0.12)


class Mix(NamedTuple):
    """Profiles of a window, and the part of its requests that the second one gets."""

    first: Profile
    second: Profile = GOOD
    part: float = 0.0


Plan = Callable[[random.Random], Callable[[int], tuple[Mix, Mix]]]
"""Draws the events of a trace; then gives the mixes of canary and baseline for a scrape."""


def steady(canary: Profile, baseline: Profile = GOOD) -> Plan:
    """Nothing changes."""
    return lambda draw: lambda index: (Mix(canary), Mix(baseline))


def episodes(draw: random.Random, every: float, shortest: float, longest: float) -> list[float]:
    """Part of each scrape's time that lies in an episode."""
    parts, time = [0.0] * (LENGTH // SCRAPE), draw.expovariate(1 / every)
    while time < LENGTH:
        end = time + draw.uniform(shortest, longest)
        for index in range(int(time // SCRAPE), min(len(parts), int(end // SCRAPE) + 1)):
            inside = min(end, SCRAPE * (index + 1)) - max(time, SCRAPE * index)
            parts[index] = min(1.0, parts[index] + inside / SCRAPE)
        time = end + draw.expovariate(1 / every)
    return parts


def disturbed(draw: random.Random) -> Callable[[int], tuple[Mix, Mix]]:
    """Both are slow at the same times, for a minute or two."""
    parts = episodes(draw, 600, 60, 120)
    return lambda index: (Mix(GOOD, PAUSED, parts[index]), Mix(GOOD, PAUSED, parts[index]))


def pausing(every: float) -> Plan:
    """Each version pauses at times of its own: all its requests then share one fate."""

    def plan(draw: random.Random) -> Callable[[int], tuple[Mix, Mix]]:
        ours, theirs = (episodes(draw, every, 3, 10) for _ in range(2))
        return lambda index: (Mix(GOOD, PAUSED, ours[index]), Mix(GOOD, PAUSED, theirs[index]))

    return plan


def drifting(draw: random.Random) -> Callable[[int], tuple[Mix, Mix]]:
    """The canary gets worse all the time, as with a leak."""
    return lambda index: (Mix(GOOD, PAUSED, 0.4 * index * SCRAPE / LENGTH), Mix(GOOD))


class Kind(NamedTuple):
    """What is simulated."""

    name: str
    healthy: bool
    traces: int
    plan: Plan
    rate: float = 20.0
    """Requests a second, of both."""


KINDS = (
    Kind("healthy, equal", True, 120, steady(GOOD)),
    Kind("healthy, tenfold traffic", True, 20, steady(GOOD), 200.0),
    Kind("healthy, shared disturbances", True, 80, disturbed),
    Kind("healthy, independent pauses every 4 min", True, 80, pausing(240)),
    Kind("healthy, independent pauses every 2 min", True, 60, pausing(120)),
    Kind("healthy, low traffic", True, 30, steady(GOOD), 0.5),
    Kind("both over the limit alike", True, 50, steady(OVER, OVER)),
    Kind("canary 400 ms a token", False, 30, steady(Profile(seconds=0.4))),
    Kind("canary 180 ms a token", False, 30, steady(Profile(seconds=0.18))),
    Kind("canary 20 % of requests slow", False, 30, steady(Profile(hiccups=0.2))),
    Kind("canary 3 % errors", False, 30, steady(Profile(errors=0.03))),
    Kind("canary 100 % errors", False, 30, steady(Profile(errors=1.0))),
    Kind("slow drift to 40 % slow", False, 30, drifting),
    Kind("low traffic, 400 ms a token", False, 30, steady(Profile(seconds=0.4)), 0.5),
)
POOL = 10_000


@lru_cache
def pool(seed: int, profile: Profile) -> tuple[Seen, ...]:
    """Simulated requests of a profile: a trace draws from them."""
    draw = random.Random(f"{seed}/{profile}")
    return tuple(profile.request(draw, index / POOL) for index in range(POOL))


class Requests:
    """How many requests come in a window, and which."""

    def __init__(self, seed: int, draw: random.Random) -> None:
        self._seed = seed
        self._draw = draw

    def window(self, mix: Mix, rate: float) -> Seen:
        """What one version does between two scrapes. ``rate``: requests a second."""
        second = self._some(mix.second, rate * SCRAPE * mix.part) if mix.part else Seen()
        return self._some(mix.first, rate * SCRAPE * (1 - mix.part)).plus(second)

    def _some(self, profile: Profile, expected: float) -> Seen:
        count = self._poisson(expected)
        if not count:
            return Seen()
        drawn = self._draw.choices(pool(self._seed, profile), k=count)
        return Seen(*map(sum, zip(*drawn, strict=True)))

    def _poisson(self, expected: float) -> int:
        if expected > 50:
            return max(0, round(self._draw.gauss(expected, math.sqrt(expected))))
        count, left = 0, self._draw.expovariate(1)
        while left < expected:
            count, left = count + 1, left + self._draw.expovariate(1)
        return count


class Rule(Protocol):
    """Sees each scrape's window; True once it would abort."""

    def sees(self, index: int, canary: Seen, baseline: Seen) -> bool:
        """Count the scrape with this number, from 0."""


class Ours:
    """``Analysis`` with its defaults. Windows grow until they hold enough, as the sampler's do."""

    def __init__(self, per_unit: float = 1.0) -> None:
        self.analysis = Analysis.begin(Rules(), AnalysisConfig(requests_per_unit=per_unit))
        self.canary = self.baseline = Seen()
        self.begun, self.looks, self.row = 0.0, 0, 0
        self.passed: float | None = None

    def sees(self, index: int, canary: Seen, baseline: Seen) -> bool:
        """Judge at the times that the rule looks at."""
        self.canary, self.baseline = self.canary.plus(canary), self.baseline.plus(baseline)
        if max(self.canary.tokens, self.canary.requests) < 20:
            self.row = 0
            return False
        ended = float(SCRAPE * (index + 1))
        window = Window(self.begun, ended, *map(self._counts, (self.canary, self.baseline)))
        self.begun, self.canary, self.baseline = ended, Seen(), Seen()
        self.looks += 1
        time = BEGIN + timedelta(seconds=ended)
        self.analysis, look = self.analysis.observe(Sample(window), self.looks, time)
        self.row = self.row + 1 if look.health is Health.HEALTHY else 0
        if self.row >= 3 and ended >= 60 and self.passed is None:
            self.passed = ended
        return look.health is Health.BAD

    @staticmethod
    def _counts(seen: Seen) -> Counts:
        slow = Estimate(seen.slow, seen.slow, seen.slow)
        return Counts(seen.tokens, slow, seen.seconds, None, seen.requests, seen.errors, 0)


@dataclass
class Threshold:
    """Each minute the last minute's shares against the limits; aborts after so many failures.

    ``late``: Flagger compares the count before its next check, a minute later. Failures are
    never taken back by either.
    """

    allowed: int
    late: bool
    empty_fails: bool
    recent: list[Seen] = field(default_factory=list)
    failures: int = 0

    def sees(self, index: int, canary: Seen, baseline: Seen) -> bool:
        """Judge at the times that the rule looks at."""
        self.recent.append(canary)
        if (index + 1) % 12:
            return False
        reached = self.failures > self.allowed
        whole = Seen(*map(sum, zip(*self.recent[-12:], strict=True)))
        self.recent = []
        failed = over(whole.errors, whole.requests, ERROR_SHARE, self.empty_fails)
        failed |= over(whole.slow, whole.tokens, SLOW_SHARE, self.empty_fails)
        self.failures += failed
        return reached if self.late else self.failures > self.allowed


def over(bad: int, of: int, limit: float, empty: bool) -> bool:
    """Whether a share is over its limit; of nothing, as told."""
    return bad > limit * of if of else empty


@dataclass
class MannWhitney:
    """As Kayenta's judge: points of 30 s, 98 % interval of the shift, a quarter of it tolerated.

    Looked at each minute from the tenth point on; one metric that is classified high aborts.
    """

    points: list[tuple[Seen, Seen]] = field(default_factory=list)
    recent: list[tuple[Seen, Seen]] = field(default_factory=list)

    def sees(self, index: int, canary: Seen, baseline: Seen) -> bool:
        """Judge at the times that the rule looks at."""
        self.recent.append((canary, baseline))
        if len(self.recent) < 6:
            return False
        ours, theirs = (
            Seen(*map(sum, zip(*side, strict=True))) for side in zip(*self.recent, strict=True)
        )
        self.points.append((ours, theirs))
        self.recent = []
        if len(self.points) < 10 or len(self.points) % 2:
            return False
        return any(
            high(*(self._series(side, bad, of) for side in (0, 1)))
            for bad, of in (("slow", "tokens"), ("errors", "requests"))
        )

    def _series(self, side: int, bad: str, of: str) -> list[float]:
        seen = [point[side] for point in self.points]
        return [getattr(s, bad) / getattr(s, of) for s in seen if getattr(s, of)]


def high(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Whether the lower end of the shift's interval is over a quarter of the shift."""
    n, m = len(ours), len(theirs)
    if n < 5 or m < 5:
        return False
    differences = sorted(a - b for a in ours for b in theirs)
    place = math.floor(n * m / 2 - 2.326 * math.sqrt(n * m * (n + m + 1) / 12))
    return place > 0 and differences[place] > 0.25 * abs(statistics.median(differences))


RULES: dict[str, Callable[[], Rule]] = {
    "ours": Ours,
    "ours, 5 requests a unit": partial(Ours, 5.0),
    "Flagger, threshold 1": partial(Threshold, 0, True, True),
    "Flagger, threshold 5": partial(Threshold, 4, True, True),
    "Argo, failureLimit 0": partial(Threshold, 0, False, False),
    "Argo, failureLimit 3": partial(Threshold, 3, False, False),
    "Mann-Whitney": MannWhitney,
}


class Outcome(NamedTuple):
    """One rule on one trace."""

    aborted: float | None
    """Seconds."""
    bad: int
    """Bad requests that the canary had served until then."""
    passed: bool
    """Ours only: the step was passed, and not after an abort."""


def trace(seed: int, job: tuple[int, int]) -> tuple[int, dict[str, Outcome]]:
    """Simulate one trace before all rules."""
    kind, draw = KINDS[job[0]], random.Random(f"{seed}/{job[0]}/{job[1]}")
    requests, mixes = Requests(seed, draw), kind.plan(draw)
    rules = {name: make() for name, make in RULES.items()}
    open_, outcomes, bad = dict(rules), {}, 0
    for index in range(LENGTH // SCRAPE):
        mix = mixes(index)
        canary = requests.window(mix[0], kind.rate * 0.05)
        baseline = requests.window(mix[1], kind.rate * 0.95)
        bad += canary.bad
        for name, rule in list(open_.items()):
            if rule.sees(index, canary, baseline):
                passed = isinstance(rule, Ours) and rule.passed is not None
                outcomes[name] = Outcome(SCRAPE * (index + 1), bad, passed)
                del open_[name]
        if not open_:
            break
    for name, rule in open_.items():
        outcomes[name] = Outcome(None, bad, isinstance(rule, Ours) and rule.passed is not None)
    return job[0], outcomes


def rows(found: dict[int, list[dict[str, Outcome]]]) -> Iterator[str]:
    """The table, as Markdown."""
    yield "| kind (traces) | rule | aborts | median time to abort | bad requests, median | passed |"
    yield "|---|---|---:|---:|---:|---:|"
    for number, kind in enumerate(KINDS):
        for name in RULES:
            outcomes = [trace[name] for trace in found[number]]
            times = [o.aborted for o in outcomes if o.aborted is not None]
            median = f"{statistics.median(times):.0f} s" if times else "–"
            bad = f"{statistics.median(o.bad for o in outcomes):.0f}"
            passed = f"{sum(o.passed for o in outcomes) / len(outcomes):.0%}"
            yield (
                f"| {kind.name} ({len(outcomes)}) | {name} | {len(times) / len(outcomes):.0%} | "
                f"{median} | {bad} | {passed if name.startswith('ours') else ''} |"
            )


def summary(found: dict[int, list[dict[str, Outcome]]]) -> Iterator[str]:
    """One row a rule, over all kinds."""
    yield "| rule | false aborts | bad versions aborted | median time | bad requests, mean |"
    yield "|---|---:|---:|---:|---:|"
    for name in RULES:
        healthy = [t[name] for n, kind in enumerate(KINDS) if kind.healthy for t in found[n]]
        broken = [t[name] for n, kind in enumerate(KINDS) if not kind.healthy for t in found[n]]
        times = [o.aborted for o in broken if o.aborted is not None]
        false = sum(o.aborted is not None for o in healthy)
        yield (
            f"| {name} | {false} of {len(healthy)} ({false / len(healthy):.1%}) | "
            f"{len(times) / len(broken):.0%} | {statistics.median(times):.0f} s | "
            f"{statistics.fmean(o.bad for o in broken):.0f} |"
        )


def main() -> None:
    """Simulate, print the tables, and keep them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--traces", type=int, default=100, help="per cent of the usual number")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    jobs = [
        (number, turn)
        for number, kind in enumerate(KINDS)
        for turn in range(max(1, kind.traces * asked.traces // 100))
    ]
    found: dict[int, list[dict[str, Outcome]]] = defaultdict(list)
    with get_context("fork").Pool(asked.processes) as workers:
        for number, outcomes in workers.imap(partial(trace, asked.seed), jobs, chunksize=4):
            found[number].append(outcomes)
    command = f"python bench/canary.py --seed {asked.seed} --traces {asked.traces}"
    text = "\n".join(
        (f"{len(jobs)} traces, `{command}`", "", *summary(found), "", *rows(found), "")
    )
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "canary.md").write_text(text)


if __name__ == "__main__":
    main()
