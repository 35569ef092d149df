"""What a histogram tells, and how exactly."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.canary.histogram import Histogram
from secure_pipeline.canary.model import Estimate

EDGES = (0.05, 0.1, 0.15, 0.2, math.inf)
FOUND = Histogram(EDGES, (10, 30, 60, 90, 100))


def test_a_limit_on_an_edge_is_exact() -> None:
    """Tokens over 0.15 s are those that are not in its bucket."""
    assert FOUND.over(0.15) == Estimate(40, 40, 40)


def test_a_limit_between_edges_has_bounds() -> None:
    """Between 0.15 and 0.2 the value is interpolated, and both edges bound it."""
    found = FOUND.over(0.175)
    assert (found.low, found.value, found.high) == (10, pytest.approx(25), 40)
    assert FOUND.around(0.175) == (0.15, 0.2)


def test_over_the_last_edge_the_worst_is_taken() -> None:
    """Nothing can be interpolated up to infinity."""
    assert FOUND.over(0.5) == Estimate(0, 10, 10)


def test_a_percentile_lies_in_its_bucket_or_is_not_known() -> None:
    """The 95th of these is over the last edge; the 80th lies between 0.15 and 0.2."""
    assert FOUND.quantile(0.95) is None
    found = FOUND.quantile(0.8)
    assert found is not None
    assert (found.low, found.high) == (0.15, 0.2)
    assert found.value == pytest.approx(0.15 + 0.05 * 2 / 3)
    assert Histogram(EDGES, (0, 0, 0, 0, 0)).quantile(0.95) is None


@pytest.mark.parametrize(
    ("buckets", "count", "why"),
    [
        ({0.1: 1, 0.2: 2}, 2, "no bucket"),
        ({0.1: 3, 0.2: 2, math.inf: 3}, 3, "less than one below"),
        ({0.1: -1, math.inf: 3}, 3, "less than one below"),
        ({0.1: 1, math.inf: 3}, 4, "count"),
        ({}, 0, "no bucket"),
    ],
)
def test_what_is_no_histogram_is_refused(
    buckets: dict[float, float], count: float, why: str
) -> None:
    """Without +Inf, falling, or with another count, nothing is made of it."""
    with pytest.raises(ValueError, match=why):
        Histogram.of(buckets, count)


@given(st.lists(st.floats(0.001, 2), min_size=1, max_size=60), st.floats(0.001, 2))
def test_the_bounds_hold_for_any_observations(seen: list[float], limit: float) -> None:
    """The true number over the limit, and the true percentile, lie within the bounds."""
    found = Histogram(EDGES, tuple(float(sum(x <= edge for x in seen)) for edge in EDGES))
    over = found.over(limit)
    assert over.low <= sum(x > limit for x in seen) <= over.high
    p95 = found.quantile(0.95)
    if p95 is not None:
        true = sorted(seen)[math.ceil(0.95 * len(seen) - 1e-9) - 1]
        assert p95.low <= true <= p95.high
