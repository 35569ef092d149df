"""A target's rules for a cluster that has a controller already: Argo Rollouts, or Flagger.

Both only compare the canary's numbers with limits, look by look. What they cannot do stands in
the comments of what is written. Formats: argoproj.io/v1alpha1 AnalysisTemplate (fields of
docs/features/analysis.md in argoproj/argo-rollouts), flagger.app/v1beta1 MetricTemplate and
Canary (docs/gitbook/usage in fluxcd/flagger).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import yaml

from secure_pipeline.canary.expressions import Bounded, bounded
from secure_pipeline.canary.target import Target
from secure_pipeline.errors import ConfigError

MIN_WINDOW = 60
"""Seconds over which rates are formed: two scrapes at least must lie within."""
ARGO_RETRY = 10
"""Seconds after which Argo Rollouts asks again where a measurement failed."""
FLAGGER_INTERVAL = 10
"""Seconds; Flagger takes no shorter interval."""

_CANNOT = (
    "What 'secure-pipeline promote' does and this cannot:",
    "- The sequential test: each look is compared with the limit as it is. Looking often aborts",
    "  healthy versions more often than the target allows (false-abort), or passes bad ones.",
    "- The concurrent baseline: a canary over a limit fails even where the old version is as bad.",
    "- Shares are of series that Prometheus extrapolates; restarts and errors count per window,",
    "  not per step, and an instance that was replaced under another name is no restart.",
    "- Whether an alert's rule exists and is evaluated: an alert that is unknown does not fire.",
    "- The identity of what runs, the signed verdict, and the quarantine of an aborted digest:",
    "  verify the image before it is deployed, and quarantine it by hand.",
)
_ARGO = (
    "An empty result, NaN, infinity or more than one series is neither success nor failure:",
    "inconclusiveLimit 0 pauses the Rollout at the first one. It stays paused until somebody",
    "resumes or aborts it; the deadline of a step holds only where Prometheus does not answer",
    "(consecutiveErrorLimit), which aborts.",
    "Soft rules are measured that much more often than they may fail; their healthy looks need",
    "not come in a row.",
)
_ARGO_STEPS = (
    "For the Rollout, under spec.strategy.canary. Without trafficRouting a weight is only the",
    "number of replicas, and more traffic than that may reach the canary. Weights are whole",
    "percents, rounded down. The pause lets a window pass that holds no older traffic; nothing",
    "watches meanwhile.",
)
_FLAGGER = (
    "No value is a failed check: it holds the traffic, and counts towards the threshold.",
    "Flagger has one threshold for all rules, so hard rules too fail only when it is reached:",
    "threshold 1 rolls back at the first failed check. There is no deadline besides it.",
    "One passed check moves on, after an interval as long as the longest step or the healthy",
    "looks of one, whichever takes longer. Weights are whole percents, rounded down.",
    "Fill in targetRef and service. Flagger's built-in metrics are not used: they are those of",
    "the mesh, not of the target.",
)


def render_argo_rollouts(target: Target, canary: str | None = None) -> str:
    """An AnalysisTemplate, and as a comment the steps of a Rollout that uses it.

    ``canary``: the slot whose labels the canary's pods have; the second one if it is not named.
    Raises: ConfigError for what this controller cannot express at all.
    """
    slot = _slot(target, canary)
    window = _window(target)
    rules = bounded(target, slot, f"{window}s")
    template = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AnalysisTemplate",
        "metadata": {"name": target.name},
        "spec": {"metrics": [_argo_metric(target, rule) for rule in rules]},
    }
    steps: list[dict[str, Any]] = []
    for weight in _weights(target):
        steps += [
            {"setWeight": weight},
            {"pause": {"duration": f"{window}s"}},
            {"analysis": {"templates": [{"templateName": target.name}]}},
        ]
    return "".join(
        (
            _head(target, slot, _ARGO),
            _yaml(template),
            "\n",
            _comment(_ARGO_STEPS),
            _comment(_yaml({"steps": steps}).splitlines()),
        )
    )


def _argo_metric(target: Target, rule: Bounded) -> dict[str, Any]:
    analysis, interval = target.analysis, _seconds(target.analysis.interval)
    longest = max(_seconds(step.minimum) for step in target.steps)
    shortest = min(_seconds(step.deadline) for step in target.steps)
    count = max(analysis.healthy_looks, math.ceil(longest / interval))
    budget = 0 if rule.hard else target.rules.failure_budget
    one = "len(result) == 1 && !isNaN(result[0]) && !isInf(result[0])"
    within, beyond = _conditions(rule)
    return {
        "name": rule.name,
        "interval": f"{interval}s",
        "count": count + budget,
        "successCondition": f"{one} && {within}",
        "failureCondition": f"{one} && {beyond}",
        "failureLimit": budget,
        "inconclusiveLimit": 0,
        "consecutiveErrorLimit": max(1, shortest // max(interval, ARGO_RETRY)),
        "provider": {
            "prometheus": {
                "address": _address(target),
                "query": rule.expression,
                "timeout": _seconds(target.prometheus.timeout),
            }
        },
    }


def _conditions(rule: Bounded) -> tuple[str, str]:
    """Within the bounds, and beyond them; both are false for NaN."""
    within, beyond = [], []
    if rule.minimum is not None:
        within.append(f"result[0] >= {_number(rule.minimum)}")
        beyond.append(f"result[0] < {_number(rule.minimum)}")
    if rule.maximum is not None:
        within.append(f"result[0] <= {_number(rule.maximum)}")
        beyond.append(f"result[0] > {_number(rule.maximum)}")
    return " && ".join(within), beyond[0] if len(beyond) == 1 else f"({' || '.join(beyond)})"


def render_flagger(target: Target, canary: str | None = None) -> str:
    """A MetricTemplate for each rule, and the Canary that uses them.

    ``canary`` as for ``render_argo_rollouts``. Raises: ConfigError.
    """
    slot = _slot(target, canary)
    looks = target.analysis.healthy_looks * target.analysis.interval
    longest = max(looks, *(step.minimum for step in target.steps))
    interval = max(_seconds(longest), _window(target), FLAGGER_INTERVAL)
    rules = bounded(target, slot, f"{interval}s")
    documents = [_flagger_template(target, rule) for rule in rules]
    documents.append(_flagger_canary(target, rules, f"{interval}s"))
    return _head(target, slot, _FLAGGER) + "---\n".join(map(_yaml, documents))


def _flagger_template(target: Target, rule: Bounded) -> dict[str, Any]:
    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "MetricTemplate",
        "metadata": {"name": f"{target.name}-{rule.name}"},
        "spec": {
            "provider": {"type": "prometheus", "address": _address(target)},
            "query": rule.expression,
        },
    }


def _flagger_canary(target: Target, rules: Iterable[Bounded], interval: str) -> dict[str, Any]:
    weights = _weights(target)
    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {"name": target.name},
        "spec": {
            **({"provider": "gatewayapi:v1"} if target.router.gateway_api else {}),
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target.name},
            "service": {"port": 80},
            "analysis": {
                "interval": interval,
                "threshold": target.rules.failure_budget + 1,
                "maxWeight": weights[-1],
                "stepWeights": weights,
                "metrics": [_flagger_metric(target, rule, interval) for rule in rules],
            },
        },
    }


def _flagger_metric(target: Target, rule: Bounded, interval: str) -> dict[str, Any]:
    bounds = {"min": rule.minimum, "max": rule.maximum}
    return {
        "name": rule.name,
        "templateRef": {"name": f"{target.name}-{rule.name}"},
        "thresholdRange": {key: bound for key, bound in bounds.items() if bound is not None},
        "interval": interval,
    }


def _slot(target: Target, canary: str | None) -> str:
    slot = list(target.slots)[1] if canary is None else canary
    if slot not in target.slots:
        raise ConfigError(f"{slot[:80]!r} is no slot of the target", where=target.name)
    return slot


def _window(target: Target) -> int:
    return max(MIN_WINDOW, 2 * _seconds(target.analysis.interval))


def _weights(target: Target) -> list[int]:
    """Whole percents, never more than the step's share. Raises: ConfigError if none is left."""
    weights = sorted({math.floor(step.share * 100) for step in target.steps} - {0})
    if not weights:
        raise ConfigError("no step has a share of 1% or more", where=target.name)
    return weights


def _address(target: Target) -> str:
    url = target.prometheus.url
    if "{{" in url:
        raise ConfigError("the address of Prometheus holds '{{'", where=target.name)
    return url


def _seconds(time: timedelta) -> int:
    return max(1, math.ceil(time.total_seconds()))


def _number(number: float) -> str:
    return repr(float(number))


def _head(target: Target, slot: str, more: Iterable[str]) -> str:
    """Where it comes from, and what it cannot do."""
    (other,) = set(target.slots) - {slot}
    lines = [
        f"Rules of the promotion target {target.name}.",
        f"The canary's series have the labels of slot {slot}, the baseline's those of {other}:",
        "change them where the controller names pods otherwise.",
        *_CANNOT,
        *more,
    ]
    access = target.prometheus
    if access.token_file or access.username or access.ca:
        lines.append("The credentials and the CA for Prometheus have to be given here besides.")
    return _comment(lines)


def _comment(lines: Iterable[str]) -> str:
    return "".join(f"# {line}\n" for line in lines)


def _yaml(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1 << 20)


class _Dumper(yaml.SafeDumper):
    """Writes no anchors: what is equal by chance stays apart."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


RENDERERS: Mapping[str, Callable[[Target], str]] = MappingProxyType(
    {"argo-rollouts": render_argo_rollouts, "flagger": render_flagger}
)
"""Name of a controller to what writes its rules."""
