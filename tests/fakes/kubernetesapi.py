"""An API server on loopback that gives whatever a test wants, over TLS."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cluster.credentials import Authority
from secure_pipeline.adapters.kubeconfig import KubernetesConfig

Reply = tuple[int, bytes] | Callable[[BaseHTTPRequestHandler], None]


@dataclass
class FakeApi:
    """Objects and lists by path; ``replies`` are sent instead where there is one."""

    server: str
    ca: Path
    objects: dict[str, Any] = field(default_factory=dict)
    replies: dict[str, Reply] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """(path with query, headers) of each request."""

    @property
    def config(self) -> KubernetesConfig:
        return KubernetesConfig(self.server, self.ca.read_bytes(), token="s3cret.token")

    def answer(self, target: str) -> Reply:
        path = urlsplit(target).path
        if path in self.replies:
            return self.replies[path]
        value = self.objects.get(path)
        if value is None:
            return 404, b'{"kind": "Status", "message": "not found"}'
        if isinstance(value, list):
            value = _page(value, dict(parse_qsl(urlsplit(target).query)))
        return 200, json.dumps(value).encode()


def _page(items: list[Any], query: dict[str, str]) -> dict[str, Any]:
    """Chunks as a real server cuts them."""
    start, size = int(query.get("continue", 0)), int(query["limit"])
    more = str(start + size) if start + size < len(items) else ""
    return {"metadata": {"continue": more}, "items": items[start : start + size]}


@contextmanager
def fake_api(directory: Path) -> Iterator[FakeApi]:
    """Serve until the end of the block."""
    authority = Authority(directory / "keys")
    certificate, key = authority.issue("server", "server", hosts=("127.0.0.1",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            api.seen.append((self.path, dict(self.headers)))
            reply = api.answer(self.path)
            if not isinstance(reply, tuple):
                reply(self)
                return
            self.send_response(reply[0])
            self.send_header("Content-Length", str(len(reply[1])))
            self.end_headers()
            self.wfile.write(reply[1])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        api = FakeApi(f"https://127.0.0.1:{httpd.server_port}", authority.certificate)
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield api
        finally:
            httpd.shutdown()
            thread.join()
