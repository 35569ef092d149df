"""An HTTP server on loopback for the time of a ``with``."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up early is no error."""


class Loopback:
    """Serves what ``handler()`` says, from ``__enter__`` on."""

    def __init__(self) -> None:
        self.server = _Server(("127.0.0.1", 0), BaseHTTPRequestHandler)
        self.port = int(self.server.server_address[1])
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self.server.RequestHandlerClass = self.handler()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """What answers a request."""
        raise NotImplementedError
