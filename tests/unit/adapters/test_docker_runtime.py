"""What an engine may answer: other stores, odd shapes, endless streams; over a real socket."""

from __future__ import annotations

import io
import json
import socketserver
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from fakes.release import FixedClock
from secure_pipeline.adapters import docker as adapter
from secure_pipeline.adapters import dockerengine
from secure_pipeline.adapters.docker import DockerRuntime, full_name
from secure_pipeline.adapters.dockerengine import EngineAddress
from secure_pipeline.errors import Inconclusive, Unavailable, UsageError
from secure_pipeline.oci.digest import Digest
from secure_pipeline.ports import ChangedFile

HEX = "5" * 64
IMAGE, MANIFEST = f"sha256:{HEX}", f"sha256:{'6' * 64}"
ID = "a" * 64


def tar(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


LAYER = tar({"bin/tool": b"1"})
CONFIG = json.dumps(
    {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"diff_ids": [str(Digest.of(LAYER))]},
    }
).encode()


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers by path without the version; values are JSON, bytes, a status or a header set."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.address = EngineAddress(f"unix://{path}")
        self.seen: list[str] = []
        self.answers: dict[str, Any] = {
            "/version": {"ApiVersion": "1.41", "Os": "linux", "Arch": "amd64"},
            "/info": {"Driver": "overlay2", "DriverStatus": [["Native Overlay Diff", "true"]]},
            "/containers/json": [{"Id": ID, "Names": ["/web"]}],
            f"/containers/{ID}/json": container(),
            "/containers/web/json": container(),
            f"/images/{IMAGE}/json": {"RepoDigests": ["nginx@" + IMAGE, "h.example/a@" + IMAGE]},
        }

    def runtime(self, name: str | None = None) -> DockerRuntime:
        return DockerRuntime(name, address=self.address, clock=FixedClock())


def container(**changes: Any) -> dict[str, Any]:
    return {
        "Id": ID,
        "Name": "/web",
        "Image": IMAGE,
        "State": {"Running": True, "StartedAt": "2026-03-01T11:00:00Z"},
        "Config": {"Image": "nginx:1"},
        "HostConfig": {"ReadonlyRootfs": False},
        **changes,
    }


class Handler(BaseHTTPRequestHandler):
    """One request of the engine's API."""

    server: Engine
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "socket"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).removeprefix("/v1.41")
        self.server.seen.append(path)
        answer = self.server.answers.get(path, 404)
        status = answer if isinstance(answer, int) else 200
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    server = Engine(tmp_path / "socket")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_a_container_is(engine: Engine) -> None:
    """By name and among all: id, config's digest, names in full, the machine's platform."""
    (one,) = engine.runtime("web").containers()
    (all_,) = engine.runtime().containers()
    assert one == all_
    assert (one.place, one.id, one.image, one.image_is_config) == ("docker://web", ID, IMAGE, True)
    assert one.names == (f"docker.io/library/nginx@{IMAGE}", f"h.example/a@{IMAGE}")
    assert (one.platform, one.started) == ("linux/amd64", "2026-03-01T11:00:00Z")


@pytest.mark.parametrize(
    "info",
    [
        {"Driver": "overlayfs", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]},
        {"Driver": "overlay2", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]},
        {"Driver": "something new"},
        {},
    ],
)
def test_reg_05_other_stores_have_ids_of_unknown_form(engine: Engine, info: dict[str, Any]) -> None:
    """With containerd's store an id is an index or a manifest: nothing is assumed."""
    engine.answers["/info"] = info
    (found,) = engine.runtime().containers()
    assert not found.image_is_config


def test_reg_05_the_manifest_that_runs_is_preferred(engine: Engine) -> None:
    """Newer engines name index and manifest; the names still come from the index."""
    engine.answers[f"/containers/{ID}/json"] = container(
        ImageManifestDescriptor={"digest": MANIFEST}
    )
    (found,) = engine.runtime().containers()
    assert (found.image, found.image_is_config) == (MANIFEST, False)
    assert found.names


def test_an_image_that_was_removed_has_no_names(engine: Engine) -> None:
    """The container runs on; where it came from is not known any more."""
    del engine.answers[f"/images/{IMAGE}/json"]
    (found,) = engine.runtime().containers()
    assert found.names == ()
    assert engine.runtime().drift(found) is None


def test_a_container_that_ends_meanwhile_is_left_out(engine: Engine) -> None:
    """Listed and then gone: nothing is left, which is a usage error."""
    del engine.answers[f"/containers/{ID}/json"]
    with pytest.raises(UsageError, match="no container runs"):
        engine.runtime().containers()


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/info", []),
        ("/info", {"Driver": 1}),
        ("/containers/json", {}),
        ("/containers/json", ["x"]),
        ("/containers/json", [{"Id": 7}]),
        ("/containers/json", b'[{"Id": "a", "Id": "b"}]'),
        ("/containers/json", b"not json"),
        ("/containers/json", [{"Id": "a"}] * (adapter.MAX_CONTAINERS + 1)),
        (f"/containers/{ID}/json", container(State=None)),
        (f"/containers/{ID}/json", container(State={"Running": "yes"})),
        (f"/containers/{ID}/json", container(Image=None)),
        (f"/images/{IMAGE}/json", b"[]"),
    ],
)
def test_answers_of_another_shape_are_inconclusive(
    engine: Engine, path: str, answer: object
) -> None:
    """What cannot be understood is no answer about containers."""
    engine.answers[path] = answer
    with pytest.raises(Inconclusive):
        engine.runtime().containers()


@pytest.mark.parametrize("status", [302, 400, 401, 500])
def test_refusals_are_unavailable(engine: Engine, status: int) -> None:
    """Errors and redirects are no answers; none is followed."""
    engine.answers["/containers/json"] = status
    with pytest.raises(Unavailable, match=str(status)):
        engine.runtime().containers()


def test_answers_are_bounded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """By bytes and by time."""
    monkeypatch.setattr(dockerengine, "MAX_ANSWER_BYTES", 100)
    with pytest.raises(Inconclusive, match="over 100 bytes"):
        engine.runtime().containers()
    monkeypatch.undo()
    monkeypatch.setattr(dockerengine, "ANSWER_SECONDS", -1.0)
    with pytest.raises(Unavailable, match="too long"):
        engine.runtime().containers()


def _drift(engine: Engine, export: Any, image: Any = None) -> Callable[[], object]:
    name = Digest.of(CONFIG)
    engine.answers[f"/containers/{ID}/json"] = container(Image=str(name))
    saved = tar({"a/layer.tar": LAYER, "config.json": CONFIG})
    engine.answers[f"/images/{name}/get"] = saved if image is None else image
    engine.answers[f"/containers/{ID}/export"] = export
    runtime = engine.runtime()
    (found,) = runtime.containers()
    return lambda: runtime.drift(found)


def test_drift_by_content(engine: Engine) -> None:
    """The image is fetched once and compared with each export."""
    drift = _drift(engine, LAYER)
    assert drift() == ()
    engine.answers[f"/containers/{ID}/export"] = tar({"bin/tool": b"2", "bin/new": b"3"})
    expected = (ChangedFile("/bin/new", "added"), ChangedFile("/bin/tool", "changed"))
    assert drift() == expected
    assert sum(path.endswith("/get") for path in engine.seen) == 1


@pytest.mark.parametrize(
    ("export", "image", "error"),
    [
        (404, None, Unavailable),
        (500, None, Unavailable),
        (b"", None, Inconclusive),
        (LAYER[:512], None, Inconclusive),
        (LAYER, b"", Inconclusive),
        (LAYER, 500, Unavailable),
        (LAYER, tar({"config.json": CONFIG}), Inconclusive),
    ],
)
def test_drift_that_cannot_be_told(
    engine: Engine, export: object, image: object, error: type[Exception]
) -> None:
    """Half an export, another image, no answer: never 'nothing changed'."""
    with pytest.raises(error):
        _drift(engine, export, image)()


def test_drift_of_everything(engine: Engine) -> None:
    """Over the limit of changes: one of them is named."""
    many = tar({f"bin/{number}": b"x" for number in range(adapter.MAX_CHANGES + 1)})
    with pytest.raises(Inconclusive, match="/bin/0 among them"):
        _drift(engine, many)()


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("ssh://host", "ssh -NL"),
        ("http://host", "ssh -NL"),
        ("unix://", "ssh -NL"),
        ("unix://host/path", "ssh -NL"),
        ("tcp://", "ssh -NL"),
        ("tcp://u:p@127.0.0.1:1", "ssh -NL"),
        ("tcp://10.0.0.1:2375", "DOCKER_TLS_VERIFY"),
        ("tcp://localhost.example:2375", "DOCKER_TLS_VERIFY"),
    ],
)
def test_addresses_that_are_refused(url: str, hint: str) -> None:
    """An engine elsewhere without a certificate could be anyone, who could say anything."""
    with pytest.raises(UsageError) as caught:
        EngineAddress(url)
    assert hint in str(caught.value.hint)
    assert "u:p" not in str(caught.value)


def test_addresses_that_are_taken(tmp_path: Path) -> None:
    """A socket, this machine, and others with certificates."""
    for url in ("unix:///var/run/docker.sock", "tcp://127.0.0.1:2375", "tcp://[::1]:2375"):
        EngineAddress(url)
    EngineAddress("tcp://10.0.0.1:2376", tmp_path)


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    """Exit 4, with the cause and what to type."""
    runtime = DockerRuntime(
        None, address=EngineAddress(f"unix://{tmp_path / 'none'}"), clock=FixedClock()
    )
    with pytest.raises(Unavailable, match="No such file") as caught:
        runtime.containers()
    assert "DOCKER_HOST" in str(caught.value.hint)


def test_certificates_that_are_not_there(tmp_path: Path) -> None:
    """Missing TLS files are named as such, not as a silent engine."""
    address = EngineAddress("tcp://10.0.0.1:2376", tmp_path)
    with pytest.raises(Unavailable):
        DockerRuntime(None, address=address, clock=FixedClock()).containers()


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("nginx@x", "docker.io/library/nginx@x"),
        ("team/app@x", "docker.io/team/app@x"),
        ("localhost/app@x", "localhost/app@x"),
        ("h.example/app@x", "h.example/app@x"),
        ("host:5000/app@x", "host:5000/app@x"),
    ],
)
def test_names_in_full(short: str, full: str) -> None:
    """Docker's short names mean Docker Hub."""
    assert full_name(short) == full
