"""A promotion that is over, as a predicate: what was seen, what the rules said, how it ended.

Page and schema: docs/reference/predicates/promotion-v1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from secure_pipeline.audit.entry import instant
from secure_pipeline.canary.model import Counts, Estimate, Health, Look, NoData, RuleState, Window
from secure_pipeline.canary.story import Phase, PromotionRecord, StepRecord
from secure_pipeline.canary.target import RouterConfig, Target

MAX_LOOKS = 2000
"""Looks that are written; where there were more, the number of all is."""
MAX_STATES = 20_000
"""States of rules in all looks together; with many rules fewer looks are written."""
AROUND = 50
"""Looks on each side of the one that decided that are always written."""
MAX_WHY = 500
MAX_FIGURES = 30


def promotion_predicate(record: PromotionRecord, engine_run: str | None = None) -> dict[str, Any]:
    """Return the predicate of a promotion; bounded, and without anything that is not finite.

    ``engine_run``: the run of the engine in which it ended, such as a PipelineRun's name.
    """
    target = record.target.target
    chosen = chosen_looks(record.looks)
    predicate: dict[str, Any] = {
        "id": record.id,
        "result": "PROMOTED" if record.phase is Phase.PROMOTED else "ROLLED_BACK",
        "cause": record.ending.cause,
        "why": _cut(record.ending.why),
        "startedOn": instant(record.started),
        "finishedOn": instant(record.finished),
        "resumed": record.resumed,
        "target": {
            "name": target.name,
            "digest": {"sha256": record.target.digest.removeprefix("sha256:")},
            "router": _router(target.router),
        },
        "slots": {"canary": record.canary, "baseline": record.baseline},
        "analysis": _analysis(target),
        "limits": _limits(target),
        "steps": [_step(step) for step in record.steps],
        "lookCount": len(record.looks),
        "looks": [_look(look) for look in chosen],
    }
    if engine_run is not None:
        predicate["engineRun"] = engine_run
    if record.baseline_image is not None:
        predicate["baselineImage"] = record.baseline_image
    if record.baseline_healthy is not None:
        predicate["baselineHealthy"] = record.baseline_healthy
    if target.identity_unchecked is not None:
        predicate["identityUnchecked"] = _cut(target.identity_unchecked)
    return predicate


def chosen_looks(looks: Sequence[Look]) -> tuple[Look, ...]:
    """All looks, or of very many the first, the last, those around the decision and even gaps.

    The look that decided is the first that was bad, or else the last.
    """
    most = max((len(look.rules) for look in looks), default=1)
    limit = max(min(MAX_LOOKS, MAX_STATES // max(most, 1)), 4 * AROUND)
    count = len(looks)
    if count <= limit:
        return tuple(looks)
    decided = next((n for n, look in enumerate(looks) if look.health is Health.BAD), count - 1)
    kept = {0, *range(count - AROUND, count)}
    kept |= {n for n in range(decided - AROUND, decided + AROUND + 1) if 0 <= n < count}
    others = [n for n in range(count) if n not in kept]
    spare = limit - len(kept)
    kept |= {others[part * len(others) // spare] for part in range(spare)}
    return tuple(looks[n] for n in sorted(kept))


def _router(router: RouterConfig) -> str:
    kinds = {
        "haproxy": router.haproxy,
        "nginx": router.nginx,
        "gateway-api": router.gateway_api,
    }
    return next(name for name, chosen in kinds.items() if chosen is not None)


def _analysis(target: Target) -> dict[str, Any]:
    analysis = target.analysis
    return {
        "falseAbort": float(analysis.false_abort),
        "falseAdvance": float(analysis.false_advance),
        "healthyLooks": analysis.healthy_looks,
        "minimumTokens": analysis.minimum_tokens,
        "minimumRequests": analysis.minimum_requests,
        "requestsPerUnit": analysis.requests_per_unit,
        "interval": analysis.interval.total_seconds(),
        "staleAfter": analysis.stale_after.total_seconds(),
    }


def _limits(target: Target) -> dict[str, Any]:
    rules = target.rules
    latency = rules.latency
    limits: dict[str, Any] = {
        "latency": latency.limit.total_seconds(),
        "latencyShare": float(latency.share),
        "errorShare": float(rules.errors.share),
        "restarts": rules.restarts,
        "failureBudget": rules.failure_budget,
        "alerts": [alert.name for alert in rules.alerts],
        "queries": [query.name for query in rules.queries],
    }
    for name, value in (("latencyMean", latency.mean), ("latencyP95", latency.p95)):
        if value is not None:
            limits[name] = value.total_seconds()
    return limits


def _step(step: StepRecord) -> dict[str, Any]:
    return {
        "share": float(step.share),
        "startedOn": instant(step.started),
        "finishedOn": instant(step.finished),
        "looks": step.looks,
        "healthyLooks": step.healthy,
        "outcome": step.outcome,
    }


def _look(look: Look) -> dict[str, Any]:
    seen: dict[str, Any] = {
        "number": look.number,
        "time": instant(look.time),
        "health": look.health.value,
        "budgetLeft": look.budget_left,
        "rules": [_rule(rule) for rule in look.rules],
    }
    if isinstance(look.window, NoData):
        seen["noData"] = _cut(look.window.why)
    else:
        seen["window"] = _window(look.window)
    return seen


def _rule(state: RuleState) -> dict[str, Any]:
    finite = ((name, float(v)) for name, v in state.figures.items() if math.isfinite(v))
    return {
        "rule": state.rule,
        "hard": state.hard,
        "health": state.health.value,
        "why": _cut(state.why),
        "figures": dict(list(finite)[:MAX_FIGURES]),
    }


def _window(window: Window) -> dict[str, Any]:
    return {
        "begun": window.begun,
        "ended": window.ended,
        "canary": _counts(window.canary),
        "baseline": _counts(window.baseline),
    }


def _counts(counts: Counts) -> dict[str, Any]:
    seen: dict[str, Any] = {
        "tokens": counts.tokens,
        "slowTokens": _estimate(counts.slow),
        "tokenSeconds": counts.token_seconds,
        "requests": counts.requests,
        "errors": counts.errors,
        "restarts": counts.restarts,
    }
    if counts.p95 is not None:
        seen["p95"] = _estimate(counts.p95)
    return seen


def _estimate(estimate: Estimate) -> dict[str, float]:
    """JSON has no infinity: a bound that is none is left out."""
    bounds = {"low": estimate.low, "value": estimate.value, "high": estimate.high}
    return {name: value for name, value in bounds.items() if math.isfinite(value)}


def _cut(text: str) -> str:
    """Text that may come from outside, short and in one encoding."""
    plain = text.encode(errors="replace").decode()
    return plain if len(plain) <= MAX_WHY else f"{plain[: MAX_WHY - 1]}…"
