"""What is accepted as a request."""

import json

import pytest

from inference_service.request import BadRequest, GenerateRequest, parse

GOOD = {"context_id": "a-B_9", "prompt": "p", "max_tokens": 3, "stream": True}


def test_a_complete_request():
    """Every field is read."""
    assert parse(json.dumps(GOOD).encode()) == GenerateRequest("a-B_9", "p", 3, True)


def test_defaults():
    """Only context_id and prompt have to be given."""
    assert parse(b'{"context_id":"c","prompt":"p"}') == GenerateRequest("c", "p", 32, False)


def test_the_largest_request():
    """The limits themselves are allowed."""
    document = {"context_id": "c" * 64, "prompt": "\U0001f6a2" * 8000, "max_tokens": 512}
    assert parse(json.dumps(document, ensure_ascii=False).encode()).max_tokens == 512


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("context_id", None),
        ("context_id", 7),
        ("context_id", ""),
        ("context_id", "c" * 65),
        ("context_id", "a b"),
        ("context_id", "a\n"),
        ("context_id", "ä"),
        ("prompt", None),
        ("prompt", ""),
        ("prompt", ["p"]),
        ("prompt", "p" * 8001),
        ("prompt", "\ud800"),
        ("max_tokens", 0),
        ("max_tokens", 513),
        ("max_tokens", -1),
        ("max_tokens", True),
        ("max_tokens", 3.0),
        ("max_tokens", "3"),
        ("max_tokens", None),
        ("stream", 1),
        ("stream", "true"),
    ],
)
def test_wrong_values_name_their_field(field, value):
    """A value of a wrong type or size is refused, and the error says which field it is."""
    with pytest.raises(BadRequest, match=field):
        parse(json.dumps({**GOOD, field: value}).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff{}",
        b'\xef\xbb\xbf{"context_id":"c","prompt":"p"}',
        b'{"context_id":"c","prompt":"p","max_tokens":NaN}',
        b'{"context_id":"c","prompt":"p","prompt":"q"}',
        b'{"context_id":"c","prompt":"p","max_tokens":' + b"9" * 5000 + b"}",
        b"[" * 60_000,
    ],
)
def test_bodies_that_are_not_one_strict_object(body):
    """Other JSON, other encodings, repeated keys, huge numbers and deep nesting are refused."""
    with pytest.raises(BadRequest, match="body"):
        parse(body)


def test_unknown_fields_are_refused():
    """A misspelt field is not silently ignored."""
    with pytest.raises(BadRequest, match="'max_token'"):
        parse(json.dumps({**GOOD, "max_token": 3}).encode())
