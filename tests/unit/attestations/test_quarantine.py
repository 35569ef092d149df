"""Quarantine and release: what is written is read back, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.evidence import NOON, run_context
from fakes.jsonschema import PREDICATES, example, fits
from secure_pipeline.attestations import predicates
from secure_pipeline.attestations.predicates import bind, read_time
from secure_pipeline.attestations.quarantine import (
    MAX_STATEMENTS,
    MAX_TEXT,
    quarantine_predicate,
    read_quarantine,
    read_release,
    release_predicate,
)
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.stages.result import Evidence

DIGESTS = st.binary(min_size=1, max_size=8).map(Digest.of)
LINES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)
TIMES = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(
    lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
GOOD: Mapping[str, tuple[Callable[[Mapping[str, Any]], object], Mapping[str, Any]]] = {
    "quarantine": (
        read_quarantine,
        quarantine_predicate("31% over 5%", "latency", "production", Digest("a" * 64), "ci", NOON),
    ),
    "release": (read_release, release_predicate([Digest("b" * 64)], "a disk", "operator", NOON)),
}


@given(LINES, LINES, st.none() | LINES, st.none() | DIGESTS, LINES, TIMES)
def test_a_quarantine_is_read_as_it_was_written(
    reason: str, cause: str, target: str | None, promotion: Digest | None, by: str, time: datetime
) -> None:
    """Every member comes back, through JSON, and the time is the one that windows are judged by."""
    written = quarantine_predicate(reason, cause, target, promotion, by, time)
    read = read_quarantine(json.loads(json.dumps(written)))
    assert (read.reason, read.cause, read.target, read.promotion) == (
        reason, cause, target, promotion,
    )  # fmt: skip
    assert (read.by, read.time) == (by, time)
    assert read_time(predicates.QUARANTINE, written) == time


@given(st.lists(DIGESTS, min_size=1, max_size=8), LINES, LINES, TIMES)
def test_a_release_is_read_as_it_was_written(
    statements: list[Digest], reason: str, by: str, time: datetime
) -> None:
    """Statements come back sorted and once each."""
    written = release_predicate(statements, reason, by, time)
    read = read_release(json.loads(json.dumps(written)))
    assert read.statements == tuple(sorted(set(statements)))
    assert (read.reason, read.by, read.time) == (reason, by, time)
    assert read_time(predicates.RELEASE, written) == time


@given(st.sampled_from(sorted(GOOD)), st.dictionaries(st.text(), VALUES, max_size=6), st.data())
def test_any_json_is_read_or_refused(kind: str, other: dict[str, Any], data: st.DataObject) -> None:
    """Whatever stands in a predicate, the only error is that it does not verify."""
    read, good = GOOD[kind]
    for name in data.draw(st.lists(st.sampled_from(sorted(good)), unique=True)):
        other[name] = data.draw(VALUES | st.just(good[name]))
    try:
        read(other)
    except VerificationFailed:
        return
    assert {name for name in good if name in other} >= {"reason", "by"}


@pytest.mark.parametrize("kind", sorted(GOOD))
@pytest.mark.parametrize("text", ["", " ", "two\nlines", "\x1b[2J", "x" * (MAX_TEXT + 1), 7, None])
def test_a_reason_is_one_line_that_can_be_shown(kind: str, text: Any) -> None:
    """Nothing that would redraw a terminal, no page of text and no silence is a reason."""
    read, good = GOOD[kind]
    read(good)
    with pytest.raises(VerificationFailed, match="reason"):
        read({**good, "reason": text})


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("quarantine", {"quarantinedAt": "2026-03-01T12:00:00"}),
        ("quarantine", {"quarantinedAt": None}),
        ("quarantine", {"promotion": {"digest": {"sha256": "A" * 64}}}),
        ("quarantine", {"promotion": {}}),
        ("quarantine", {"target": ""}),
        ("quarantine", {"cause": ["latency"]}),
        ("release", {"releasedAt": "yesterday"}),
        ("release", {"statements": []}),
        ("release", {"statements": None}),
        ("release", {"statements": [{"digest": {"sha256": "b" * 64}}] * 2}),
        ("release", {"statements": [{"digest": {"sha512": "b" * 64}}]}),
        ("release", {"statements": [{"digest": {"sha256": c * 64}} for c in "ba"]}),
        ("release", {"statements": ["b" * 64]}),
        ("release", {"statements": [{"digest": {"sha256": f"{n:064x}"}}
                                    for n in range(MAX_STATEMENTS + 1)]}),
    ],
)  # fmt: skip
def test_a_malformed_member_is_refused(kind: str, changes: dict[str, Any]) -> None:
    """Each member is read strictly."""
    read, good = GOOD[kind]
    with pytest.raises(VerificationFailed):
        read({**good, **changes})


def test_what_would_not_be_read_is_not_written() -> None:
    """Empty texts and an empty list of statements are refused when they are written."""
    with pytest.raises(VerificationFailed):
        quarantine_predicate("", "asked", None, None, "somebody", NOON)
    with pytest.raises(VerificationFailed):
        release_predicate([], "no reason to name", "somebody", NOON)


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_the_published_schemas_describe_what_is_written(kind: str) -> None:
    """Bound to a run or not, whole or without what may be absent, a predicate fits its schema."""
    types = {"quarantine": predicates.QUARANTINE, "release": predicates.RELEASE}
    name = types[kind].split("/")[-2]
    schema = json.loads((PREDICATES / f"{name}-v1.schema.json").read_bytes())
    assert schema["$id"] == types[kind]
    good = dict(GOOD[kind][1])
    fits(schema, good)
    fits(schema, bind(Evidence(types[kind], good), run_context()))
    bare = {n: v for n, v in good.items() if n not in ("target", "promotion")}
    fits(schema, bare)
    for required in schema["required"]:
        with pytest.raises(AssertionError):
            fits(schema, {n: v for n, v in good.items() if n != required})


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_the_examples_of_the_pages_are_true(kind: str) -> None:
    """The example of each page is read, and fits the schema."""
    name = {"quarantine": "quarantine", "release": "quarantine-release"}[kind]
    GOOD[kind][0](example(f"{name}-v1"))
    fits(json.loads((PREDICATES / f"{name}-v1.schema.json").read_bytes()), example(f"{name}-v1"))
