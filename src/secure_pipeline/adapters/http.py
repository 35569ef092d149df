"""One bounded HTTP client: total deadlines, retries, own redirects, credentials by origin.

The registry, Vault, Prometheus and Splunk adapters all speak through ``Transport``. A call
has one deadline for everything, headers that drip in and bodies included: each wait for the
socket is cut to what is left of it. Nothing is read from the environment (no netrc, no proxy).
"""

from __future__ import annotations

import contextlib
import http.client
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from urllib.parse import urljoin, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

import requests
import urllib3

from secure_pipeline.adapters.httpwire import BLOCK, Body, TimedAdapter
from secure_pipeline.errors import ConfigError, Inconclusive, Unavailable
from secure_pipeline.ports import Clock

_REDIRECTS = (301, 302, 303, 307, 308)
_BUSY = (408, 429, 500, 502, 503, 504)
_PORTS = {"http": 80, "https": 443}
_TAIL = 16 << 10
"""Bytes of an answer's rest that are read so that its connection can serve again."""


@dataclass(frozen=True)
class HttpLimits:
    """What one call may cost. Times in seconds."""

    connect: float = 10.0
    """To connect, and to send one block."""
    silence: float = 30.0
    """Without a byte."""
    total: float = 120.0
    """The whole call with its retries, redirects, waits and bodies, unless it is given more."""
    attempts: int = 6
    redirects: int = 5


@dataclass(frozen=True)
class Origin:
    """The only thing that a credential may be bound to (REG-10)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of a URL. Raises: Unavailable if it has none."""
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):
            raise Unavailable("is no http address", where=shown(url)) from None
        if not parts.hostname or "@" in parts.netloc:
            raise Unavailable("is no plain http address", where=shown(url))
        return cls(parts.scheme, parts.hostname, port)

    @property
    def loopback(self) -> bool:
        """Whether it is this machine."""
        return is_loopback(self.host)


@dataclass(frozen=True)
class Grant:
    """An Authorization header and the one origin that may see it."""

    origin: Origin
    value: str = field(repr=False)


class Cut(Unavailable):
    """The connection ended or fell silent before the answer was whole."""


class Late(Unavailable):
    """The deadline has passed."""


class Transport:
    """Sends requests. Safe for several threads."""

    def __init__(
        self,
        clock: Clock,
        *,
        ca: Path | None = None,
        plain_http: bool = False,
        proxies: Mapping[str, str] | None = None,
        limits: HttpLimits | None = None,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        """``ca``: PEM file of the authorities to trust instead of the usual ones.

        ``plain_http``: allow http to others than this machine. ``proxies``: as
        ``urllib.request.getproxies_environment`` gives them. ``jitter`` gives 0 to 1.
        Raises: ConfigError if ``ca`` is no file.
        """
        if ca is not None and not ca.is_file():
            raise ConfigError("no such file of certificate authorities", where=str(ca))
        self.clock = clock
        self.limits = limits or HttpLimits()
        self.sleep = sleep
        self.jitter = jitter or random.SystemRandom().random
        self._verify = str(ca) if ca else True
        self._plain = plain_http
        self._proxies = dict(proxies or {})
        self._adapter = TimedAdapter(clock, self.limits.silence)

    def deadline(self, seconds: float | None = None) -> float:
        """The deadline of a call that starts now, on the clock's monotonic scale."""
        return self.clock.monotonic() + (self.limits.total if seconds is None else seconds)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        grant: Grant | None = None,
        deadline: float | None = None,
        retry: bool | None = None,
        follow: bool = True,
    ) -> Answer:
        """Send, follow redirects of GET and HEAD, and repeat while the service is busy.

        ``retry``: repeating does no harm (by default only for GET and HEAD). Without ``follow``
        a redirect is the answer. The answer has whatever status the service gave in the end;
        close it, or use it in a ``with``.
        Raises: Unavailable (no connection, no trust, a forbidden redirect), Late.
        """
        due = self.deadline() if deadline is None else deadline
        again = method in ("GET", "HEAD") if retry is None else retry
        follow = follow and method in ("GET", "HEAD")
        for attempt in range(self.limits.attempts):
            last = not again or attempt == self.limits.attempts - 1
            try:
                answer = self._follow(method, url, dict(headers or {}), body, grant, due, follow)
            except Cut:
                wait = self.backoff(attempt)
                if last or self.clock.monotonic() + wait >= due:
                    raise
            else:
                wait = _retry_after(answer, self.clock) or self.backoff(attempt)
                if answer.status not in _BUSY or last or self.clock.monotonic() + wait >= due:
                    return answer
                answer.close()
            self.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def backoff(self, attempt: int) -> float:
        """Seconds to wait after this many failures before: growing, never two alike."""
        return min(20.0, 0.25 * 2.0**attempt) * (0.5 + self.jitter() / 2)

    def join(self, base: str, location: str) -> str:
        """Resolve where an answer points to. Raises: Unavailable if one must not go there."""
        url = urljoin(base, location).partition("#")[0]
        if Origin.of(url).scheme == "http" and Origin.of(base).scheme == "https":
            raise Unavailable(f"leads from https to {shown(url)}", where=shown(base))
        self.check(url)
        return url

    def check(self, url: str) -> None:
        """Refuse plain http to another machine. Raises: Unavailable."""
        origin = Origin.of(url)
        if origin.scheme == "http" and not (self._plain or origin.loopback):
            raise Unavailable("plain http is only used on this machine", where=shown(url))

    def _follow(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None,
        grant: Grant | None,
        due: float,
        follow: bool,
    ) -> Answer:
        self.check(url)
        for _ in range(self.limits.redirects + 1):
            answer = self._send(method, url, headers, body, grant, due)
            location = answer.headers.get("Location")
            redirected = answer.status in _REDIRECTS and location is not None
            if not redirected or not follow:
                return answer
            answer.close()
            url = self.join(url, str(location))
        raise Unavailable(f"more than {self.limits.redirects} redirects", where=shown(url))

    def _send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None,
        grant: Grant | None,
        due: float,
    ) -> Answer:
        left = due - self.clock.monotonic()
        if left <= 0:
            raise Late("the deadline has passed", where=shown(url))
        sent = {"Accept-Encoding": "identity", "User-Agent": "secure-pipeline", **headers}
        if grant is not None and grant.origin == Origin.of(url):
            sent["Authorization"] = grant.value
        data = Body(body, partial(self._in_time, due, url)) if body else None
        try:
            prepared = requests.Request(method, url, headers=sent, data=data).prepare()
            self._adapter.due.at = due
            response = self._adapter.send(
                prepared,
                stream=True,
                timeout=(min(self.limits.connect, left), min(self.limits.silence, left)),
                verify=self._verify,
                proxies=self._proxy(url),
            )
        except (OSError, urllib3.exceptions.HTTPError, ValueError) as error:
            raise self._failure(error, url, due) from error
        return Answer(response, url, due, self.clock)

    def _in_time(self, due: float, url: str) -> None:
        if self.clock.monotonic() >= due:
            raise Late("not sent within the deadline", where=shown(url))

    def _failure(self, error: Exception, url: str, due: float) -> Unavailable:
        if isinstance(error, requests.exceptions.SSLError) and _distrusted(error):
            return Unavailable(
                f"its certificate is not trusted: {_reason(error)}",
                where=shown(url),
                hint="name the file of the authority that issued it",
            )
        if self.clock.monotonic() >= due:
            return Late("no answer within the deadline", where=shown(url))
        if isinstance(error, ValueError):
            return Unavailable(f"cannot be asked: {_reason(error)}", where=shown(url))
        return Cut(f"no answer: {_reason(error)}", where=shown(url))

    def _proxy(self, url: str) -> dict[str, str]:
        """The proxy for a URL; none for this machine, which no proxy can mean."""
        origin = Origin.of(url)
        if origin.loopback or origin.scheme not in self._proxies:
            return {}
        if proxy_bypass_environment(f"{origin.host}:{origin.port}", self._proxies):
            return {}
        return {origin.scheme: self._proxies[origin.scheme]}


class Answer:
    """A status, headers and a body that is not read yet."""

    def __init__(self, response: requests.Response, url: str, due: float, clock: Clock) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.url = url
        """Where it came from, after redirects."""
        self._response = response
        self._due = due
        self._clock = clock

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def length(self) -> int | None:
        """Bytes of the body as the service says, or None."""
        text = self.headers.get("Content-Length", "")
        return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None

    def chunks(self) -> Iterator[bytes]:
        """Yield the body exactly as it was sent, in small pieces.

        Raises: Cut if it ends too early; Late.
        """
        while True:
            try:
                data = self._response.raw.read1(BLOCK, decode_content=False)
            except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
                if self._clock.monotonic() >= self._due:
                    raise Late("not whole within the deadline", where=shown(self.url)) from error
                raise Cut(f"broke off: {_reason(error)}", where=shown(self.url)) from error
            if not data:
                return
            yield data

    def read(self, limit: int) -> bytes:
        """Return the whole body; one over ``limit`` bytes is not even begun where it says so.

        Raises: Inconclusive over the limit; Cut, Late.
        """
        if (self.length or 0) > limit:
            raise Inconclusive(
                f"answer of {self.length} bytes; limit {limit}", where=shown(self.url)
            )
        kept = bytearray()
        for chunk in self.chunks():
            kept += chunk
            if len(kept) > limit:
                raise Inconclusive(f"answer over the limit of {limit} bytes", where=shown(self.url))
        return bytes(kept)

    def quote(self, limit: int = 200) -> str:
        """The beginning of the body as one printable line, for an error; '' if there is none."""
        kept = b""
        try:
            for chunk in self.chunks():
                kept += chunk
                if len(kept) >= 4 * limit:
                    break
        except Unavailable:
            pass
        text = " ".join(kept.decode("utf-8", "replace").split())
        return "".join(mark if mark.isprintable() else "?" for mark in text)[:limit]

    def close(self) -> None:
        """Give the connection back if little is left; what is left of more is never read."""
        raw = self._response.raw
        with contextlib.suppress(urllib3.exceptions.HTTPError, http.client.HTTPException, OSError):
            if raw.length_remaining is not None and raw.length_remaining <= _TAIL:
                raw.read(_TAIL, decode_content=False)
        self._response.close()


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def shown(url: str) -> str:
    """A URL for messages: without user, query and fragment, which may hold secrets."""
    bare = re.split(r"[?#]", url, maxsplit=1)[0]
    return re.sub(r"(//)[^/@]*@", r"\1", bare)[:300]


def _retry_after(answer: Answer, clock: Clock) -> float | None:
    """Seconds that a busy service asks for (RFC 9110, 10.2.3)."""
    text = answer.headers.get("Retry-After", "")
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - clock.now()).total_seconds())
    except (ValueError, TypeError):
        return None


def _distrusted(error: BaseException) -> bool:
    return "CERTIFICATE_VERIFY_FAILED" in str(error) or "CertificateError" in str(error)


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words, without addresses that may hold tokens."""
    cause = error
    for _ in range(10):
        inner = cause.__cause__ or cause.__context__
        if inner is None:
            break
        cause = inner
    words = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None)
    return str(words or type(cause).__name__)
