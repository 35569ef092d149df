"""Promotions as pages, lines and documents: equal to their golden files, bounded, harmless."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.htmlpage import read_page
from fakes.promotions import CASES, NO_WINDOW, healthy, latency
from secure_pipeline import strictjson
from secure_pipeline.canary.model import Estimate, Health, Look, RuleState, Window
from secure_pipeline.canary.story import Ending, Moment, PromotionRecord
from secure_pipeline.report.promotion_html import promotion_page
from secure_pipeline.report.promotion_json import moment_document, record_document
from secure_pipeline.report.promotion_text import (
    duration,
    moment_line,
    percent,
    summary_lines,
)

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests/golden/promotion"
ESCAPES = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("promotion_golden", GOLDEN / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    text = (ROOT / "docs/reference/promotion-events.schema.json").read_text()
    return jsonschema.Draft202012Validator(json.loads(text))


@pytest.fixture(scope="module")
def aborted() -> PromotionRecord:
    return latency()[1]


@pytest.fixture(scope="module")
def moment() -> Moment:
    """The look that shows the canary to be slow."""
    return next(m for m in reversed(latency()[0].moments) if m.look)


@pytest.mark.parametrize("case", CASES)
def test_pages_lines_and_documents_equal_their_generator(generator: ModuleType, case: str) -> None:
    """Page, lines and documents of each case are, byte for byte, what the generator writes."""
    for name, content in generator.files(case).items():
        assert content == (GOLDEN / name).read_bytes(), f"{name}: run its generator and look"


@pytest.mark.parametrize("case", CASES)
def test_a_page_is_whole_and_names_its_verdict_first(case: str) -> None:
    """Every page is well-formed, without script or loads, and its heading is the verdict."""
    read = read_page((GOLDEN / f"{case}.html").read_bytes())
    verdict = "Promoted" if case in ("healthy", "interrupted") else "Aborted"
    assert read.texts[1].startswith(f"{verdict}: ")
    assert len(read.ids) == len(set(read.ids))
    assert not ESCAPES.search(read.text)


@pytest.mark.parametrize("case", CASES)
def test_lines_never_reach_the_terminal_as_control(case: str) -> None:
    """No line holds a control character or a turning mark, and a moment is one line."""
    for line in (GOLDEN / f"{case}.txt").read_text().split("\n"):
        assert not ESCAPES.search(line)
        assert len(line) <= 1500


@pytest.mark.parametrize("case", CASES)
def test_every_document_keeps_the_schema(
    case: str, schema: jsonschema.Draft202012Validator
) -> None:
    """Each moment and the whole, as a line, is strict JSON that the published schema accepts."""
    story, record = CASES[case]()
    for kind, content in [
        *(("PromotionMoment", moment_document(moment)) for moment in story.moments[-20:]),
        ("Promotion", record_document(record)),
    ]:
        line = json.dumps({"apiVersion": "secure-pipeline/v1", "kind": kind, **content})
        schema.validate(strictjson.loads(line.encode()))


def test_the_schema_refuses_what_is_no_moment(
    moment: Moment, schema: jsonschema.Draft202012Validator
) -> None:
    """A missing member, an unknown health and a share over 1 are refused."""
    head: dict[str, Any] = {"apiVersion": "secure-pipeline/v1", "kind": "PromotionMoment"}
    good = {**head, **moment_document(moment)}
    assert schema.is_valid(good)
    assert not schema.is_valid({k: v for k, v in good.items() if k != "routed"})
    assert not schema.is_valid({**good, "intended": {"value": 1.2, "exact": "6/5"}})
    assert not schema.is_valid({**good, "look": {**good["look"], "health": "fine"}})


def test_numbers_that_are_no_json_become_null(moment: Moment) -> None:
    """An endless deadline, a bound at infinity and figures beside the contract are left out."""
    look = moment.look
    assert look is not None
    assert isinstance(look.window, Window)
    endless = Estimate(0.1, 0.2, float("inf"))
    canary = replace(look.window.canary, p95=endless)
    rule = replace(look.rules[0], figures={"share": 0.5, "odd": float("nan")})
    look = replace(look, window=replace(look.window, canary=canary), rules=(rule,))
    document = moment_document(replace(moment, look=look, deadline=float("inf")))
    assert document["deadlineSeconds"] is None
    assert document["look"]["window"]["canary"]["p95Seconds"]["high"] is None
    assert document["look"]["rules"][0]["figures"] == {"share": 0.5}
    strictjson.loads(json.dumps(document).encode())


def test_a_line_says_what_was_seen_and_what_decides(moment: Moment) -> None:
    """Time, step, both shares, tokens, latencies, errors, the rule with its why, the row."""
    assert moment_line(moment) == (
        "2026-03-01T12:00:10Z | watching step 1/3 | share 5% (read back 5%) | "
        "tokens 156 vs 3444 | ms/token 403 (p95 568) vs 42.9 (p95 61.7) | errors 0% vs 0% | "
        "bad by latency: 98.72% of 156 tokens over 150 ms, limit 5%, baseline 0.55% | healthy 0/3"
    )


def test_a_router_without_an_answer_is_never_a_share(moment: Moment) -> None:
    """What was not read back is said to be so, in words and as null."""
    silent = replace(moment, routed=None)
    assert "share 5% (not read back)" in moment_line(silent)
    assert moment_document(silent)["routed"] is None


def test_a_look_without_rules_is_no_data(moment: Moment, aborted: PromotionRecord) -> None:
    """Nothing that decides is told as no data, on the page too."""
    assert moment.look is not None
    empty = replace(moment.look, rules=())
    assert "| no-data |" in moment_line(replace(moment, look=empty))
    page = read_page(promotion_page(replace(aborted, looks=(empty,))))
    assert "1 (1 no-data)" in page.text


def test_gaps_are_gaps_and_never_zero() -> None:
    """Looks without a window break every line, and a canary that saw nothing has no line."""
    _, record = healthy()
    looks = list(record.looks)
    plain = promotion_page(record).decode().count('class="line canary"')
    for index in (10, 20):
        looks[index] = replace(looks[index], window=NO_WINDOW)
    page = promotion_page(replace(record, looks=tuple(looks))).decode()
    assert page.count('class="line canary"') == plain * 3
    nothing = tuple(replace(look, window=NO_WINDOW) for look in record.looks)
    page = promotion_page(replace(record, looks=nothing)).decode()
    assert 'class="line canary"' not in page
    assert page.count(">no data</text>") == 6
    assert 'class="blank"' in page


def test_looks_that_were_left_out_are_no_gap() -> None:
    """A record that keeps only some of its early looks is drawn through; a pause is a gap."""
    _, record = healthy()
    thin = replace(record, looks=(record.looks[0], record.looks[20], *record.looks[30:]))
    assert b'class="blank"' not in promotion_page(thin)
    late = tuple(replace(look, time=look.time + timedelta(minutes=2)) for look in record.looks[30:])
    assert b'class="blank"' in promotion_page(replace(record, looks=record.looks[:30] + late))


def test_a_promotion_without_a_step_or_look_has_a_page(aborted: PromotionRecord) -> None:
    """Refused before the first look: the page says so, and draws what there is."""
    ending = Ending("identity", "slot green runs another image")
    none = replace(aborted, steps=(), looks=(), finished=aborted.started, ending=ending)
    page = read_page(promotion_page(none))
    assert "There was no look." in page.text
    assert "ABORTED (identity): slot green runs another image" in page.text
    assert summary_lines(none)[0] == "ABORTED (identity): slot green runs another image"


def test_ten_thousand_looks_stay_bounded() -> None:
    """A long promotion has a page of bounded size that counts what it leaves out."""
    _, record = healthy()
    interval = timedelta(seconds=5)
    looks = tuple(
        replace(record.looks[n % 52], number=n + 1, time=record.started + n * interval)
        for n in range(10_000)
    )
    rule = record.looks[0].rules[0]
    last = replace(looks[-1], rules=tuple(replace(rule, rule=f"query:q{n}") for n in range(500)))
    page = promotion_page(
        replace(
            record,
            looks=(*looks[:-1], last),
            steps=record.steps * 100,
            finished=record.started + 10_000 * interval,
        )
    )
    assert len(page) < 512 << 10
    text = read_page(page).text
    assert "… and 9800 earlier looks" in text
    assert "… and 240 more steps" in text
    assert "… and 380 more rules" in text


@given(st.text(max_size=100) | st.text("<>&\"'/scriptonload=\u202e\x1b\n", max_size=60))
def test_no_text_of_a_promotion_can_become_markup(
    aborted: PromotionRecord, moment: Moment, text: str
) -> None:
    """Any text in any place leaves page and lines whole, and lines without control."""
    rule = RuleState(f"alert:{text}", True, Health.BAD, text, {"toward_abort": 1.0})
    look = Look(1, aborted.looks[0].time, aborted.looks[0].window, (rule,), 0)
    steps = tuple(replace(step, outcome=text) for step in aborted.steps)
    bent = replace(
        aborted, id=text, baseline_image=text, ending=Ending(text, text), steps=steps, looks=(look,)
    )
    read_page(promotion_page(bent))
    line = moment_line(replace(moment, look=look, note=text))
    for one in (line, *summary_lines(bent)):
        assert not ESCAPES.search(one)
        assert "\n" not in one


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0%"), (1, "100%"), (0.05, "5%"), (0.123456, "12.35%"), (0.00001, "<0.01%"),
        (0.999999, ">99.99%"), (0.1, "10%"),
    ],
)  # fmt: skip
def test_shares_never_round_to_none_or_all(share: float, text: str) -> None:
    """A share that is not 0 or 1 is not written as such."""
    assert percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.5, "0.5 s"),
        (5, "5 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (61, "1 min 01 s"),
        (7260, "2 h 01 min"),
    ],
)
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    """Seconds, minutes and hours."""
    assert duration(seconds) == text
