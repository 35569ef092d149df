"""Exact increases of the raw counters of one slot, restarts included.

An instance is what Prometheus scrapes under one pair of ``job`` and ``instance``. All series of
one instance start again together: where one counter fell, or the start time of the process
changed, every one of them counts from 0, also those that have already grown past their old value.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from secure_pipeline.canary.histogram import Histogram
from secure_pipeline.canary.metricnames import Names
from secure_pipeline.canary.model import Counts
from secure_pipeline.ports import Series

Key = frozenset[tuple[str, str]]
"""All labels of a series, its name among them."""
Place = tuple[str, str]
"""``job`` and ``instance``."""
_SAME_START = 1.0
"""Seconds. Some exporters compute the start time anew, from a clock that is being adjusted."""


class Malformed(Exception):
    """Numbers that cannot be counters or a histogram."""


@dataclass(frozen=True)
class Scrape:
    """What one scrape of one instance gave: values of counters, and the start time."""

    time: float
    values: Mapping[Key, float]
    started: float | None
    known: Collection[Key]
    """Series among them that were seen before the window or the mark."""


@dataclass
class _Instance:
    """Where the counting of an instance stands."""

    time: float
    values: dict[Key, float]


@dataclass
class _Totals:
    buckets: dict[float, float] = field(default_factory=lambda: defaultdict(float))
    count: float = 0.0
    seconds: float = 0.0
    requests: float = 0.0
    errors: float = 0.0
    restarts: int = 0


class SlotSeries:
    """The series of one slot as they were just read, by instance."""

    def __init__(self, names: Names, series: Sequence[Series], failed: Collection[Key]) -> None:
        """``failed``: which series of ``requests`` count failures."""
        self._names = names
        self.failed = failed
        self.instances: dict[Place, dict[Key, Series]] = {}
        starts: dict[Place, list[Series]] = defaultdict(list)
        for item in series:
            place = (item.labels.get("job", ""), item.labels.get("instance", ""))
            if item.labels.get("__name__") == names.started:
                starts[place].append(item)
            else:
                self.instances.setdefault(place, {})[key_of(item)] = item
        self.starts = {place: starts[place] for place in self.instances if starts[place]}

    def times(self, place: Place, after: float) -> list[float]:
        """Times of an instance's scrapes after some time, in order."""
        listed = self.instances.get(place, {}).values()
        return sorted({time for item in listed for time, _ in item.samples if time > after})

    def newest(self) -> dict[Place, float]:
        """Time of each instance's last scrape."""
        return {place: self.times(place, -math.inf)[-1] for place in self.instances}

    def scrapes(self, place: Place, after: float, until: float) -> list[Scrape]:
        """An instance's scrapes in a stretch of time, in order. Raises: Malformed."""
        values: dict[float, dict[Key, float]] = {}
        known: set[Key] = set()
        for key, item in self.instances.get(place, {}).items():
            for time, value in item.samples:
                if time <= after:
                    known.add(key)
                elif time <= until:
                    values.setdefault(time, {})[key] = _counted(value, item)
        starts: dict[float, float] = {}
        for item in self.starts.get(place, []):
            for time, value in item.samples:
                if after < time <= until:
                    starts[time] = max(starts.get(time, 0.0), _counted(value, item))
        return [Scrape(time, values[time], starts.get(time), known) for time in sorted(values)]

    def histograms(self, scrape: Scrape) -> Iterator[Histogram]:
        """The latency histograms of one scrape, one for each set of labels. Raises: Malformed."""
        buckets: dict[Key, dict[float, float]] = defaultdict(dict)
        counts: dict[Key, float] = {}
        for key, value in scrape.values.items():
            labels = dict(key)
            name, edge = labels.pop("__name__"), labels.pop("le", None)
            if name == f"{self._names.latency}_bucket":
                buckets[frozenset(labels.items())][_edge(edge)] = value
            elif name == f"{self._names.latency}_count":
                counts[frozenset(labels.items())] = value
        if buckets.keys() != counts.keys():
            raise Malformed("buckets and counts of the latency do not belong together")
        try:
            yield from (Histogram.of(found, counts[labels]) for labels, found in buckets.items())
        except ValueError as error:
            raise Malformed(f"the histogram of latency is none: {error}") from None


class Counting:
    """What one slot did since its window began."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._instances: dict[Place, _Instance] = {}
        self._starts: dict[Place, tuple[float, float]] = {}
        """Last known start times, and when they were scraped. They are kept over marks, so that
        no restart hides behind one."""
        self._totals = _Totals()
        self._edges: tuple[float, ...] = ()

    @property
    def edges(self) -> tuple[float, ...]:
        """Edges of the buckets; () before the first scrape."""
        return self._edges

    def drop(self) -> None:
        """Forget all samples; the next scrape of each instance is where counting begins."""
        self._instances.clear()
        self._totals = _Totals()
        self._edges = ()

    def clear(self) -> None:
        """Begin the next window where this one ended."""
        self._totals = _Totals()

    def last(self, place: Place) -> float | None:
        """Time of the last scrape of an instance that was counted."""
        known = self._instances.get(place)
        return known.time if known else None

    def forget(self, before: float) -> None:
        """Forget instances that were last seen so long ago."""
        for place in [place for place, known in self._instances.items() if known.time < before]:
            del self._instances[place]
        for place in [place for place, (_, time) in self._starts.items() if time < before]:
            del self._starts[place]

    def check(self, series: SlotSeries, scrapes: Sequence[Scrape]) -> None:
        """Whether scrapes fit to what was counted. Raises: Malformed; nothing is changed."""
        edges = self._edges
        for scrape in scrapes:
            for found in series.histograms(scrape):
                edges = edges or found.edges
                if found.edges != edges:
                    raise Malformed("histograms with different buckets cannot be added")

    def add(self, series: SlotSeries, place: Place, scrapes: Sequence[Scrape]) -> None:
        """Count the scrapes of one instance, which ``check`` has seen; the first may be new."""
        for scrape in scrapes:
            if not self._edges:
                self._edges = next((found.edges for found in series.histograms(scrape)), ())
            known = self._instances.get(place)
            restarted = self._restarted(place, scrape, known)
            self._totals.restarts += restarted
            if scrape.started is not None:
                self._starts[place] = (scrape.started, scrape.time)
            if known is None:
                self._instances[place] = _Instance(scrape.time, dict(scrape.values))
                continue
            if restarted:
                known.values = dict.fromkeys(known.values, 0.0)
            for key, value in scrape.values.items():
                # One that appears in an instance that was there before has begun at 0.
                unseen = value if key in scrape.known and not restarted else 0.0
                self._count(key, value - known.values.get(key, unseen), key in series.failed)
            known.values.update(scrape.values)
            known.time = scrape.time

    def counts(self, limit: float) -> Counts:
        """What was counted since the window began. Raises: Malformed."""
        totals = self._totals
        try:
            found = Histogram.of(dict(totals.buckets) or {math.inf: 0.0}, totals.count)
        except ValueError as error:
            raise Malformed(f"the histogram of latency is none: {error}") from None
        return Counts(
            tokens=found.total,
            slow=found.over(limit),
            token_seconds=totals.seconds,
            p95=found.quantile(0.95),
            requests=totals.requests,
            errors=totals.errors,
            restarts=totals.restarts,
        )

    def _restarted(self, place: Place, scrape: Scrape, known: _Instance | None) -> bool:
        before = self._starts.get(place)
        if before is not None and scrape.started is not None:  # noqa: SIM102 - reads better
            if abs(scrape.started - before[0]) > _SAME_START:
                return True
        values = known.values if known else {}
        return any(value < values.get(key, 0.0) for key, value in scrape.values.items())

    def _count(self, key: Key, increase: float, failed: bool) -> None:
        labels, names, totals = dict(key), self._names, self._totals
        name = labels["__name__"]
        if name == names.requests:
            totals.requests += increase
            totals.errors += increase if failed else 0.0
        elif name == names.error_counter:
            totals.requests += increase
            totals.errors += increase
        elif name == f"{names.latency}_bucket":
            totals.buckets[_edge(labels.get("le"))] += increase
        elif name == f"{names.latency}_sum":
            totals.seconds += increase
        elif name == f"{names.latency}_count":
            totals.count += increase


def key_of(series: Series) -> Key:
    """What a series is known by."""
    return frozenset(series.labels.items())


def nearest(times: Sequence[float], time: float) -> float | None:
    """The one of some times that is next to another; None if there are none."""
    return min(times, key=lambda candidate: abs(candidate - time), default=None)


def _edge(text: str | None) -> float:
    try:
        edge = float(text or "")
    except ValueError:
        edge = math.nan
    if math.isnan(edge):
        raise Malformed(f"le={(text or '')[:40]!r} is no edge of a bucket")
    return edge


def _counted(value: float, series: Series) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise Malformed(f"{series.labels.get('__name__', '')[:100]} is {value}")
    return value
