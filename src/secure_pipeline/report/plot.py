"""Line plots over time as SVG for a page: direct labels, gaps where there is no data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from secure_pipeline.report.to_html import Markup, element

WIDTH, HEIGHT = 480.0, 236.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 96.0, 18.0, 24.0
MAX_POINTS = 600
"""Points of a line that are drawn; more are drawn as the greatest of each group."""
LINE = 14.0
"""Height of a label."""
_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200)

Points = Sequence[tuple[float, float | None]]
"""Seconds since the start, and a value; None where there is no data."""


@dataclass(frozen=True)
class Line:
    """One line and its label, which stands at its end."""

    label: str
    points: Points
    style: str
    """Classes of the style sheet, such as ``canary dashed``."""


@dataclass(frozen=True)
class Span:
    """The time that all plots of a page share."""

    seconds: float
    marks: tuple[tuple[float, str], ...]
    """Where something begins, and its name."""
    blanks: tuple[tuple[float, float], ...]
    """Stretches without data."""


@dataclass(frozen=True)
class Plot:
    """Lines over one time axis and one axis of values from 0."""

    id: str
    title: str
    about: str
    """What it shows, for those who do not see it."""
    lines: tuple[Line, ...]
    limits: tuple[tuple[float, str], ...] = ()
    form: Callable[[float], str] = "{:g}".format
    logarithmic: bool = False
    stepped: bool = False
    """Values hold until the next point."""
    top: float = 0.0
    """The axis reaches at least this far."""


@dataclass(frozen=True)
class _Frame:
    """From seconds and values to places."""

    seconds: float
    top: float
    logarithmic: bool

    def x(self, seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(seconds / self.seconds, 1.0)

    def y(self, value: float) -> float:
        height = HEIGHT - TOP - BOTTOM
        share = value / self.top
        if self.logarithmic:  # of 1 + value, so that there is a 0
            share = math.log10(1 + value) / math.log10(1 + self.top)
        return TOP + height * (1 - min(max(share, 0.0), 1.0))


def draw(plot: Plot, span: Span) -> Markup:
    """A figure: caption, axes, stretches without data, limits, lines and their labels."""
    values = [value for line in plot.lines for _, value in line.points if value is not None]
    highest = max([*values, *(limit for limit, _ in plot.limits), plot.top, 1e-9])
    ticks = _decades(highest) if plot.logarithmic else nice_ticks(highest)
    frame = _Frame(max(span.seconds, 1e-9), ticks[-1], plot.logarithmic)
    note = None if values else _text("no data", (LEFT + WIDTH - RIGHT) / 2, HEIGHT / 2, "middle")
    svg = element(
        "svg",
        element("title", plot.title, id=f"{plot.id}-title"),
        element("desc", plot.about, id=f"{plot.id}-desc"),
        *_blanks(span, frame),
        *_axes(plot, frame, ticks),
        *_marks(span, frame),
        *(_limit(limit, frame) for limit, _ in plot.limits),
        *(mark for line in plot.lines for mark in _line(line, frame, plot.stepped)),
        *_labels(plot, frame),
        note,
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        role="img",
        aria_labelledby=f"{plot.id}-title {plot.id}-desc",
    )
    return element("div", element("h3", plot.title), svg, class_="plot", id=plot.id)


def nice_ticks(highest: float) -> list[float]:
    """Three to six round values from 0 to at least ``highest``."""
    power = 10.0 ** math.floor(math.log10(highest))
    step = next(
        power * factor for factor in (0.2, 0.25, 0.5, 1, 2, 2.5) if highest <= power * factor * 5
    )
    return [step * number for number in range(math.ceil(round(highest / step, 9)) + 1)]


def time_ticks(seconds: float) -> list[tuple[float, str]]:
    """At most seven round times with their names."""
    days = max(1, math.ceil(seconds / 86400 / 6)) * 86400
    step = next((step for step in _TIME_STEPS if seconds / step <= 6), days)
    return [(at, _time(at, seconds)) for at in range(0, int(seconds) + 1, step)]


def _time(at: int, seconds: float) -> str:
    if seconds < 60:
        return f"{at} s"
    if seconds < 3600:
        return f"{at // 60}:{at % 60:02}"
    return f"{at // 3600} h" if at % 3600 == 0 else f"{at // 3600}:{at // 60 % 60:02} h"


def thinned(points: Points) -> Points:
    """At most MAX_POINTS points: the greatest of each group, none where a group has none."""
    size = math.ceil(len(points) / MAX_POINTS)
    if size <= 1:
        return points
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return [max(group, key=lambda at: -1.0 if at[1] is None else at[1]) for group in groups]


def _decades(highest: float) -> list[float]:
    return [0.0, *(10.0**power for power in range(1, max(1, math.ceil(math.log10(highest))) + 1))]


def _text(text: str, x: float, y: float, anchor: str, class_: str | None = None) -> Markup:
    return element("text", text, x=_n(x), y=_n(y), text_anchor=anchor, class_=class_)


def _stroke(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=_n(x1), y1=_n(y1), x2=_n(x2), y2=_n(y2), class_=class_)


def _n(number: float) -> str:
    return f"{number:.1f}".rstrip("0").rstrip(".")


def _axes(plot: Plot, frame: _Frame, ticks: Sequence[float]) -> Iterator[Markup]:
    for tick in ticks:
        y = frame.y(tick)
        yield _stroke(LEFT, y, WIDTH - RIGHT, y, "grid")
        yield _text(plot.form(tick), LEFT - 6, y + 4, "end")
    for at, name in time_ticks(frame.seconds):
        x = frame.x(at)
        yield _stroke(x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 4, "grid")
        yield _text(name, x, HEIGHT - 6, "middle")


def _blanks(span: Span, frame: _Frame) -> Iterator[Markup]:
    for begun, ended in span.blanks:
        x, end = frame.x(begun), frame.x(ended)
        yield element(
            "rect", x=_n(x), y=_n(TOP), width=_n(max(end - x, 1.0)),
            height=_n(HEIGHT - TOP - BOTTOM), class_="blank",
        )  # fmt: skip


def _marks(span: Span, frame: _Frame) -> Iterator[Markup]:
    free = 0.0
    for at, name in span.marks:
        x = frame.x(at)
        yield _stroke(x, TOP, x, HEIGHT - BOTTOM, "mark")
        if x >= free and x + 7.0 * len(name) < WIDTH - RIGHT + 20:
            yield _text(name, x + 3, TOP - 6, "start", "name")
            free = x + 7.0 * len(name) + 6


def _limit(limit: float, frame: _Frame) -> Markup:
    y = frame.y(limit)
    return _stroke(LEFT, y, WIDTH - RIGHT, y, "limit")


def _line(line: Line, frame: _Frame, stepped: bool) -> Iterator[Markup]:
    """Stretches of points; one that stands alone, and few of them, as dots."""
    points = thinned(line.points)
    dotted = sum(value is not None for _, value in points) <= 25 and not stepped
    for known, group in groupby(points, key=lambda point: point[1] is not None):
        if not known:
            continue
        places = [(frame.x(at), frame.y(value)) for at, value in group if value is not None]
        if len(places) > 1:
            yield element("path", d=_path(places, stepped), class_=f"line {line.style}")
        if dotted or len(places) == 1:
            for x, y in places:
                yield element("circle", cx=_n(x), cy=_n(y), r="2.6", class_=f"dot {line.style}")


def _path(places: Sequence[tuple[float, float]], stepped: bool) -> str:
    start, *rest = places
    words = [f"M{_n(start[0])} {_n(start[1])}"]
    for x, y in rest:
        words.append(f"H{_n(x)}V{_n(y)}" if stepped else f"L{_n(x)} {_n(y)}")
    return "".join(words)


def _labels(plot: Plot, frame: _Frame) -> Iterator[Markup]:
    """Names at the ends of their lines, moved apart where they would overlap."""
    wanted = [
        (frame.y(limit), frame.x(frame.seconds), name, "limit") for limit, name in plot.limits
    ]
    for line in plot.lines:
        known = [(at, value) for at, value in line.points if value is not None]
        if known:
            at, value = known[-1]
            wanted.append((frame.y(value), frame.x(at), line.label, line.style))
    wanted.sort()
    for (y, x, name, style), place in zip(wanted, _apart([y for y, *_ in wanted]), strict=True):
        end = WIDTH - RIGHT
        if abs(place - y) > 2 or end - x > 2:
            yield _stroke(x, y, end + 5, place, f"leader {style}")
        yield _text(name, end + 8, place + 4, "start", f"label {style}")


def _apart(places: Sequence[float]) -> list[float]:
    """Sorted places, each at least a line from the next, within the plot."""
    result: list[float] = []
    for place in places:
        result.append(max(place, result[-1] + LINE if result else TOP))
    bottom = HEIGHT - BOTTOM
    for index in reversed(range(len(result))):
        result[index] = min(result[index], bottom)
        bottom = result[index] - LINE
    return result
