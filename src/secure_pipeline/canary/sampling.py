"""Windows of both versions from the raw samples of a metrics service.

What is counted lies between two scrapes of each series, so it is exact; ``increase()`` would
extrapolate. A window ends at the time that all instances of both slots are scraped up to, each
at its own scrape nearest to it; what has come after waits for the next window, so that nothing
is lost and nothing counts twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from secure_pipeline.canary.counters import (
    Counting,
    Malformed,
    Place,
    Scrape,
    SlotSeries,
    nearest,
)
from secure_pipeline.canary.model import AlertState, NoData, QueryResult, Sample, Window
from secure_pipeline.canary.readiness import Readiness, examine
from secure_pipeline.canary.reading import Reader
from secure_pipeline.canary.target import AlertRule, QueryRule, Target
from secure_pipeline.errors import Inconclusive, Unavailable
from secure_pipeline.ports import Alert, Metrics

LONGEST = 3600.0
"""Seconds. Scrapes further back than this and ``stale_after`` are not asked for."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Cut:
    """Scrapes to count next, by slot and instance, and the time that they reach to."""

    time: float
    scrapes: Mapping[str, Mapping[Place, list[Scrape]]]


class _Wait(Exception):
    """There is nothing to count yet; the text says why."""


class Sampler:
    """Looks at both slots of a target. One thread at a time."""

    def __init__(self, target: Target, canary: str, metrics: Metrics) -> None:
        """``canary``: the slot under trial. Raises: ConfigError."""
        self._reader = Reader(target, canary, metrics)
        self._target = target
        self._metrics = metrics
        self._slots = self._reader.slots
        self._limit = target.rules.latency.limit.total_seconds()
        self._stale = target.analysis.stale_after.total_seconds()
        self._counting = {slot: Counting(self._reader.names) for slot in self._slots}
        self._after: float | None = None
        """Only scrapes after this count; None: after the next time that the service tells."""
        self._newest = 0.0
        self._begun: float | None = None
        self._ended = 0.0

    def check(self) -> tuple[str, ...]:
        """What stands against a promotion before it begins: one line a problem.

        An own expression without a result yet is none. Changes nothing.
        """
        return self.examine().problems

    def notes(self) -> tuple[str, ...]:
        """What is worth knowing, such as how exact the latency limit can be judged."""
        return self.examine().notes

    def examine(self) -> Readiness:
        """Both of these by one look."""
        return examine(self._reader)

    def mark(self) -> None:
        """Traffic was just moved: only scrapes from now on count, by the service's clock.

        If it cannot be asked now, everything before its next answer counts as before the move.
        """
        self._after = self._begun = None
        for counting in self._counting.values():
            counting.drop()
        with suppress(Unavailable, Inconclusive):
            self._now()

    def sample(self) -> Sample:
        """Look once. Trouble with metrics is NoData; once the service fails, it is left alone."""
        ask = _Asking()
        now = ask(self._now)
        window: Window | NoData = now if isinstance(now, NoData) else ask(lambda: self._window(now))
        alerts = self._alerts(ask)
        queries = tuple(
            QueryResult(rule.name, self._query(ask, rule)) for rule in self._target.rules.queries
        )
        return Sample(window, queries, alerts)

    def _now(self) -> float:
        """The service's time; settles a mark that waits for it."""
        now = self._metrics.clock()
        if self._after is None:
            # A clock that was set back must not make scrapes new that were seen before.
            self._after = max(now, self._newest)
        return now

    def _window(self, now: float) -> Window | NoData:
        try:
            return self._next(now)
        except _Wait as wait:
            return NoData(str(wait))
        except Malformed as error:
            return NoData(f"malformed metrics: {error}")

    def _next(self, now: float) -> Window | NoData:
        read = {slot: self._reader.read(slot, self._reach(now)) for slot in self._slots}
        live = {slot: self._live(slot, read[slot], now) for slot in self._slots}
        if self._begun is None:
            self._begin(read, live)
        cut = self._cut(read, live)
        for slot, found in cut.scrapes.items():
            for place, scrapes in found.items():
                self._counting[slot].add(read[slot], place, scrapes)
            self._counting[slot].forget(now - self._back)
        self._ended = cut.time
        return self._closed()

    def _closed(self) -> Window | NoData:
        """The window, if it holds enough; else it grows."""
        canary, baseline = (self._counting[slot].counts(self._limit) for slot in self._slots)
        analysis = self._target.analysis
        # Restarts over the limit are conclusive without a single token.
        if canary.restarts <= self._target.rules.restarts:
            # A request that fails makes no token: as many of them make a window too. What a
            # window is must not depend on how its requests ended, so all of them count.
            if max(canary.tokens, canary.requests) < analysis.minimum_tokens:
                return NoData(f"{canary.tokens:g} of {analysis.minimum_tokens} tokens so far")
            if canary.requests < analysis.minimum_requests:
                return NoData(f"{canary.requests:g} of {analysis.minimum_requests} requests so far")
        assert self._begun is not None
        window = Window(self._begun, self._ended, canary, baseline)
        self._begun = self._ended
        for counting in self._counting.values():
            counting.clear()
        return window

    @property
    def _back(self) -> float:
        return LONGEST + self._stale

    def _reach(self, now: float) -> float:
        """Seconds to look back: to the last window's end, and a stretch before it."""
        assert self._after is not None
        since = self._after if self._begun is None else self._ended
        return min(max(0.0, now - since) + self._stale + 1.0, self._back)

    def _live(self, slot: str, read: SlotSeries, now: float) -> dict[Place, float]:
        """Instances of a slot that are being scraped, with the time of the last scrape."""
        newest = read.newest()
        if not newest:
            raise _Wait(f"no series of {slot}")
        last = max(newest.values())
        self._newest = max(self._newest, last)
        if now - last > self._stale:
            raise _Wait(f"stale: the last scrape of {slot} is {now - last:.0f} s old")
        return {place: time for place, time in newest.items() if now - time <= self._stale}

    def _begin(
        self, read: Mapping[str, SlotSeries], live: Mapping[str, Mapping[Place, float]]
    ) -> None:
        """Begin to count at the first time since the mark that both slots were scraped at."""
        assert self._after is not None
        firsts = []
        for slot in self._slots:
            times = [time for place in live[slot] for time in read[slot].times(place, self._after)]
            if not times:
                raise _Wait(f"no scrape of {slot} since traffic was moved")
            firsts.append(min(times))
        begun = max(firsts)
        chosen = {}
        for slot in self._slots:
            chosen[slot] = {
                place: self._at(read[slot], place, begun) for place in read[slot].instances
            }
            for scrapes in chosen[slot].values():
                self._counting[slot].check(read[slot], scrapes)
        for slot, found in chosen.items():
            for place, scrapes in found.items():
                self._counting[slot].add(read[slot], place, scrapes)
        self._begun = self._ended = begun

    def _at(self, read: SlotSeries, place: Place, time: float) -> list[Scrape]:
        """The one scrape of an instance since the mark that is nearest to a time, if any."""
        assert self._after is not None
        found = nearest(read.times(place, self._after), time)
        return [] if found is None else read.scrapes(place, self._after, found)[-1:]

    def _cut(
        self, read: Mapping[str, SlotSeries], live: Mapping[str, Mapping[Place, float]]
    ) -> _Cut:
        """Everything up to the time that all instances are scraped up to. Changes nothing."""
        assert self._after is not None
        ends = {slot: min(live[slot].values()) for slot in self._slots}
        time = min(ends.values())
        if time <= self._ended:
            slot = min(ends, key=lambda name: ends[name])
            raise _Wait(f"no new scrape of {slot}")
        scrapes: dict[str, dict[Place, list[Scrape]]] = {}
        for slot in self._slots:
            scrapes[slot] = {}
            for place in read[slot].instances:
                counted = self._counting[slot].last(place)
                since = self._after if counted is None else counted
                until = nearest(read[slot].times(place, self._after), time)
                if until is not None and until > since:
                    found = read[slot].scrapes(place, since, until)
                    self._counting[slot].check(read[slot], found)
                    scrapes[slot][place] = found
            if not scrapes[slot]:
                raise _Wait(f"no new scrape of {slot}")
        return _Cut(time, scrapes)

    def _alerts(self, ask: _Asking) -> tuple[AlertState, ...]:
        rules = self._target.rules.alerts
        names = [rule.name for rule in rules]
        together = ask(lambda: self._metrics.alerts(names)) if names else ()
        if not isinstance(together, NoData):
            return tuple(AlertState(rule.name, _fires(rule, together)) for rule in rules)
        # One that is unknown must not hide that another one fires.
        found = []
        for rule in rules:
            alone = ask(lambda name=rule.name: self._metrics.alerts([name]))  # type: ignore[misc]
            state = alone if isinstance(alone, NoData) else _fires(rule, alone)
            found.append(AlertState(rule.name, state))
        return tuple(found)

    def _query(self, ask: _Asking, rule: QueryRule) -> float | NoData:
        value = ask(lambda: self._metrics.value(self._reader.expression(rule)))
        return NoData("the result is empty") if value is None else value


class _Asking:
    """Asks one thing after the other until the service fails, then no more at this look."""

    def __init__(self) -> None:
        self._failed: NoData | None = None

    def __call__(self, question: Callable[[], _T]) -> _T | NoData:
        if self._failed is not None:
            return self._failed
        try:
            return question()
        except Unavailable as error:
            self._failed = NoData(str(error))
            return self._failed
        except Inconclusive as error:
            return NoData(str(error))


def _fires(rule: AlertRule, alerts: tuple[Alert, ...]) -> bool:
    return any(
        alert.name == rule.name
        and all(alert.labels.get(name) == text for name, text in rule.labels.items())
        for alert in alerts
    )
