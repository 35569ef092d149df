"""git's own server over http, on an address of this machine or of a cluster's network.

with git_server(repositories) as server:      # directory of bare repositories
    server.url("service.git")
"""

from __future__ import annotations

import ssl
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_SECONDS = 60


@dataclass
class GitServer:
    """What is asked of it, and how it answers."""

    root: Path
    login: str = ""
    """USER:PASSWORD that it asks for; nothing if empty."""
    redirect: str = ""
    """Where it sends everybody, if anywhere."""
    tls: bool = False
    place: str = ""
    filters: bool = True
    """Whether it leaves objects out when it is asked to."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path and Authorization of each request."""

    def url(self, name: str) -> str:
        return f"{'https' if self.tls else 'http'}://{self.place}/{name}"


@contextmanager
def git_server(
    root: Path,
    address: str = "127.0.0.1",
    *,
    login: str = "",
    redirect: str = "",
    tls: tuple[Path, Path] | None = None,
) -> Iterator[GitServer]:
    """Serve the bare repositories below ``root``; ``tls`` are certificate and key."""
    made = GitServer(root, login, redirect, tls is not None)
    handler = type("_Bound", (_Handler,), {"git": made})
    with ThreadingHTTPServer((address, 0), handler) as http:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            http.socket = context.wrap_socket(http.socket, server_side=True)
        made.place = f"{address}:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            http.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    git: GitServer

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        given = self.headers.get("Authorization", "")
        self.git.asked.append((self.path, given))
        body = self._body()
        if self.git.redirect:
            self._say("302 Found", [("Location", self.git.redirect + self.path)], b"")
        elif self.git.login and given != f"Basic {b64encode(self.git.login.encode()).decode()}":
            self._say("401 Unauthorized", [("WWW-Authenticate", 'Basic realm="git"')], b"")
        else:
            self._backend(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _backend(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        variables = {
            "PATH": "/usr/bin:/bin",
            "GIT_PROJECT_ROOT": str(self.git.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "GIT_CONFIG_KEY_1": "uploadpack.allowFilter",
            "GIT_CONFIG_VALUE_1": str(self.git.filters).lower(),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_ADDR": self.client_address[0],
        }
        command = ["git", "http-backend"]
        ended = subprocess.run(
            command, input=body, capture_output=True, env=variables, timeout=_SECONDS, check=False
        )
        head, _, content = ended.stdout.partition(b"\r\n\r\n")
        lines = [line.partition(": ") for line in head.decode().split("\r\n") if line]
        headers = [(name, value) for name, _, value in lines if name != "Status"]
        status = next((value for name, _, value in lines if name == "Status"), "200 OK")
        self._say(status, headers, content)

    def _say(self, status: str, headers: list[tuple[str, str]], content: bytes) -> None:
        code, _, reason = status.partition(" ")
        self.send_response(int(code), reason)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
