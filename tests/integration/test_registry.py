"""Repositories of real registries: other clients, several processes, little memory."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.registry import debian_program, debian_registry
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.dockerconfig import NoCredentials
from secure_pipeline.adapters.registry import RegistryLimits, Repository, open_repository
from secure_pipeline.errors import Unavailable
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.manifest import CONFIG_TYPE, EMPTY_TYPE, MANIFEST_TYPE, Descriptor
from secure_pipeline.wiring import locate_tool

pytestmark = pytest.mark.integration

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
PROCESSES, EACH = 6, 3
WRITER = """
import json, sys
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.dockerconfig import NoCredentials
from secure_pipeline.adapters.registry import open_repository

name, subject, config, kind, number, each = sys.argv[1:]
repository = open_repository(name, credentials=NoCredentials(), clock=SystemClock())
sys.stdin.readline()  # all begin at the same moment
for note in range(int(each)):
    document = {
        "schemaVersion": 2, "mediaType": kind, "artifactType": "a/b", "layers": [],
        "config": json.loads(config), "subject": json.loads(subject),
        "annotations": {"note": f"{number}.{note}"},
    }
    print(repository.write_manifest(json.dumps(document).encode(), kind).digest, flush=True)
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with debian_registry(debian_program(), tmp_path_factory.mktemp("debian")) as host:
        yield host


def at(name: str, limits: RegistryLimits | None = None) -> Repository:
    return open_repository(name, credentials=NoCredentials(), clock=SystemClock(), limits=limits)


def image(repository: Repository) -> Descriptor:
    """A small image with one layer: an empty archive."""
    layer = bytes(10240)
    config = {
        **{"architecture": "amd64", "os": "linux", "config": {}},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer))]},
    }
    parts = {
        "config": repository.write_blob(json.dumps(config).encode(), CONFIG_TYPE).to_json(),
        "layers": [repository.write_blob(gzip.compress(layer, mtime=0), LAYER_TYPE).to_json()],
    }
    document = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, **parts}
    data = json.dumps(document).encode()
    return repository.write_manifest(data, MANIFEST_TYPE, tag="latest")


def test_other_clients_read_what_we_wrote(host: str) -> None:
    """Skopeo and crane find the image under its tag and accept every byte of it."""
    written = image(at(f"{host}/team/judged"))
    seen = subprocess.run(
        ["/usr/bin/skopeo", "inspect", "--tls-verify=false", f"docker://{host}/team/judged:latest"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(seen.stdout)["Digest"] == str(written.digest)
    crane = str(locate_tool("crane").path)
    name = f"{host}/team/judged@{written.digest}"
    valid = subprocess.run(
        [crane, "validate", "--insecure", "--remote", name],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert valid.returncode == 0, valid.stderr


def test_we_read_what_other_clients_wrote(host: str, tmp_path: Path) -> None:
    """An image that skopeo copied is read and every blob of it checked."""
    written = image(at(f"{host}/team/source"))
    subprocess.run(
        [
            *("/usr/bin/skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"),
            *(f"docker://{host}/team/source:latest", f"docker://{host}/team/copied:v1"),
        ],
        capture_output=True,
        check=True,
        timeout=60,
    )
    repository = at(f"{host}/team/copied")
    found = repository.tagged("v1")
    assert found == written
    manifest = repository.read_manifest(written)
    for blob in (manifest.config, *manifest.layers):
        repository.check_blob(blob.digest, blob.size)


def test_sig_29_writers_in_several_processes_lose_nothing(host: str) -> None:
    """Processes that attach to one image at the same moment: all of it is listed in the end."""
    name = f"{host}/team/processes"
    repository = at(name)
    subject = image(repository)
    config = repository.write_blob(b"{}", EMPTY_TYPE)
    arguments = (json.dumps(subject.to_json()), json.dumps(config.to_json()), MANIFEST_TYPE)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, name, *arguments, str(number), str(EACH)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    written = [line for writer in writers for line in writer.communicate(timeout=120)[0].split()]
    assert [writer.returncode for writer in writers] == [0] * PROCESSES
    assert len(set(written)) == PROCESSES * EACH
    found = [str(item.digest) for item in repository.referrers(subject.digest)]
    assert sorted(found) == sorted(written)


def test_a_big_blob_passes_in_little_memory(host: str) -> None:
    """Sending and checking hold a part or two, not the blob."""
    pieces, size = 64, 1 << 20
    hasher = hashlib.sha256()
    for number in range(pieces):
        hasher.update(bytes([number]) * size)
    digest = Digest(hasher.hexdigest())
    repository = at(f"{host}/team/big", RegistryLimits(part=size))
    tracemalloc.start()
    try:
        chunks = (bytes([number]) * size for number in range(pieces))
        repository.receive(digest, pieces * size, chunks)
        repository.check_blob(digest, pieces * size)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * size


def test_a_registry_that_is_not_there(tmp_path: Path) -> None:
    """A wrong port, and https where http is spoken, are unavailable; the place is named."""
    repository = open_repository(
        "127.0.0.1:1/team/app",
        credentials=NoCredentials(),
        clock=SystemClock(),
        sleep=lambda seconds: None,
    )
    with pytest.raises(Unavailable, match="Connection refused") as caught:
        repository.tagged("latest")
    assert caught.value.where == "http://127.0.0.1:1/v2/team/app/manifests/latest"


def test_plain_http_is_not_spoken_to_other_machines() -> None:
    """Without plain_http another machine is asked by https alone (nothing listens there)."""
    repository = open_repository(
        "registry.invalid/team/app",
        credentials=NoCredentials(),
        clock=SystemClock(),
        sleep=lambda seconds: None,
    )
    with pytest.raises(Unavailable) as caught:
        repository.tagged("latest")
    assert str(caught.value.where).startswith("https://registry.invalid/")
