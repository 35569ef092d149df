"""Requests to one repository of one registry: address, login, and what refusals mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from secure_pipeline.adapters.http import Answer, Cut, Grant, Origin, Transport, is_loopback, shown
from secure_pipeline.adapters.registryauth import Authorizer
from secure_pipeline.errors import Unavailable, UsageError

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?"
)
_MAX_NAME = 255
_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_HINT = "write HOST[:PORT]/REPOSITORY, such as registry.example/team/app"


@dataclass(frozen=True)
class Place:
    """One repository of one registry."""

    name: str
    """As people write it: ``host[:port]/path``."""
    host: str
    """``host[:port]`` that is asked."""
    path: str
    key: str
    """The registry's name in docker's configuration."""

    @classmethod
    def parse(cls, name: str) -> Place:
        """Parse ``host[:port]/path``; docker.io is asked at its own address.

        Raises: UsageError.
        """
        host, slash, path = name.partition("/")
        named = "." in host or ":" in host or host == "localhost"
        if not slash or not named or len(name) > _MAX_NAME or not _HOST.fullmatch(host):
            raise UsageError(f"{name[:80]!r} names no repository of a registry", hint=_HINT)
        if host in _DOCKER_HUB:
            path = path if "/" in path else f"library/{path}"
        port = re.search(r":([0-9]+)$", host)
        if not _PATH.fullmatch(path) or (port and int(port[1]) > 65535):
            raise UsageError(f"{name[:80]!r} names no repository", hint=_HINT)
        if host in _DOCKER_HUB:
            key = "https://index.docker.io/v1/"
            return cls(f"docker.io/{path}", "registry-1.docker.io", path, key)
        return cls(name, host, path, host)

    @property
    def loopback(self) -> bool:
        """Whether the registry is on this machine."""
        return is_loopback(re.sub(r":[0-9]+$", "", self.host))


@dataclass(frozen=True)
class Fetched:
    """A whole answer, not checked yet."""

    data: bytes
    headers: Mapping[str, str]
    url: str


class RegistryClient:
    """Sends requests below ``/v2/<repository>/`` with the registry's Authorization."""

    def __init__(
        self, place: Place, scheme: str, transport: Transport, authorizer: Authorizer
    ) -> None:
        self.place = place
        self.transport = transport
        self.base = f"{scheme}://{place.host}/v2/{place.path}/"
        self._authorizer = authorizer

    def url(self, rest: str) -> str:
        """The address of something in the repository, such as ``manifests/latest``."""
        return self.base + rest

    def send(
        self,
        method: str,
        url: str,
        *,
        push: bool = False,
        also: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        deadline: float | None = None,
        retry: bool | None = None,
    ) -> Answer:
        """Send one request, logging in, or once more, where the registry asks for it.

        ``push``: needs the right to write. ``also``: further scopes.
        Raises: Unavailable if it is refused or there is no answer; ConfigError.
        """
        due = self.transport.deadline() if deadline is None else deadline
        scopes = (f"repository:{self.place.path}:{'pull,push' if push else 'pull'}", *also)
        grant = self._authorizer.grant(scopes)
        again = True
        while True:
            answer = self.transport.request(
                method, url, headers=headers, body=body, grant=grant, deadline=due, retry=retry
            )
            if answer.status != 401 or not again or Origin.of(answer.url) != Origin.of(self.base):
                break
            with answer:
                grant = self._challenged(answer, scopes, grant, due)
            again = False
        if answer.status in (401, 403):
            with answer:
                raise self.refused(answer, "write to" if push else "read")
        return answer

    def fetch(
        self,
        url: str,
        *,
        limit: int,
        headers: Mapping[str, str] | None = None,
        deadline: float | None = None,
    ) -> Fetched | None:
        """Get something whole, again if it broke off; None where there is no such thing.

        Raises: Inconclusive over ``limit`` bytes; like ``send``.
        """
        due = self.transport.deadline() if deadline is None else deadline
        attempts = self.transport.limits.attempts
        for attempt in range(attempts):
            try:
                with self.send("GET", url, headers=headers, deadline=due) as answer:
                    if answer.status == 404:
                        return None
                    if answer.status != 200:
                        raise self.unexpected(answer, "cannot be read")
                    return Fetched(answer.read(limit), answer.headers, answer.url)
            except Cut:
                wait = self.transport.backoff(attempt)
                if attempt == attempts - 1 or self.transport.clock.monotonic() + wait >= due:
                    raise
                self.transport.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def refused(self, answer: Answer, verb: str) -> Unavailable:
        """The error for a 401 or 403: who was refused what, and what to type."""
        return Unavailable(
            f"{self.place.key} does not let us {verb} {self.place.path}"
            f" ({self._said(answer)}); tried {self._authorizer.tried}",
            where=shown(answer.url),
            hint=self._authorizer.hint,
        )

    def unexpected(self, answer: Answer, what: str) -> Unavailable:
        """The error for any other status."""
        return Unavailable(f"{what}: answered {self._said(answer)}", where=shown(answer.url))

    def _challenged(
        self, answer: Answer, scopes: tuple[str, ...], grant: Grant | None, due: float
    ) -> Grant | None:
        fresh = self._authorizer.challenged(answer, scopes, grant, due)
        if fresh is None:
            raise self.refused(answer, "use")
        return fresh

    def _said(self, answer: Answer) -> str:
        quoted = self._authorizer.hide(answer.quote())
        return f"{answer.status} {quoted}".rstrip()
