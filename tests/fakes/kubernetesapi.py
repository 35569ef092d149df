"""An API server on loopback that gives whatever a test wants, over TLS."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
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
    patches: list[list[dict[str, Any]]] = field(default_factory=list)
    """Each JSON Patch that came."""

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

    def change(self, target: str, body: bytes) -> Reply:
        """Apply a JSON Patch as a real server does (tests/integration/test_gateway_api.py)."""
        patch = json.loads(body)
        self.patches.append(patch)
        path = urlsplit(target).path
        if path in self.replies or path not in self.objects:
            return self.answer(target)
        changed = json.loads(json.dumps(self.objects[path]))
        for operation in patch:
            _apply(changed, operation)
        metadata, present = changed["metadata"], self.objects[path]["metadata"]
        if metadata["resourceVersion"] != present["resourceVersion"]:
            return 409, b'{"kind": "Status", "reason": "Conflict", "code": 409}'
        metadata["resourceVersion"] = str(int(present["resourceVersion"]) + 1)
        metadata["generation"] = present["generation"] + 1
        self.objects[path] = changed
        return 200, json.dumps(changed).encode()


def _apply(value: Any, operation: Mapping[str, Any]) -> None:
    """``add`` or ``replace`` a member of an object, RFC 6902."""
    assert operation["op"] in ("add", "replace"), operation
    *parents, name = operation["path"].split("/")[1:]
    for parent in parents:
        value = value[int(parent) if isinstance(value, list) else parent]
    assert isinstance(value, dict)
    value[name] = operation["value"]


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
            self.reply_with(api.answer)

        def do_PATCH(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.reply_with(lambda path: api.change(path, body))

        def reply_with(self, answer: Callable[[str], Reply]) -> None:
            api.seen.append((self.path, dict(self.headers)))
            reply = answer(self.path)
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
