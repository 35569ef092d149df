"""Logging in at a registry: Basic, and bearer tokens of a token service (distribution auth).

Credentials go to the registry's own origin, and to a token service only where that is the
same origin or one that the operator allows (REG-10): any registry may name any realm.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlencode

from secure_pipeline import shape
from secure_pipeline.adapters.dockerconfig import Credentials, Login
from secure_pipeline.adapters.http import Answer, Grant, Origin, Transport, shown
from secure_pipeline.errors import Unavailable, VerificationFailed

MAX_TOKEN_BYTES = 64 << 10
DEFAULT_TOKEN_SECONDS = 60
"""Life of a token that does not say (distribution's token specification)."""
_MARGIN = 10
"""Seconds before its end at which a token is no longer used."""
_KNOWN_REALMS = {"registry-1.docker.io": "auth.docker.io"}
_TOKEN = re.compile(r"[\x21-\x7e]+")
_CHALLENGE = re.compile(
    r"""\s*,?\s*([A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]*)(?:\s+|(?=,)|$)"""
    r"""((?:[A-Za-z_-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s,"]+)\s*(?:,\s*|$))*)"""
)
_PARAMETER = re.compile(r'([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True)
class Challenge:
    """One way in that a 401 offers."""

    scheme: str
    """Lower case."""
    parameters: dict[str, str]


@dataclass(frozen=True)
class _Token:
    grant: Grant
    ends: float


@dataclass
class _State:
    """What was learnt from challenges."""

    login: Login | None = None
    basic: Grant | None = None
    challenge: Challenge | None = None
    tokens: dict[tuple[str, ...], _Token] = field(default_factory=dict)
    withheld: str = ""
    """The token service that did not get the credentials."""


class Authorizer:
    """Gives each request to one registry its Authorization. Safe for several threads."""

    def __init__(
        self,
        transport: Transport,
        origin: Origin,
        key: str,
        credentials: Credentials,
        realms: tuple[str, ...] = (),
    ) -> None:
        """``key``: the registry's name in docker's configuration.

        ``realms``: ``host`` or ``host:port`` of token services that may have the credentials.
        """
        self._transport = transport
        self._origin = origin
        self._key = key
        self._credentials = credentials
        self._realms = realms
        self._state = _State()
        self._lock = threading.Lock()

    @property
    def tried(self) -> str:
        """What was shown to the registry, for messages; never the secret."""
        login = self._state.login
        words = login.tried if login else "anonymously"
        if self._state.withheld:
            words += f"; not shown to the token service {self._state.withheld}, another host"
        return words

    @property
    def hint(self) -> str:
        """What to type when the registry refuses."""
        if self._state.withheld:
            return f"allow the token service {self._state.withheld} if it is this registry's"
        return f"docker login {self._key}"

    def hide(self, text: str) -> str:
        """Take every secret out of a text that came from outside."""
        login = self._state.login
        secrets = [login.secret] if login else []
        for grant in (self._state.basic, *(item.grant for item in self._state.tokens.values())):
            secrets += grant.value.split()[1:] if grant else []
        for secret in filter(None, secrets):
            text = text.replace(secret, "[secret]")
        return text

    def grant(self, scopes: tuple[str, ...]) -> Grant | None:
        """The Authorization known so far for these scopes; None before the first challenge."""
        with self._lock:
            if self._state.basic:
                return self._state.basic
            token = self._state.tokens.get(scopes)
            if token and self._transport.clock.monotonic() < token.ends:
                return token.grant
            return None

    def challenged(
        self, answer: Answer, scopes: tuple[str, ...], used: Grant | None, deadline: float
    ) -> Grant | None:
        """Answer a 401: log in anew unless another thread has done so since ``used``.

        Returns None if there is nothing (else) to show.
        Raises: Unavailable, ConfigError.
        """
        offered = tuple(challenges(answer.headers.get("WWW-Authenticate", "")))
        newer = self.grant(scopes)
        if newer is not None and newer != used:
            return newer
        with self._lock:
            if self._state.login is None:
                self._state.login = self._credentials.login(self._key)
            for challenge in offered:
                if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                    return self._bearer(challenge, scopes, deadline)
            if any(challenge.scheme == "basic" for challenge in offered):
                return self._basic(self._state.login, used)
        return None

    def _basic(self, login: Login, used: Grant | None) -> Grant | None:
        if login.anonymous or login.identity:
            return None
        grant = Grant(self._origin, _basic(login))
        self._state.basic = grant
        return None if grant == used else grant

    def _bearer(self, challenge: Challenge, scopes: tuple[str, ...], deadline: float) -> Grant:
        assert self._state.login is not None
        realm = self._transport.join(f"{_url(self._origin)}/", challenge.parameters["realm"])
        service = challenge.parameters.get("service", "")
        login = self._state.login
        # (1) whose realm is it?
        self._state.withheld = ""
        if not login.anonymous and not self._trusted(Origin.of(realm)):
            self._state.withheld = Origin.of(realm).host
            login = Login(login.tried)
        # (2) a token for our own scope, whatever scope the challenge names
        answer = self._ask(realm, service, scopes, login, deadline)
        with answer:
            if answer.status in (401, 403):
                raise Unavailable(
                    f"the token service of {self._key} refused ({answer.status}"
                    f" {self._said(answer)}); tried {self.tried}".replace(" )", ")"),
                    where=shown(realm),
                    hint=self.hint,
                )
            if answer.status != 200:
                raise Unavailable(
                    f"the token service of {self._key} answered {answer.status}"
                    f" {self._said(answer)}".rstrip(),
                    where=shown(realm),
                )
            token, seconds = _parse_token(answer)
        # (3) bound to the registry alone
        grant = Grant(self._origin, f"Bearer {token}")
        ends = self._transport.clock.monotonic() + max(seconds - _MARGIN, _MARGIN / 2)
        self._state.tokens[scopes] = _Token(grant, ends)
        return grant

    def _said(self, answer: Answer) -> str:
        return self.hide(answer.quote())

    def _trusted(self, realm: Origin) -> bool:
        if realm == self._origin:
            return True
        if realm.scheme != "https":
            return False
        names = {f"{realm.host}:{realm.port}"}
        if realm.port == 443:
            names.add(realm.host)
        return bool(names & {*self._realms, _KNOWN_REALMS.get(self._origin.host, "")})

    def _ask(
        self, realm: str, service: str, scopes: tuple[str, ...], login: Login, deadline: float
    ) -> Answer:
        members = [("service", service)] if service else []
        grant = None
        if login.identity and not login.anonymous:
            form = [
                *(("grant_type", "refresh_token"), ("refresh_token", login.secret)),
                *(("client_id", "secure-pipeline"), ("scope", " ".join(scopes)), *members),
            ]
            return self._transport.request(
                "POST",
                realm,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                body=urlencode(form).encode(),
                deadline=deadline,
                retry=True,
            )
        if not login.anonymous:
            grant = Grant(Origin.of(realm), _basic(login))
            members.append(("account", login.user))
        query = urlencode([*members, *(("scope", scope) for scope in scopes)])
        url = f"{realm}{'&' if '?' in realm else '?'}{query}"
        return self._transport.request("GET", url, grant=grant, deadline=deadline)


def challenges(header: str) -> Iterator[Challenge]:
    """Read a WWW-Authenticate header, several of them joined by commas (RFC 9110, 11.6.1)."""
    position = 0
    while match := _CHALLENGE.match(header[: MAX_TOKEN_BYTES // 16], position):
        position = match.end()
        found = {
            name.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare
            for name, quoted, bare in _PARAMETER.findall(match[2])
        }
        yield Challenge(match[1].lower(), found)


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.user}:{login.secret}".encode()).decode()


def _url(origin: Origin) -> str:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return f"{origin.scheme}://{host}:{origin.port}"


def _parse_token(answer: Answer) -> tuple[str, float]:
    """The token and its life in seconds.

    Raises: Unavailable.
    """
    where = shown(answer.url)
    try:
        value = shape.parse_object(answer.read(MAX_TOKEN_BYTES), where, limit=MAX_TOKEN_BYTES)
        token = shape.optional(value, "token", str, where) or shape.member(
            value, "access_token", str, where
        )
        seconds = shape.optional(value, "expires_in", int, where) or DEFAULT_TOKEN_SECONDS
    except VerificationFailed as error:
        raise Unavailable(f"gave no token: {error.message}", where=where) from None
    if not _TOKEN.fullmatch(token):
        raise Unavailable("gave a token that cannot be sent", where=where)
    return token, float(seconds)
