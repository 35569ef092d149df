"""A target of Prometheus that exposes whatever a test says."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Exporter:
    """What it exposes now."""

    host: str = ""
    text: str = ""

    def show(self, series: Mapping[str, Mapping[str, float]]) -> None:
        """Metric to labels as they are written (``code="200"``, or ``""``) to value."""
        self.text = "".join(
            f"{name}{{{labels}}} {value}\n"
            for name, listed in series.items()
            for labels, value in listed.items()
        )


@contextmanager
def exporter() -> Iterator[Exporter]:
    """Serve on loopback until the block ends."""
    made = Exporter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = made.text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(20)
