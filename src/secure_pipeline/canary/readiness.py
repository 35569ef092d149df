"""Whether the metrics that a promotion will be judged by are there, before it begins."""

from __future__ import annotations

import math
from dataclasses import dataclass

from secure_pipeline.canary.counters import Malformed, SlotSeries
from secure_pipeline.canary.histogram import Histogram
from secure_pipeline.canary.reading import Reader
from secure_pipeline.canary.target import QueryRule
from secure_pipeline.errors import Inconclusive, Unavailable


@dataclass(frozen=True)
class Readiness:
    """One line each."""

    problems: tuple[str, ...]
    """What stands against a promotion."""
    notes: tuple[str, ...]
    """What is worth knowing."""


def examine(reader: Reader) -> Readiness:
    """Ask for everything that will be needed; trouble with the service is a problem."""
    try:
        now = reader.metrics.clock()
    except (Unavailable, Inconclusive) as error:
        return Readiness((f"metrics: {error}",), ())
    problems: list[str] = []
    notes: list[str] = []
    counted: set[str] = set()
    for slot in reader.slots:
        try:
            read = reader.read(slot, reader.target.analysis.stale_after.total_seconds())
        except (Unavailable, Inconclusive) as error:
            problems.append(f"{slot}: {error}")
            continue
        problems += [f"{slot}: {problem}" for problem in _missing(reader, read, now)]
        counted |= _label_names(reader, read)
        found, said = _latency(reader, read, now)
        problems += [f"{slot}: {problem}" for problem in found]
        notes += [f"{slot}: {note}" for note in said]
    problems += _requests(reader, counted)
    return Readiness((*problems, *_alerts(reader), *_queries(reader)), tuple(notes))


def _missing(reader: Reader, read: SlotSeries, now: float) -> list[str]:
    if not read.instances:
        stale = reader.target.analysis.stale_after.total_seconds()
        return [f"no series of {reader.names.latency} in the last {stale:g} s"]
    if not read.starts:
        return [f"no series of {reader.names.started}: restarts would not be seen"]
    return []


def _latency(reader: Reader, read: SlotSeries, now: float) -> tuple[list[str], list[str]]:
    """Problems with the histograms of the last scrapes, and notes."""
    found: set[tuple[float, ...]] = set()
    try:
        for place, time in read.newest().items():
            for scrape in read.scrapes(place, -math.inf, time)[-1:]:
                found |= {histogram.edges for histogram in read.histograms(scrape)}
    except Malformed as error:
        return [str(error)], []
    if not found:
        return ([f"no histogram {reader.names.latency}"] if read.instances else []), []
    if len(found) > 1:
        return ["its instances have histograms with different buckets"], []
    return _limit(reader.target.rules.latency.limit.total_seconds(), *found)


def _limit(limit: float, edges: tuple[float, ...]) -> tuple[list[str], list[str]]:
    low, high = Histogram(edges, (0.0,) * len(edges)).around(limit)
    if high == math.inf:
        return [f"the latency limit of {limit:g} s is over the last bucket's edge, {low:g} s"], []
    if low == high:
        return [], [f"tokens over {limit:g} s are counted exactly: it is a bucket's edge"]
    return [], [
        f"tokens over {limit:g} s are interpolated: the buckets' edges next to it are {low:g} s "
        f"and {high:g} s"
    ]


def _label_names(reader: Reader, read: SlotSeries) -> set[str]:
    """Names of the labels of all series of requests, and of the names of these metrics."""
    wanted = (reader.names.requests, reader.names.error_counter)
    keys = [dict(key) for listed in read.instances.values() for key in listed]
    chosen = [labels for labels in keys if labels["__name__"] in wanted]
    return {name for labels in chosen for name in labels} | {
        labels["__name__"] for labels in chosen
    }


def _requests(reader: Reader, found: set[str]) -> list[str]:
    """Counters of requests often appear with the first one: one slot's are enough."""
    names = reader.names
    problems = [
        f"no series of {name} in either slot"
        for name in (names.requests, names.error_counter)
        if name is not None and name not in found
    ]
    if not problems:
        problems = [
            f"no series of {names.requests} has a label {label}: no request could count as failed"
            for label in names.errors
            if label not in found
        ]
    return problems


def _alerts(reader: Reader) -> list[str]:
    names = [rule.name for rule in reader.target.rules.alerts]
    try:
        reader.metrics.alerts(names)
    except (Unavailable, Inconclusive) as error:
        return [f"alerts: {error}"]
    return []


def _queries(reader: Reader) -> list[str]:
    problems = []
    for rule in reader.target.rules.queries:
        try:
            _evaluate(reader, rule)
        except Inconclusive as error:
            problems.append(f"query {rule.name}: {error}")
        except Unavailable as error:
            return [*problems, f"query {rule.name}: {error}"]
    return problems


def _evaluate(reader: Reader, rule: QueryRule) -> None:
    """Raises: Unavailable, Inconclusive; not for NaN, which 0/0 is before there is traffic."""
    expression = reader.expression(rule)
    try:
        reader.metrics.value(expression)
    except Inconclusive as error:
        try:  # NaN equals nothing: without it the result is empty, all else stays as wrong
            reader.metrics.value(f"({expression}\n) == ({expression}\n)")
        except Inconclusive:
            raise error from None
