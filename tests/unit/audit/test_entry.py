"""One entry and its one line of bytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from fakes.ledgers import ACTOR, chain
from secure_pipeline.audit import entry
from secure_pipeline.audit.entry import (
    MAX_TEXT,
    NO_HASH,
    Actor,
    Entry,
    InvalidEntry,
    Kind,
    Outcome,
    UnknownVersion,
)

PLAIN = Entry(0, NO_HASH, datetime(2026, 3, 1, tzinfo=UTC), Kind.INTENT, "sign", "sign", "x", ACTOR)
TEXT = st.text(max_size=60)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,20}", fullmatch=True)
VALUES = st.one_of(TEXT, st.integers(), st.booleans(), st.none())
ENTRIES = st.builds(
    Entry,
    seq=st.integers(0, 10**15),
    prev=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    time=st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC)),
    kind=st.sampled_from([Kind.INTENT, Kind.OPENED, Kind.RECOVERED]),
    action=TEXT,
    stage=TEXT,
    subject=TEXT,
    actor=st.builds(
        Actor, st.sampled_from(["vault", "oidc", "kubernetes", "os"]), TEXT, st.booleans()
    ),
    run=st.none() | TEXT,
    details=st.dictionaries(NAMES, VALUES, max_size=8),
)


@given(ENTRIES)
def test_what_is_written_is_read(item):
    """Any entry comes back as it was, to the millisecond."""
    line = entry.write(item)
    cut = item.time.replace(microsecond=item.time.microsecond // 1000 * 1000)
    assert entry.read(line.data) == replace(item, time=cut)


@given(ENTRIES)
def test_aud_10_a_line_is_printable_ascii(item):
    """Newlines, control characters, ANSI, bidirectional marks and lone surrogates are escaped."""
    data = entry.write(item).data
    assert all(0x20 <= byte <= 0x7E for byte in data)


@given(ENTRIES)
def test_the_hash_is_that_of_the_line_without_it(item):
    """Anyone can check an entry with a text editor and sha256sum."""
    line = entry.write(item)
    rest = line.data.replace(f'"hash":"{line.hash}",'.encode(), b"")
    assert hashlib.sha256(rest).hexdigest() == line.hash
    assert json.loads(line.data)["hash"] == line.hash


@given(ENTRIES, st.integers(0), st.integers(0, 7))
def test_any_flipped_bit_is_refused(item, place, bit):
    """No line with one other bit is a line."""
    data = bytearray(entry.write(item).data)
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(InvalidEntry):
        entry.scan(bytes(data))


@given(st.binary(max_size=300))
def test_foreign_bytes_are_refused(data):
    """Whatever is no line is refused, and never crashes."""
    with pytest.raises(InvalidEntry):
        entry.scan(data)


def rehashed(data: bytes, old: bytes, new: bytes) -> bytes:
    """Change a line and make its hash anew, as someone would who knows how."""
    members = json.loads(data)["hash"].encode()
    body = data.replace(b'"hash":"%s",' % members, b"").replace(old, new)
    digest = hashlib.sha256(body).hexdigest().encode()
    return body.replace(b'"intent":', b'"hash":"%s","intent":' % digest, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"action":"sign"', b'"action":"\\u0073ign"'),
        (b'"action":"sign"', b'"action":"sign" '),
        (b'"action":"sign"', b'"action":"s\xc3\xa4gn"'),
        (b'"action":"sign"', b'"action":"s\x1bgn"'),
        (b'"action":"sign"', b'"action":null'),
        (b'"fresh":false,', b'"fresh":false,"fresh":false,'),
        (b'"fresh":false,"key":"k"', b'"key":"k","fresh":false'),
        (b'"fresh":false', b'"fresh":-0'),
        (b'"fresh":false', b'"fresh":1.0'),
        (b'"fresh":false', b'"fresh":{}'),
        (b'"seq":0', b'"seq":00'),
        (b'"kind":"intent"', b'"kind":"intents"'),
        (b'"kind":"intent"', b'"kind":"conclusion"'),
        (b'"outcome":null', b'"outcome":"done"'),
        (b'"run":null,', b""),
        (b'"run":null', b'"more":1,"run":null'),
    ],
)
def test_only_the_canonical_spelling_is_a_line(old, new):
    """Another spelling of an entry is refused even if its hash is right."""
    data = entry.write(replace(PLAIN, details={"fresh": False, "key": "k"})).data
    assert old in data
    with pytest.raises(InvalidEntry):
        entry.scan(rehashed(data, old, new))


def test_another_version_is_told_from_an_edited_one():
    """A version that is not known is so only with a right hash; else the digit was edited."""
    data = entry.write(PLAIN).data
    with pytest.raises(UnknownVersion, match="version 2 is not known"):
        entry.scan(rehashed(data, b'"v":1}', b'"more":{},"v":2}'))
    with pytest.raises(InvalidEntry) as caught:
        entry.scan(data.replace(b'"v":1}', b'"v":2}'))
    assert not isinstance(caught.value, UnknownVersion)


def test_a_line_that_makes_no_sense_is_refused():
    """A time that there is not has the form of one, and is refused when it is read."""
    data = entry.write(PLAIN).data
    with pytest.raises(InvalidEntry, match="month"):
        entry.read(rehashed(data, b'"time":"2026-03', b'"time":"2026-13'))


def test_a_long_text_is_cut_and_named_by_its_digest():
    """Every text is bounded; what was cut can still be proven."""
    long = "x" * (MAX_TEXT + 1)
    item = replace(PLAIN, subject=long, details={"reason": long, "big": 2**53})
    assert len(item.subject) <= MAX_TEXT
    assert hashlib.sha256(long.encode()).hexdigest() in item.subject
    assert item.details == {"big": str(2**53), "reason": item.subject}


@pytest.mark.parametrize("details", [{"": 1}, {"a b": 1}, {"ä": 1}, {"x" * 65: 1}, {"x": 1.5}])
def test_details_of_another_form_are_not_written(details):
    """A name or a type that a line cannot have is an error of the caller."""
    with pytest.raises(ValueError, match="form"):
        entry.write(replace(PLAIN, details=details))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": Kind.CONCLUSION},
        {"intent": NO_HASH},
        {"outcome": Outcome.DONE},
        {"details": {f"x{n}": n for n in range(25)}},
    ],
)
def test_an_entry_that_makes_no_sense_cannot_be_made(change):
    """Exactly conclusions have an intent and an outcome; the number of details is bounded."""
    with pytest.raises(ValueError, match=r"conclusions|details"):
        replace(PLAIN, **change)


@given(st.dictionaries(NAMES, st.one_of(TEXT, st.booleans(), st.none()), max_size=6), TEXT)
def test_the_request_hash_is_over_rfc_8785(parameters, path):
    """Two requests are the same if method, path, role and parameters are, in any order."""
    backwards = dict(reversed(parameters.items()))
    value = {"method": "POST", "path": path, "role": "release", "parameters": parameters}
    expected = f"sha256:{hashlib.sha256(rfc8785.dumps(value)).hexdigest()}"
    assert entry.request_hash("POST", path, "release", backwards) == expected


def test_a_chain_of_lines_is_linked():
    """The helper of these tests makes what the program makes."""
    links = [entry.scan(line) for line in chain(5)]
    assert [link.seq for link in links] == [0, 1, 2, 3, 4]
    assert [link.prev for link in links[1:]] == [link.hash for link in links[:-1]]
