"""Plots: round ticks that hold the values, labels apart, few points however many there are."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.htmlpage import read_page
from secure_pipeline.report.plot import (
    MAX_POINTS,
    Line,
    Plot,
    Span,
    draw,
    nice_ticks,
    thinned,
    time_ticks,
)
from secure_pipeline.report.to_html import page

SPAN = Span(100.0, ((0.0, "5%"),), ())


def plot(*lines: Line, **more: object) -> str:
    """A plot's markup, checked to be well-formed."""
    markup = draw(Plot("p", "Title", "About", lines, **more), SPAN)  # type: ignore[arg-type]
    read_page(page("t", markup))
    return markup


@given(st.floats(1e-6, 1e9))
def test_ticks_are_few_and_reach_the_highest(highest: float) -> None:
    """From 0, evenly, to at least the highest value, with at most six of them."""
    ticks = nice_ticks(highest)
    assert ticks[0] == 0
    assert ticks[-1] >= highest * (1 - 1e-9)
    assert 3 <= len(ticks) <= 6


@given(st.floats(0, 7 * 86400))
def test_times_are_few_and_within(seconds: float) -> None:
    """At most seven times, all within the span, with different names."""
    ticks = time_ticks(seconds)
    assert 1 <= len(ticks) <= 7
    assert ticks[-1][0] <= seconds
    assert len({name for _, name in ticks}) == len(ticks)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_labels_never_overlap(ends: list[float]) -> None:
    """However near lines end to each other, their labels are a line apart and in the picture."""
    lines = (Line(f"line {n}", ((100.0, end),), "canary") for n, end in enumerate(ends))
    places = re.findall(r'y="([0-9.]+)"[^>]*class="label canary"', plot(*lines))
    heights = sorted(map(float, places))
    assert len(heights) == len(ends)
    assert all(b - a >= 13.8 for a, b in pairwise(heights))
    assert heights[0] > 0
    assert heights[-1] < 236


def test_a_point_between_gaps_is_a_dot() -> None:
    """A value alone is seen, and nothing is drawn across the gap."""
    points = ((0.0, None), (1.0, 0.5), (2.0, None), (3.0, 0.2), (4.0, 0.3))
    markup = plot(Line("a", points, "canary"))
    assert markup.count("<path") == 1
    assert markup.count("<circle") == 3


def test_steps_hold_until_the_next() -> None:
    """A stepped line goes across, then up: never aslant."""
    markup = plot(Line("a", ((0.0, 0.1), (5.0, 0.4)), "canary"), stepped=True)
    assert re.search(r'd="M[0-9. ]+H[0-9.]+V[0-9.]+"', markup)


def test_a_plot_without_values_says_so() -> None:
    """No data is a word, not a line at 0."""
    markup = plot(Line("a", ((0.0, None),), "canary"))
    assert ">no data</text>" in markup
    assert 'class="line' not in markup


def test_many_points_keep_their_peaks() -> None:
    """Of many points few are drawn, the greatest of each group, and a gap that fills one."""
    points = [(float(n), math.sin(n)) for n in range(10_000)]
    points[5_000] = (5000.0, 9.0)
    thin = thinned(points)
    assert len(thin) <= MAX_POINTS
    assert (5000.0, 9.0) in thin
    assert {value for _, value in thinned([(float(n), None) for n in range(10_000)])} == {None}


@pytest.mark.parametrize("text", ["<script>", '" onload="x', "\u202e"])
def test_labels_are_escaped(text: str) -> None:
    """A line's name is text, whatever it holds."""
    assert text not in plot(Line(text, ((0.0, 0.5),), "canary"))
