"""All rules at one look: samples in, verdicts out; what was learnt is kept from look to look."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from secure_pipeline import records
from secure_pipeline.canary.evidence import Bounds, Certainty, Evidence
from secure_pipeline.canary.model import (
    AlertState,
    Counts,
    Estimate,
    Health,
    Look,
    Looks,
    NoData,
    QueryResult,
    RuleState,
    Sample,
    Window,
)
from secure_pipeline.canary.target import AlertRule, AnalysisConfig, QueryRule, Rules
from secure_pipeline.errors import ConfigError, VerificationFailed

WORSE = 1.1
"""A soft rule is broken over its limit only where the canary is this many times the baseline."""
_TREND = 6
"""Looks that the time to a decision is estimated from."""


@dataclass(frozen=True)
class Memory:
    """What an analysis has to remember."""

    latency: Evidence
    errors: Evidence
    requests_per_unit: float
    restarts: int = 0
    """Of the canary, in all."""
    breaches: int = 0
    """Of soft rules, in all: steps and restarts of the program do not give them back (CAN-14)."""
    counted: float | None = None
    """End of the last window that was counted."""

    def __post_init__(self) -> None:
        if min(self.restarts, self.breaches) < 0 or not math.isfinite(self.counted or 0.0):
            raise ValueError("impossible counts")


@dataclass(frozen=True)
class Analysis:
    """The rules and what was seen so far. Never changes: ``observe`` gives the next one."""

    rules: Rules
    config: AnalysisConfig
    memory: Memory

    @classmethod
    def begin(cls, rules: Rules, config: AnalysisConfig) -> Analysis:
        """Nothing was seen yet."""
        latency = Evidence.none(float(rules.latency.share))
        errors = Evidence.none(float(rules.errors.share))
        return cls(rules, config, Memory(latency, errors, config.requests_per_unit))

    def renewed(self) -> Analysis:
        """Begin a step, or go on after a restart of the program.

        Evidence of health begins afresh; evidence against the canary, the budget and the count
        of restarts stay.
        """
        latency, errors = self.memory.latency.renewed(), self.memory.errors.renewed()
        return replace(self, memory=replace(self.memory, latency=latency, errors=errors))

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads, as JSON values; all numbers are finite."""
        return dict(records.encode(self.memory))

    @classmethod
    def from_json(cls, rules: Rules, config: AnalysisConfig, value: Any) -> Analysis:
        """Go on from what ``to_json`` gave.

        Raises: VerificationFailed (not what this program writes), ConfigError (collected under
        other limits).
        """
        try:
            memory = records.decode(Memory, value)
        except (records.InvalidRecord, AttributeError) as error:
            raise VerificationFailed(f"the evidence of the promotion: {error}") from None
        limits = (memory.latency.limit, memory.errors.limit, memory.requests_per_unit)
        wanted = (
            float(rules.latency.share),
            float(rules.errors.share),
            config.requests_per_unit,
        )
        if limits != wanted:
            raise ConfigError("the promotion was begun under other limits than the target has now")
        return cls(rules, config, memory)

    def observe(self, sample: Sample, number: int, time: datetime) -> tuple[Analysis, Look]:
        """Judge one sample. ``number``: of the look, from 1. Never raises for what was sampled."""
        window = self._fresh(sample.window)
        memory, states = _watched(self.rules, self.config, self.memory, window)
        states += [_alert(rule, sample) for rule in self.rules.alerts]
        states += [_query(rule, sample) for rule in self.rules.queries]
        breached = sum(not state.hard and state.health is Health.BAD for state in states)
        memory = replace(memory, breaches=memory.breaches + breached)
        left = self.rules.failure_budget - memory.breaches
        return replace(self, memory=memory), Look(number, time, window, tuple(states), left)

    def _fresh(self, window: Window | NoData) -> Window | NoData:
        """What was counted once is never counted again."""
        counted = self.memory.counted
        if isinstance(window, NoData) or counted is None:
            return window
        if (window.begun + window.ended) / 2 < counted:
            return NoData("nothing newer than what was counted before")
        return window


def _watched(
    rules: Rules, config: AnalysisConfig, memory: Memory, window: Window | NoData
) -> tuple[Memory, list[RuleState]]:
    """The rules that judge by the window."""
    certainty = Certainty.of(config)
    if isinstance(window, Window):
        restarts = memory.restarts + window.canary.restarts
        memory = replace(memory, restarts=restarts, counted=window.ended)
    latency, slow = _statistical("latency", rules, config, memory.latency, certainty, window)
    errors, failed = _statistical("errors", rules, config, memory.errors, certainty, window)
    memory = replace(memory, latency=latency, errors=errors)
    states = [slow, failed, _restarts(rules.restarts, memory.restarts, window)]
    for name, limit in (("mean", rules.latency.mean), ("p95", rules.latency.p95)):
        if limit is not None:
            worse = latency.worse_shown(certainty)
            states.append(_soft(name, limit.total_seconds(), config, window, worse=worse))
    return memory, states


def _statistical(
    name: str,
    rules: Rules,
    config: AnalysisConfig,
    evidence: Evidence,
    certainty: Certainty,
    window: Window | NoData,
) -> tuple[Evidence, RuleState]:
    latency = name == "latency"
    of = Bounds.latency if latency else Bounds.errors
    figures: dict[str, float] = {}
    missing = window.why if isinstance(window, NoData) else None
    if isinstance(window, Window):
        canary, baseline = (
            of(counts, config.requests_per_unit) for counts in (window.canary, window.baseline)
        )
        missing = _too_few(config, window.canary, tokens=latency)
        figures = {
            "canary_share": canary.value.share,
            "canary_share_low": canary.low.share,
            "canary_share_high": canary.high.share,
            "baseline_share": baseline.value.share,
            "units": canary.value.count,
            "baseline_units": baseline.value.count,
        }
        try:
            evidence = evidence.seen(canary, baseline, certainty)
        except ValueError as error:
            missing = f"numbers without sense: {error}"
    health = evidence.health(certainty)
    if missing is not None and health is not Health.BAD:
        health = Health.NO_DATA
    what = f"tokens over {_duration(rules.latency.limit)}" if latency else "requests failed"
    why = missing if health is Health.NO_DATA and missing else _why(what, evidence, health)
    return evidence, RuleState(name, True, health, why, figures | evidence.figures(certainty))


def _too_few(config: AnalysisConfig, counts: Counts, *, tokens: bool) -> str | None:
    """Why a window is too small to judge by. Errors need no tokens: a failure has none."""
    if counts.requests < config.minimum_requests:
        return f"{counts.requests:g} requests of the canary, {config.minimum_requests} are needed"
    if tokens and counts.tokens < config.minimum_tokens:
        return f"{counts.tokens:g} tokens of the canary, {config.minimum_tokens} are needed"
    return None


def _why(what: str, evidence: Evidence, health: Health) -> str:
    verdict = {
        Health.BAD: "over the limit, and worse than the baseline",
        Health.HEALTHY: "within the limit",
        Health.UNDETERMINED: "not enough to tell",
    }[health]
    return (
        f"{_percent(evidence.canary.share)} of {what} in this step, baseline "
        f"{_percent(evidence.baseline.share)}, limit {_percent(evidence.limit)}: {verdict}"
    )


def _restarts(allowed: int, found: int, window: Window | NoData) -> RuleState:
    """A restart hides what happened before it, so it is a failure of its own (CAN-07)."""
    figures = {"restarts": float(found), "limit": float(allowed)}
    why = f"{found} restarts of the canary, {allowed} are allowed"
    if found > allowed:
        return RuleState("restarts", True, Health.BAD, why, figures)
    if isinstance(window, NoData):
        return RuleState("restarts", True, Health.NO_DATA, window.why, figures)
    return RuleState("restarts", True, Health.HEALTHY, why, figures)


def _soft(
    name: str, limit: float, config: AnalysisConfig, window: Window | NoData, *, worse: bool
) -> RuleState:
    figures = {"limit": limit}
    if isinstance(window, NoData):
        return RuleState(name, False, Health.NO_DATA, window.why, figures)
    few = _too_few(config, window.canary, tokens=True)
    if few is not None:
        return RuleState(name, False, Health.NO_DATA, few, figures)
    canary, baseline = _latency(name, window.canary), _latency(name, window.baseline)
    if window.baseline.tokens < config.minimum_tokens:
        baseline = None
    for version, estimate in (("canary", canary), ("baseline", baseline)):
        if estimate is not None:
            figures |= {
                version: estimate.value,
                f"{version}_low": estimate.low,
                f"{version}_high": estimate.high,
            }
    health, said = _compared(canary, baseline, limit)
    if health is Health.BAD and not worse:
        # One window is a handful of requests: without this, chance would use up the budget.
        health, said = Health.UNDETERMINED, "over the limit, but not shown to be worse yet"
    values = f"canary {_seconds(canary)}, baseline {_seconds(baseline)}, limit {limit:.3g} s"
    return RuleState(name, False, health, f"{values}: {said}", figures)


def _latency(name: str, counts: Counts) -> Estimate | None:
    if name == "p95":
        return counts.p95
    return None if counts.mean is None else Estimate(counts.mean, counts.mean, counts.mean)


def _compared(
    canary: Estimate | None, baseline: Estimate | None, limit: float
) -> tuple[Health, str]:
    if canary is None:
        return Health.UNDETERMINED, "over the last bucket's edge, so not known"
    if canary.high <= limit:
        return Health.HEALTHY, "within the limit"
    if canary.low <= limit:
        return Health.UNDETERMINED, "the buckets are too coarse to tell"
    if baseline is None:
        return Health.UNDETERMINED, "over the limit, without a baseline to compare with"
    if canary.low <= WORSE * baseline.high:
        return Health.UNDETERMINED, "over the limit, but hardly more than the baseline"
    return Health.BAD, "over the limit, and more than the baseline"


def _alert(rule: AlertRule, sample: Sample) -> RuleState:
    name = f"alert:{rule.name}"
    missing = AlertState(rule.name, NoData("nobody asked for it"))
    state = next((alert for alert in sample.alerts if alert.name == rule.name), missing)
    if isinstance(state.firing, NoData):
        return RuleState(name, rule.hard, Health.NO_DATA, state.firing.why)
    if state.firing:
        return RuleState(name, rule.hard, Health.BAD, "it fires")
    return RuleState(name, rule.hard, Health.HEALTHY, "it does not fire")


def _query(rule: QueryRule, sample: Sample) -> RuleState:
    name = f"query:{rule.name}"
    missing = QueryResult(rule.name, NoData("nobody asked for it"))
    value = next((query for query in sample.queries if query.name == rule.name), missing).value
    if isinstance(value, NoData):
        return RuleState(name, rule.hard, Health.NO_DATA, value.why)
    if not math.isfinite(value):
        return RuleState(name, rule.hard, Health.NO_DATA, f"{value} is no number to judge by")
    figures = {"value": value}
    if rule.minimum is not None:
        figures["minimum"] = rule.minimum
    if rule.maximum is not None:
        figures["maximum"] = rule.maximum
    broken = None
    if rule.minimum is not None and value < rule.minimum:
        broken = f"{value:.6g} is under {rule.minimum:.6g}"
    if rule.maximum is not None and value > rule.maximum:
        broken = f"{value:.6g} is over {rule.maximum:.6g}"
    if broken is not None:
        return RuleState(name, rule.hard, Health.BAD, broken, figures)
    return RuleState(name, rule.hard, Health.HEALTHY, f"{value:.6g} is within bounds", figures)


def time_to_decision(looks: Looks) -> float | None:
    """Seconds until the evidence concludes if it grows as in the last looks; None if it does not.

    An estimate for people, from ``toward_abort`` and ``toward_health`` alone.
    """
    recent = looks[-_TREND:]
    if len(recent) < 2:
        return None
    seconds = (recent[-1].time - recent[0].time).total_seconds()
    first, last = _progress(recent[0]), _progress(recent[-1])
    if not last or set(first) != set(last) or seconds <= 0:
        return None
    aborts = [_left(first[rule][0], last[rule][0], seconds) for rule in last]
    health = [_left(first[rule][1], last[rule][1], seconds) for rule in last]
    soonest = min(min(aborts), max(health))
    return soonest if math.isfinite(soonest) else None


def _progress(look: Look) -> Mapping[str, tuple[float, float]]:
    return {
        state.rule: (state.figures["toward_abort"], state.figures["toward_health"])
        for state in look.rules
        if "toward_abort" in state.figures
    }


def _left(first: float, last: float, seconds: float) -> float:
    if last >= 1:
        return 0.0
    return (1 - last) * seconds / (last - first) if last > first else math.inf


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _seconds(estimate: Estimate | None) -> str:
    return "not known" if estimate is None else f"{estimate.value:.3g} s"


def _duration(limit: timedelta) -> str:
    return f"{limit.total_seconds() * 1000:g} ms"
