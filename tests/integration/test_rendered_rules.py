"""Rules for other controllers, evaluated by the real Prometheus (promtool)."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.promotions import target
from secure_pipeline.canary.expressions import bounded
from secure_pipeline.canary.target import AlertRule, Target

pytestmark = pytest.mark.integration

SLOT = 'job="inference",slot="green"'
HISTOGRAM = "inference_token_latency_seconds"
HEALTHY = {
    f'{HISTOGRAM}_bucket{{{SLOT},le="0.15"}}': "0+8x40",
    f'{HISTOGRAM}_bucket{{{SLOT},le="+Inf"}}': "0+16x40",
    f"{HISTOGRAM}_count{{{SLOT}}}": "0+16x40",
    f"{HISTOGRAM}_sum{{{SLOT}}}": "0+4x40",
    f'inference_requests_total{{{SLOT},code="200"}}': "0+6x40",
    f'inference_requests_total{{{SLOT},code="503"}}': "0+2x40",
    f"process_start_time_seconds{{{SLOT}}}": "100x40",
    f"inference_requests_running{{{SLOT}}}": "3x40",
}
"""Every five seconds 16 tokens in 4 s, half of them slow, and a quarter of 8 requests failed."""


def promtool(directory: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=directory, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def check(directory: Path, series: dict[str, str], expected: dict[str, float | None]) -> None:
    """Evaluate each rule at 90 s: a number, or None for no result."""
    tests = [
        {
            "expr": rule.expression,
            "eval_time": "90s",
            "exp_samples": []
            if expected[rule.name] is None
            else [{"labels": "{}", "value": expected[rule.name]}],
        }
        for rule in bounded(target(), "green", "60s")
    ]
    document = {
        "evaluation_interval": "5s",
        "tests": [
            {
                "interval": "5s",
                "input_series": [{"series": k, "values": v} for k, v in series.items()],
                "promql_expr_test": tests,
            }
        ],
    }
    (directory / "tests.yaml").write_text(yaml.safe_dump(document))
    promtool(directory, "test", "rules", "tests.yaml")


def test_each_expression_gives_its_number(tmp_path: Path) -> None:
    """Share of slow tokens, mean, share of failures, restarts, alerts and an own query."""
    check(
        tmp_path,
        HEALTHY,
        {"latency": 0.5, "mean": 0.25, "errors": 0.25, "restarts": 0, "alert-1": 0,
         "query-queue": 3},
    )  # fmt: skip


def test_no_data_is_no_result(tmp_path: Path) -> None:
    """CAN-02: without series nothing is returned; only an alert that is silent is 0."""
    names = ("latency", "mean", "errors", "restarts", "query-queue")
    check(tmp_path, {"up": "1x40"}, {**dict.fromkeys(names), "alert-1": 0})


def test_no_traffic_is_no_result(tmp_path: Path) -> None:
    """CAN-04: counters at rest give 0/0, and too few tokens are no answer either."""
    still = {series: "5x40" for series in HEALTHY}
    rest: dict[str, Any] = {"restarts": 0, "alert-1": 0, "query-queue": 5}
    check(tmp_path, still, {"latency": None, "mean": None, "errors": None, **rest})
    few = {
        series: values.replace("0+16x", "0+1x").replace("0+8x", "0+1x")
        for series, values in HEALTHY.items()
    }
    rest = {"errors": 0.25, "restarts": 0, "alert-1": 0, "query-queue": 3}
    check(tmp_path, few, {"latency": None, "mean": None, **rest})


def test_failures_and_restarts_are_counted(tmp_path: Path) -> None:
    """Without a series of failures their share is 0; a restart and a firing alert are 1."""
    series = {k: v for k, v in HEALTHY.items() if "503" not in k}
    series[f"process_start_time_seconds{{{SLOT}}}"] = "100x10 150x29"
    series['ALERTS{alertname="InferenceDown",alertstate="firing"}'] = "1x40"
    check(
        tmp_path,
        series,
        {"latency": 0.5, "mean": 0.25, "errors": 0, "restarts": 1, "alert-1": 1, "query-queue": 3},
    )


def test_two_series_of_an_own_query_are_no_result(tmp_path: Path) -> None:
    """The rendered query answers only where there is exactly one series."""
    plain = target()
    two = replace(plain.rules.queries[0], query="inference_requests_running{$canary}")
    bent = replace(plain, rules=replace(plain.rules, queries=(two,)))
    (expression,) = (r.expression for r in bounded(bent, "green", "60s") if r.name == "query-queue")
    series = [{"series": f'inference_requests_running{{{SLOT},pod="{n}"}}', "values": "3x40"}
              for n in range(2)]  # fmt: skip
    test = {"expr": expression, "eval_time": "90s", "exp_samples": []}
    document = {"tests": [{"interval": "5s", "input_series": series, "promql_expr_test": [test]}]}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    promtool(tmp_path, "test", "rules", "tests.yaml")


@pytest.mark.parametrize(
    "value", ['"} or vector(0) #', "{{a}}", "\\", "a\nb\x00", "é\u2028 ", "'`"]
)
def test_hostile_labels_are_valid_expressions(tmp_path: Path, value: str) -> None:
    """Prometheus itself takes every expression, whatever the labels hold."""

    def bent() -> Target:
        plain = target()
        green = replace(plain.slots["green"], labels={"job": value, "slot": "green"})
        alerts = (AlertRule(value, {"severity": value}),)
        rules = replace(plain.rules, alerts=alerts)
        return replace(plain, slots={**plain.slots, "green": green}, rules=rules)

    rules = [
        {"record": f"rule:{number}", "expr": rule.expression}
        for number, rule in enumerate(bounded(bent(), "green", "60s"))
    ]
    (tmp_path / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]})
    )
    promtool(tmp_path, "check", "rules", "rules.yaml")
