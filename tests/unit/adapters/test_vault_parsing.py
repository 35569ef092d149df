"""What comes from Vault and from notes on the disk, of any shape."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.adapters.vaultlogin import read_auth
from secure_pipeline.adapters.vaultpending import PendingToken, PendingTokens
from secure_pipeline.adapters.vaultwire import check_path, known_words
from secure_pipeline.errors import ConfigError, VerificationFailed

GOOD = {
    "client_token": "hvs.x",
    "accessor": "a",
    "lease_duration": 60,
    "renewable": True,
    "token_type": "service",
    "policies": ["default"],
    "entity_id": "e",
}
VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())


def test_a_login_is_read_whole() -> None:
    """Every figure that is checked afterwards comes from the answer."""
    auth = read_auth({"auth": GOOD, "request_id": "r"}, "auth/approle/login")
    assert (auth.token, auth.accessor, auth.seconds, auth.kind) == ("hvs.x", "a", 60, "service")
    assert (auth.policies, auth.entity, auth.request_id) == (("default",), "e", "r")
    assert "hvs.x" not in repr(auth)


@given(st.dictionaries(st.sampled_from([*GOOD, "other"]), VALUES))
def test_vlt_04_another_shape_is_refused_without_the_token(changes: dict[str, object]) -> None:
    """Wrong types are refused; an error never holds the token."""
    document = {"auth": {**GOOD, "client_token": "hvs.sentinel", **changes}}
    said = ""
    try:
        said = repr(read_auth(document, "login"))
    except VerificationFailed as error:
        said = f"{error}{error.hint}"
    assert "hvs.sentinel" not in said


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode()))
def test_vlt_04_no_error_body_is_ever_quoted(body: bytes) -> None:
    """Whatever an error body holds, only our own phrases come out."""
    for data in (body, json.dumps({"errors": [body.decode("utf-8", "replace")]}).encode()):
        words = known_words(data)
        assert words == "" or words.lower() in data.decode("utf-8", "replace").lower()
        assert len(words) < 60


@given(st.text(max_size=80))
def test_vlt_13_an_accepted_path_needs_no_escapes(path: str) -> None:
    """A path that is accepted is what is sent: letters, digits and a few marks."""
    try:
        check_path(path, "the path")
    except ConfigError:
        return
    assert re.fullmatch(r"[A-Za-z0-9_./-]+", path)
    assert not {"", ".", ".."} & set(path.split("/"))


def test_a_note_comes_back_as_it_was(tmp_path: Path) -> None:
    """What is noted is read, once, until it is forgotten; nobody else may read the file."""
    notes = PendingTokens(tmp_path / "notes")
    token = PendingToken("https://v:8200", "accessor/../x", "2026-01-01T00:00:00Z", 60, "team")
    path = notes.note(token)
    assert path.parent == notes.directory
    assert path.stat().st_mode & 0o777 == 0o600
    notes.note(token)
    assert notes.all() == (token,)
    notes.forget(token)
    assert notes.all() == ()
    notes.forget(token)


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"[]", b"{", b'{"address": 1}', b"\xff", b'{"a":1,"a":2}', b"x" * (17 << 10)],
)
def test_a_note_that_cannot_be_read_is_named(tmp_path: Path, text: bytes) -> None:
    """A broken note is told by its file and hides no other."""
    notes = PendingTokens(tmp_path)
    (tmp_path / "broken.json").write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        notes.all()
    assert "broken.json" in str(caught.value)
