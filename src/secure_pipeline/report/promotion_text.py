"""A promotion as lines: one a moment for CI logs, a few for the whole."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from fractions import Fraction

from secure_pipeline.canary.model import Counts, Health, Look, NoData
from secure_pipeline.canary.story import Moment, Phase, PromotionRecord, StepRecord
from secure_pipeline.report.foreign import visible
from secure_pipeline.shape import rfc3339

WIDTH = 98
MAX_WHY = 300
"""Characters of a rule's why on a line."""


def moment_line(moment: Moment) -> str:
    """One moment in one line: when, where, how much traffic, what was seen, what decides."""
    read = "not read back" if moment.routed is None else f"read back {percent(moment.routed)}"
    parts = [
        rfc3339(moment.time),
        f"{moment.phase.value} step {moment.step}/{moment.steps}",
        f"share {percent(moment.intended)} ({read})",
    ]
    if moment.look:
        parts += [*_seen(moment.look), decision(moment.look)]
    if moment.phase is Phase.WATCHING:
        parts.append(f"healthy {moment.healthy_in_a_row}/{moment.needed}")
    if moment.note:
        parts.append(visible(moment.note, MAX_WHY))
    return " | ".join(parts)


def summary_lines(record: PromotionRecord) -> list[str]:
    """What came of it and why, in which steps, of what."""
    span = (record.finished - record.started).total_seconds()
    lines = [
        *_wrap(sentence(record)),
        f"image     {record.image} in slot {record.canary}",
        f"baseline  {baseline(record)}",
        f"target    {record.target.target.name} ({record.target.digest})",
        f"promotion {visible(record.id, 100)}, {rfc3339(record.started)}, "
        f"{duration(span)}, {counted(len(record.looks), 'look')}",
        *(f"  {step_line(number, step)}" for number, step in numbered(record.steps)),
    ]
    return lines + [line for remark in remarks(record) for line in _wrap(remark)]


def sentence(record: PromotionRecord) -> str:
    """The verdict and its reason."""
    why = visible(record.ending.why, MAX_WHY)
    if record.phase is Phase.PROMOTED:
        return f"PROMOTED to all traffic of {record.target.target.name}: {why}"
    return f"ABORTED ({visible(record.ending.cause, 80)}): {why}"


def baseline(record: PromotionRecord) -> str:
    """The version that was compared with, as far as it is known."""
    image = record.baseline_image
    return f"{visible(image, 400) if image else 'unknown image'} in slot {record.baseline}"


def step_line(number: int, step: StepRecord) -> str:
    """One step: its share, how long it took, how it ended."""
    took = duration((step.finished - step.started).total_seconds())
    looks = counted(step.looks, "look")
    outcome = visible(step.outcome, 40)
    return (
        f"step {number} at {percent(step.share)}: {outcome} in {took}, {looks}, "
        f"{step.healthy} healthy"
    )


def numbered(steps: Iterable[StepRecord]) -> list[tuple[int, StepRecord]]:
    """Steps with their numbers from 1; one that was begun anew keeps its number."""
    shares: dict[Fraction, int] = {}
    return [(shares.setdefault(step.share, len(shares) + 1), step) for step in steps]


def remarks(record: PromotionRecord) -> list[str]:
    """What else has to be known: restarts of the program, and the state of the baseline."""
    lines = []
    if record.resumed:
        times = "once" if record.resumed == 1 else f"{record.resumed} times"
        lines.append(f"The program ended {times} in between, and began the step's window anew.")
    if record.baseline_healthy is False:
        lines.append("The baseline did NOT answer as healthy when traffic went back to it.")
    elif record.phase is Phase.ABORTED and record.baseline_healthy is None:
        lines.append("The baseline was not asked for its health.")
    return lines


def decision(look: Look) -> str:
    """The health of a look, and the rule that makes it so, in words."""
    return f"{look.health.value} by {because(look)}" if look.rules else look.health.value


def because(look: Look) -> str:
    """The rule that decides a look, with its reason; '' without rules."""
    rule = look.decider
    if look.health is Health.HEALTHY:
        return f"all {counted(len(look.rules), 'rule')}"
    return f"{visible(rule.rule, 80)}: {visible(rule.why, MAX_WHY)}" if rule else ""


def _seen(look: Look) -> list[str]:
    """What the window shows, canary against baseline; a rule that has no data says why."""
    window = look.window
    if isinstance(window, NoData):
        said = look.decider is not None and look.decider.health is Health.NO_DATA
        return [] if said else [f"no window: {visible(window.why, MAX_WHY)}"]
    canary, base = window.canary, window.baseline
    return [
        f"tokens {canary.tokens:.0f} vs {base.tokens:.0f}",
        f"ms/token {_latency(canary)} vs {_latency(base)}",
        f"errors {error_share(canary)} vs {error_share(base)}",
    ]


def _latency(counts: Counts) -> str:
    return mean(counts) if counts.p95 is None else f"{mean(counts)} (p95 {p95(counts)})"


def mean(counts: Counts) -> str:
    """Mean milliseconds a token, ``-`` without tokens."""
    return "-" if counts.mean is None else milliseconds(counts.mean)


def p95(counts: Counts) -> str:
    """95th percentile in milliseconds, ``-`` where it is not known."""
    return "-" if counts.p95 is None else milliseconds(counts.p95.value)


def error_share(counts: Counts) -> str:
    """Share of requests that failed; ``-`` without requests."""
    return percent(counts.errors / counts.requests) if counts.requests else "-"


def slow_share(counts: Counts) -> str:
    """Share of tokens over the limit, ``-`` without tokens; ``~`` where interpolated."""
    if not counts.tokens:
        return "-"
    return f"{'' if counts.slow.exact else '~'}{percent(counts.slow.value / counts.tokens)}"


def percent(share: float | Fraction) -> str:
    """A share with two decimals at most; never 0 % or 100 % for what is not."""
    number = round(float(share) * 100, 2)
    if share > 0 and number == 0:
        return "<0.01%"
    if share < 1 and number == 100:
        return ">99.99%"
    return f"{number:.2f}".rstrip("0").rstrip(".") + "%"


def milliseconds(seconds: float) -> str:
    """Milliseconds without their unit, with a decimal below 100."""
    number = seconds * 1000
    return f"{number:.1f}" if number < 99.95 else f"{number:.0f}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 9.95:
        return f"{round(seconds, 1):g} s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes:02} min"
    if minutes:
        return f"{minutes} min {rest:02} s" if rest else f"{minutes} min"
    return f"{rest} s"


def counted(number: int, word: str) -> str:
    """``1 look``, ``2 looks``."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False) or [""]
