"""A server on loopback that does wrong on purpose, alone or in front of a real one.

Rules say which requests fail how, and how often; all others are passed on. Every request is
kept, so that a test can see which headers went where.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_SECONDS = 20
_HOP = ("connection", "keep-alive", "transfer-encoding")
_BLOCK = bytes(1 << 16)
_MOST = 1 << 14
"""Blocks or bytes after which even an endless answer ends, so that no test runs for ever."""


@dataclass(frozen=True)
class Seen:
    """One request as it came."""

    method: str
    path: str
    """With its query."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What the real server answered."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


Fault = Callable[["Exchange"], None]


@dataclass
class Rule:
    """A fault for requests of a method whose path holds some text, a number of times."""

    method: str
    text: str
    fault: Fault
    times: int

    def takes(self, seen: Seen) -> bool:
        if self.times <= 0 or seen.method != self.method or self.text not in seen.path:
            return False
        self.times -= 1
        return True


@dataclass
class FaultProxy:
    """The server's address, its rules, and what it saw."""

    upstream: str | None = None
    """host:port of the real server."""
    host: str = ""
    """host:port of this one."""
    rules: list[Rule] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def on(self, method: str, text: str, fault: Fault, times: int = 1 << 30) -> None:
        """Add a rule; the first one that takes a request is used."""
        self.rules.append(Rule(method, text, fault, times))

    def requests(self, method: str, text: str = "") -> list[Seen]:
        return [item for item in self.seen if item.method == method and text in item.path]

    def rule(self, seen: Seen) -> Rule | None:
        with self.lock:
            self.seen.append(seen)
            return next((rule for rule in self.rules if rule.takes(seen)), None)


class Exchange:
    """One request being answered."""

    def __init__(self, handler: BaseHTTPRequestHandler, seen: Seen, upstream: str | None) -> None:
        self.seen = seen
        self._handler = handler
        self._upstream = upstream

    def forward(self, body: bytes | None = None) -> Reply:
        """Ask the real server, maybe with another body; a missing one is 404."""
        if self._upstream is None:
            return Reply(404, (), b"")
        headers = {name: text for name, text in self.seen.headers.items() if name not in _HOP}
        body = self.seen.body if body is None else body
        if self.seen.method not in ("GET", "HEAD"):
            headers["content-length"] = str(len(body))
        connection = http.client.HTTPConnection(self._upstream, timeout=_SECONDS)
        try:
            connection.request(self.seen.method, self.seen.path, body, headers)
            answer = connection.getresponse()
            found = [item for item in answer.getheaders() if item[0].lower() not in _HOP]
            return Reply(answer.status, tuple(found), answer.read())
        finally:
            connection.close()

    def begin(self, status: int, headers: Mapping[str, str] | tuple[tuple[str, str], ...]) -> None:
        self._handler.send_response_only(status)
        for name, text in headers.items() if isinstance(headers, Mapping) else headers:
            self._handler.send_header(name, text)
        self._handler.end_headers()

    def write(self, data: bytes) -> None:
        self._handler.wfile.write(data)

    def reply(self, reply: Reply) -> None:
        length = ("Content-Length", str(len(reply.body)))
        known = any(name.lower() == "content-length" for name, _ in reply.headers)
        bare = known or reply.status in (204, 304)
        self.begin(reply.status, reply.headers if bare else (*reply.headers, length))
        if self.seen.method != "HEAD":
            self.write(reply.body)

    def cut(self) -> None:
        """Close the connection at once."""
        self._handler.close_connection = True
        self._handler.connection.shutdown(socket.SHUT_RDWR)


def answer(status: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer by itself; ``_`` in names of headers stands for ``-``."""
    named = tuple((name.replace("_", "-"), text) for name, text in headers.items())
    return lambda exchange: exchange.reply(Reply(status, named, body))


def cut(exchange: Exchange) -> None:
    """Close without passing the request on."""
    exchange.cut()


def lose_answer(exchange: Exchange) -> None:
    """Pass the request on, and close without the answer."""
    exchange.forward()
    exchange.cut()


def cut_body(number: int) -> Fault:
    """Send only so many bytes of the real answer."""

    def fault(exchange: Exchange) -> None:
        reply = exchange.forward()
        exchange.begin(reply.status, reply.headers)
        exchange.write(reply.body[:number])
        exchange.cut()

    return fault


def cut_request(number: int) -> Fault:
    """Pass on only so many bytes of the request's body, and close."""

    def fault(exchange: Exchange) -> None:
        exchange.forward(exchange.seen.body[:number])
        exchange.cut()

    return fault


def other_bytes(exchange: Exchange) -> None:
    """The real answer with one bit turned, its digest still in the headers."""
    reply = exchange.forward()
    body = bytes([reply.body[0] ^ 1]) + reply.body[1:] if reply.body else b""
    exchange.reply(Reply(reply.status, reply.headers, body))


def without_length(exchange: Exchange) -> None:
    """The real answer without Content-Length, ended by closing the connection."""
    reply = exchange.forward()
    kept = [item for item in reply.headers if item[0].lower() != "content-length"]
    exchange.begin(reply.status, (*kept, ("Connection", "close")))
    exchange.write(reply.body)
    exchange.cut()


def endless(exchange: Exchange) -> None:
    """A body that does not end."""
    exchange.begin(200, {"Content-Type": "application/octet-stream", "Connection": "close"})
    for _ in range(_MOST):
        exchange.write(_BLOCK)


def drip(exchange: Exchange) -> None:
    """A body that comes byte by byte and would take minutes."""
    exchange.begin(200, {"Content-Length": str(_MOST)})
    for _ in range(_MOST):
        exchange.write(b"x")
        time.sleep(0.05)


def drip_headers(exchange: Exchange) -> None:
    """Headers that come byte by byte and would take minutes."""
    exchange.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(_MOST):
        exchange.write(b"x")
        time.sleep(0.05)


def silent(exchange: Exchange) -> None:
    """Take the request and say nothing until the other side goes away."""
    exchange._handler.connection.settimeout(_SECONDS)
    exchange._handler.rfile.read(1)
    exchange.cut()


@contextmanager
def fault_proxy(upstream: str | None = None) -> Iterator[FaultProxy]:
    """Serve on 127.0.0.1."""
    proxy = FaultProxy(upstream)
    server = _Server(("127.0.0.1", 0), _handler(proxy))
    proxy.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_SECONDS)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """The other side may go away: that is what many tests are about."""


def _handler(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = _SECONDS
        wbufsize = 0

        def handle_any(self) -> None:
            headers = {name.lower(): text for name, text in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            seen = Seen(self.command, self.path, headers, body)
            exchange = Exchange(self, seen, proxy.upstream)
            rule = proxy.rule(seen)
            if rule:
                rule.fault(exchange)
            else:
                exchange.reply(exchange.forward())

        do_GET = do_HEAD = do_POST = handle_any  # noqa: N815
        do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler
