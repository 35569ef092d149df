"""Rules for other controllers: valid YAML, the right expressions, and nothing is never healthy."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fakes.promotions import target
from secure_pipeline.canary.expressions import Bounded, bounded
from secure_pipeline.canary.render import RENDERERS, render_argo_rollouts, render_flagger
from secure_pipeline.canary.target import (
    AlertRule,
    GatewayRouter,
    LatencyRule,
    MetricNames,
    Preset,
    QueryRule,
    RouterConfig,
    ServiceAccess,
    Slot,
    Step,
    Target,
)
from secure_pipeline.documents import Percent
from secure_pipeline.errors import ConfigError

GOLDEN = Path(__file__).parents[2] / "golden/promotion"
LITERAL = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
ESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|U([0-9a-f]{8})|(.))")
SHORT = {"n": "\n", "r": "\r", "t": "\t"}
GUARD = "len(result) == 1 && !isNaN(result[0]) && !isInf(result[0]) && "


def literals(expression: str) -> list[str]:
    """The string literals of an expression, as Prometheus reads them."""
    return [
        ESCAPE.sub(
            lambda m: chr(int(m[1] or m[2], 16)) if m[1] or m[2] else SHORT.get(m[3], m[3]), text
        )
        for text in LITERAL.findall(expression)
    ]


def argo(bent: Target) -> dict[str, dict[str, Any]]:
    """The metrics of the AnalysisTemplate, by name."""
    document = yaml.safe_load(render_argo_rollouts(bent))
    assert (document["apiVersion"], document["kind"]) == (
        "argoproj.io/v1alpha1", "AnalysisTemplate",
    )  # fmt: skip
    return {metric["name"]: metric for metric in document["spec"]["metrics"]}


def flagger(bent: Target) -> tuple[dict[str, Any], dict[str, Any]]:
    """The templates' queries by rule, and the Canary's spec."""
    *templates, canary = yaml.safe_load_all(render_flagger(bent))
    assert {item["kind"] for item in templates} == {"MetricTemplate"}
    assert canary["kind"] == "Canary"
    queries = {item["metadata"]["name"]: item["spec"]["query"] for item in templates}
    return queries, canary["spec"]


def with_rules(**changes: Any) -> Target:
    plain = target()
    return replace(plain, rules=replace(plain.rules, **changes))


def with_steps(*shares: str) -> Target:
    return replace(target(), steps=tuple(Step(Percent(share)) for share in shares))


def judge(condition: str, result: list[float]) -> bool:
    """Evaluate a condition of ours as expr-lang does: ``&&`` and ``||`` stop early."""
    text = condition.replace("&&", "and").replace("||", "or").replace("!", " not ")
    names = {"len": len, "isNaN": math.isnan, "isInf": math.isinf, "result": result}
    return bool(eval(text, {"__builtins__": {}}, names))  # our own text, in a test


@pytest.mark.parametrize("name", RENDERERS)
def test_renderings_equal_their_golden_files(name: str) -> None:
    """What is written for the sample target is, byte for byte, what was looked at."""
    text = RENDERERS[name](target())
    assert text == (GOLDEN / f"{name}.yaml").read_text(), "run generate_rules.py and look"


@pytest.mark.parametrize("name", RENDERERS)
def test_every_rule_is_there_with_its_expression(name: str) -> None:
    """Latency, mean, errors, restarts, each alert and each query, and no other."""
    queries = (
        {rule: metric["provider"]["prometheus"]["query"] for rule, metric in argo(target()).items()}
        if name == "argo-rollouts"
        else {rule.removeprefix("production-"): q for rule, q in flagger(target())[0].items()}
    )
    assert queries == {rule.name: rule.expression for rule in bounded(target(), "green", "60s")}
    assert list(queries) == ["latency", "mean", "errors", "restarts", "alert-1", "query-queue"]
    assert 'job="inference",slot="green",le=~"0\\\\.15"' in queries["latency"]
    assert "blue" not in str(queries)


def test_limits_are_the_targets() -> None:
    """Both renderings compare with the same numbers."""
    metrics, (_, canary) = argo(target()), flagger(target())
    ranges = {metric["name"]: metric["thresholdRange"] for metric in canary["analysis"]["metrics"]}
    assert ranges == {
        "latency": {"max": 0.05}, "mean": {"max": 0.15}, "errors": {"max": 0.01},
        "restarts": {"max": 0.0}, "alert-1": {"max": 0.0}, "query-queue": {"max": 12.0},
    }  # fmt: skip
    for name, bounds in ranges.items():
        assert metrics[name]["successCondition"] == f"{GUARD}result[0] <= {bounds['max']}"
        assert metrics[name]["failureCondition"] == f"{GUARD}result[0] > {bounds['max']}"


@given(
    st.none() | st.floats(-1e6, 1e6), st.none() | st.floats(-1e6, 1e6),
    st.lists(st.floats() | st.floats(-10, 10), max_size=3),
)  # fmt: skip
def test_nothing_and_nan_are_neither_success_nor_failure(
    low: float | None, high: float | None, result: list[float]
) -> None:
    """CAN-02: exactly one finite number is judged, on one side; all else is inconclusive."""
    low, high = (min(low, high), max(low, high)) if None not in (low, high) else (low, high)  # type: ignore[type-var]
    if low is None and high is None:
        return
    query = QueryRule("own", "up", low, high)
    metric = argo(with_rules(queries=(query,)))["query-own"]
    success = judge(metric["successCondition"], result)
    failure = judge(metric["failureCondition"], result)
    if len(result) != 1 or not math.isfinite(result[0]):
        assert (success, failure) == (False, False)
    else:
        within = (low is None or result[0] >= low) and (high is None or result[0] <= high)
        assert (success, failure) == (within, not within)


def test_hard_rules_fail_at_once_and_soft_ones_by_the_budget() -> None:
    """Failures allowed: 0 or the budget, and what may fail is measured so much more often."""
    for name, metric in argo(target()).items():
        soft = name in ("mean", "query-queue")
        assert metric["failureLimit"] == (3 if soft else 0)
        assert metric["count"] == (15 if soft else 12)
        assert metric["inconclusiveLimit"] == 0
        assert metric["consecutiveErrorLimit"] == 180


def test_the_steps_of_the_rollout_are_the_targets() -> None:
    """The commented part is YAML too: weight, a full window, then the analysis."""
    lines = render_argo_rollouts(target()).splitlines()
    start = lines.index("# steps:")
    steps = yaml.safe_load("\n".join(line.removeprefix("# ") for line in lines[start:]))["steps"]
    assert [step["setWeight"] for step in steps[::3]] == [5, 25, 50]
    assert {step["pause"]["duration"] for step in steps[1::3]} == {"60s"}
    assert all(
        step["analysis"]["templates"] == [{"templateName": "production"}] for step in steps[2::3]
    )


def test_weights_never_exceed_the_steps_share() -> None:
    """Controllers take whole percents: rounded down, and a step of less than one is left out."""
    _, canary = flagger(with_steps("0.5%", "1.9%", "2.1%", "33.3%"))
    assert canary["analysis"]["stepWeights"] == [1, 2, 33]
    assert canary["analysis"]["maxWeight"] == 33
    for render in RENDERERS.values():
        with pytest.raises(ConfigError, match="1% or more"):
            render(with_steps("0.5%"))


def test_a_step_of_flagger_is_as_long_as_ours() -> None:
    """One passed check moves on, so its interval is the longest step or all healthy looks."""
    plain = target()
    slow = replace(plain.analysis, interval=timedelta(minutes=1), healthy_looks=5)
    _, canary = flagger(replace(plain, analysis=slow))
    assert canary["analysis"]["interval"] == "300s"
    assert canary["analysis"]["threshold"] == 4
    assert "provider" not in canary


def test_gateway_api_is_named_as_the_provider() -> None:
    """Flagger is told the router where it has the same one."""
    gateway = GatewayRouter("team", "inference", {"blue": "blue", "green": "green"})
    _, canary = flagger(replace(target(), router=RouterConfig(gateway_api=gateway)))
    assert canary["provider"] == "gatewayapi:v1"


def test_either_slot_may_be_the_canary() -> None:
    """The second slot by default, the named one else; another name is refused."""
    assert 'slot="blue"' in render_argo_rollouts(target(), "blue")
    assert 'slot="green"' not in render_flagger(target(), "blue")
    with pytest.raises(ConfigError, match="no slot"):
        render_flagger(target(), "red")


def test_what_cannot_be_expressed_is_said() -> None:
    """Comments name the sequential test, the baseline, the signature and the quarantine."""
    for render in RENDERERS.values():
        head = " ".join(line[2:] for line in render(target()).splitlines() if line[:1] == "#")
        for words in ("sequential test", "baseline", "signed verdict", "quarantine", "alert"):
            assert words in head
        assert "credentials" not in head
    access = ServiceAccess("https://prometheus.example", token_file="token")
    assert "credentials" in render_flagger(replace(target(), prometheus=access))


def test_other_metrics_and_optional_rules() -> None:
    """Names of vLLM, errors counted apart, a p95 rule, an edge that is a whole number."""
    names = MetricNames(preset=Preset.VLLM, error_counter="vllm:failed_total")
    latency = LatencyRule(limit=timedelta(seconds=1), mean=None, p95=timedelta(milliseconds=300))
    rules = {
        rule.name: rule
        for rule in bounded(
            replace(with_rules(latency=latency, alerts=(), queries=()), metrics=names),
            "green",
            "60s",
        )
    }
    assert list(rules) == ["latency", "p95", "errors", "restarts"]
    assert 'le=~"1\\\\.0|1"' in rules["latency"].expression
    assert "vllm:inter_token_latency_seconds_bucket" in rules["p95"].expression
    assert rules["p95"].maximum == 0.3
    assert rules["errors"].expression.count("vllm:failed_total") == 3


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    | st.sampled_from(
        ["{{args.x}}", "a  b", '"} or vector(0) #', "\n\t\x00\x85\u2028", "{{{{", "\\"]
    )
)
def test_hostile_labels_stay_within_their_literals(value: str) -> None:
    """No label value leaves its literal, the YAML, or becomes a variable of a template."""
    plain = target()
    labels = {"job": value, "slot": "green"}
    bent = replace(
        plain,
        slots={**plain.slots, "green": replace(plain.slots["green"], labels=labels)},
        rules=replace(
            plain.rules,
            alerts=(AlertRule(value or "x", {"severity": value}),)
            if (value or "x").strip()
            else (),
            queries=(QueryRule("own", "max(up{$canary}) - max(up{$baseline})", maximum=1),),
        ),
    )
    queries, _ = flagger(bent)
    assert len(queries) == len(argo(bent))
    for name, metric in argo(bent).items():
        query = metric["provider"]["prometheus"]["query"]
        assert query == queries[f"production-{name}"]
        assert "{{" not in query
        assert "  " not in query
        assert query.isprintable()
        assert value in literals(query)
        bare = LITERAL.sub('""', query)
        assert "#" not in bare
        assert bare.count("(") == bare.count(")")
    for text in (render_argo_rollouts(bent), render_flagger(bent)):
        assert "{{" not in text


@pytest.mark.parametrize("query", ['up{a="{{x}}"}', "up # comment", "up\n# comment\n"])
def test_a_query_that_templates_would_change_is_refused(query: str) -> None:
    """Variables of others and comments, which end where lines are joined, are not carried."""
    for render in RENDERERS.values():
        with pytest.raises(ConfigError, match="query own"):
            render(with_rules(queries=(QueryRule("own", query, maximum=1),)))
    render_flagger(with_rules(queries=(QueryRule("own", 'up{a="#"}', maximum=1),)))


def test_an_address_that_is_a_template_is_refused() -> None:
    """The controller would put a variable in."""
    access = ServiceAccess("http://127.0.0.1:9090/{{args.x}}")
    for render in RENDERERS.values():
        with pytest.raises(ConfigError, match="address"):
            render(replace(target(), prometheus=access))


def test_labels_that_are_none_are_refused() -> None:
    """A lone surrogate cannot be written."""
    plain = target()
    slot = Slot({"job": "\ud800"}, "docker://green")
    with pytest.raises(ConfigError, match="labels"):
        render_flagger(replace(plain, slots={**plain.slots, "green": slot}))


def test_a_rule_without_a_bound_is_none() -> None:
    """Every value would be right."""
    with pytest.raises(ValueError, match="no bound"):
        Bounded("x", "up", None, None, True)
