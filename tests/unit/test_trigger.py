"""The event of a hand-over: its bytes, its signature, and what cannot be handed over."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.errors import UsageError
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.trigger import MAX_LIFETIME, PATTERNS, TYPE, HandOver, Secret

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
IMAGE = ImageReference.parse(f"registry.example:5000/team/service@sha256:{'a' * 64}")
SECRET = Secret(b"0123456789abcdef" * 4)
EVENT = HandOver(
    "0123456789abcdef" * 2, IMAGE, "production", "https://hooks.example/", NOON,
    NOON + timedelta(minutes=5),
)  # fmt: skip


def test_the_body_is_canonical() -> None:
    """The same event is the same bytes, with each member as a string."""
    assert EVENT.body() == (
        b'{"audience":"https://hooks.example/","expires":"2026-03-01T12:05:00Z",'
        b'"id":"0123456789abcdef0123456789abcdef",'
        b'"image":"registry.example:5000/team/service@sha256:' + b"a" * 64 + b'",'
        b'"issued":"2026-03-01T12:00:00Z","target":"production",'
        b'"type":"https://secure-pipeline.dev/hand-over/v1"}'
    )
    assert set(json.loads(EVENT.body())) == {"type", *PATTERNS}
    assert json.loads(EVENT.body())["type"] == TYPE
    assert EVENT.run == f"promote-{EVENT.id}"


def test_the_signature_is_that_of_another_program() -> None:
    """OpenSSL computes the same HMAC-SHA256 over the same bytes."""
    command = ["openssl", "dgst", "-sha256", "-hmac", SECRET.value.decode(), "-r"]
    ended = subprocess.run(command, input=EVENT.body(), capture_output=True, check=True)
    assert SECRET.sign(EVENT.body()) == f"sha256={ended.stdout.split()[0].decode()}"


@pytest.mark.parametrize(
    "value", [b"", b"short", b"a" * 31, b"a" * 4097, b"a\n" * 20, b"\xff" * 40]
)
def test_a_secret_that_is_none_is_refused(value: bytes) -> None:
    """Too short to be random, too long, of several lines or not of characters."""
    with pytest.raises(UsageError):
        Secret(value)


def test_a_secret_is_not_shown() -> None:
    """Neither by its text form nor by that of what holds it."""
    assert SECRET.value.decode() not in f"{SECRET!r} {SECRET} {[SECRET]}"


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "1"},
        {"id": "0123456789ABCDEF" * 2},
        {"target": "$(touch pwned)"},
        {"target": "../production"},
        {"target": "production\n"},
        {"target": ""},
        {"audience": "ftp://hooks.example/"},
        {"audience": "https://hooks.example/?a=b"},
        {"audience": "https://user@hooks.example/"},
        {"audience": f"https://hooks.example/{'a' * 400}"},
        {"image": ImageReference("service", IMAGE.digest)},
        {"image": ImageReference("[::1]:5000/service", IMAGE.digest)},
        {"expires": NOON},
        {"expires": NOON - timedelta(minutes=1)},
        {"expires": NOON + MAX_LIFETIME + timedelta(seconds=1)},
    ],
)
def test_what_the_other_side_would_refuse_is_not_made(changes: dict[str, Any]) -> None:
    """The listener answers 202 to anything, so a wrong value has to be found here."""
    with pytest.raises(UsageError):
        replace(EVENT, **changes)


@given(st.sampled_from(sorted(PATTERNS)), st.text(max_size=80))
def test_no_value_means_anything_to_a_shell_or_to_json(name: str, value: str) -> None:
    """Whatever a pattern lets through has no quote, no space, no dollar and no control."""
    if re.fullmatch(PATTERNS[name], value):
        assert not set(value) & set(" \t\r\n\"'`$\\;&|<>(){}*?!#%")
        assert value.isascii()
