"""What a promotion looked like over time: the plots of its page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import pairwise
from statistics import median

from secure_pipeline.canary.model import Counts, Look, NoData, Window
from secure_pipeline.canary.story import Phase, PromotionRecord
from secure_pipeline.report.plot import Line, Plot, Points, Span, draw
from secure_pipeline.report.promotion_text import milliseconds, percent
from secure_pipeline.report.to_html import Markup

MAX_EVIDENCE = 4
"""Rules whose evidence is drawn."""
MAX_BLANKS = 200
GAP = 3.0
"""Looks that are more than so many usual intervals apart have a gap between them."""

Figure = Callable[[Counts], float | None]


def plots(record: PromotionRecord) -> list[Markup]:
    """All plots over the same time."""
    span = _span(record)
    traffic = draw(_traffic(record), replace(span, blanks=()))
    return [traffic, *(draw(plot, span) for plot in _plots(record))]


def _plots(record: PromotionRecord) -> Iterator[Plot]:
    rules = record.target.target.rules
    limit = rules.latency.limit.total_seconds()
    slow = f"{milliseconds(limit)} ms"
    yield Plot(
        "latency",
        "Latency per token: mean, and 95th percentile (dashed)",
        _about(record, _mean, lambda value: f"{milliseconds(value)} ms"),
        (
            *_versions(record, "mean", _mean),
            *_versions(record, "p95", _p95, dashed=True),
        ),
        ((limit, f"limit {slow}"),),
        lambda value: f"{value * 1000:.4g} ms",
    )
    share = float(rules.latency.share)
    yield Plot(
        "slow",
        f"Tokens that took longer than {slow}",
        _about(record, _slow, percent),
        _versions(record, "", _slow),
        ((share, f"limit {percent(share)}"),),
        percent,
        top=share * 1.5,
    )
    share = float(rules.errors.share)
    yield Plot(
        "errors",
        "Requests that failed",
        _about(record, _errors, percent),
        _versions(record, "", _errors),
        ((share, f"limit {percent(share)}"),),
        percent,
        top=share * 1.5,
    )
    yield from _evidence(record)
    least = record.target.target.analysis.minimum_tokens
    yield Plot(
        "tokens",
        "Tokens of each look (logarithmic)",
        _about(record, lambda counts: counts.tokens, "{:.0f}".format),
        _versions(record, "", lambda counts: counts.tokens),
        ((least, f"minimum {least}"),),
        "{:,.0f}".format,
        logarithmic=True,
    )


def _traffic(record: PromotionRecord) -> Plot:
    """The intended share as steps; between steps that do not touch it is not known."""
    points: list[tuple[float, float | None]] = []
    last = None
    for step in record.steps:
        begun, ended = _since(record, step.started), _since(record, step.finished)
        if last is not None and begun > last:
            points.append((last, None))
        points += [(begun, float(step.share)), (ended, float(step.share))]
        last = ended
    final = 1.0 if record.phase is Phase.PROMOTED else 0.0
    total = _since(record, record.finished)
    points += [(last if last is not None else total, final), (total, final)]
    shares = ", ".join(percent(step.share) for step in record.steps)
    about = f"Steps of {shares or 'nothing'}; at the end {percent(final)}."
    line = Line("canary", points, "canary thick")
    return Plot("traffic", "Traffic to the canary, as intended", about, (line,), form=percent,
                stepped=True, top=1.0)  # fmt: skip


def _evidence(record: PromotionRecord) -> Iterator[Plot]:
    """How near each statistical rule is to its verdict; at 1 it decides."""
    names = dict.fromkeys(
        rule.rule
        for look in record.looks
        for rule in look.rules
        if rule.figures.keys() & {"toward_abort", "toward_health"}
    )
    for number, name in enumerate(list(names)[:MAX_EVIDENCE]):
        lines = tuple(
            Line(label, _points(record, partial(_figure, name, key)), style)
            for key, label, style in (
                ("toward_abort", "shown bad", "abort"),
                ("toward_health", "shown healthy", "health"),
            )
        )
        yield Plot(
            f"evidence-{number}",
            f"Evidence by rule {name}",
            "Evidence that the rule is broken, and that it is kept; at 1 it decides.",
            lines,
            ((1.0, "decides"),),
            top=1.0,
        )


def _figure(name: str, key: str, look: Look) -> float | None:
    if isinstance(look.window, NoData):
        return None
    return next((rule.figures.get(key) for rule in look.rules if rule.rule == name), None)


def _mean(counts: Counts) -> float | None:
    return counts.mean


def _p95(counts: Counts) -> float | None:
    return counts.p95.value if counts.p95 else None


def _slow(counts: Counts) -> float | None:
    return counts.slow.value / counts.tokens if counts.tokens else None


def _errors(counts: Counts) -> float | None:
    return counts.errors / counts.requests if counts.requests else None


def _versions(
    record: PromotionRecord, what: str, figure: Figure, *, dashed: bool = False
) -> tuple[Line, ...]:
    """The baseline's line below, the canary's above."""

    def line(name: str, pick: Callable[[Window], Counts]) -> Line:
        def value(look: Look) -> float | None:
            return None if isinstance(look.window, NoData) else figure(pick(look.window))

        style = f"{name} dashed" if dashed else name
        return Line(f"{name} {what}".strip(), _points(record, value), style)

    return (
        line("baseline", lambda window: window.baseline),
        line("canary", lambda window: window.canary),
    )


def _points(record: PromotionRecord, value: Callable[[Look], float | None]) -> Points:
    """A value a look, and none in the middle of a gap between looks."""
    points: list[tuple[float, float | None]] = []
    gaps = _gaps(record.looks)
    for index, look in enumerate(record.looks):
        at = _since(record, look.time)
        if index in gaps:
            points.append(((at + points[-1][0]) / 2, None))
        points.append((at, value(look)))
    return points


def _gaps(looks: Sequence[Look]) -> frozenset[int]:
    """Indexes of looks that came much later than usual; numbers tell of looks left out."""
    paces = [
        (later.time - before.time).total_seconds() / max(later.number - before.number, 1)
        for before, later in pairwise(looks)
    ]
    usual = median(paces or [0.0])
    return frozenset(n for n, pace in enumerate(paces, start=1) if pace > GAP * usual)


def _span(record: PromotionRecord) -> Span:
    """Marks where steps begin, blanks where looks have no window."""
    marks = [(_since(record, step.started), percent(step.share)) for step in record.steps]
    blanks: list[tuple[float, float]] = []
    before, gaps = 0.0, _gaps(record.looks)
    for index, look in enumerate(record.looks):
        at = _since(record, look.time)
        if isinstance(look.window, NoData) or index in gaps:
            if blanks and blanks[-1][1] == before:
                blanks[-1] = (blanks[-1][0], at)
            else:
                blanks.append((before, at))
        before = at
    return Span(_since(record, record.finished), tuple(marks), tuple(blanks[:MAX_BLANKS]))


def _since(record: PromotionRecord, time: datetime) -> float:
    return max(0.0, (time - record.started).total_seconds())


def _about(record: PromotionRecord, figure: Figure, form: Callable[[float], str]) -> str:
    """Least, greatest and last value of both versions, in words."""
    windows = [look.window for look in record.looks if isinstance(look.window, Window)]
    parts = []
    for name in ("canary", "baseline"):
        values = [figure(getattr(window, name)) for window in windows]
        known = [value for value in values if value is not None]
        said = f"{name}: no data"
        if known:
            said = (
                f"{name} from {form(min(known))} to {form(max(known))}, at last {form(known[-1])}"
            )
        parts.append(said)
    return "; ".join(parts) + "."
