"""Bets against a hypothesis: fair under it by enumeration, bounded, monotone, and they win."""

from __future__ import annotations

import json
import math
import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.thorough import times
from secure_pipeline import records
from secure_pipeline.canary.sequential import (
    _BETTER,
    _ODDS,
    CAP,
    Bets,
    OverLimit,
    Units,
    WithinLimit,
    WorseThanBaseline,
    likelihood,
    log_sum,
)

NO_CEILING = 1e6
LIMITS = [0.001, 0.01, 0.05, 0.2, 0.5, 0.9]
shares = st.floats(0.0, 1.0)


@st.composite
def units(draw, most=50.0):
    count = draw(st.floats(0.0, most))
    return Units(count, count * draw(shares))


def binomial(n: int, k: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


def test_units_are_possible_numbers():
    """More bad ones than there are, less than none, and what is no number are refused."""
    for count, bad in [(1, 2), (1, -1), (math.nan, 0), (1, math.nan), (math.inf, 0), (-1, -1)]:
        with pytest.raises(ValueError, match="bad ones"):
            Units(count, bad)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("part", [0.0, 0.3, 1.0])
def test_no_bet_on_a_breach_pays_within_the_limit(limit, part):
    """At the limit and under it each bet is worth at most its stake on average."""
    for share in OverLimit(limit).shares:
        for n in range(1, 7):
            worth = sum(
                binomial(n, k, part * limit) * math.exp(likelihood(Units(n, k), share, limit))
                for k in range(n + 1)
            )
            assert worth <= 1 + 1e-9


@pytest.mark.parametrize("limit", LIMITS)
def test_no_bet_on_health_pays_over_the_limit(limit):
    """At the limit and over it each bet is worth at most its stake on average."""
    for truth, part in product((limit, (1 + limit) / 2, 1.0), _BETTER):
        for n in range(1, 7):
            worth = sum(
                binomial(n, k, truth) * math.exp(likelihood(Units(n, k), part * limit, limit))
                for k in range(n + 1)
            )
            assert worth <= 1 + 1e-9


@pytest.mark.parametrize("spread", [(0.0, 0.5), (0.25, 0.75), (0.1, 1.0), (0.0, 0.02)])
@pytest.mark.parametrize("limit", [0.05, 0.2])
def test_parts_of_a_request_are_no_better_than_whole_ones(spread, limit):
    """A request whose bad part lies between 0 and 1 pays no more than a wholly bad or good one."""
    low, high = spread
    chance = min(1.0, max(0.0, (limit - low) / (high - low)))
    if low > limit:
        return  # never within the limit
    for share in OverLimit(limit).shares:
        worth = sum(
            binomial(3, k, chance)
            * math.exp(likelihood(Units(3, k * high + (3 - k) * low), share, limit))
            for k in range(4)
        )
        assert worth <= 1 + 1e-9


@pytest.mark.parametrize("known", [Units(), Units(40, 1), Units(200, 60)])
@pytest.mark.parametrize(("here", "there"), [(1, 1), (2, 5), (5, 2), (3, 3)])
def test_no_bet_on_worse_pays_for_equal_or_better(known, here, there):
    """Whatever share both have in a window, each bet is worth at most its stake on average."""
    test = WorseThanBaseline(0.05, known)
    for odds, common, part in product(_ODDS, (0.0, 0.003, 0.05, 0.3, 0.7, 1.0), (1.0, 0.4)):
        worth = sum(
            binomial(here, i, part * common)
            * binomial(there, j, common)
            * math.exp(test.payoff(odds, Units(here, i), Units(there, j)))
            for i in range(here + 1)
            for j in range(there + 1)
        )
        assert worth <= 1 + 1e-9


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3)), max_size=12), shares)
@settings(max_examples=60, deadline=None)
def test_all_wealth_together_is_a_supermartingale(history, part):
    """From whatever was seen, the next window leaves the wealth on average at most where it is."""
    over, worse, within = OverLimit(0.05), WorseThanBaseline(0.05), WithinLimit(0.05)
    for count, bad in history:
        seen = Units(count, min(count, bad))
        over = over.seen(seen, 8.0)
        worse = worse.seen(seen, Units(5, 1), 8.0)
        within = within.seen(seen, 8.0)
    chance = part * 0.05
    after = [0.0, 0.0, 0.0]
    for i, j in product(range(3), range(4)):
        for place, (p, q, log) in enumerate(
            (
                (chance, chance, over.seen(Units(2, i), 8.0).bets.log),
                (part, part, worse.seen(Units(2, i), Units(3, j), 8.0).bets.log),
                (1 - chance, 0.5, within.seen(Units(2, i), 8.0).log),
            )
        ):
            after[place] += binomial(2, i, p) * binomial(3, j, q) * math.exp(log)
    before = (over.bets.log, worse.bets.log, within.log)
    for worth, log in zip(after, before, strict=True):
        assert worth <= math.exp(log) * (1 + 1e-9)


@given(st.lists(st.tuples(units(), units(2000.0)), max_size=60), st.sampled_from(LIMITS))
@settings(max_examples=80, deadline=None)
def test_wealth_is_finite_and_one_window_counts_ten_times_at_most(windows, limit):
    """Whatever comes, all numbers stay finite, survive JSON, and no window decides alone."""
    over, worse, within = OverLimit(limit), WorseThanBaseline(limit), WithinLimit(limit)
    for canary, baseline in windows:
        before = (over.bets.log, worse.bets.log)
        over = over.seen(canary, 9.0)
        worse = worse.seen(canary, baseline, 9.0)
        within = within.seen(canary, 5.0)
        for old, new in zip(before, (over.bets.log, worse.bets.log), strict=True):
            assert math.isfinite(new)
            assert new <= old + CAP + 1e-9
            assert new <= log_sum((9.0, 0.0)) + 1e-9
        assert math.isfinite(within.log)
        assert within.log <= 5.0 + 1e-9
    for test in (over, worse, within):
        text = json.dumps(records.encode(test), allow_nan=False)
        assert records.decode(type(test), json.loads(text)) == test


@given(units(), units(), shares, st.sampled_from(LIMITS))
@settings(deadline=None)
def test_more_bad_ones_never_speak_for_the_canary(canary, baseline, more, limit):
    """Evidence against rises with the canary's bad ones, falls with the baseline's."""
    worse_canary = Units(canary.count, canary.bad + more * (canary.count - canary.bad))
    worse_baseline = Units(baseline.count, baseline.bad + more * (baseline.count - baseline.bad))

    def over(seen):
        return OverLimit(limit).seen(seen, NO_CEILING).bets.log

    def worse(seen, beside):
        return WorseThanBaseline(limit).seen(seen, beside, NO_CEILING).bets.log

    def within(seen):
        return WithinLimit(limit).seen(seen, NO_CEILING).log

    assert over(worse_canary) >= over(canary) - 1e-9
    assert worse(worse_canary, baseline) >= worse(canary, baseline) - 1e-9
    assert worse(canary, worse_baseline) <= worse(canary, baseline) + 1e-9
    assert within(worse_canary) <= within(canary) + 1e-9


def test_nothing_seen_changes_nothing():
    """Windows without units are no rounds: waiting costs no wealth and earns none."""
    assert OverLimit(0.05).seen(Units(), 9.0) == OverLimit(0.05)
    assert WithinLimit(0.05).seen(Units(), 9.0).log == pytest.approx(0.0)
    alone = WorseThanBaseline(0.05).seen(Units(5, 5), Units(), 9.0)
    assert alone.bets == Bets.none(len(_ODDS))


def test_what_turns_bad_late_is_found_soon():
    """After 1000 good windows, all-bad ones conclude within ten: good luck buys no shelter."""
    test = OverLimit(0.05)
    for _ in range(1000):
        test = test.seen(Units(5, 0), 9.0)
    needed = 0
    while test.bets.log < math.log(200):
        test = test.seen(Units(5, 5), 9.0)
        needed += 1
    assert needed <= 10


def test_old_evidence_fades():
    """After a disturbance that hit long, a hundred good windows make it inconclusive again."""
    test = OverLimit(0.05)
    for _ in range(100):
        test = test.seen(Units(5, 5), math.log(2000))
    for _ in range(100):
        test = test.seen(Units(5, 0), math.log(2000))
    assert test.bets.log < math.log(200)


@pytest.mark.thorough
def test_looking_always_finds_at_most_what_is_promised():
    """500 streams at the very limit, equal to their baseline, looked at after each of 300 windows.

    At most 1/200 may ever reach 200. Of 500 streams 2.5 are expected at most, of 2000 (thorough)
    10; more than 10, or 24, have a chance under 1 in 10000 if the promise holds.
    """
    draw = random.Random(20260301)
    found = {"over": 0, "worse": 0}
    payoffs: dict[tuple[int, str], list[float]] = {}
    over = OverLimit(0.05)
    for bad in range(4):
        payoffs[bad, "over"] = [likelihood(Units(3, bad), s, 0.05) for s in over.shares]
    known = WorseThanBaseline(0.05, Units(2000, 100))
    chances = [
        (i, j, binomial(3, i, 0.05) * binomial(3, j, 0.05)) for i in range(4) for j in range(4)
    ]
    weights = [p for _, _, p in chances]
    for i, j, _ in chances:
        payoffs[10 * i + j, "worse"] = [known.payoff(o, Units(3, i), Units(3, j)) for o in _ODDS]
    for _ in range(times(2000, 500)):
        first, second = Bets.none(len(over.shares)), Bets.none(len(_ODDS))
        reached = [False, False]
        for i, j, _ in draw.choices(chances, weights, k=300):
            first = first.play(payoffs[i, "over"], 9.0)
            second = second.play(payoffs[10 * i + j, "worse"], 9.0)
            if i:  # a good window never adds
                reached[0] |= first.log >= math.log(200)
                reached[1] |= second.log >= math.log(200)
        found["over"] += reached[0]
        found["worse"] += reached[1]
    assert max(found.values()) <= times(24, 10)


def test_a_state_that_does_not_fit_is_refused():
    """Other numbers of bets, limits out of range, wealth that is no number."""
    for broken in (
        lambda: OverLimit(0.0),
        lambda: OverLimit(0.05, Bets.none(3)),
        lambda: WithinLimit(0.05, (0.0,)),
        lambda: WorseThanBaseline(1.0),
        lambda: Bets((math.nan,)),
        lambda: Bets((math.inf,)),
        lambda: Bets((0.0,), -1),
        lambda: Bets(()),
    ):
        with pytest.raises(ValueError, match=r"limit|wealth"):
            broken()
