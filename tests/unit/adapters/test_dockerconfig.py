"""docker's config.json: which entry is whose, and what a helper may be asked."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.adapters.dockerconfig import (
    ANONYMOUS,
    DockerConfig,
    HelperPrograms,
    Login,
    NoCredentials,
)
from secure_pipeline.errors import ConfigError, Unavailable
from secure_pipeline.tools.process import Processes

HOST = "registry.example:5000"
HUB = "https://index.docker.io/v1/"


class RecordingHelpers:
    """Knows one login for everybody, and who asked."""

    def __init__(self, login: Login | None = None) -> None:
        self.login = login
        self.asked: list[tuple[str, str]] = []

    def get(self, helper: str, registry: str) -> Login | None:
        self.asked.append((helper, registry))
        return self.login


def config(tmp_path: Path, document: object, helpers: RecordingHelpers) -> DockerConfig:
    text = document if isinstance(document, str) else json.dumps(document)
    (tmp_path / "config.json").write_text(text)
    return DockerConfig(tmp_path, helpers)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def login_of(tmp_path: Path, entry: object, registry: str = HOST, name: str = HOST) -> Login:
    return config(tmp_path, {"auths": {name: entry}}, RecordingHelpers()).login(registry)


def test_without_a_file_everybody_is_anonymous(tmp_path: Path) -> None:
    """No configuration is no login; so is an empty one."""
    assert DockerConfig(tmp_path / "none", RecordingHelpers()).login(HOST) == ANONYMOUS
    assert config(tmp_path, "", RecordingHelpers()).login(HOST) == ANONYMOUS
    assert config(tmp_path, {}, RecordingHelpers()).login(HOST) == ANONYMOUS
    assert NoCredentials().login(HOST).anonymous


@pytest.mark.parametrize(
    ("entry", "user", "secret"),
    [
        ({"auth": encoded("alice:pass:word")}, "alice", "pass:word"),
        ({"auth": encoded("alice:word\0\0")}, "alice", "word"),
        ({"username": "alice", "password": "word"}, "alice", "word"),
        ({"auth": encoded("alice:new"), "username": "x", "password": "old"}, "alice", "new"),
    ],
)
def test_user_and_password(tmp_path: Path, entry: object, user: str, secret: str) -> None:
    """The forms that docker writes and reads."""
    login = login_of(tmp_path, entry)
    assert (login.user, login.secret, login.identity) == (user, secret, False)


def test_an_identity_token_is_no_password(tmp_path: Path) -> None:
    """An identity token is marked as one, so that it is never sent as a password."""
    login = login_of(tmp_path, {"auth": encoded("<token>:"), "identitytoken": "secret-token"})
    assert (login.secret, login.identity) == ("secret-token", True)


def test_a_login_never_shows_its_secret(tmp_path: Path) -> None:
    """Neither the representation nor the words for messages hold the secret."""
    for entry in ({"auth": encoded("alice:s3cr3t")}, {"identitytoken": "s3cr3t"}):
        login = login_of(tmp_path, entry)
        assert "s3cr3t" not in repr(login) + login.tried


@pytest.mark.parametrize(
    ("name", "registry", "found"),
    [
        (HOST, HOST, True),
        (f"https://{HOST}", HOST, True),
        (f"https://{HOST}/v2/", HOST, True),
        (f"http://{HOST}/", HOST, True),
        (HUB, HUB, True),
        (f"{HOST}/team", HOST, False),
        (f"https://{HOST}/team", HOST, False),
        ("registry.example", HOST, False),
        (HOST, "registry.example", False),
        (f"{HOST}0", HOST, False),
        (f"https://user@{HOST}", HOST, False),
        ("*", HOST, False),
    ],
)
def test_reg_13_an_entry_is_for_its_registry_only(
    tmp_path: Path, name: str, registry: str, found: bool
) -> None:
    """Host and port must be the same; older versions wrote a whole address."""
    login = login_of(tmp_path, {"auth": encoded("alice:word")}, registry, name)
    assert login.anonymous is not found


def test_two_addresses_of_one_registry_that_differ(tmp_path: Path) -> None:
    """Which of two logins is meant is not guessed."""
    auths = {
        f"https://{HOST}": {"auth": encoded("alice:a")},
        f"https://{HOST}/v2/": {"auth": encoded("bob:b")},
    }
    with pytest.raises(ConfigError, match="several entries"):
        config(tmp_path, {"auths": auths}, RecordingHelpers()).login(HOST)
    exact = {**auths, HOST: {"auth": encoded("carol:c")}}
    assert config(tmp_path, {"auths": exact}, RecordingHelpers()).login(HOST).user == "carol"


def test_reg_13_helpers_are_asked_for_the_exact_registry_only(tmp_path: Path) -> None:
    """Neither a neighbour's helper nor a store without an entry is asked anything."""
    helpers = RecordingHelpers(Login("by helper", "alice", "word"))
    others = {"registry.example": "cloud", f"{HOST}0": "cloud", "*": "cloud", "": "cloud"}
    found = config(tmp_path, {"credHelpers": others, "credsStore": "cloud"}, helpers)
    assert found.login(HOST) == ANONYMOUS
    assert helpers.asked == []
    found = config(tmp_path, {"credHelpers": {HOST: "one"}, "credsStore": "store"}, helpers)
    assert found.login(HOST).user == "alice"
    assert helpers.asked == [("one", HOST)]


def test_a_helper_named_for_a_registry_answers_alone(tmp_path: Path) -> None:
    """When it knows no login, an entry of the file is not used in its place."""
    helpers = RecordingHelpers()
    document = {"credHelpers": {HOST: "one"}, "auths": {HOST: {"auth": encoded("alice:word")}}}
    login = config(tmp_path, document, helpers).login(HOST)
    assert login.anonymous
    assert "docker-credential-one" in login.tried


def test_the_store_is_asked_where_docker_login_left_an_entry(tmp_path: Path) -> None:
    """With an empty entry the store answers; one that knows nothing leaves the file's login."""
    helpers = RecordingHelpers(Login("by store", "alice", "word"))
    found = config(tmp_path, {"credsStore": "store", "auths": {HOST: {}}}, helpers)
    assert found.login(HOST).user == "alice"
    assert helpers.asked == [("store", HOST)]
    entry = {"auth": encoded("bob:word")}
    document = {"credsStore": "store", "auths": {HOST: entry}}
    assert config(tmp_path, document, RecordingHelpers()).login(HOST).user == "bob"


@pytest.mark.parametrize(
    "document",
    [
        "{",
        "[]",
        '{"auths":{},"auths":{}}',
        {"auths": []},
        {"auths": {HOST: "text"}},
        {"auths": {HOST: {"auth": 5}}},
        {"auths": {HOST: {"auth": "!!"}}},
        {"auths": {HOST: {"auth": encoded("nocolon")}}},
        {"credHelpers": {HOST: 7}},
        {"credsStore": {}, "auths": {HOST: {}}},
    ],
)
def test_a_malformed_file_is_an_error_with_its_place(tmp_path: Path, document: object) -> None:
    """What cannot be read is never taken for 'no login'."""
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, document, RecordingHelpers()).login(HOST)
    assert str(tmp_path / "config.json") in str(caught.value)
    assert caught.value.hint


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_user_and_password_survive(tmp_path: Path, user: str, secret: str) -> None:
    """base64 of user:password gives back both, whatever they are."""
    entry = {"auth": encoded(f"{user}:{secret}")}
    login = login_of(tmp_path, entry)
    kept = secret.rstrip("\0")
    if ":" in user or not user or not kept:
        return
    assert (login.user, login.secret) == (user, kept)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    """No content of the file ends in anything but a login or an error for people."""
    (tmp_path / "config.json").write_bytes(data)
    with contextlib.suppress(ConfigError):
        DockerConfig(tmp_path, RecordingHelpers()).login(HOST)


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".", "-x", "a b", "x" * 65])
def test_a_helper_is_a_plain_name(tmp_path: Path, name: str) -> None:
    """A helper's name cannot lead to another program."""
    with pytest.raises(ConfigError, match="no name of a credential helper"):
        _programs(str(tmp_path)).get(name, HOST)


def test_helpers_are_not_looked_for_in_relative_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that a repository under test brings along is never started (CLI-06)."""
    program = tmp_path / "docker-credential-x"
    program.write_text('#!/bin/sh\necho \'{"Username":"u","Secret":"s"}\'\n')
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for directory in ("", ".", "./"):
        with pytest.raises(Unavailable, match="not installed"):
            _programs(directory).get("x", HOST)
    assert _programs(str(tmp_path)).get("x", HOST) == Login(
        "as user 'u' of docker-credential-x", "u", "s"
    )


def test_a_helpers_token_is_an_identity_token(tmp_path: Path) -> None:
    """The user '<token>' marks an identity token (docker-credential-helpers)."""
    program = tmp_path / "docker-credential-x"
    program.write_text('#!/bin/sh\necho \'{"Username":"<token>","Secret":"s"}\'\n')
    program.chmod(0o755)
    login = _programs(str(tmp_path)).get("x", HOST)
    assert login is not None
    assert login.identity


def _programs(*directories: str) -> HelperPrograms:
    return HelperPrograms(Processes(threading.Event()), directories, {"PATH": "/usr/bin:/bin"})
