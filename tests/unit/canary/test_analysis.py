"""Rules at each look: what is said of which samples, and what is remembered."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_pipeline.canary.analysis import Analysis, time_to_decision
from secure_pipeline.canary.model import (
    AlertState,
    Counts,
    Estimate,
    Health,
    Look,
    NoData,
    QueryResult,
    RuleState,
    Sample,
    Window,
)
from secure_pipeline.canary.target import (
    AlertRule,
    AnalysisConfig,
    ErrorRule,
    LatencyRule,
    QueryRule,
    Rules,
)
from secure_pipeline.documents import Percent
from secure_pipeline.errors import ConfigError, VerificationFailed

T = datetime(2026, 3, 1, tzinfo=UTC)
STATISTICAL = Rules(latency=LatencyRule(mean=None))
GOOD, BAD, OPEN, NONE = Health.HEALTHY, Health.BAD, Health.UNDETERMINED, Health.NO_DATA


def counts(requests=50.0, slow=0.0, errors=0.0, *, tokens=None, spread=0.0, restarts=0, p95=None):
    """``slow``: share of the tokens; ``spread``: how far off the buckets may be."""
    tokens = 8 * requests if tokens is None else tokens
    low, high = max(0.0, slow - spread), min(1.0, slow + spread)
    estimate = Estimate(low * tokens, slow * tokens, high * tokens)
    seconds = tokens * (0.03 + 0.4 * slow)
    return Counts(tokens, estimate, seconds, p95, requests, errors, restarts)


def exactly(value):
    return Estimate(value, value, value)


class Watch:
    """Shows one window after the other to an analysis."""

    def __init__(self, rules=STATISTICAL, config=None):
        self.analysis = Analysis.begin(rules, config or AnalysisConfig())
        self.looks: list[Look] = []

    def see(self, canary=None, baseline=None, **sampled):
        n = len(self.looks)
        window = Window(5.0 * n, 5.0 * n + 5, canary or counts(), baseline or counts(500))
        return self.take(Sample(window, **sampled))

    def take(self, sample):
        n = len(self.looks) + 1
        self.analysis, look = self.analysis.observe(sample, n, T + timedelta(seconds=5 * n))
        self.looks.append(look)
        return look

    def until(self, health, canary, baseline=None, most=200):
        for _ in range(most):
            if self.see(canary, baseline).health is health:
                return len(self.looks)
        raise AssertionError(f"never {health}: {self.looks[-1].rules}")


def rule(look, name):
    return next(state for state in look.rules if state.rule == name)


def test_a_good_version_is_healthy_after_enough_requests():
    """Health is shown, not assumed: first undetermined, then healthy, never bad."""
    watch = Watch()
    assert watch.see().health is OPEN
    watch.until(GOOD, counts(), most=20)
    assert {look.health for look in watch.looks} == {OPEN, GOOD}


@pytest.mark.parametrize(
    ("canary", "name"),
    [(counts(5, 1.0), "latency"), (counts(5, 0.2), "latency"), (counts(5, 0, 5), "errors")],
)
def test_a_bad_version_is_found_but_not_in_one_window(canary, name):
    """Slow or failing: bad within a few windows, by the right rule, and never by the first two."""
    watch = Watch()
    taken = watch.until(BAD, canary, counts(95, 0.005), most=20)
    assert taken >= 3
    assert watch.looks[-1].decider.rule == name


def test_all_failed_without_a_token_is_bad():
    """A failure has no token: the errors' rule needs none, while latency has no data."""
    watch = Watch()
    watch.until(BAD, counts(5, 0, 5, tokens=0), counts(95), most=5)
    last = watch.looks[-1]
    assert (rule(last, "errors").health, rule(last, "latency").health) == (BAD, NONE)


def test_both_over_the_limit_is_neither_bad_nor_healthy():
    """As slow as the baseline: no reason to abort, and none to go on."""
    watch = Watch()
    for _ in range(100):
        assert watch.see(counts(5, 0.4), counts(95, 0.4)).health is OPEN
    figures = rule(watch.looks[-1], "latency").figures
    assert figures["toward_over_limit"] == 1
    assert figures["toward_abort"] == figures["toward_health"] == 0


def test_worse_than_the_baseline_within_the_limit_is_not_bad():
    """3 % slow tokens where the baseline has none, and 5 % are allowed."""
    watch = Watch()
    for _ in range(300):
        assert watch.see(counts(5, 0.03), counts(95, 0)).health is not BAD
    assert rule(watch.looks[-1], "latency").figures["toward_worse"] == 1


def test_can_02_empty_is_no_data():
    """Nothing sampled: every rule says so with the reason, whatever was healthy before."""
    rules = replace(STATISTICAL, latency=LatencyRule(p95=timedelta(seconds=1)))
    rules = replace(rules, alerts=(AlertRule("Slow"),), queries=(QueryRule("q", "up", 1),))
    watch = Watch(rules)
    watch.until(NONE, counts(p95=exactly(0.1)))  # nobody asked for alert and query
    look = watch.take(
        Sample(
            NoData("no series of canary"),
            (QueryResult("q", NoData("empty")),),
            (AlertState("Slow", NoData("no such rule")),),
        )
    )
    assert {state.health for state in look.rules} == {NONE}
    assert look.health is NONE
    assert rule(look, "latency").why == "no series of canary"
    assert rule(look, "query:q").why == "empty"


@given(st.floats(0, 0.99), st.floats(0, 19), st.integers(0, 30), st.sampled_from([0.0, 0.5, 1.0]))
@settings(deadline=None, max_examples=50)
def test_can_04_too_few_are_no_data_never_health(requests, tokens, before, slow):
    """Under the minimum a rule has no data, even after enough evidence for health."""
    watch = Watch(Rules())
    for _ in range(before):
        watch.see()
    look = watch.see(counts(requests, slow, tokens=tokens))
    assert look.health is NONE
    assert {rule(look, name).health for name in ("latency", "errors", "mean")} == {NONE}
    assert "needed" in rule(look, "latency").why


def test_can_06_undetermined_is_no_success():
    """However long nothing can be told, no look is healthy: here buckets too coarse to tell."""
    watch = Watch()
    for _ in range(300):
        assert watch.see(counts(5, 0.03, spread=0.03), counts(95, 0.01)).health is OPEN


def test_can_07_restarts_are_a_failure():
    """One restart more than allowed is bad at once and for good, whatever the counters say."""
    watch = Watch(replace(STATISTICAL, restarts=1))
    assert rule(watch.see(counts(restarts=1)), "restarts").health is GOOD
    assert watch.see(counts(restarts=1)).health is BAD
    assert watch.looks[-1].decider.rule == "restarts"
    watch.analysis = watch.analysis.renewed()
    assert watch.take(Sample(NoData("gone"))).health is BAD


def test_the_baseline_may_restart():
    """Only the canary's restarts are its failure."""
    assert rule(Watch().see(baseline=counts(500, restarts=3)), "restarts").health is GOOD


def worse_within_the_limit(rules):
    """A watch that was shown 10 % slow tokens, of 20 % that are allowed; the baseline has none."""
    watch = Watch(rules)
    while not (watch.looks and rule(watch.looks[-1], "latency").figures["toward_worse"] == 1):
        watch.see(counts(p95=exactly(0.01)), counts(500, p95=exactly(0.01)))
        watch.see(counts(slow=0.1, p95=exactly(0.01)), counts(500, p95=exactly(0.01)))
    return watch


def test_can_14_flapping_uses_up_the_budget():
    """Every other look over a soft limit: the budget counts in all, not in a row."""
    latency = LatencyRule(share=Percent("20%"), mean=timedelta(milliseconds=80))
    watch = worse_within_the_limit(Rules(latency, failure_budget=2))
    seen = []
    for turn in range(6):
        look = watch.see(counts(slow=0.18 if turn % 2 == 0 else 0.1), counts(500))
        seen.append((rule(look, "mean").health, look.budget_left))
        if turn == 2:
            watch.analysis = watch.analysis.renewed()
    assert [health for health, _ in seen] == [BAD, GOOD] * 3
    assert [left for _, left in seen] == [1, 1, 0, 0, -1, -1]
    assert watch.looks[-2].health is BAD
    assert watch.looks[-2].decider.rule == "mean"


def test_one_slow_window_costs_no_budget():
    """A handful of requests is slow by chance: a mean counts once the canary is shown worse."""
    watch = Watch(Rules())
    look = watch.see(counts(3, 0.5), counts(95, 0.01))
    assert rule(look, "mean").health is OPEN
    assert look.budget_left == 3


def test_a_soft_breach_within_the_budget_is_no_health():
    """It stands as bad at its rule; the look is undetermined, then bad over the budget."""
    watch = Watch(Rules(failure_budget=1, queries=(QueryRule("q", "up", 1),)))
    watch.until(NONE, counts())
    low = {"queries": (QueryResult("q", 0.5),)}
    for _ in range(30):
        watch.see(queries=(QueryResult("q", 1.0),))
    assert watch.looks[-1].health is GOOD
    assert [watch.see(**low).health for _ in range(2)] == [OPEN, BAD]


@pytest.mark.parametrize(
    ("canary", "baseline", "expected"),
    [
        (exactly(0.2), exactly(0.1), GOOD),
        (exactly(0.3), exactly(0.1), BAD),
        (exactly(0.3), exactly(0.28), OPEN),  # hardly more than the baseline
        (Estimate(0.1, 0.3, 0.4), exactly(0.1), OPEN),  # the low bound is within
        (Estimate(0.3, 0.3, 0.4), Estimate(0.1, 0.2, 0.4), OPEN),
        (Estimate(0.1, 0.15, 0.2), None, GOOD),
        (exactly(0.3), None, OPEN),
        (None, exactly(0.1), OPEN),  # over the last bucket's edge
    ],
)
def test_p95(canary, baseline, expected):
    """Bad needs the low bound, over limit and baseline; healthy needs the high bound."""
    latency = LatencyRule(share=Percent("20%"), mean=None, p95=timedelta(milliseconds=200))
    watch = worse_within_the_limit(Rules(latency))
    look = watch.see(counts(slow=0.1, p95=canary), counts(500, p95=baseline))
    assert rule(look, "p95").health is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, BAD),
        (1.0, GOOD),
        (1.5, GOOD),
        (2.0, GOOD),
        (2.1, BAD),
        (NoData("no sample"), NONE),
        (math.nan, NONE),
        (math.inf, NONE),
    ],
)
def test_queries_have_inclusive_bounds(value, expected):
    """A value on a bound is right; what is no number is no data."""
    watch = Watch(Rules(queries=(QueryRule("q", "up", 1, 2, hard=True),)))
    assert rule(watch.see(queries=(QueryResult("q", value),)), "query:q").health is expected


@pytest.mark.parametrize(
    ("firing", "expected"), [(True, BAD), (False, GOOD), (NoData("not evaluated"), NONE)]
)
@pytest.mark.parametrize("hard", [True, False])
def test_alerts(firing, expected, hard):
    """An alert that fires is bad; a hard one makes the look bad, a soft one costs the budget."""
    watch = Watch(Rules(alerts=(AlertRule("Slow", hard=hard),)))
    look = watch.see(alerts=(AlertState("Slow", firing),))
    assert rule(look, "alert:Slow").health is expected
    assert (look.health is BAD) == (firing is True and hard)
    assert look.budget_left == 3 - (firing is True and not hard)


def test_bad_once_concluded_stays_bad():
    """No data, good windows, a new step, a restart of the program: all come too late."""
    watch = Watch()
    watch.until(BAD, counts(5, 1.0))
    assert watch.take(Sample(NoData("gone"))).health is BAD
    watch.analysis = watch.analysis.renewed()
    for _ in range(100):
        assert watch.see().health is BAD


def test_a_step_begins_without_health_and_with_all_that_speaks_against():
    """``renewed`` takes the evidence of health, and nothing else."""
    watch = Watch()
    watch.until(GOOD, counts())
    before = watch.analysis.memory
    watch.analysis = watch.analysis.renewed()
    after = watch.analysis.memory
    assert (after.latency.over, after.latency.worse) == (before.latency.over, before.latency.worse)
    assert watch.see().health is OPEN
    assert rule(watch.looks[-1], "latency").figures["units_step"] == 50


def test_a_window_counts_once():
    """The same stretch again, or one that lies mostly before, is no data and changes nothing."""
    watch = Watch()
    watch.see(counts(5, 1.0))
    memory = watch.analysis.memory
    for begun, ended in ((0.0, 5.0), (1.0, 6.0), (-9.0, -4.0)):
        look = watch.take(Sample(Window(begun, ended, counts(5, 1.0), counts(95))))
        assert look.health is NONE
        assert watch.analysis.memory == memory
    assert watch.take(Sample(Window(4.9, 9.9, counts(), counts(500)))).health is OPEN


def test_requests_that_share_a_fate_count_as_one():
    """With ten requests a unit it takes about ten times as many."""
    few = Watch().until(GOOD, counts(10), most=500)
    config = AnalysisConfig(requests_per_unit=10.0)
    many = Watch(config=config).until(GOOD, counts(10), most=500)
    assert many == pytest.approx(10 * few, rel=0.1)


def test_numbers_without_sense_are_no_data():
    """Counts that overflow give no verdict and leave the evidence as it was."""
    watch = Watch()
    huge = counts(1e308, tokens=1e300)
    watch.see(huge, huge)
    look = watch.see(huge, huge)
    assert look.health is NONE
    assert "without sense" in rule(look, "latency").why
    assert all(math.isfinite(n) for state in look.rules for n in state.figures.values())


@given(st.lists(st.tuples(st.floats(0, 200), st.floats(0, 1), st.floats(0, 1)), max_size=20))
@settings(deadline=None, max_examples=60)
def test_any_history_survives_json(windows):
    """Written and read, an analysis goes on as if nothing had been; all numbers are finite."""
    watch = Watch(Rules())
    for requests, slow, failed in windows:
        watch.see(counts(requests, slow, failed * requests), counts(95, slow / 2))
    text = json.dumps(watch.analysis.to_json(), allow_nan=False)
    again = Analysis.from_json(Rules(), AnalysisConfig(), json.loads(text))
    assert again == watch.analysis
    for look in watch.looks:
        for state in look.rules:
            assert all(math.isfinite(number) for number in state.figures.values())
            assert "\n" not in state.why


def _without(value, key):
    return {k: v for k, v in value.items() if k != key}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda v: None,
        lambda v: [],
        lambda v: {},
        lambda v: _without(v, "restarts"),
        lambda v: v | {"more": 1},
        lambda v: v | {"breaches": -1},
        lambda v: v | {"restarts": True},
        lambda v: v | {"counted": math.nan},
        lambda v: v | {"latency": v["latency"] | {"broken": "no"}},
        lambda v: v | {"latency": v["latency"] | {"within": {"limit": 0.05, "logs": [0.0]}}},
        lambda v: v | {"latency": v["latency"] | {"within": {"limit": 0.05, "logs": None}}},
        lambda v: v | {"latency": v["latency"] | {"canary": {"count": 1.0, "bad": 2.0}}},
        lambda v: v | {"latency": v["latency"] | {"over": v["errors"]["over"]}},
    ],
)
def test_a_memory_that_was_altered_is_refused(spoil):
    """Missing, unknown, of another type, impossible: nothing of it is believed."""
    value = Analysis.begin(Rules(), AnalysisConfig()).to_json()
    with pytest.raises(VerificationFailed):
        Analysis.from_json(Rules(), AnalysisConfig(), spoil(json.loads(json.dumps(value))))


@pytest.mark.parametrize(
    ("rules", "config"),
    [
        (Rules(latency=LatencyRule(share=Percent("6%"))), AnalysisConfig()),
        (Rules(errors=ErrorRule(share=Percent("2%"))), AnalysisConfig()),
        (Rules(), AnalysisConfig(requests_per_unit=2.0)),
    ],
)
def test_evidence_for_another_limit_is_refused(rules, config):
    """A target that was edited meanwhile cannot use evidence from before."""
    value = Analysis.begin(Rules(), AnalysisConfig()).to_json()
    with pytest.raises(ConfigError, match="other limits"):
        Analysis.from_json(rules, config, value)


def test_the_order_of_healths():
    """Bad over no data over undetermined over healthy; without rules there is no data."""

    def look(*healths):
        states = tuple(RuleState("errors", True, health, "") for health in healths)
        return Look(1, T, NoData(""), states, 0)

    assert look().health is NONE
    assert look(GOOD, OPEN, NONE, BAD).health is BAD
    assert look(GOOD, OPEN, NONE).health is NONE
    assert look(GOOD, OPEN).health is OPEN
    assert look(GOOD, GOOD).health is GOOD


def test_the_time_to_a_decision_is_told_while_evidence_grows():
    """None without a trend; otherwise about what it then takes, for health and for an abort."""
    assert time_to_decision([]) is None
    equal = Watch()
    for _ in range(30):
        equal.see(counts(5, 0.4), counts(95, 0.4))
    assert time_to_decision(equal.looks) is None
    for canary in (counts(10), counts(10, 0.15)):
        watch = Watch()
        for _ in range(8):
            watch.see(canary, counts(95))
        told = time_to_decision(watch.looks)
        begun = len(watch.looks)
        taken = watch.until(GOOD if canary.slow.value == 0 else BAD, canary, counts(95)) - begun
        assert told == pytest.approx(5 * taken, abs=15 + taken)


@given(st.lists(st.sampled_from(["good", "slow", "failing", "empty", "few"]), max_size=40))
@settings(deadline=None, max_examples=60)
def test_health_always_has_evidence(kinds):
    """A healthy look has a window with enough in it, and each rule healthy."""
    shown = {
        "good": counts(),
        "slow": counts(50, 1.0),
        "failing": counts(50, 0, 50, tokens=0),
        "few": counts(0.5),
    }
    watch = Watch()
    for kind in kinds:
        look = watch.take(Sample(NoData("empty"))) if kind == "empty" else watch.see(shown[kind])
        if look.health is GOOD:
            assert kind == "good"
            assert {state.health for state in look.rules} == {GOOD}


def test_the_figures_are_in_the_reference():
    """Every rule and every key that a look may have is on the page, and the page has no others."""
    page = (Path(__file__).parents[3] / "docs/reference/canary.md").read_text()
    told = set(re.findall(r"`([a-z0-9_]+)`", page.split("## Figures")[1]))
    latency = LatencyRule(p95=timedelta(seconds=1))
    look = Watch(Rules(latency, queries=(QueryRule("q", "up", 0, 2),))).see(
        counts(p95=exactly(0.1)), counts(p95=exactly(0.1)), queries=(QueryResult("q", 1.0),)
    )
    keys = {key for state in look.rules for key in state.figures}
    names = {state.rule for state in look.rules if ":" not in state.rule}
    assert told - {"bad", "healthy"} == keys | names
