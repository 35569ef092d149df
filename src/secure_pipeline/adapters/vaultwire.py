"""Requests to Vault: hvac writes them, our own bounded transport carries them.

hvac and requests resend X-Vault-Token to whatever host a redirect names (VLT-01), and their
time-outs are per read (VLT-10). Here nothing is redirected except, by our own code, to a peer
that the operator named; each call has one deadline; and an error never quotes the server,
whose texts may repeat what was sent to it (VLT-04).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from hvac.adapters import Adapter

from secure_pipeline.adapters.http import Answer, HttpLimits, Origin, Transport, shown
from secure_pipeline.errors import (
    ConfigError,
    PipelineError,
    PolicyDenied,
    Unavailable,
    VerificationFailed,
)
from secure_pipeline.ports import Clock
from secure_pipeline.shape import parse_object

MAX_ANSWER_BYTES = 4 << 20
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_MAX_SEGMENTS = 16
_KNOWN = (
    "invalid token",
    "bad token",
    "permission denied",
    "invalid role or secret ID",
    "invalid role ID",
    "invalid secret id",
    "wrapping token is not valid or does not exist",
    "invalid accessor",
    "missing client token",
    "Vault is sealed",
    "Vault is not initialized",
    "encryption key not found",
    "signing key not found",
    "no handler for route",
    "unsupported path",
    "unsupported operation",
    "cannot sign: version is not",
    "requested version for signing is",
    "error validating token",
    "service account name not authorized",
    "namespace not authorized",
    "role could not be found",
    "invalid role name",
    "not authorized",
    "audience",
    "expired",
    "active cluster node not found",
    "request too large",
    "quota exceeded",
)
"""Words of Vault's errors that hold nothing but themselves; only these are repeated."""


@dataclass(frozen=True)
class VaultServer:
    """Where Vault is and how it is trusted."""

    address: str
    """``https://HOST[:PORT]``, nothing behind it."""
    ca: Path | None = None
    """PEM file of the authorities to trust instead of the usual ones."""
    namespace: str | None = None
    plain_http: bool = False
    """Allow ``http://``, on this machine only (VLT-11)."""
    peers: tuple[str, ...] = ()
    """Addresses of other nodes that a redirect (307) may lead to."""
    seconds: float = 15.0
    """Deadline of each call, its body included."""
    patience: float = 10.0
    """How long a server that cannot answer yet is asked again, in all."""

    def __post_init__(self) -> None:
        for address in (self.address, *self.peers):
            self._check(address)
        if self.namespace is not None:
            check_path(self.namespace, "the namespace")

    def _check(self, address: str) -> None:
        parts = urlsplit(address)
        plain = parts.scheme == "http"
        if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
            raise ConfigError(
                "is no address of a Vault server",
                where=shown(address),
                hint="VAULT_ADDR=https://HOST:8200",
            )
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ConfigError("is more than https://HOST:PORT", where=shown(address))
        origin = Origin.of(address)
        if plain and not origin.loopback:
            raise ConfigError(
                "plain http is refused: the token would be readable on the way",
                where=shown(address),
                hint="use https",
            )
        if plain and not self.plain_http:
            raise ConfigError(
                "plain http is refused unless it is asked for, and then only on this machine",
                where=shown(address),
                hint="use https, or set SECURE_PIPELINE_VAULT_PLAIN_HTTP=1",
            )

    @property
    def origin(self) -> Origin:
        """The only place that gets a token."""
        return Origin.of(self.address)

    def allows(self, origin: Origin) -> bool:
        """Whether a redirect may lead there."""
        return origin in {Origin.of(peer) for peer in self.peers}


class Refused(PolicyDenied):
    """Vault answered and said no (400, 403, 404, 405); ``status`` and ``words`` say which."""

    def __init__(self, message: str, *, status: int, words: str, where: str, hint: str) -> None:
        super().__init__(message, where=where, hint=hint)
        self.status = status
        self.words = words


class VaultWire(Adapter):  # type: ignore[misc]
    """What hvac's API classes speak through: paths in, parsed answers out."""

    def __init__(self, server: VaultServer, clock: Clock) -> None:
        limits = HttpLimits(
            connect=min(10.0, server.seconds), silence=server.seconds, redirects=0, attempts=1
        )
        self.server = server
        self.transport = Transport(clock, ca=server.ca, plain_http=server.plain_http, limits=limits)
        super().__init__(base_uri=server.address, session=_NoSession(), namespace=server.namespace)

    def __repr__(self) -> str:
        return f"VaultWire({self.server.address})"

    def get_login_token(self, response: Any) -> str:
        """Hvac's hook; logins here never let it keep the token by itself."""
        raise NotImplementedError

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        raise_exception: bool = True,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Send one request and return the answer's object; {} for an empty one.

        Raises: Refused, Unavailable (busy, sealed, late, a redirect), VerificationFailed (no JSON).
        """
        body = kwargs.get("json")
        query = kwargs.get("params")
        suffix = f"?{urlencode(query)}" if query else ""
        where = url.strip("/").removeprefix("v1/")
        check_path(where, "the path")
        answer = self._send(method.upper(), f"/v1/{quote(where)}{suffix}", body, headers or {})
        with answer:
            data = answer.read(MAX_ANSWER_BYTES)
        if answer.status in (200, 204):
            return parse_object(data, where, limit=MAX_ANSWER_BYTES) if data else {}
        raise self._error(answer, data, where)

    def status(self, path: str) -> int:
        """The bare status of an unauthenticated GET. Raises: Unavailable."""
        deadline = self.transport.deadline(self.server.seconds)
        url = f"{self.server.address.rstrip('/')}{path}"
        asked = self.transport.request("GET", url, deadline=deadline, retry=False, follow=False)
        with asked as answer:
            return answer.status

    def _send(self, method: str, path: str, body: object, headers: Mapping[str, str]) -> Answer:
        deadline = self.transport.deadline(self.server.seconds)
        url = urljoin(self.server.address, path)
        data = None if body is None else json.dumps(body).encode()
        sent = {**self._headers(data), **headers}
        for _ in range(2):
            answer = self.transport.request(
                method, url, headers=sent, body=data, deadline=deadline, retry=False, follow=False
            )
            location = answer.headers.get("Location")
            if answer.status not in (301, 302, 303, 307, 308) or location is None:
                return answer
            answer.close()
            url = self._peer(answer.status, urljoin(url, location))
        raise Unavailable("redirects twice", where=shown(url), hint="set VAULT_ADDR to a node")

    def _peer(self, status: int, url: str) -> str:
        """Where a redirect may lead: a configured peer, by 307 alone (VLT-01)."""
        if status == 307 and self.server.allows(Origin.of(url)):
            return url
        raise Unavailable(
            f"redirects to {shown(url)}, which is not asked: a token goes only where it was issued",
            where=self.server.address,
            hint="set VAULT_ADDR to the active node, or name it in SECURE_PIPELINE_VAULT_PEERS",
        )

    def _headers(self, data: bytes | None) -> dict[str, str]:
        headers = {"X-Vault-Request": "true"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        if self.token:
            headers["X-Vault-Token"] = self.token
        if self.namespace:
            headers["X-Vault-Namespace"] = self.namespace
        return headers

    def _error(self, answer: Answer, data: bytes, where: str) -> PipelineError:
        words = known_words(data)
        said = f": {words}" if words else ""
        place = f"{self.server.address}: {where}"
        if answer.status in (400, 403, 404, 405):
            return Refused(
                f"Vault refuses ({answer.status}){said}",
                status=answer.status,
                words=words,
                where=place,
                hint=_HINTS[answer.status],
            )
        return Unavailable(
            f"Vault answers {answer.status}{said}",
            where=place,
            hint="try again; Vault's own log says more",
        )


_HINTS = {
    400: "see Vault's audit log for the request",
    403: "look at the policies of the role that logs in, and at its token's time to live",
    404: "look at the mount and the name",
    405: "look at the mount: another engine may be there",
}


class _NoSession:
    """Where hvac expects a session of requests, which is never used."""

    verify: object = None
    cert: object = None
    proxies: object = None

    def close(self) -> None:
        """Nothing is open."""


def known_words(data: bytes) -> str:
    """What an error body says in words that we know to be harmless; '' for all others."""
    try:
        errors = parse_object(data, "errors", limit=MAX_ANSWER_BYTES).get("errors")
    except VerificationFailed:
        return ""
    texts = [text for text in errors if isinstance(text, str)] if isinstance(errors, list) else []
    joined = " ".join(texts[:8])[:4000].lower()
    return next((words for words in _KNOWN if words.lower() in joined), "")


def check_path(path: str, what: str) -> str:
    """Return a path of Vault whose segments are plain names (VLT-13). Raises: ConfigError."""
    segments = path.split("/")
    if len(segments) > _MAX_SEGMENTS or not all(_SEGMENT.fullmatch(item) for item in segments):
        raise ConfigError(
            f"{what} {path[:80]!r} is not made of plain names",
            hint="letters, digits, '_', '.', '-', with '/' between; no name starts with '.' or '-'",
        )
    return path
