"""Bounded reads from a Docker engine (Engine API 1.41 and later), through the docker library.

https://docs.docker.com/reference/api/engine/version/v1.41/
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import docker
import requests
from docker.errors import DockerException
from docker.tls import TLSConfig

from secure_pipeline import strictjson
from secure_pipeline.errors import Inconclusive, Unavailable, UsageError
from secure_pipeline.ports import Clock

SILENCE_SECONDS = 30.0
ANSWER_SECONDS = 60.0
STREAM_SECONDS = 1800.0
MAX_ANSWER_BYTES = 16 << 20
_CHUNK = 1 << 20
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HINT = "start the engine, or set DOCKER_HOST to where it listens"


@dataclass(frozen=True)
class EngineAddress:
    """Where an engine listens, and how it is known to be the right one."""

    url: str
    """``unix:///path`` or ``tcp://host:port``."""
    tls: Path | None = None
    """Directory with ca.pem, cert.pem and key.pem (docker's DOCKER_CERT_PATH)."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
            return
        if parts.scheme != "tcp" or not parts.hostname or parts.username or parts.query:
            raise UsageError(
                "DOCKER_HOST is neither unix:///PATH nor tcp://HOST:PORT",
                hint="for ssh forward the socket: ssh -NL /tmp/engine:/var/run/docker.sock HOST",
            )
        # Whoever answers in an engine's place can say that anything runs.
        if self.tls is None and parts.hostname not in _LOOPBACK:
            raise UsageError(
                "an engine on another machine must be known by its certificate",
                where=self.url,
                hint="set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH",
            )


class Missing(Exception):
    """The engine has no container or image of that name."""


class Engine:
    """Asks an engine; every answer has a limit, every call a deadline."""

    def __init__(self, address: EngineAddress, clock: Clock) -> None:
        self._address = address
        self._clock = clock

    @property
    def where(self) -> str:
        """The address, for messages."""
        return self._address.url

    def json(self, *path: str, **query: str) -> Any:
        """Return the JSON of ``GET /PATH``. Raises: Missing, Unavailable, Inconclusive."""
        with self.stream(*path, seconds=ANSWER_SECONDS, **query) as answer:
            data = answer.read(MAX_ANSWER_BYTES + 1)
        if len(data) > MAX_ANSWER_BYTES:
            raise Inconclusive(f"an answer of over {MAX_ANSWER_BYTES} bytes", where=self.where)
        try:
            return strictjson.loads(data, limit=MAX_ANSWER_BYTES)
        except strictjson.InvalidJson as error:
            raise Inconclusive(f"the engine's answer is {error}", where=self.where) from None

    @contextmanager
    def stream(self, *path: str, seconds: float = STREAM_SECONDS, **query: str) -> Iterator[Answer]:
        """Open ``GET /PATH`` as a stream. Raises: Missing, Unavailable."""
        deadline = self._clock.monotonic() + seconds
        with self._reachable():
            response = self._session.get(
                "/".join((self._base, *(quote(part, safe=":") for part in path))),
                params=query,
                stream=True,
                allow_redirects=False,
                timeout=SILENCE_SECONDS,
                # It would pack what it sends over the socket.
                headers={"Accept-Encoding": "identity"},
            )
        try:
            if response.status_code == 404:
                raise Missing
            if response.status_code != 200:
                raise Unavailable(f"the engine answered {response.status_code}", where=self.where)
            yield Answer(self, response, deadline)
        finally:
            response.close()

    def late(self, deadline: float) -> bool:
        """Tell whether a deadline has passed."""
        return self._clock.monotonic() > deadline

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except (requests.RequestException, DockerException, OSError) as error:
            raise Unavailable(
                f"the Docker engine does not answer ({_reason(error)})",
                where=self.where,
                hint=_HINT,
            ) from error

    @cached_property
    def _session(self) -> docker.APIClient:
        with self._reachable():
            session = docker.APIClient(
                base_url=self._address.url,
                version="auto",
                timeout=int(SILENCE_SECONDS),
                tls=_tls(self._address.tls) if self._address.tls else False,
            )
        session.trust_env = False
        return session

    @property
    def _base(self) -> str:
        return f"{self._session.base_url}/v{self._session.api_version}"


class Answer:
    """The body of one answer."""

    def __init__(self, engine: Engine, response: requests.Response, deadline: float) -> None:
        self._engine = engine
        self._chunks = response.iter_content(_CHUNK)
        self._deadline = deadline
        self._waiting = b""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, fewer only at the end. Raises: Unavailable."""
        parts, missing = [self._waiting], size - len(self._waiting)
        while missing > 0 and (chunk := self._next()):
            parts.append(chunk)
            missing -= len(chunk)
        data = b"".join(parts)
        self._waiting = data[size:]
        return data[:size]

    def _next(self) -> bytes:
        if self._engine.late(self._deadline):
            raise Unavailable("the engine took too long", where=self._engine.where)
        with self._engine._reachable():
            return next(self._chunks, b"")


def _tls(directory: Path) -> TLSConfig:
    return TLSConfig(
        client_cert=(str(directory / "cert.pem"), str(directory / "key.pem")),
        ca_cert=str(directory / "ca.pem"),
        verify=True,
    )


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words."""
    cause = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return getattr(cause, "strerror", None) or type(cause).__name__
