"""A Docker engine that only tests use, and images that it can run."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from fakes.release import Release
from secure_pipeline.oci.archive import write_archive
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.image import read_image
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import (
    CONFIG_TYPE,
    INDEX_TYPE,
    INDEX_TYPES,
    MANIFEST_TYPE,
    Descriptor,
    Platform,
)

CLIENT = "/usr/bin/docker"
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
BUSYBOX = Path("/usr/bin/busybox")
"""Debian's busybox-static: a whole userland in one file that needs no library."""
APPLETS = (
    "sh",
    "sleep",
    "cp",
    "mv",
    "rm",
    "ln",
    "cat",
    "chmod",
    "touch",
    "mkdir",
    "mkfifo",
    "stat",
)
TOOL = b"#!/bin/sh\necho tool\n"


@contextmanager
def docker_engine(directory: Path) -> Iterator[str]:
    """Run an engine on a private socket with its own data, and end it by its pid; its address."""
    host = f"unix://{directory / 'socket'}"
    log = (directory / "log").open("wb")
    process = subprocess.Popen(
        ["/usr/sbin/dockerd", "--host", host, "--data-root", directory / "data",
         "--exec-root", directory / "exec", "--pidfile", directory / "pid", "--bridge=none",
         "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"],
        stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while subprocess.run([CLIENT, "-H", host, "version"], capture_output=True).returncode:
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < deadline, (directory / "log").read_text()
            time.sleep(0.2)
        yield host
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        log.close()


class Containers:
    """What a test does with an engine by Debian's own client; ends what it started."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.started: list[str] = []

    def __call__(self, *arguments: str) -> str:
        command = [CLIENT, "-H", self.host, *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, f"{arguments}: {ended.stderr}"
        return ended.stdout.strip()

    def run(self, image: str, name: str, *options: str) -> str:
        """Start a container that sleeps, without a network; return its id."""
        found = self(
            "run", "--detach", "--network=none", "--name", name, *options, image, "sleep", "3600"
        )
        self.started.append(found)
        return found

    def sh(self, name: str, script: str) -> str:
        """Run a script inside."""
        return self("exec", name, "sh", "-ec", script)

    def load(self, layout: Layout, descriptor: Descriptor, name: str, directory: Path) -> None:
        """Load an image of a layout; its config stays, byte for byte."""
        archive = directory / f"{descriptor.digest.hex[:12]}.tar"
        write_archive(layout, read_image(layout, descriptor), name, archive)
        self("load", "--input", str(archive))
        archive.unlink()

    def clean(self) -> None:
        """Remove the containers that were started here."""
        for each in self.started:
            subprocess.run([CLIENT, "-H", self.host, "rm", "-f", "-v", each], capture_output=True)


class RunnableRelease(Release):
    """A release whose image can run, for one platform or with an index around it."""

    def __init__(self, path: Path, *, mark: str = "", index: bool = False) -> None:
        """``mark``: a line that makes this image another one than the next."""
        self.path = path
        self.layout = Layout.create(path)
        if index:
            self.manifest = write_runnable(self.layout, mark)
            other = write_runnable(self.layout, mark, "arm64")
            self.image = _index(self.layout, self.manifest, other)
        else:
            self.image = self.manifest = write_runnable(self.layout, mark)
        self.layout.replace("latest", self.image)

    @property
    def config(self) -> Digest:
        """What Docker's own store calls the image."""
        return self.layout.read_manifest(self.manifest).config.digest

    def sealed(self, now: datetime) -> RunnableRelease:
        """Attach a whole run of this time."""
        self.run("run-1", time=now)
        return self


def write_runnable(layout: Layout, mark: str = "", architecture: str = "amd64") -> Descriptor:
    """Write an image with a shell, some commands and /opt/tool; list it nowhere yet."""
    data = _tar(
        {"bin/busybox": BUSYBOX.read_bytes(), "opt/tool": TOOL},
        {f"bin/{name}": "busybox" for name in APPLETS},
        {"etc/mark": mark.encode(), "etc/settings": b"a = 1\n", "opt/app.py": b"print(1)\n"},
    )
    layer = layout.write_blob(gzip.compress(data, 1, mtime=0), GZIP)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(data))]},
        "history": [{"created_by": "COPY / /"}],
    }
    described = layout.write_blob(json.dumps(config).encode(), CONFIG_TYPE)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": described.to_json(),
        "layers": [layer.to_json()],
    }
    return layout.write_blob(json.dumps(manifest).encode(), MANIFEST_TYPE)


def _index(layout: Layout, amd64: Descriptor, arm64: Descriptor) -> Descriptor:
    """An index of two platforms with a BuildKit attestation beside them."""
    attestation = write_runnable(layout, "attestation", "unknown")
    items: list[dict[str, Any]] = []
    for found, platform in (
        (amd64, Platform("linux", "amd64")),
        (arm64, Platform("linux", "arm64")),
        (attestation, Platform("unknown", "unknown")),
    ):
        plain = Descriptor(found.media_type, found.digest, found.size, platform=platform)
        items.append(plain.to_json())
    items[2]["annotations"] = {"vnd.docker.reference.type": "attestation-manifest"}
    document = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": items}
    return layout.write_blob(json.dumps(document).encode(), INDEX_TYPES[0])


def _tar(
    programs: Mapping[str, bytes], links: Mapping[str, str], others: Mapping[str, bytes]
) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for mode, files in ((0o755, programs), (0o644, others)):
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size, member.mode, member.mtime = len(data), mode, 1_700_000_000
                archive.addfile(member, io.BytesIO(data))
        for name, target in links.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
    return stream.getvalue()
