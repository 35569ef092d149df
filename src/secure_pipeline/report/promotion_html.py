"""A promotion as one self-contained page: verdict, steps, plots, rules, looks, settings."""

from __future__ import annotations

from collections.abc import Iterator

from secure_pipeline.canary.model import Counts, Health, Look, NoData, RuleState
from secure_pipeline.canary.story import Phase, PromotionRecord, StepRecord
from secure_pipeline.canary.target import RouterConfig, Target
from secure_pipeline.report.foreign import visible
from secure_pipeline.report.promotion_plots import plots
from secure_pipeline.report.promotion_styles import STYLES
from secure_pipeline.report.promotion_text import (
    MAX_WHY,
    baseline,
    because,
    counted,
    decision,
    duration,
    error_share,
    mean,
    milliseconds,
    numbered,
    p95,
    percent,
    remarks,
    sentence,
    slow_share,
)
from secure_pipeline.report.to_html import (
    Child,
    Markup,
    badge,
    code,
    disclosure,
    element,
    facts,
    isolated,
    join,
    moment,
    page,
    table,
)
from secure_pipeline.shape import rfc3339

MAX_LOOKS = 200
MAX_STEPS = 60
MAX_RULES = 120
_KINDS = {
    Health.HEALTHY: "good",
    Health.BAD: "bad",
    Health.UNDETERMINED: "unsure",
    Health.NO_DATA: "none",
}
_OUTCOMES = {"passed": "good", "aborted": "bad"}


def promotion_page(record: PromotionRecord) -> bytes:
    """The whole page; bounded, whatever the record holds."""
    name = record.target.target.name
    word = "Promoted" if record.phase is Phase.PROMOTED else "Aborted"
    body = element(
        "main",
        _verdict(record, f"{word}: {record.image.name} on {name}"),
        element("h2", "Steps"),
        _steps(record),
        element("h2", "Over time"),
        element("p", _reading(record), class_="dim"),
        element("div", *plots(record), class_="plots"),
        element("h2", "Rules at the last look"),
        *_rules(record),
        element("h2", "Looks"),
        _looks(record),
        element("h2", "Settings of the target"),
        _settings(record),
    )
    title = f"{word}: {record.image.name} on {name}"
    end = element("footer", "Written by secure-pipeline promote. Nothing is loaded, nothing runs.")
    return page(title, body, end, styles=STYLES)


def _verdict(record: PromotionRecord, title: str) -> Markup:
    kind = "good" if record.phase is Phase.PROMOTED else "bad"
    span = (record.finished - record.started).total_seconds()
    return element(
        "section",
        element("h1", title),
        element("p", isolated(sentence(record)), class_="because"),
        *(element("p", element("strong", remark)) for remark in remarks(record)),
        facts(
            [
                ("Image", code(str(record.image))),
                ("Slot", record.canary),
                ("Baseline", code(baseline(record))),
                ("Promotion", code(visible(record.id, 100))),
                ("Started", moment(record.started)),
                ("Finished", join([moment(record.finished), f", after {duration(span)}"])),
                ("Looks", _tally(record)),
            ]
        ),
        class_=f"verdict {kind}",
    )


def _tally(record: PromotionRecord) -> str:
    """How many looks there were, by health."""
    counts = {health: 0 for health in Health}
    for look in record.looks:
        counts[look.health] += 1
    parts = [f"{count} {health.value}" for health, count in counts.items() if count]
    return f"{len(record.looks)} ({', '.join(parts)})" if parts else "none"


def _steps(record: PromotionRecord) -> Markup:
    """The way up as a row of cards."""
    promoted = record.phase is Phase.PROMOTED
    cards = [_step(number, step) for number, step in numbered(record.steps)[:MAX_STEPS]]
    left_out = len(record.steps) - len(cards)
    if left_out:
        cards.append(element("li", f"… and {left_out} more steps"))
    end = ("good", "100%", "end", "all traffic") if promoted else ("bad", "0%", "end", "no traffic")
    cards.append(_card(*end, ""))
    return element("ol", *cards, class_="steps")


def _step(number: int, step: StepRecord) -> Markup:
    took = duration((step.finished - step.started).total_seconds())
    looks = f"{counted(step.looks, 'look')}, {step.healthy} healthy"
    kind = _OUTCOMES.get(step.outcome, "unsure")
    return _card(kind, percent(step.share), f"step {number}", f"{step.outcome} in {took}", looks)


def _card(kind: str, share: str, name: str, outcome: str, more: str) -> Markup:
    return element(
        "li",
        element("span", name, class_="dim"),
        element("strong", share),
        element("span", outcome),
        element("span", more, class_="dim") if more else None,
        class_=kind,
    )


def _reading(record: PromotionRecord) -> str:
    """How to read the plots."""
    exact = all(
        counts.slow.exact
        for look in record.looks
        if not isinstance(look.window, NoData)
        for counts in (look.window.canary, look.window.baseline)
    )
    bounds = "" if exact else " Shares of slow tokens are interpolated between buckets."
    return (
        "Time runs from the start. Dotted upright lines are where a step begins, with its share. "
        "Grey stretches have no data: nothing is drawn there, and nothing was taken for zero."
        f"{bounds}"
    )


def _rules(record: PromotionRecord) -> Iterator[Markup]:
    if not record.looks:
        yield element("p", "There was no look.", class_="dim")
        return
    last = record.looks[-1]
    yield element("p", join(["Look ", str(last.number), ", ", moment(last.time), ": ",
                             isolated(decision(last))]))  # fmt: skip
    decider = None if last.health is Health.HEALTHY else last.decider
    rows = [_rule(rule, rule is decider) for rule in last.rules[:MAX_RULES]]
    header = ("Rule", "Kind", "Health", "Toward abort", "Toward health", "Why")
    yield table(header, rows, class_="figures rules")
    if len(last.rules) > MAX_RULES:
        yield element("p", f"… and {len(last.rules) - MAX_RULES} more rules", class_="dim")


def _rule(rule: RuleState, decides: bool) -> list[Child]:
    name = isolated(visible(rule.rule, 80))
    return [
        element("strong", name, " (decides)") if decides else name,
        "hard" if rule.hard else "soft",
        badge(rule.health.value, _KINDS[rule.health]),
        *(_evidence(rule, key) for key in ("toward_abort", "toward_health")),
        isolated(visible(rule.why, MAX_WHY)),
    ]


def _evidence(rule: RuleState, key: str) -> str:
    value = rule.figures.get(key)
    return "" if value is None else f"{value:.2f}"


def _looks(record: PromotionRecord) -> Markup:
    """The last looks, newest first; the earlier ones are counted."""
    shown = record.looks[-MAX_LOOKS:]
    earlier = len(record.looks) - len(shown)
    header = ("Look", "Time", "Health", "Tokens", "Mean ms", "p95 ms", "Slow", "Errors", "Decides")
    inner = table(header, map(_look, reversed(shown)), class_="figures")
    rest = element("p", f"… and {counted(earlier, 'earlier look')}", class_="dim")
    summary = join([f"{counted(len(shown), 'look')}, newest first: canary / baseline"])
    return disclosure(summary, inner, rest if earlier else None, open_=len(shown) <= 20)


def _look(look: Look) -> list[Child]:
    stamp = rfc3339(look.time)
    time = element("time", stamp[11:19], datetime=stamp)
    head: list[Child] = [str(look.number), time, badge(look.health.value, _KINDS[look.health])]
    window, why = look.window, isolated(because(look))
    if isinstance(window, NoData):
        return [*head, *[element("span", "no data", class_="dim")] * len(_COLUMNS), why]
    return [
        *head,
        *(f"{form(window.canary)} / {form(window.baseline)}" for form in _COLUMNS),
        why,
    ]


def _tokens(counts: Counts) -> str:
    return f"{counts.tokens:.0f}"


_COLUMNS = (_tokens, mean, p95, slow_share, error_share)


def _settings(record: PromotionRecord) -> Markup:
    target = record.target.target
    rules, analysis = target.rules, target.analysis
    slow = milliseconds(rules.latency.limit.total_seconds())
    return facts(
        [
            ("Target", join([target.name, " ", code(record.target.digest)])),
            ("File", code(str(record.target.source))),
            ("Router", _router(target.router)),
            ("Slots", ", ".join(target.slots)),
            ("Steps", "; ".join(_planned(target))),
            ("Latency", f"at most {percent(rules.latency.share)} of tokens over {slow} ms"),
            ("Errors", f"at most {percent(rules.errors.share)} of requests"),
            ("Restarts", f"at most {rules.restarts}"),
            ("Alerts", ", ".join(visible(alert.name, 80) for alert in rules.alerts) or "none"),
            ("Queries", ", ".join(query.name for query in rules.queries) or "none"),
            ("Failure budget", f"{counted(rules.failure_budget, 'breach')} of soft rules"),
            ("False aborts", f"at most {analysis.false_abort}, over the whole promotion"),
            ("False advances", f"at most {analysis.false_advance}, of a step"),
            ("Healthy looks", f"{analysis.healthy_looks} in a row"),
            ("Interval", duration(analysis.interval.total_seconds())),
        ]
    )


def _planned(target: Target) -> list[str]:
    return [
        f"{step.share} for {duration(step.minimum.total_seconds())} to "
        f"{duration(step.deadline.total_seconds())}"
        for step in target.steps
    ]


def _router(router: RouterConfig) -> str:
    if router.haproxy:
        return "HAProxy"
    return "nginx" if router.nginx else "Kubernetes Gateway API"
