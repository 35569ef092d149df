"""Promotions as the versioned JSON documents ``PromotionMoment`` and ``Promotion``.

A form of its own, not the program's types: readers of it must not break when those change.
docs/reference/promotion-events.md describes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from secure_pipeline.canary.model import Counts, Estimate, Look, NoData, RuleState, Window
from secure_pipeline.canary.story import Moment, PromotionRecord, StepRecord
from secure_pipeline.report.promotion_text import numbered, sentence
from secure_pipeline.shape import rfc3339


def moment_document(moment: Moment) -> dict[str, Any]:
    """The members of a document of kind PromotionMoment."""
    return {
        "time": rfc3339(moment.time),
        "phase": moment.phase.value,
        "step": moment.step,
        "steps": moment.steps,
        "intended": _share(moment.intended),
        "routed": None if moment.routed is None else _share(moment.routed),
        "elapsedSeconds": _number(moment.elapsed),
        "deadlineSeconds": _number(moment.deadline),
        "healthyInARow": moment.healthy_in_a_row,
        "healthyNeeded": moment.needed,
        "look": look_document(moment.look) if moment.look else None,
        "note": moment.note or None,
    }


def record_document(record: PromotionRecord) -> dict[str, Any]:
    """The members of a document of kind Promotion."""
    return {
        "id": record.id,
        "target": {"name": record.target.target.name, "digest": record.target.digest},
        "image": str(record.image),
        "slot": record.canary,
        "baseline": {
            "slot": record.baseline,
            "image": record.baseline_image,
            "healthy": record.baseline_healthy,
        },
        "startedAt": rfc3339(record.started),
        "finishedAt": rfc3339(record.finished),
        "outcome": record.phase.value,
        "cause": record.ending.cause,
        "why": record.ending.why,
        "sentence": sentence(record),
        "resumed": record.resumed,
        "steps": [_step(number, step) for number, step in numbered(record.steps)],
        "looks": [look_document(look) for look in record.looks],
    }


def look_document(look: Look) -> dict[str, Any]:
    """One look: the window or why there is none, every rule, and which one decides."""
    window, decider = look.window, look.decider
    return {
        "number": look.number,
        "time": rfc3339(look.time),
        "health": look.health.value,
        "decider": decider.rule if decider else None,
        "budgetLeft": look.budget_left,
        "window": None if isinstance(window, NoData) else _window(window),
        "noWindow": window.why if isinstance(window, NoData) else None,
        "rules": [_rule(rule) for rule in look.rules],
    }


def _step(number: int, step: StepRecord) -> dict[str, Any]:
    return {
        "step": number,
        "share": _share(step.share),
        "startedAt": rfc3339(step.started),
        "finishedAt": rfc3339(step.finished),
        "looks": step.looks,
        "healthy": step.healthy,
        "outcome": step.outcome,
    }


def _window(window: Window) -> dict[str, Any]:
    return {
        "begun": _number(window.begun),
        "ended": _number(window.ended),
        "canary": _counts(window.canary),
        "baseline": _counts(window.baseline),
    }


def _counts(counts: Counts) -> dict[str, Any]:
    return {
        "tokens": counts.tokens,
        "slowTokens": _estimate(counts.slow),
        "tokenSeconds": counts.token_seconds,
        "meanSeconds": counts.mean,
        "p95Seconds": _estimate(counts.p95) if counts.p95 else None,
        "requests": counts.requests,
        "errors": counts.errors,
        "restarts": counts.restarts,
    }


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return {"low": estimate.low, "value": estimate.value, "high": _number(estimate.high)}


def _rule(rule: RuleState) -> dict[str, Any]:
    return {
        "rule": rule.rule,
        "hard": rule.hard,
        "health": rule.health.value,
        "why": rule.why,
        "figures": _finite(rule.figures),
    }


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in figures.items() if math.isfinite(value)}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _share(share: Fraction) -> dict[str, Any]:
    """As a number for charts, and exactly."""
    return {"value": float(share), "exact": str(Fraction(share))}
