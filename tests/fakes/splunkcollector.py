"""An HTTP Event Collector for tests, written from Splunk's documentation.

Tokens, channels, acknowledgement numbers that count from 0 on each channel and are told once,
a queue in memory that a crash loses, an index on disk that it does not; the table of codes with
their statuses; events before a bad one are kept. ``Collector`` has no socket; ``serving`` puts
it behind one on loopback, ``Direct`` hands it requests without any.
"""

from __future__ import annotations

import gzip
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fakes.authority import Authority
from secure_pipeline.adapters.http import Cut, Transport

TOKEN = "BD274822-96AA-4DA6-90EC-18940FB2414C"
_GUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\Z")
_EVENT = re.compile(r"/services/collector(/event(/1\.0)?)?\Z")
_HEALTH = re.compile(r"/services/collector/health(/1\.0)?\Z")
_TEXTS = {
    0: (200, "Success"),
    1: (403, "Token disabled"),
    2: (401, "Token is required"),
    3: (401, "Invalid authorization"),
    4: (403, "Invalid token"),
    5: (400, "No data"),
    6: (400, "Invalid data format"),
    7: (400, "Incorrect index"),
    8: (500, "Internal server error"),
    9: (503, "Server is busy"),
    10: (400, "Data channel is missing"),
    11: (400, "Invalid data channel"),
    12: (400, "Event field is required"),
    13: (400, "Event field cannot be blank"),
    14: (400, "ACK is disabled"),
    15: (400, "Error in handling indexed fields"),
    16: (400, "Query string authorization is not enabled"),
    17: (200, "HEC is healthy"),
    18: (503, "HEC is unhealthy, queues are full"),
    23: (503, "Server is shutting down"),
}


@dataclass(frozen=True)
class Request:
    """One request; names of headers in lower case."""

    method: str
    path: str
    """With its query."""
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Reply:
    """A status and a JSON document."""

    status: int
    document: dict[str, Any]

    @property
    def body(self) -> bytes:
        return json.dumps(self.document, separators=(",", ":")).encode()


class Refusal(Exception):
    """A code of the table; ``number`` is the place of a bad event in its batch."""

    def __init__(self, code: int, number: int | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.number = number


class Gone(Exception):
    """The connection ends without an answer."""


@dataclass
class Token:
    """What a token may do."""

    acknowledges: bool = True
    disabled: bool = False
    indexes: tuple[str, ...] = ("main",)


@dataclass
class _Channel:
    given: int = 0
    done: set[int] = field(default_factory=set)


@dataclass
class _Waiting:
    channel: _Channel | None
    number: int
    events: list[dict[str, Any]]
    due: float


Fault = Callable[[Request], str | None]
"""Names what goes wrong with a request: 'busy', 'cut' (nothing is taken), 'cut after', 'error',
'redirect', 'not ours', 'too large'; None if nothing does."""


@dataclass
class Collector:
    """State of one collector and how it answers."""

    now: Callable[[], float]
    tokens: dict[str, Token] = field(default_factory=lambda: {TOKEN: Token()})
    delay: float = 0.0
    """Seconds from a 200 to the index."""
    stuck: bool = False
    """Nothing is indexed any more."""
    forgets_loudly: bool = False
    """Answers 11, not false, about a channel that it does not know."""
    healthy: bool = True
    limit: int = 1_000_000
    """Bytes of one request (max_content_length)."""
    fault: Fault = lambda request: None
    indexed: list[dict[str, Any]] = field(default_factory=list)
    """Every event in the index, in order, duplicates included."""
    seen: list[Request] = field(default_factory=list)
    waiting: list[_Waiting] = field(default_factory=list)
    channels: dict[str, _Channel] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def restart(self) -> None:
        """Crash: what waits is lost, channels are forgotten; the index stays."""
        self.waiting.clear()
        self.channels.clear()

    def work(self) -> None:
        """Index what has waited long enough."""
        if self.stuck:
            return
        with self.lock:
            due = [item for item in self.waiting if item.due <= self.now()]
            for item in due:
                self.waiting.remove(item)
                self.indexed += item.events
                if item.channel is not None:
                    item.channel.done.add(item.number)

    def entries(self) -> dict[str, list[str]]:
        """What is indexed: the id of an entry to its events' texts."""
        found: dict[str, list[str]] = {}
        for event in self.indexed:
            found.setdefault(event["fields"]["entry_id"], []).append(event["event"])
        return found

    def handle(self, request: Request) -> Reply:
        """Answer. Raises: Gone."""
        self.seen.append(request)
        self.work()
        fault = self.fault(request)
        if fault == "cut":
            raise Gone
        if fault in ("busy", "error"):
            return _reply(9 if fault == "busy" else 8)
        if fault == "redirect":
            return Reply(307, {"location": "https://elsewhere.example"})
        if fault == "not ours":
            return Reply(200, {"hello": "world"})
        if fault == "too large":
            return Reply(413, {})
        try:
            reply = self._answer(request)
        except Refusal as refusal:
            reply = _reply(refusal.code, refusal.number)
        if fault == "cut after":
            raise Gone
        return reply

    def _answer(self, request: Request) -> Reply:
        path = urlsplit(request.path).path
        if _HEALTH.match(path):
            return _reply(17 if self.healthy else 18)
        if request.method != "POST":
            return Reply(405, {"text": "Method Not Allowed"})
        token = self._token(request)
        if path == "/services/collector/ack":
            return self._acks(request, token)
        if not _EVENT.match(path):
            return Reply(404, {"text": "The requested URL was not found on this server."})
        return self._take(request, token)

    def _token(self, request: Request) -> Token:
        given = request.headers.get("authorization")
        if given is None:
            raise Refusal(2)
        scheme, _, value = given.partition(" ")
        if scheme != "Splunk" or not value:
            raise Refusal(3)
        if value not in self.tokens:
            raise Refusal(4)
        if self.tokens[value].disabled:
            raise Refusal(1)
        return self.tokens[value]

    def _take(self, request: Request, token: Token) -> Reply:
        channel = self._channel(request, create=True) if token.acknowledges else None
        if len(request.body) > self.limit:
            return Reply(413, {})
        body = request.body
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        events, failure = _events(body.decode("utf-8"), token)
        number = channel.given if channel else 0
        if events:
            told = channel if failure is None else None
            self.waiting.append(_Waiting(told, number, events, self.now() + self.delay))
        if failure is not None:
            raise failure
        self.work()
        if channel is None:
            return _reply(0)
        channel.given += 1
        return Reply(200, {"text": "Success", "code": 0, "ackId": number})

    def _acks(self, request: Request, token: Token) -> Reply:
        if not token.acknowledges:
            raise Refusal(14)
        channel = self._channel(request, create=False)
        try:
            asked = json.loads(request.body)["acks"]
        except (ValueError, KeyError, TypeError):
            raise Refusal(6) from None
        done = channel.done if channel else set()
        statuses = {str(number): number in done for number in asked}
        done.difference_update(asked)  # told once, then forgotten
        return Reply(200, {"acks": statuses})

    def _channel(self, request: Request, *, create: bool) -> _Channel | None:
        query = parse_qs(urlsplit(request.path).query)
        name = request.headers.get("x-splunk-request-channel") or query.get("channel", [""])[0]
        if not name:
            raise Refusal(10)
        if not _GUID.match(name):
            raise Refusal(11)
        if create:
            return self.channels.setdefault(name.lower(), _Channel())
        if name.lower() not in self.channels and self.forgets_loudly:
            raise Refusal(11)
        return self.channels.get(name.lower())


def _reply(code: int, number: int | None = None) -> Reply:
    status, text = _TEXTS[code]
    where = {} if number is None else {"invalid-event-number": number}
    return Reply(status, {"text": text, "code": code, **where})


def _events(text: str, token: Token) -> tuple[list[dict[str, Any]], Refusal | None]:
    """The events before the first bad one, and what is wrong with that."""
    decoder, events, place = json.JSONDecoder(), [], 0
    text = text.strip()
    if not text:
        return [], Refusal(5)
    while place < len(text):
        try:
            event, place = decoder.raw_decode(text, place)
            _check(event, token, len(events))
        except ValueError:
            return events, Refusal(6, len(events))
        except Refusal as refusal:
            return events, refusal
        events.append(event)
        while place < len(text) and text[place].isspace():
            place += 1
    return events, None


def _check(event: Any, token: Token, number: int) -> None:
    if not isinstance(event, dict):
        raise Refusal(6, number)
    if "event" not in event:
        raise Refusal(12, number)
    if event["event"] in (None, "", {}, []):
        raise Refusal(13, number)
    if event.get("index", token.indexes[0]) not in token.indexes:
        raise Refusal(7, number + 1)  # one higher than the others
    fields = event.get("fields", {})
    if not isinstance(fields, dict) or not all(
        isinstance(value, str) or _texts(value) for value in fields.values()
    ):
        raise Refusal(15, number)
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", json.dumps(event.get("time", 0)).strip('"')):
        raise Refusal(15, number)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


class Direct(Transport):
    """The HTTP client's requests, handed to a collector without a socket."""

    def __init__(self, collector: Collector, clock: Any) -> None:
        super().__init__(clock)
        self.collector = collector

    def request(self, method: str, url: str, **more: Any) -> Any:
        headers = {name.lower(): text for name, text in (more.get("headers") or {}).items()}
        if more.get("grant") is not None:
            headers["authorization"] = more["grant"].value
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            reply = self.collector.handle(Request(method, path, headers, more.get("body") or b""))
        except Gone:
            raise Cut("no answer", where=url) from None
        return _DirectAnswer(reply)


class _DirectAnswer:
    def __init__(self, reply: Reply) -> None:
        self.status = reply.status
        self.headers: dict[str, str] = {}
        self._body = reply.body

    def __enter__(self) -> _DirectAnswer:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read(self, limit: int) -> bytes:
        return self._body


@contextmanager
def serving(collector: Collector, tls: Authority | None = None) -> Iterator[str]:
    """Serve on a port of 127.0.0.1; gives the base address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20

        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): text for name, text in self.headers.items()}
            request = Request(self.command, self.path, headers, self.rfile.read(length))
            try:
                with collector.lock:
                    reply = collector.handle(request)
            except Gone:
                self.close_connection = True
                return
            self.send_response_only(reply.status)
            if "location" in reply.document:
                self.send_header("Location", reply.document["location"])
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = do_PUT = _do  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    scheme = "https" if tls else "http"
    try:
        yield f"{scheme}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
