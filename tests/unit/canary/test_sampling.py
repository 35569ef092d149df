"""Windows from raw counters: exact, whatever the scrapes and restarts look like."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.metrics import FakeMetrics
from fakes.promotions import target as a_target
from secure_pipeline.canary.model import AlertState, NoData, Sample, Window
from secure_pipeline.canary.reading import Reader
from secure_pipeline.canary.sampling import Sampler
from secure_pipeline.canary.target import (
    AlertRule,
    LatencyRule,
    MetricNames,
    Preset,
    QueryRule,
    Rules,
    Slot,
    Target,
)
from secure_pipeline.errors import ConfigError, Inconclusive, Unavailable

START = 1_700_000_000.0


def target(**rules: Any) -> Target:
    return replace(a_target(), rules=replace(Rules(), **rules))


@dataclass
class Bed:
    """A sampler over a service in memory, whose clock the test moves."""

    target: Target = field(default_factory=target)
    time: float = START

    def __post_init__(self) -> None:
        self.metrics = FakeMetrics(lambda: self.time, self.target)
        self.green, self.blue = self.metrics.slots["green"], self.metrics.slots["blue"]
        self.sampler = Sampler(self.target, "green", self.metrics)
        self.metrics.scrape()

    def pass_by(self, seconds: float = 1.0) -> None:
        self.time += seconds

    def scrape(self, *slots: str) -> None:
        self.pass_by()
        self.metrics.scrape(*slots)

    def begin(self) -> None:
        """Move traffic, and let the first scrapes after it come."""
        self.sampler.mark()
        self.scrape()
        assert isinstance(self.look(), NoData)

    def look(self) -> Window | NoData:
        return self.sampler.sample().window

    def window(self) -> Window:
        found = self.look()
        assert isinstance(found, Window), found
        return found

    def why(self) -> str:
        found = self.look()
        assert isinstance(found, NoData), found
        return found.why


@pytest.fixture
def bed() -> Bed:
    found = Bed()
    found.begin()
    return found


def test_a_window_is_what_was_counted_between_two_scrapes(bed: Bed) -> None:
    """Tokens, slow tokens, seconds, requests and errors are exactly those of the window."""
    bed.green.serve(10, 40, slow=3, errors=2)
    bed.blue.serve(100, 400)
    bed.scrape()
    found = bed.window()
    assert (found.begun, found.ended) == (START + 1, START + 2)
    assert (found.canary.tokens, found.canary.slow.value, found.canary.slow.exact) == (40, 3, True)
    assert (found.canary.requests, found.canary.errors, found.canary.restarts) == (10, 2, 0)
    assert found.canary.token_seconds == pytest.approx(37 * 0.02 + 3 * 0.4)
    assert (found.baseline.tokens, found.baseline.errors) == (400, 0)
    assert bed.why() == "no new scrape of green"


def test_can_04_too_little_traffic_is_no_data_and_nothing_is_lost(bed: Bed) -> None:
    """Windows with too few tokens grow until there are enough."""
    for _ in range(4):
        bed.green.serve(1, 5)
        bed.scrape()
        if bed.time < START + 5:
            assert "tokens so far" in bed.why()
    found = bed.window()
    assert (found.begun, found.ended, found.canary.tokens) == (START + 1, START + 5, 20)


def test_requests_that_all_fail_make_a_window_without_a_token(bed: Bed) -> None:
    """A version that answers everything with an error is seen at once, and not at a deadline."""
    bed.green.serve(19, 0, errors=19)
    bed.scrape()
    assert "tokens so far" in bed.why()
    bed.green.serve(1, 0, errors=1)
    bed.scrape()
    found = bed.window()
    assert (found.canary.tokens, found.canary.requests, found.canary.errors) == (0, 20, 20)


def test_can_04_tokens_without_requests_are_no_window(bed: Bed) -> None:
    """Streams that have not ended yet tell nothing about errors."""
    bed.green.serve(0, 40)
    bed.scrape()
    assert bed.why() == "0 of 1 requests so far"


def test_can_07_a_restart_counts_from_0_and_is_seen(bed: Bed) -> None:
    """The increase after a restart is the new value, even where it has passed the old one."""
    bed.green.serve(10, 40)
    bed.scrape()
    bed.window()
    bed.metrics.restart("green")
    bed.green.serve(50, 200, errors=5)
    bed.scrape()
    found = bed.window().canary
    assert (found.tokens, found.requests, found.errors, found.restarts) == (200, 50, 5, 1)


def test_can_07_a_fallen_counter_is_a_restart_without_a_start_time(bed: Bed) -> None:
    """Where the start time does not show it, the counters do; all of them count from 0."""
    bed.green.serve(10, 40)
    bed.scrape()
    bed.window()
    started = bed.green.started
    bed.metrics.restart("green")
    bed.green.started = started
    bed.green.serve(10, 30)
    bed.scrape()
    found = bed.window().canary
    assert (found.tokens, found.requests, found.restarts) == (30, 10, 1)


def test_can_07_a_restart_is_told_without_any_traffic(bed: Bed) -> None:
    """A canary that only restarts makes a window: its restarts are conclusive."""
    bed.pass_by(2)
    bed.metrics.restart("green")
    bed.scrape()
    assert bed.window().canary.restarts == 1


def test_can_07_a_restart_does_not_hide_behind_a_switch(bed: Bed) -> None:
    """One between the last scrape before traffic moved and the first after it is counted."""
    bed.pass_by(2)
    bed.metrics.restart("green")
    bed.sampler.mark()
    bed.scrape()
    bed.look()
    bed.green.serve(10, 40)
    bed.scrape()
    assert bed.window().canary.restarts == 1


def test_samples_before_a_switch_never_count(bed: Bed) -> None:
    """What was served before the mark, or scraped before it, is in no window."""
    bed.green.serve(10, 400, errors=10)
    bed.scrape()
    bed.sampler.mark()
    assert bed.why() == "no scrape of green since traffic was moved"
    bed.green.serve(5, 100, errors=5)
    bed.scrape()
    assert bed.why().startswith("no new scrape")
    bed.green.serve(10, 40)
    bed.scrape()
    assert (bed.window().canary.tokens, bed.time) == (40, START + 4)


def test_a_mark_without_a_clock_waits_for_one(bed: Bed) -> None:
    """Everything before the first clock that can be had is before the switch."""
    bed.metrics.down()
    bed.sampler.mark()
    bed.green.serve(10, 400, errors=10)
    bed.scrape()
    assert "refused" in bed.why()
    bed.metrics.well()
    assert bed.why() == "no scrape of green since traffic was moved"
    bed.scrape()
    bed.look()
    bed.green.serve(10, 40)
    bed.scrape()
    assert bed.window().canary.errors == 0


def test_a_clock_that_is_set_back_makes_nothing_new(bed: Bed) -> None:
    """After a step back, scrapes that were seen before the switch stay before it."""
    bed.green.serve(10, 400, errors=10)
    bed.scrape()
    bed.window()
    bed.time -= 1.5
    bed.sampler.mark()
    bed.time += 1.5
    assert bed.why() == "no scrape of green since traffic was moved"


def test_both_slots_cover_the_same_stretch(bed: Bed) -> None:
    """While one slot has no new scrape the window waits; then both count up to one time."""
    for _ in range(3):
        bed.green.serve(10, 40)
        bed.blue.serve(10, 40)
        bed.scrape("green")
        assert bed.why() == "no new scrape of blue"
    bed.scrape("blue")
    found = bed.window()
    assert (found.canary.tokens, found.baseline.tokens) == (120, 120)


def test_the_first_window_begins_where_both_are_scraped(bed: Bed) -> None:
    """What one slot did before the other was scraped at all is in neither's window."""
    bed.sampler.mark()
    for _ in range(3):
        bed.scrape("green")
        bed.green.serve(10, 40)
        assert bed.why() == "no scrape of blue since traffic was moved"
    bed.scrape()
    bed.look()
    bed.green.serve(10, 50)
    bed.blue.serve(10, 60)
    bed.scrape()
    found = bed.window()
    assert (found.canary.tokens, found.baseline.tokens) == (50, 60)


def test_buckets_without_their_count_are_malformed(bed: Bed) -> None:
    """A histogram that is torn apart is no data."""
    bed.green.serve(10, 40)
    bed.scrape()
    for key in list(bed.metrics.series):
        if dict(key)["__name__"].endswith("_count"):
            del bed.metrics.series[key]
    assert "do not belong together" in bed.why()


def test_a_scrape_right_after_the_cut_is_nearer(bed: Bed) -> None:
    """Slots that are scraped out of step are compared at the scrapes next to each other."""
    for _ in range(3):
        bed.green.serve(10, 40)
        bed.blue.serve(10, 40)
        bed.pass_by(10)
        bed.metrics.scrape("green")
        bed.pass_by(0.1)
        bed.metrics.scrape("blue")
        found = bed.window()
        assert (found.canary.tokens, found.baseline.tokens) == (40, 40)


def test_instances_are_added(bed: Bed) -> None:
    """A new instance counts from its first scrape, and its old total never."""
    more = bed.metrics.instance(bed.target.slots["green"].labels, "green-2")
    more.serve(1000, 1000, errors=1000)
    bed.green.serve(10, 40)
    bed.scrape()
    assert bed.window().canary.errors == 0
    more.serve(10, 30)
    bed.green.serve(10, 40)
    bed.scrape()
    assert (bed.window().canary.tokens, bed.time) == (70, START + 3)


def test_the_first_error_ever_counts(bed: Bed) -> None:
    """A series that appears in a known instance has begun at 0; increase() would miss it."""
    bed.green.serve(10, 40)
    bed.green.count("503", 7)
    bed.scrape()
    assert bed.window().canary.errors == 7


def test_instances_that_vanish_are_missed_only_if_none_is_left() -> None:
    """One that is gone holds the window until it is stale; a slot without any has no data."""
    bed = Bed()
    more = bed.metrics.instance(bed.target.slots["green"].labels, "green-2")
    bed.begin()
    more.up = False
    bed.green.serve(10, 40)
    bed.scrape()
    assert bed.why() == "no new scrape of green"
    bed.pass_by(60)
    bed.scrape()
    assert bed.window().canary.tokens == 40
    bed.green.up = False
    bed.pass_by(60)
    bed.scrape()
    assert bed.why() == "stale: the last scrape of green is 61 s old"


def test_can_02_no_series_are_no_data() -> None:
    """An empty answer is neither 0 nor success."""
    bed = Bed()
    bed.metrics.series.clear()
    bed.sampler.mark()
    assert bed.why() == "no series of green"


@pytest.mark.parametrize("error", [Unavailable("down"), Inconclusive("warnings")])
def test_can_01_trouble_is_no_data_and_loses_nothing(bed: Bed, error: Exception) -> None:
    """What could not be read at one look is in the window of a later one."""
    bed.green.serve(10, 40)
    bed.scrape()
    bed.metrics.fault = lambda call: error if call == "samples" else None
    assert str(error) in bed.why()
    bed.metrics.well()
    bed.scrape()
    assert bed.window().canary.tokens == 40


def test_can_01_a_service_that_fails_is_asked_once_a_look() -> None:
    """With many expressions a look does not wait for each of them in vain."""
    rules = tuple(QueryRule(f"q{n}", "x", minimum=0) for n in range(9))
    bed = Bed(target(queries=rules, alerts=(AlertRule("Slow"),)))
    bed.metrics.down()
    found = bed.sampler.sample()
    assert bed.metrics.calls == ["clock"]
    assert all(isinstance(item.value, NoData) for item in found.queries)
    assert all(isinstance(item.firing, NoData) for item in found.alerts)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize(
    "name", ["inference_token_latency_seconds_sum", "inference_requests_total"]
)
def test_numbers_that_no_counter_has_are_no_data(bed: Bed, name: str, value: float) -> None:
    """NaN, infinity and negative values are malformed, whatever else is there."""
    bed.green.serve(10, 40)
    bed.pass_by()
    key = next(k for k in bed.metrics.series if {("__name__", name), ("slot", "green")} <= k)
    bed.metrics.put(dict(key), value)
    bed.metrics.scrape()
    assert bed.why().startswith("malformed metrics")


def test_other_buckets_are_not_added(bed: Bed) -> None:
    """Instances whose buckets differ have no common histogram."""
    labels = bed.target.slots["green"].labels
    bed.metrics.instance(labels, "green-2", edges=(0.1, 0.25, math.inf))
    bed.green.serve(10, 40)
    bed.scrape()
    assert "different buckets" in bed.why()


def test_a_limit_that_is_no_edge_is_interpolated() -> None:
    """Slow tokens have bounds then, and a note says so before the promotion."""
    limit = LatencyRule(limit=timedelta(milliseconds=400))
    bed = Bed(target(latency=limit))
    bed.begin()
    bed.green.serve(10, 40)
    bed.green.observe(0.35, 10)
    bed.scrape()
    found = bed.window().canary.slow
    assert (found.low, found.value, found.high) == (0, 5, 10)
    assert "edges next to it are 0.3 s and 0.5 s" in bed.sampler.notes()[0]
    assert "exactly" in Bed().sampler.notes()[0]


def test_alerts_fire_only_with_their_labels() -> None:
    """Labels of the rule must all be there; an unknown alert hides no other one."""
    rules = (AlertRule("Slow", {"slot": "green"}), AlertRule("Down"), AlertRule("Gone"))
    bed = Bed(target(alerts=rules))
    bed.metrics.rules = {"Slow": [{"slot": "blue"}], "Down": [{"slot": "green"}]}
    slow, down, gone = bed.sampler.sample().alerts
    assert (slow, down) == (AlertState("Slow", False), AlertState("Down", True))
    assert isinstance(gone.firing, NoData)
    assert any("Gone" in line for line in bed.sampler.check())


def test_own_expressions_get_the_matchers() -> None:
    """$canary and $baseline become matchers; an empty result is no data."""
    rule = QueryRule("busy", 'max(x{$canary}) / max(x{$baseline,a="b"})', maximum=2)
    bed = Bed(target(queries=(rule,)))
    asked = 'max(x{job="inference",slot="green"}) / max(x{job="inference",slot="blue",a="b"})'
    bed.metrics.values[asked] = 1.5
    assert bed.sampler.sample().queries[0].value == 1.5
    bed.metrics.values[asked] = None
    assert bed.sampler.sample().queries[0].value == NoData("the result is empty")
    assert bed.sampler.check() == ()
    del bed.metrics.values[asked]
    assert bed.sampler.check()[0].startswith("query busy: ")


@given(st.dictionaries(st.sampled_from(["slot", "pod"]), st.text(max_size=12), min_size=1))
def test_hostile_label_values_choose_only_themselves(labels: dict[str, str]) -> None:
    """Whatever a slot's labels hold, the slot with these values is read and no other."""
    hostile = Slot({**labels, "job": "x"}, runtime="docker://a")
    slots = {"green": hostile, "blue": Slot({"job": "y"}, runtime="docker://b")}
    bed = Bed(replace(target(), slots=slots))
    read = bed.sampler._reader.read("green", 10)
    assert list(read.instances) == [("x", "green")]


def test_readiness_names_what_is_missing() -> None:
    """Each slot without series, histogram or start time is a problem; so is a label for errors."""
    bed = Bed()
    assert bed.sampler.check() == ()
    for key in [key for key in bed.metrics.series if ("slot", "blue") in key]:
        del bed.metrics.series[key]
    assert any(line.startswith("blue: no series") for line in bed.sampler.check())
    bed = Bed()
    for key in list(bed.metrics.series):
        if dict(key)["__name__"] == "process_start_time_seconds":
            del bed.metrics.series[key]
    assert sum("restarts would not be seen" in line for line in bed.sampler.check()) == 2
    names = MetricNames(errors={"status": "5.."})
    bed = Bed()
    sampler = Sampler(replace(bed.target, metrics=names), "green", bed.metrics)
    assert any("no request could count as failed" in line for line in sampler.check())
    bed.metrics.down()
    assert "refused" in bed.sampler.check()[0]


def test_a_limit_over_the_last_edge_is_a_problem() -> None:
    """Nothing could ever be told about such a limit."""
    bed = Bed(target(latency=LatencyRule(limit=timedelta(seconds=2))))
    assert any("over the last bucket's edge, 1 s" in line for line in bed.sampler.check())


@pytest.mark.parametrize("preset", [Preset.VLLM, Preset.VLLM_OLD])
def test_vllm_counts_its_http_answers(preset: Preset) -> None:
    """Its groups of codes are seen as errors: 5xx of http_requests_total."""
    bed = Bed(replace(target(), metrics=MetricNames(preset)))
    bed.begin()
    bed.green.serve(10, 40)
    bed.green.count("5xx", 4)
    bed.scrape()
    assert bed.window().canary.errors == 4


def test_a_counter_of_failures_is_added_to_the_requests() -> None:
    """Failures that are counted elsewhere belong to the finished requests."""
    bed = Bed(replace(target(), metrics=MetricNames(error_counter="failures_total")))
    labels = {"__name__": "failures_total", **bed.green.labels}
    bed.begin()
    bed.green.serve(10, 40)
    bed.pass_by()
    bed.metrics.put(labels, 6)
    bed.metrics.scrape()
    found = bed.window().canary
    assert (found.requests, found.errors) == (16, 6)


def test_one_metric_for_two_things_is_refused() -> None:
    """Requests that are the failures at once could never be right."""
    names = MetricNames(error_counter="inference_requests_total")
    with pytest.raises(ConfigError, match="one and the same"):
        Reader(replace(target(), metrics=names), "green", FakeMetrics(lambda: 0.0))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["serve", "serve", "scrape", "scrape one", "look", "look", "fail"]),
        st.integers(0, 30),
        st.floats(0.05, 20),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(STEPS)
def test_windows_add_up_to_everything_that_was_counted(
    steps: list[tuple[str, int, float]],
) -> None:
    """However scrapes, looks and failures fall, windows touch and no token is lost or doubled."""
    bed = Bed()
    bed.begin()
    served = {"tokens": 0.0, "slow": 0.0, "errors": 0.0}
    windows: list[Window] = []

    def look() -> None:
        found: Sample = bed.sampler.sample()
        windows.extend([found.window] if isinstance(found.window, Window) else [])
        bed.metrics.well()

    def serve(number: int) -> None:
        bed.green.serve(number, 2 * number, slow=number, errors=number // 2)
        for name, much in (("tokens", 2 * number), ("slow", number), ("errors", number // 2)):
            served[name] += much

    for kind, number, seconds in steps:
        bed.pass_by(seconds)
        if kind == "serve":
            serve(number)
        elif kind == "fail":
            bed.metrics.down("samples")
        elif kind == "look":
            look()
        else:
            bed.metrics.scrape(*(["green"] if kind == "scrape one" else []))
    serve(40)
    bed.scrape()
    look()
    look()
    for earlier, later in pairwise(windows):
        assert earlier.ended == later.begun
    assert sum(found.canary.tokens for found in windows) == served["tokens"]
    assert sum(found.canary.slow.value for found in windows) == served["slow"]
    assert sum(found.canary.errors for found in windows) == served["errors"]
