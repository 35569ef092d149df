"""Credentials of registries from docker's config.json and its credential helpers.

A helper is asked only about a registry that the configuration names exactly (REG-13): a
helper of a cloud must never be led to hand its token to any host that an image name says.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from secure_pipeline import shape, strictjson
from secure_pipeline.errors import ConfigError, Unavailable, VerificationFailed
from secure_pipeline.files import read_bounded
from secure_pipeline.tools.process import Command, Outcome, Processes

MAX_CONFIG_BYTES = 1 << 20
HELPER_SECONDS = 30.0
_HELPER_OUTPUT = 64 << 10
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NOT_FOUND = "credentials not found in native keychain"
_TOKEN_USER = "<token>"
_HINT = "write config.json anew with docker login HOST"
_LEGACY = re.compile(r"https?://([^/]+)(?:/|/v1/?|/v2/?)?")


@dataclass(frozen=True)
class Login:
    """What to show a registry, and where it came from."""

    tried: str
    """For messages: 'user alice of /…/config.json', 'docker-credential-x', 'anonymously'."""
    user: str = ""
    secret: str = field(default="", repr=False)
    """Password, or an identity token to be exchanged."""
    identity: bool = False
    """Whether ``secret`` is an identity token (OAuth2 refresh token)."""

    @property
    def anonymous(self) -> bool:
        """Whether there is nothing to show."""
        return not self.secret


ANONYMOUS = Login("anonymously")


class Credentials(Protocol):
    """Where logins come from."""

    def login(self, registry: str) -> Login:
        """Return the login for a registry, by the name under which docker keeps it.

        Raises: ConfigError; Unavailable if a helper fails.
        """


class NoCredentials:
    """Always anonymous."""

    def login(self, registry: str) -> Login:
        """Return ``ANONYMOUS``."""
        return ANONYMOUS


class Helpers(Protocol):
    """Runs credential helpers."""

    def get(self, helper: str, registry: str) -> Login | None:
        """Ask ``docker-credential-<helper>``; None if it knows no such registry.

        Raises: Unavailable, ConfigError.
        """


class DockerConfig:
    """The config.json of a directory; a directory without one is anonymous."""

    def __init__(self, directory: Path, helpers: Helpers) -> None:
        self._path = directory / "config.json"
        self._helpers = helpers

    def login(self, registry: str) -> Login:
        """Return the login for exactly this registry.

        Raises: ConfigError for a malformed file; Unavailable if a helper fails.
        """
        config = self._read()
        where = str(self._path)
        try:
            # (1) a helper named for this registry answers alone, as in docker
            helper = shape.texts(config, "credHelpers", where).get(registry)
            if helper:
                return self._helpers.get(helper, registry) or _none_of(helper)
            # (2) without an entry, as 'docker login' leaves one, nobody is asked
            entry = self._entry(config, registry)
            if entry is None:
                return ANONYMOUS
            # (3) the store, then what the entry itself holds
            store = shape.optional(config, "credsStore", str, where)
            if store and (login := self._helpers.get(store, registry)):
                return login
            return self._of_entry(entry, registry) or (_none_of(store) if store else ANONYMOUS)
        except VerificationFailed as error:
            raise ConfigError(error.message, where=error.where, hint=_HINT) from None

    def _read(self) -> dict[str, Any]:
        if not os.path.lexists(self._path):
            return {}
        data = read_bounded(self._path, MAX_CONFIG_BYTES)
        try:
            value = strictjson.loads(data or b"{}", limit=MAX_CONFIG_BYTES)
        except strictjson.InvalidJson as error:
            raise ConfigError(str(error), where=str(self._path), hint=_HINT) from None
        if not isinstance(value, dict):
            raise ConfigError("not a JSON object", where=str(self._path), hint=_HINT)
        return value

    def _entry(self, config: Mapping[str, Any], registry: str) -> Mapping[str, Any] | None:
        """The entry of this registry, or of its address as older versions wrote it."""
        auths = shape.optional(config, "auths", dict, str(self._path)) or {}
        names = [registry] if registry in auths else []
        names = names or [
            name for name in auths if (match := _LEGACY.fullmatch(name)) and match[1] == registry
        ]
        if len({repr(auths[name]) for name in names}) > 1:
            raise ConfigError(
                f"auths has several entries for {registry}: {', '.join(names)}",
                where=str(self._path),
                hint=f"docker logout each of them, then docker login {registry}",
            )
        return shape.optional(auths, names[0], dict, str(self._path)) if names else None

    def _of_entry(self, entry: Mapping[str, Any], registry: str) -> Login | None:
        where = f"{self._path}: auths[{registry}]"
        user = shape.optional(entry, "username", str, where) or ""
        secret = shape.optional(entry, "password", str, where) or ""
        if auth := shape.optional(entry, "auth", str, where):
            user, secret = _split(auth, where)
        if token := shape.optional(entry, "identitytoken", str, where):
            return Login(f"with the identity token of {self._path}", user, token, identity=True)
        if not user or not secret:
            return None
        return Login(f"as user {user[:64]!r} of {self._path}", user, secret)


@dataclass(frozen=True)
class HelperPrograms:
    """The real helpers, found only in absolute directories (CLI-06)."""

    processes: Processes
    directories: tuple[str, ...]
    """Of PATH; relative ones are passed over."""
    environment: Mapping[str, str]
    """All that a helper gets to see."""
    seconds: float = HELPER_SECONDS

    def get(self, helper: str, registry: str) -> Login | None:
        """Ask one helper about one registry (docker-credential-helpers protocol).

        Raises: Unavailable (missing, hangs, fails, answers something else), ConfigError.
        """
        program = self._find(helper)
        command = Command(
            argv=(str(program), "get"),
            cwd=Path("/"),
            env=self.environment,
            timeout=self.seconds,
            output_limit=_HELPER_OUTPUT,
            stdin=registry.encode(),
        )
        ended = self.processes.run(command)
        if not ended.ok:
            if not ended.timed_out and _NOT_FOUND in ended.stdout.decode("utf-8", "replace"):
                return None
            raise _failed(program, registry, ended.describe())
        return _answer(program, registry, ended)

    def _find(self, helper: str) -> Path:
        if not _HELPER.fullmatch(helper):
            raise ConfigError(f"{helper[:80]!r} is no name of a credential helper", hint=_HINT)
        name = f"docker-credential-{helper}"
        for directory in filter(os.path.isabs, self.directories):
            path = Path(directory, name)
            if path.is_file() and os.access(path, os.X_OK):
                return path
        raise Unavailable(
            f"{name}, which docker's configuration names, is not installed",
            hint=f"install {name}, or take it out of config.json",
        )


def _answer(program: Path, registry: str, ended: Outcome) -> Login:
    try:
        where = program.name
        value = shape.parse_object(ended.stdout, where, limit=_HELPER_OUTPUT)
        user = shape.optional(value, "Username", str, where) or ""
        secret = shape.member(value, "Secret", str, where)
    except VerificationFailed:
        raise _failed(program, registry, f"{program.name} gave no login") from None
    if not secret:
        raise _failed(program, registry, f"{program.name} gave an empty secret")
    if user == _TOKEN_USER:
        return Login(f"with an identity token of {program.name}", "", secret, identity=True)
    return Login(f"as user {user[:64]!r} of {program.name}", user, secret)


def _failed(program: Path, registry: str, what: str) -> Unavailable:
    """An error without the helper's output, which may hold the secret."""
    return Unavailable(
        f"no credentials for {registry}: {what}",
        where=str(program),
        hint=f"echo {registry} | {program.name} get",
    )


def _none_of(helper: str) -> Login:
    return Login(f"anonymously, since docker-credential-{helper} knows no login")


def _split(auth: str, where: str) -> tuple[str, str]:
    """User and password of a base64 ``user:password``, padded with NUL by old versions."""
    try:
        user, colon, secret = base64.b64decode(auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise VerificationFailed("auth is not base64 of user:password", where=where) from None
    if not colon:
        raise VerificationFailed("auth is not base64 of user:password", where=where)
    return user, secret.rstrip("\0")
