"""Real registries on loopback, and a small uploader of a whole layout into one."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from fakes.authority import Authority
from secure_pipeline.events import ignore
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from secure_pipeline.tools.golang import build_go
from secure_pipeline.tools.pins import GoModule
from secure_pipeline.wiring import tool_installer

_SECONDS = 20


def build_referrers_registry(directory: Path) -> Path:
    """Compile the registry beside this file into ``directory``, with the tools' own Go."""
    program = directory / "referrers-registry"
    source = Path(__file__).with_name("referrers-registry")
    installer = tool_installer(ignore)
    module = GoModule(source, ".", "", {}, {})
    build_go(program.name, module, program, installer.pins, installer.steps)
    return program


@contextmanager
def referrers_registry(program: Path, *, bare: bool = False) -> Iterator[str]:
    """Serve a registry that has the referrers API; yield host:port.

    ``bare``: it neither says OCI-Subject nor knows conditional requests.
    """
    port = _port()
    with _serve([str(program), f"127.0.0.1:{port}", *(["bare"] if bare else [])], port) as host:
        yield host


def debian_program() -> Path:
    """Debian's docker-registry."""
    program = shutil.which("docker-registry", path="/usr/bin:/usr/local/bin")
    assert program, "docker-registry is not installed: apt-get install docker-registry"
    return Path(program)


@contextmanager
def debian_registry(program: Path, directory: Path) -> Iterator[str]:
    """Serve Debian's docker-registry, which has no referrers API; yield host:port."""
    with configured_registry(program, directory, {}) as host:
        yield host


@contextmanager
def configured_registry(
    program: Path, directory: Path, more: Mapping[str, Any], *, tls: Authority | None = None
) -> Iterator[str]:
    """Serve Debian's docker-registry with more configuration, and with TLS; yield host:port."""
    port = _port()
    http: dict[str, Any] = {"addr": f"127.0.0.1:{port}"}
    if tls:
        http["tls"] = {"certificate": str(tls.certificate), "key": str(tls.key)}
    config = directory / "registry.yml"
    document = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}},
        "http": http,
        "log": {"level": "error"},
        **more,
    }
    config.write_text(json.dumps(document))  # JSON is YAML
    with _serve([str(program), "serve", str(config)], port, tls) as host:
        yield host


def push_layout(
    layout: Layout, host: str, repository: str, only: Callable[[Descriptor], bool] | None = None
) -> None:
    """Upload blobs, then manifests by digest and tag: all that index.json lists, or some."""
    base = f"http://{host}/v2/{repository}"
    listed = layout.manifests()
    for descriptor in filter(only, listed):
        _push_manifest(layout, base, descriptor)


def push_fallback_tag(layout: Layout, host: str, repository: str, image: Digest) -> None:
    """Do a client's duty where the registry has no referrers API: the tag sha256-<hex>."""
    entries = [item.to_json() for item in layout.manifests() if item.artifact_type]
    document = {"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": entries}
    answer = requests.put(
        f"http://{host}/v2/{repository}/manifests/sha256-{image.hex}",
        json.dumps(document).encode(),
        headers={"Content-Type": INDEX_TYPES[0]},
        timeout=_SECONDS,
    )
    assert answer.status_code == 201, answer.text


def push_referrers(host: str, repository: str, manifests: list[bytes], subject: Digest) -> None:
    """Upload manifests whose blobs are there, and the fallback tag that lists them."""
    base = f"http://{host}/v2/{repository}/manifests"
    entries = []
    with requests.Session() as session:
        for data in manifests:
            digest = str(Digest.of(data))
            _put(session, f"{base}/{digest}", data, MANIFEST_TYPES[0])
            entry = {"mediaType": MANIFEST_TYPES[0], "digest": digest, "size": len(data)}
            entries.append({**entry, "artifactType": json.loads(data)["artifactType"]})
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": entries}
        tag = f"{base}/sha256-{subject.hex}"
        _put(session, tag, json.dumps(index).encode(), INDEX_TYPES[0])


def _put(session: requests.Session, url: str, data: bytes, media_type: str) -> None:
    answer = session.put(url, data, headers={"Content-Type": media_type}, timeout=_SECONDS)
    assert answer.status_code == 201, answer.text


def _push_manifest(layout: Layout, base: str, descriptor: Descriptor) -> None:
    if descriptor.media_type in INDEX_TYPES:
        index = layout.read_index(descriptor)
        for child in index.manifests:
            _push_manifest(layout, base, child)
        data = index.raw
    else:
        assert descriptor.media_type in MANIFEST_TYPES
        manifest = layout.read_manifest(descriptor)
        for blob in (manifest.config, *manifest.layers):
            _push_blob(base, layout.read_blob(blob.digest, blob.size, blob.size))
        data = manifest.raw
    for name in filter(None, (str(descriptor.digest), descriptor.tag)):
        headers = {"Content-Type": descriptor.media_type}
        answer = requests.put(f"{base}/manifests/{name}", data, headers=headers, timeout=_SECONDS)
        assert answer.status_code == 201, answer.text


def _push_blob(base: str, data: bytes) -> None:
    digest = str(Digest.of(data))
    if requests.head(f"{base}/blobs/{digest}", timeout=_SECONDS).status_code == 200:
        return
    answer = requests.post(f"{base}/blobs/uploads/", timeout=_SECONDS)
    assert answer.status_code == 202, answer.text
    place = requests.compat.urljoin(base, answer.headers["Location"])
    answer = requests.put(
        place,
        data,
        params={"digest": digest},
        headers={"Content-Type": "application/octet-stream"},
        timeout=_SECONDS,
    )
    assert answer.status_code == 201, answer.text


@contextmanager
def _serve(command: list[str], port: int, tls: Authority | None = None) -> Iterator[str]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, port, tls)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(_SECONDS)


def _wait(process: subprocess.Popen[bytes], port: int, tls: Authority | None) -> None:
    """Wait until the port answers; a server that ends or never answers fails the test."""
    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/v2/"
    verify = str(tls.ca) if tls else True
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"registry ended with {process.returncode}"
        try:
            if requests.get(url, timeout=1, verify=verify).status_code in (200, 401):
                return
        except requests.ConnectionError:
            time.sleep(0.05)
    raise AssertionError("registry did not answer in time")


def _port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
