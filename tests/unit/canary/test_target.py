"""Promotion targets: what operators may write, and what is refused with its line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from secure_pipeline.canary.target import Preset, load
from secure_pipeline.errors import ConfigError

GOOD = """\
version: 1
name: production
slots:
  blue: {labels: {slot: blue}, runtime: 'docker://blue'}
  green: {labels: {slot: green}, runtime: 'docker://green'}
router:
  haproxy: {socket: /run/haproxy.sock, backend: inference, servers: {blue: b, green: g}}
prometheus: {url: 'http://127.0.0.1:9090'}
"""


def written(directory: Path, text: str) -> Path:
    path = directory / "target.yaml"
    path.write_text(text)
    return path


def test_the_least_target_has_the_documented_defaults(tmp_path: Path) -> None:
    """5, 25, 50 %; 150 ms a token; 1 % errors; 1 % false aborts; the sample's metrics."""
    target = load(written(tmp_path, GOOD)).target
    assert [Fraction(step.share) for step in target.steps] == [
        Fraction(1, 20), Fraction(1, 4), Fraction(1, 2),
    ]  # fmt: skip
    assert target.rules.latency.limit.total_seconds() == 0.15
    assert target.rules.errors.share == Fraction(1, 100)
    assert target.analysis.false_abort == Fraction(1, 100)
    assert target.metrics.preset is Preset.INFERENCE_SERVICE


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("version: 1", "version: 2", "version 2"),
        ("name: production", "name: Pro duction", "short name"),
        ("{slot: green}", "{slot: blue}", "same series"),
        ("{slot: green}", "{}", "labels is empty"),
        ("{slot: green}", "{'a b': green}", "not a label"),
        ("{blue: b, green: g}", "{blue: b, red: g}", "the router must name"),
        ("{blue: b, green: g}", "{blue: b, green: b}", "one and the same"),
        ("runtime: 'docker://green'", "health: 'http://127.0.0.1/'", "identity-unchecked"),
        (
            "router:\n",
            "router:\n  nginx: null\n  gateway-api: {namespace: n, route: r, services: "
            "{blue: b, green: g}}\n",
            "exactly one",
        ),
        ("prometheus: {url: 'http", "prometheus: {url: 'ftp", "no http address"),
        ("9090'}", "9090', username: x}", "belong together"),
        ("9090'}", "9090'}\nsteps: []", "steps"),
        ("9090'}", "9090'}\nsteps: [{share: 50%}, {share: 5%}]", "greater than the one before"),
        ("9090'}", "9090'}\nsteps: [{share: 100%}]", "under 100%"),
        ("9090'}", "9090'}\nsteps: [{share: 0.05}]", "such as 5%"),
        ("9090'}", "9090'}\nsteps: [{share: 5%, minimum: 1h}]", "less than deadline"),
        ("9090'}", "9090'}\nanalysis: {false-abort: 50%}", "at most 20%"),
        ("9090'}", "9090'}\nanalysis: {healthy-looks: 0}", "1 or more"),
        ("9090'}", "9090'}\nanalysis: {interval: 2m, stale-after: 1m}", "less than interval"),
        ("9090'}", "9090'}\nrules: {errors: {share: 0%}}", "over 0%"),
        ("9090'}", "9090'}\nrules: {queries: [{name: q, query: up}]}", "every value"),
        ("9090'}", "9090'}\nrules: {alerts: [{name: ''}]}", "empty"),
        ("9090'}", "9090'}\nmetrics: {errors: {}}", "every request"),
        ("9090'}", "9090'}\nmetrics: {preset: custom, latency: x}", "custom preset needs"),
        ("9090'}", "9090'}\nidentity-unchecked: no", "at least 10"),
    ],
)
def test_what_would_watch_nothing_or_the_wrong_thing_is_refused(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    """Empty, contradictory and unbounded settings are errors at a line, never defaults."""
    assert old in GOOD
    with pytest.raises(ConfigError, match=words) as caught:
        load(written(tmp_path, GOOD.replace(old, new, 1)))
    assert "target.yaml" in str(caught.value)
