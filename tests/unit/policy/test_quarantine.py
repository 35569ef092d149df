"""Which quarantine statements are open: exactly those that nobody who may has released."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.evidence import NAME, NOON
from secure_pipeline.attestations import predicates
from secure_pipeline.attestations.quarantine import quarantine_predicate, release_predicate
from secure_pipeline.attestations.statement import make_statement, parse_statement
from secure_pipeline.errors import ConfigError
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.decision import Decision, Outcome, unsure
from secure_pipeline.policy.document import QuarantineRule, load
from secure_pipeline.policy.evidence import Item
from secure_pipeline.policy.quarantine import quarantine_rule, standings

IMAGE = ImageReference(NAME, Digest.of(b"image"))
KEYS = ("canary", "release", "operator")
EVERYBODY = QuarantineRule()


def item(
    kind: str,
    predicate: dict[str, object],
    *signers: str,
    lapsed: frozenset[str] = frozenset(),
) -> Item:
    """An authentic statement by these keys; the lapsed ones are outside their window."""
    statement = parse_statement(make_statement(NAME, IMAGE.digest, kind, predicate))
    inside = frozenset(signers) - lapsed
    return Item(
        statement=statement,
        digest=str(Digest.of(statement.payload)),
        signers=inside or frozenset(signers),
        lapsed=() if inside else (unsure("key-window", "not any more"),),
        sources=("bundle",),
        run=None,
        time=NOON,
        everyone=frozenset(signers),
    )


def quarantine(number: int = 1, *signers: str, **more: frozenset[str]) -> Item:
    """A quarantine of its own for each number."""
    predicate = quarantine_predicate(f"reason {number}", "latency", "blue", None, "ci", NOON)
    return item(predicates.QUARANTINE, predicate, *(signers or ("canary",)), **more)


def release(
    *ended: Item, by: tuple[str, ...] = ("release",), seconds: int = 60, **more: frozenset[str]
) -> Item:
    """A release of these statements."""
    named = [Digest.parse(one.digest) for one in ended]
    predicate = release_predicate(named, "repaired", "me", NOON + timedelta(seconds=seconds))
    return item(predicates.RELEASE, predicate, *by, **more)


def allowed(rule: QuarantineRule, *items: Item) -> bool:
    return quarantine_rule(rule, IMAGE, items).outcome is Outcome.ALLOW


def test_nothing_said_allows_and_says_so() -> None:
    """Without a quarantine the rule is met, and counts aloud."""
    rule = quarantine_rule(EVERYBODY, IMAGE, ())
    assert (rule.id, rule.outcome, rule.evidence) == ("quarantine", Outcome.ALLOW, ())
    assert rule.why == "0 quarantines of this image, 0 released"


def test_an_open_one_forbids_and_names_everything() -> None:
    """Cause, reason, time, target and statement are in the line; the hint can be typed."""
    one = quarantine()
    rule = quarantine_rule(EVERYBODY, IMAGE, [one])
    assert Decision((rule,)).code == 12
    for word in ("latency", "reason 1", "2026-03-01T12:00:00Z", "target blue", one.digest):
        assert word in rule.why
    assert rule.evidence == (one.digest,)
    assert rule.hint
    assert rule.hint.startswith(f"secure-pipeline quarantine release {IMAGE} --reason ")


def test_a_release_ends_what_it_names_and_nothing_else() -> None:
    """One of two is released: the other still forbids; both released: allowed."""
    first, second = quarantine(1), quarantine(2)
    ended = release(first)
    assert allowed(EVERYBODY, first, ended)
    rule = quarantine_rule(EVERYBODY, IMAGE, [first, second, ended])
    assert rule.evidence == (second.digest,)
    assert allowed(EVERYBODY, first, second, ended, release(second))
    assert allowed(EVERYBODY, first, second, release(first, second))
    assert not allowed(EVERYBODY, first, release(quarantine(3)))


def test_times_decide_nothing() -> None:
    """A release that is dated before its quarantine ends it, wherever it stands."""
    one = quarantine()
    early = release(one, seconds=-3600)
    assert allowed(EVERYBODY, early, one)
    assert allowed(EVERYBODY, one, early)


def test_only_keys_that_may_count() -> None:
    """The lists of the policy decide; a promotion's key need not be able to release."""
    rule = QuarantineRule(keys=("canary",), release_keys=("operator",))
    one = quarantine(1, "canary")
    assert allowed(rule, quarantine(1, "release"))
    assert not allowed(rule, one)
    assert not allowed(rule, one, release(one, by=("canary",)))
    assert not allowed(rule, one, release(one, by=("release",)))
    assert allowed(rule, one, release(one, by=("operator",)))
    assert allowed(rule, one, release(one, by=("canary", "operator")))


def test_lapsed_keys_keep_out_and_never_let_in() -> None:
    """After its window a key's quarantine still counts, and its release does not."""
    rule = QuarantineRule(keys=("canary",), release_keys=("operator",))
    one = quarantine(1, "canary", lapsed=frozenset({"canary"}))
    gone = frozenset({"operator"})
    assert not allowed(EVERYBODY, one)
    assert not allowed(rule, one)
    assert allowed(rule, one, release(one, by=("operator",)))
    assert not allowed(rule, one, release(one, by=("operator",), lapsed=gone))
    # somebody else's signature beside it takes nothing away, and adds nothing
    both = quarantine(1, "canary", "release", lapsed=frozenset({"canary"}))
    assert both.signers == {"release"}
    assert not allowed(rule, both)
    assert not allowed(rule, one, release(one, by=("operator", "release"), lapsed=gone))


@pytest.mark.parametrize("predicate", [{}, {"reason": 7}, {"reason": "x", "cause": "\n"}])
def test_a_malformed_quarantine_keeps_out(predicate: dict[str, object]) -> None:
    """What cannot be read is no pass; its digest can be released like any other."""
    broken = item(predicates.QUARANTINE, predicate, "canary")
    rule = quarantine_rule(EVERYBODY, IMAGE, [broken])
    assert (rule.outcome, rule.evidence) == (Outcome.DENY, (broken.digest,))
    assert "malformed" in rule.why
    assert not allowed(EVERYBODY, broken, release(quarantine()))
    assert allowed(EVERYBODY, broken, release(broken))


def test_a_malformed_release_ends_nothing() -> None:
    """Half a release is none."""
    one = quarantine()
    bare = {"statements": [{"digest": {"sha256": one.digest.removeprefix("sha256:")}}]}
    assert not allowed(EVERYBODY, one, item(predicates.RELEASE, bare, "release"))


def test_other_statements_say_nothing() -> None:
    """A promotion, or a quarantine's text under another type, is no quarantine."""
    one = quarantine()
    other = item(predicates.PROMOTION, dict(one.statement.predicate), "canary")
    assert standings(EVERYBODY, [other]) == ()


@dataclass(frozen=True)
class Said:
    """One statement of a random history."""

    number: int
    releases: bool
    signers: frozenset[str]
    lapsed: frozenset[str]


SIGNERS = st.frozensets(st.sampled_from(KEYS), min_size=1)
ANY = st.frozensets(st.sampled_from(KEYS))
HISTORIES = st.lists(st.builds(Said, st.integers(0, 3), st.booleans(), SIGNERS, ANY), max_size=12)
LISTS = st.none() | st.lists(st.sampled_from(KEYS), min_size=1, unique=True).map(tuple)


@given(HISTORIES, LISTS, LISTS, st.randoms())
def test_allowed_exactly_when_every_one_is_released(
    history: list[Said],
    keys: tuple[str, ...] | None,
    release_keys: tuple[str, ...] | None,
    order: object,
) -> None:
    """Any set of statements by any keys in any order, against a plain count."""
    rule = QuarantineRule(keys, release_keys)
    items, open_, ended = [], set(), set()
    for said in history:
        one = quarantine(said.number)
        lapsed = said.lapsed & said.signers
        if said.releases:
            items.append(release(one, by=tuple(said.signers), lapsed=lapsed))
            if (said.signers - lapsed) & {*(release_keys or KEYS)}:
                ended.add(said.number)
        else:
            items.append(quarantine(said.number, *said.signers, lapsed=lapsed))
            if said.signers & {*(keys or KEYS)}:
                open_.add(said.number)
    order.shuffle(items)  # type: ignore[attr-defined]
    assert allowed(rule, *items) == (open_ <= ended)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{keys: []}", "nobody could quarantine"),
        ("{release-keys: []}", "nobody could release"),
        ("{keys: [nobody]}", "quarantine.keys: unknown key 'nobody'"),
        ("{release-keys: [nobody]}", "quarantine.release-keys: unknown key 'nobody'"),
    ],
)
def test_a_policy_names_keys_that_it_has(tmp_path: Path, text: str, words: str) -> None:
    """Empty and unknown ids are configuration errors with the line."""
    path = tmp_path / "policy.yaml"
    path.write_text(f"version: 1\nquarantine: {text}\n")
    with pytest.raises(ConfigError, match=words):
        load(path)
