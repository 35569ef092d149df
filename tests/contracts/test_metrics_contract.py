"""What a metrics service keeps to: the one in memory, and a real Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.exposition import exporter
from fakes.metrics import FakeMetrics
from fakes.prometheus import prometheus
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.prometheus import Prometheus
from secure_pipeline.errors import Inconclusive, PipelineError, Unavailable
from secure_pipeline.ports import Metrics, Series

LABELS = {"slot": "green", "odd": 'a"b\\c\n{d="e"},é'}
QUERIES: Mapping[str, float | PipelineError | None] = {
    "1 + 1": 2.0,
    'absent_here{a="b"}': None,
    "vector(0) / 0": float("nan"),
    "rate(": Inconclusive("parse error"),
}


@dataclass
class Place:
    """A service, how it is fed, and a second one that is not there."""

    metrics: Metrics
    feed: Callable[[Sequence[float]], None]
    """Scrape a counter ``work_total`` of LABELS with these values, in order."""
    nowhere: Metrics


@contextmanager
def in_memory(directory: Path) -> Iterator[Place]:
    clock = [1000.0]
    made, nowhere = FakeMetrics(lambda: clock[0]), FakeMetrics(lambda: clock[0])
    made.values.update(QUERIES)
    made.rules = {"Always": [{"severity": "page"}], "Never": []}
    nowhere.down()

    def feed(values: Sequence[float]) -> None:
        for value in values:
            clock[0] += 1
            labels = {"job": "service", "instance": "a", **LABELS}
            made.put({"__name__": "work_total", **labels}, value)

    yield Place(made, feed, nowhere)


@contextmanager
def real(directory: Path) -> Iterator[Place]:
    with exporter() as exposed:
        exposed.show({"work_total": {"": 0.0}})
        with prometheus(
            directory,
            [(exposed.host, LABELS)],
            rules={"Always": "vector(1)", "Never": "vector(1) > 2"},
            interval="200ms",
        ) as running:

            def feed(values: Sequence[float]) -> None:
                for value in values:
                    exposed.show({"work_total": {"": value}})
                    running.wait(f"work_total == {value}", 0)

            running.wait('ALERTS{alertname="Always"}')
            away = type(running.access)("http://127.0.0.1:1", timeout=running.access.timeout)
            yield Place(
                Prometheus(running.access, SystemClock()), feed, Prometheus(away, SystemClock())
            )


MADE = {"memory": in_memory, "prometheus": real}


@pytest.fixture(scope="module", params=[
    "memory", pytest.param("prometheus", marks=pytest.mark.integration)
])  # fmt: skip
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    with MADE[request.param](tmp_path_factory.mktemp("metrics")) as made:
        yield made


class TestMetrics:
    """One service for all of these."""

    def test_samples_are_exactly_those_scraped(self, place: Place) -> None:
        """Values in their order, times that rise and lie within the range, labels as they are."""
        place.feed([3, 5, 2])
        (series,) = self.work(place, 60)
        values = [value for _, value in series.samples]
        assert [v for n, v in enumerate(values) if n == 0 or v != values[n - 1]][-3:] == [3, 5, 2]
        times = [moment for moment, _ in series.samples]
        assert times == sorted(set(times))
        assert place.metrics.clock() - 60 <= times[0] <= times[-1] <= place.metrics.clock()
        assert LABELS.items() <= series.labels.items()
        assert series.labels["__name__"] == "work_total"

    def test_selectors_choose_by_labels(self, place: Place) -> None:
        """Equal values and patterns; what matches nothing is empty."""
        place.feed([7])
        assert place.metrics.samples('{__name__=~"work_total|x",slot="green"}', 60)
        assert place.metrics.samples('work_total{slot=~"gr..n"}', 60)
        assert place.metrics.samples('work_total{slot="blue"}', 60) == ()
        assert place.metrics.samples('work_total{slot=~"gree"}', 60) == ()

    def test_a_short_range_holds_few_samples(self, place: Place) -> None:
        """The range ends now; what is older is left out."""
        place.feed([1, 2, 3, 4])
        (all_of_it,) = self.work(place, 600)
        newest = all_of_it.samples[-1][0]
        found = self.work(place, place.metrics.clock() - newest + 0.001)
        assert len(found[0].samples if found else ()) < len(all_of_it.samples)

    def test_the_clock_is_that_of_the_samples(self, place: Place) -> None:
        """It never goes back, and a new sample is near it."""
        before = place.metrics.clock()
        place.feed([11])
        newest = self.work(place, 60)[0].samples[-1][0]
        assert before - 5 <= newest <= place.metrics.clock()

    def test_values(self, place: Place) -> None:
        """A number, nothing, and what is neither."""
        assert place.metrics.value("1 + 1") == 2.0
        assert place.metrics.value('absent_here{a="b"}') is None
        for query in ("vector(0) / 0", "rate("):
            with pytest.raises(Inconclusive):
                place.metrics.value(query)

    def test_alerts(self, place: Place) -> None:
        """Those that fire with their labels; silence of an unknown one means nothing."""
        (alert,) = place.metrics.alerts(["Always", "Never"])
        assert alert.name == "Always"
        assert alert.labels["severity"] == "page"
        assert place.metrics.alerts(["Never"]) == ()
        assert place.metrics.alerts([]) == ()
        with pytest.raises(Inconclusive):
            place.metrics.alerts(["Always", "Unheard"])

    def test_a_service_that_is_not_there_is_unavailable(self, place: Place) -> None:
        """Every question says so."""
        for ask in (
            place.nowhere.clock,
            lambda: place.nowhere.samples("work_total", 5),
            lambda: place.nowhere.value("1 + 1"),
            lambda: place.nowhere.alerts(["Always"]),
        ):
            with pytest.raises(Unavailable):
                ask()

    def test_a_selector_that_is_none_is_inconclusive(self, place: Place) -> None:
        """It is refused, not empty."""
        with pytest.raises(Inconclusive):
            place.metrics.samples('work_total{slot="green', 5)

    def work(self, place: Place, seconds: float) -> tuple[Series, ...]:
        deadline = time.monotonic() + 10
        while True:
            found = place.metrics.samples('work_total{slot="green"}', seconds)
            if found or seconds < 60 or time.monotonic() > deadline:
                return found
            time.sleep(0.05)
