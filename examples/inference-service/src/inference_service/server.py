"""Accepts a bounded number of connections and drains them at the end."""

from __future__ import annotations

import json
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from inference_service.http_api import RETRY_AFTER_SECONDS, Handler
from inference_service.service import Service

_REFUSAL_BODY = json.dumps({"error": "too many connections"}).encode() + b"\n"
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Retry-After: %d\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
    % (RETRY_AFTER_SECONDS, len(_REFUSAL_BODY), _REFUSAL_BODY)
)


class InferenceServer(socketserver.ThreadingTCPServer):
    """A thread for each connection, and no more connections than allowed."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, service: Service) -> None:
        settings = service.settings
        self.service = service
        self.draining = False
        self.address_family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        self._connections = threading.BoundedSemaphore(settings.max_connections)
        self._idle = threading.Condition()
        self._running = 0
        super().__init__((settings.host, settings.port), Handler)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self.server_address[1])

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count a request while it is being answered."""
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    def drain(self) -> bool:
        """Accept nothing more, let running requests end, and say whether all of them did."""
        self.draining = True
        self.shutdown()
        self.server_close()
        deadline = time.monotonic() + self.service.settings.drain_timeout
        with self._idle:
            while self._running and (left := deadline - time.monotonic()) > 0:
                self._idle.wait(left)
            return self._running == 0

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread, or refuse at once when all connections are taken."""
        if not self._connections.acquire(blocking=False):
            self.service.metrics.request(503)
            with suppress(OSError):
                request.setblocking(False)  # a new socket has room; never wait for a client
                request.send(_REFUSAL)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._connections.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve the connection and give its place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong in one line; a client that went away is no error."""
        error = sys.exception()
        if not isinstance(error, (ConnectionError, TimeoutError)):
            print(f"error: {type(error).__name__} while answering", file=sys.stderr)

    def _change(self, step: int) -> None:
        with self._idle:
            self._running += step
            if not self._running:
                self._idle.notify_all()
