"""Two servers that answer with their name, and a count of who answered."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A health check that hangs up early is no error."""


class Named:
    """One server on loopback."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.server = _Server(("127.0.0.1", 0), self._handler())
        self.port = self.server.server_address[1]
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()

    def end(self) -> None:
        """Stop listening; the port refuses connections from then on."""
        if self._thread.is_alive():
            self.server.shutdown()
            self._thread.join()
            self.server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        name = self.name.encode()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(name)))
                self.end_headers()
                self.wfile.write(name)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@contextmanager
def blue_and_green() -> Iterator[dict[str, Named]]:
    """Both slots of a target."""
    servers = {name: Named(name) for name in ("blue", "green")}
    try:
        yield servers
    finally:
        for server in servers.values():
            server.end()


def ports(servers: dict[str, Named]) -> dict[str, int]:
    return {name: server.port for name, server in servers.items()}


def answers(url: str, requests: int) -> Counter[str]:
    """Who answered, each request on a connection of its own; a 5xx counts as its number."""
    found: Counter[str] = Counter()
    for _ in range(requests):
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                found[answer.read().decode()] += 1
        except urllib.error.HTTPError as error:
            found[str(error.code)] += 1
    return found
