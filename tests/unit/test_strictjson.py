"""Tests of the strict JSON parser."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline import strictjson

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)

REFUSED = {
    "duplicate member": b'{"subject":1,"subject":2}',
    "duplicate member behind an escape": b'{"a":1,"\\u0061":2}',
    "nested duplicate": b'[{"x":{"y":1,"y":1}}]',
    "trailing value": b"{} {}",
    "trailing text": b"{}x",
    "byte order mark": b"\xef\xbb\xbf{}",
    "NaN": b'{"a":NaN}',
    "Infinity": b"[Infinity]",
    "minus Infinity": b"[-Infinity]",
    "lone high surrogate": b'"\\ud800"',
    "lone low surrogate in a key": b'{"\\udc00":1}',
    "not UTF-8": b'"\xff"',
    "surrogate in UTF-8": b'"\xed\xa0\x80"',
    "control character": b'"\n"',
    "empty": b"",
    "only space": b"  ",
    "single quotes": b"{'a':1}",
    "open string": b'"abc',
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "many open escapes": b'"\\' * 200_000,
}


@pytest.mark.parametrize("name", REFUSED)
def test_sig_05_sig_07_ambiguous_json_is_refused(name: str) -> None:
    """Bytes that two parsers could read differently are refused, deep nesting without a crash."""
    with pytest.raises(strictjson.InvalidJson):
        strictjson.loads(REFUSED[name])


def test_too_large_is_refused_before_parsing() -> None:
    """The size limit is checked on the bytes, not on the result."""
    with pytest.raises(strictjson.InvalidJson, match="larger than 10 bytes"):
        strictjson.loads(b'"0123456789"', limit=10)


def test_brackets_in_strings_do_not_count_as_depth() -> None:
    """Only structure nests; text may hold any number of brackets."""
    text = '[{"\\"' * 500
    assert strictjson.loads(json.dumps({"a": text}).encode()) == {"a": text}


@given(VALUES)
def test_every_ordinary_value_is_read_as_json_reads_it(value: object) -> None:
    """What json writes, the strict parser reads unchanged."""
    for ascii_only in (True, False):
        data = json.dumps(value, ensure_ascii=ascii_only).encode()
        assert strictjson.loads(data) == json.loads(data)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_invalid_json(data: bytes) -> None:
    """No input escapes as another exception."""
    with contextlib.suppress(strictjson.InvalidJson):
        strictjson.loads(data)
