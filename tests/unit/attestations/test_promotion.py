"""The predicate of a promotion: everything that was seen, bounded, as the schema says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.evidence import NAME, NOON, run_context
from fakes.jsonschema import PREDICATES, example, fits
from secure_pipeline.attestations import predicates
from secure_pipeline.attestations.predicates import bind, read_time
from secure_pipeline.attestations.promotion import (
    AROUND,
    MAX_LOOKS,
    MAX_WHY,
    chosen_looks,
    promotion_predicate,
)
from secure_pipeline.attestations.statement import make_statement, parse_statement
from secure_pipeline.canary.model import (
    Counts,
    Estimate,
    Health,
    Look,
    NoData,
    RuleState,
    Window,
)
from secure_pipeline.canary.story import Ending, Phase, PromotionRecord, StepRecord
from secure_pipeline.canary.target import (
    AlertRule,
    HaproxyRouter,
    LoadedTarget,
    QueryRule,
    RouterConfig,
    Rules,
    ServiceAccess,
    Slot,
    Target,
)
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.stages.result import Evidence

SCHEMA = json.loads((PREDICATES / "promotion-v1.schema.json").read_bytes())
IMAGE = ImageReference(NAME, Digest.of(b"image"))
SLOW = Estimate(3.0, 4.0, 5.0)
COUNTS = Counts(100.0, SLOW, 9.5, Estimate(0.1, 0.2, math.inf), 10.0, 1.0, 2)
WINDOW = Window(1000.0, 1060.0, COUNTS, replace(COUNTS, p95=None))
BAD = RuleState("latency", True, Health.BAD, "31% over 5%", {"share": 0.31, "edge": math.inf})
FINE = replace(BAD, health=Health.HEALTHY)


def target() -> Target:
    """A target with every kind of rule."""
    return Target(
        version=1,
        name="production",
        slots={"blue": Slot({"slot": "blue"}), "green": Slot({"slot": "green"})},
        router=RouterConfig(haproxy=HaproxyRouter("s", "b", {"blue": "b1", "green": "g1"})),
        prometheus=ServiceAccess("http://127.0.0.1:9090"),
        rules=Rules(alerts=(AlertRule("Slow"),), queries=(QueryRule("own", "up", minimum=1.0),)),
        identity_unchecked="only made up for this test",
    )


def look(number: int, *rules: RuleState, window: Window | NoData = WINDOW) -> Look:
    return Look(number, NOON + timedelta(seconds=number), window, rules or (FINE,), 3)


def record(*looks: Look, **changes: Any) -> PromotionRecord:
    """A promotion that was rolled back."""
    made = PromotionRecord(
        id="p-1",
        target=LoadedTarget(target(), Path("target.yaml"), "sha256:" + "1" * 64),
        image=IMAGE,
        canary="green",
        baseline="blue",
        baseline_image=None,
        started=NOON,
        finished=NOON + timedelta(minutes=1, microseconds=1500),
        phase=Phase.ABORTED,
        ending=Ending("latency", "31% over 5%"),
        steps=(StepRecord(Fraction(1, 20), NOON, NOON, len(looks), 0, "aborted"),),
        looks=looks,
        baseline_healthy=None,
    )
    return replace(made, **changes)


def test_a_promotion_says_everything() -> None:
    """Result, cause, target, settings, steps and every look with its numbers are there."""
    said = promotion_predicate(record(look(1), look(2, BAD)), "promote-1")
    assert said["engineRun"] == "promote-1"
    assert (said["result"], said["cause"], said["lookCount"]) == ("ROLLED_BACK", "latency", 2)
    assert said["target"] == {
        "name": "production", "digest": {"sha256": "1" * 64}, "router": "haproxy",
    }  # fmt: skip
    assert said["analysis"]["falseAbort"] == 0.01
    assert said["limits"]["alerts"] == ["Slow"]
    assert said["limits"]["queries"] == ["own"]
    assert (said["limits"]["latency"], said["limits"]["latencyShare"]) == (0.15, 0.05)
    assert said["steps"][0]["share"] == 0.05
    last = said["looks"][1]
    assert (last["health"], last["window"]["canary"]["tokens"]) == ("bad", 100.0)
    assert last["rules"][0] == {
        "rule": "latency", "hard": True, "health": "bad", "why": "31% over 5%",
        "figures": {"share": 0.31},
    }  # fmt: skip
    assert read_time(predicates.PROMOTION, said) == NOON + timedelta(minutes=1, milliseconds=1)


@pytest.mark.parametrize(
    "made",
    [
        record(),
        record(look(1), look(2, BAD)),
        record(look(1, window=NoData("the vector is empty"))),
        record(look(1), phase=Phase.PROMOTED, ending=Ending("passed", "all steps"), resumed=2,
               baseline_image=f"{NAME}@{IMAGE.digest}", baseline_healthy=True),
    ],
)  # fmt: skip
def test_the_published_schema_describes_what_is_written(made: PromotionRecord) -> None:
    """Each kind of promotion fits the schema, bound to a run or not, and is a statement."""
    said = promotion_predicate(made)
    fits(SCHEMA, said)
    fits(SCHEMA, promotion_predicate(made, "promote-1"))
    bound = bind(Evidence(predicates.PROMOTION, said), run_context())
    fits(SCHEMA, bound)
    written = make_statement(NAME, IMAGE.digest, predicates.PROMOTION, bound)
    assert parse_statement(written).predicate == bound
    for name in SCHEMA["required"]:
        with pytest.raises(AssertionError):
            fits(SCHEMA, {key: value for key, value in said.items() if key != name})


def test_the_example_of_the_page_fits() -> None:
    """The page shows what is written."""
    assert SCHEMA["$id"] == predicates.PROMOTION
    fits(SCHEMA, example("promotion-v1"))


@given(st.integers(0, 6000), st.none() | st.integers(0, 5999), st.integers(1, 55))
def test_very_many_looks_are_thinned_around_the_decision(
    count: int, bad: int | None, rules: int
) -> None:
    """First, last and those around the decision are kept, in order, and never too many."""
    fine, broken = look(0, *[FINE] * rules), look(0, *[BAD] * rules)
    looks = [replace(broken if n == bad else fine, number=n) for n in range(count)]
    kept = [one.number for one in chosen_looks(looks)]
    assert kept == sorted(set(kept))
    assert len(kept) == min(count, MAX_LOOKS, max(20_000 // rules, 4 * AROUND))
    decided = bad if bad is not None and bad < count else count - 1
    around = range(max(decided - AROUND, 0), min(decided + AROUND + 1, count))
    assert {*around, *range(count)[:1], *range(count)[-AROUND:]} <= set(kept)
    gaps = [after - before for before, after in pairwise(kept)]
    assert max(gaps, default=0) <= 2 * math.ceil(count / max(len(kept) - 4 * AROUND, 1))


def test_the_largest_promotion_is_still_a_statement() -> None:
    """55 rules with long reasons and many figures, at 5000 looks: some megabytes, and it parses."""
    loud = replace(BAD, why="\ud800" + "x" * 5000, figures={f"f{n}": n / 7 for n in range(100)})
    looks = [look(n, *[loud] * 55) for n in range(5000)]
    said = promotion_predicate(record(*looks))
    assert said["lookCount"] == 5000
    assert len(said["looks"][0]["rules"][0]["why"]) == MAX_WHY
    written = make_statement(NAME, IMAGE.digest, predicates.PROMOTION, said)
    assert len(written) < 32 << 20
    parse_statement(written)
