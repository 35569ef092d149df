"""The HTTP interface: routes, limits on what is read, and answers in JSON."""

from __future__ import annotations

import io
import json
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from inference_service import metrics, request
from inference_service.conversations import StoreUnavailable
from inference_service.service import Answer, Busy, InjectedFault

if TYPE_CHECKING:
    from inference_service.server import InferenceServer

RETRY_AFTER_SECONDS = 1
_MAX_DISCARDED_BYTES = 1 << 20
_CLIENT_WENT_AWAY = 499


class Refused(Exception):
    """An answer other than success."""

    def __init__(self, status: HTTPStatus, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class _DeadlineReader(io.RawIOBase):
    """Reads a socket with one deadline for a whole request: a byte a second is too slow."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        self._deadline = time.monotonic() + self._seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(max(self._deadline - time.monotonic(), 0.001))
        return self._connection.recv_into(buffer)


class Handler(BaseHTTPRequestHandler):
    """One connection, one request after the other."""

    server: InferenceServer
    protocol_version = "HTTP/1.1"
    server_version = "inference-service"
    sys_version = ""

    def setup(self) -> None:
        """Put the deadline under everything that is read."""
        super().setup()
        seconds = self.server.service.settings.receive_timeout
        self._source = _DeadlineReader(self.connection, seconds)
        self.rfile = io.BufferedReader(self._source)

    def handle_one_request(self) -> None:
        """Start the deadline of the next request."""
        self._source.restart()
        super().handle_one_request()

    def _dispatch(self) -> None:
        self.connection.settimeout(self.server.service.settings.receive_timeout)
        path = self.path.partition("?")[0]
        routes: dict[str, tuple[str, Callable[[], None]]] = {
            "/v1/generate": ("POST", self._generate),
            "/healthz": ("GET", self._healthz),
            "/readyz": ("GET", self._readyz),
            "/metrics": ("GET", self._metrics),
        }
        self._counted = path == "/v1/generate"
        with self.server.running():
            try:
                if path not in routes:
                    raise Refused(HTTPStatus.NOT_FOUND, "no such path")
                method, action = routes[path]
                if self.command != method:
                    raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"use {method}", Allow=method)
                action()
            except Refused as refusal:
                self._refuse(refusal)
            except (ConnectionError, TimeoutError):
                self._count(_CLIENT_WENT_AWAY)
                self.close_connection = True

    do_GET = do_POST = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _dispatch

    def _healthz(self) -> None:
        self._send_json(HTTPStatus.OK, {"status": "alive"})

    def _readyz(self) -> None:
        if self.server.draining:
            raise _unavailable("shutting down")
        try:
            self.server.service.check()
        except StoreUnavailable as error:
            raise _unavailable(str(error)) from error
        self._send_json(HTTPStatus.OK, {"status": "ready"})

    def _metrics(self) -> None:
        self._send(HTTPStatus.OK, metrics.CONTENT_TYPE, self.server.service.metrics.exposition())

    def _generate(self) -> None:
        body = self._body()
        if self.server.draining:
            raise _unavailable("shutting down")
        try:
            wanted = request.parse(body)
        except request.BadRequest as error:
            raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from error
        stream = _Stream(self) if wanted.stream else None
        try:
            answer = self.server.service.generate(wanted, stream.token if stream else _ignore)
        except Busy:
            raise _unavailable("as many requests as allowed are being answered") from None
        except InjectedFault:
            raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "injected fault") from None
        except StoreUnavailable as error:
            if stream and stream.started:
                # The status line is sent: a missing last chunk tells the client instead.
                self._count(HTTPStatus.SERVICE_UNAVAILABLE)
                self.close_connection = True
                return
            raise _unavailable(str(error)) from error
        result = _result(wanted.context_id, answer, self.server.service.settings.version)
        if stream:
            stream.finish(result)
            self._count(HTTPStatus.OK)
        else:
            self._send_json(HTTPStatus.OK, result)

    def _body(self) -> bytes:
        if "Transfer-Encoding" in self.headers:
            raise Refused(HTTPStatus.NOT_IMPLEMENTED, "send Content-Length, no Transfer-Encoding")
        lengths = self.headers.get_all("Content-Length") or []
        if not lengths:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise Refused(HTTPStatus.BAD_REQUEST, "Content-Length is not one number")
        if len(lengths[0]) > 9 or int(lengths[0]) > request.MAX_BODY_BYTES:
            self._discard(lengths[0])
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body may have {request.MAX_BODY_BYTES} bytes",
            )
        body = self._read(int(lengths[0]))
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        return body

    def _read(self, length: int) -> bytes:
        try:
            body = self.rfile.read(length)
        except TimeoutError:
            self.connection.settimeout(self.server.service.settings.receive_timeout)
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time") from None
        self.connection.settimeout(self.server.service.settings.receive_timeout)
        if len(body) < length:
            raise ConnectionError("the body ended early")
        return body

    def _discard(self, length: str) -> None:
        """Read some of a body that is too large, so that the client sees the answer."""
        if len(length) < 9 and int(length) <= _MAX_DISCARDED_BYTES:
            self._read(int(length))

    def _refuse(self, refusal: Refused) -> None:
        # What is left of the request, if anything, must not be read as the next one.
        self.close_connection = True
        try:
            self._send_json(refusal.status, {"error": str(refusal)}, **refusal.headers)
        except (ConnectionError, TimeoutError):
            self._count(_CLIENT_WENT_AWAY)

    def _send_json(self, status: HTTPStatus, document: dict[str, Any], **headers: str) -> None:
        self._send(status, "application/json", json.dumps(document).encode() + b"\n", **headers)
        self._count(status)

    def _send(self, status: HTTPStatus, media_type: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if self.close_connection or self.server.draining:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _count(self, status: int) -> None:
        if self._counted:
            self.server.service.metrics.request(int(status))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer in JSON where the standard library would answer in HTML."""
        self._counted = False
        # A request line that could not be parsed leaves no version to answer with.
        self.request_version = "HTTP/1.1"
        self.command = self.command or ""
        status = HTTPStatus(code)
        self._refuse(Refused(status, status.phrase.lower()))

    def log_message(self, format: str, *args: Any) -> None:
        """Write no access log: the metrics count, and prompts are private."""


class _Stream:
    """Tokens as lines of JSON, each in its own chunk, as they are made."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.started = False

    def token(self, word: str) -> None:
        if not self.started:
            self._start()
        self._chunk({"token": word})

    def finish(self, result: dict[str, Any]) -> None:
        self._chunk({"done": True, **result})
        self._handler.wfile.write(b"0\r\n\r\n")

    def _start(self) -> None:
        self.started = True
        self._handler.send_response(HTTPStatus.OK)
        self._handler.send_header("Content-Type", "application/x-ndjson")
        self._handler.send_header("Transfer-Encoding", "chunked")
        self._handler.end_headers()

    def _chunk(self, document: dict[str, Any]) -> None:
        line = json.dumps(document).encode() + b"\n"
        self._handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))


def _unavailable(message: str) -> Refused:
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, message, Retry_After=str(RETRY_AFTER_SECONDS))


def _ignore(word: str) -> None:
    """A client that did not ask for a stream gets the whole text at the end."""


def _result(context_id: str, answer: Answer, version: str) -> dict[str, Any]:
    return {
        "context_id": context_id,
        "text": answer.text,
        "tokens": answer.tokens,
        "turns": answer.turns,
        "finish_reason": answer.finish_reason,
        "version": version,
    }
