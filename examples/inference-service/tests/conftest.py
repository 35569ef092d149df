"""A real server on a free port, a client without comforts, and a real Redis."""

import http.client
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inference_service.__main__ import build
from inference_service.server import InferenceServer
from inference_service.settings import Settings


@dataclass
class Client:
    """Speaks to one server."""

    port: int

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request and give status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            response = connection.getresponse()
            return response.status, dict(response.headers), response.read()
        finally:
            connection.close()

    def generate(self, **fields: Any) -> tuple[int, dict[str, Any]]:
        """POST /v1/generate."""
        document = {"context_id": "c", "prompt": "The harbour", "max_tokens": 4, **fields}
        status, _, body = self.request(
            "POST", "/v1/generate", json.dumps(document).encode(), Content_Type="application/json"
        )
        return status, json.loads(body)

    def metric(self, series: str) -> float:
        """The value of one series; KeyError when it does not exist."""
        _, _, body = self.request("GET", "/metrics")
        values = dict(line.rsplit(" ", 1) for line in body.decode().splitlines() if line[0] != "#")
        return float(values[series])

    def raw(self, data: bytes) -> bytes:
        """Send bytes as they are and read until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(data)
            received = bytearray()
            while chunk := connection.recv(65536):
                received += chunk
        return bytes(received)


Serve = Callable[..., tuple[InferenceServer, Client]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers with the given settings; end them afterwards."""
    servers: list[InferenceServer] = []

    def start(**settings: Any) -> tuple[InferenceServer, Client]:
        values = {"host": "127.0.0.1", "port": 0, "version": "v1", "drain_timeout": 0.2}
        server = build(Settings(**{**values, **settings}))
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server, Client(server.port)

    yield start
    for server in servers:
        if not server.draining:
            server.drain()


@pytest.fixture
def client(serve: Serve) -> Client:
    """A client of a server with default settings."""
    return serve()[1]


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Redis:
    """A Redis of our own, which can be stopped and started again."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:secret@127.0.0.1:{self.port}/1"

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program, "redis-server is missing: apt-get install redis-server"
        self.process = subprocess.Popen(
            [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--requirepass", "secret", "--dir", str(self.directory)],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("redis-server does not listen")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """One Redis for the tests that only use it."""
    redis = Redis(tmp_path_factory.mktemp("redis"), free_port())
    redis.start()
    yield redis
    redis.stop()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis for a test that stops it."""
    redis = Redis(tmp_path, free_port())
    redis.start()
    yield redis
    redis.stop()
