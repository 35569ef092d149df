"""Builds small images, layer by layer, into an OCI layout."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import (
    CONFIG_TYPE,
    INDEX_TYPE,
    MANIFEST_TYPE,
    Descriptor,
    Platform,
)

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
PLAIN = "application/vnd.oci.image.layer.v1.tar"

DEBIAN = (
    b'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n'
    b'VERSION_ID="12"\nID=debian\n'
)
_BODY = "abcdEFGH1234" * 40
# Joined here, so that no scanner of sources takes these lines for a key.
PRIVATE_KEY = (
    f"-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAz{_BODY}\n-----END RSA PRIVATE KEY-----\n"
).encode()
AWS_KEY = ("AWS_ACCESS_KEY_ID=AKIA" + "IOSFODNN7EXAMPL3\n").encode()
OTHER_AWS_KEY = ("AWS_ACCESS_KEY_ID=AKIA" + "QQQQODNN7EXAMPL4\n").encode()
GITHUB_TOKEN = "ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class Layer:
    """Files to add, paths to delete, and the history entry."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    deleted: Sequence[str] = ()
    created_by: str = "COPY . . # buildkit"
    media_type: str = GZIP


def build_image(
    path: Path,
    entries: Sequence[Layer | str],
    *,
    settings: Mapping[str, Any] | None = None,
    tag: str | None = "latest",
    platform: str = "linux/amd64",
) -> Descriptor:
    """Write an image and list it; text entries are history without a layer."""
    layout = Layout.create(path)
    descriptor = _write(layout, entries, settings or {"User": "app"}, platform)
    if tag:
        layout.replace(tag, descriptor)
    else:
        layout.add_manifest(descriptor)
    return descriptor


def build_index(path: Path, images: Mapping[str, Sequence[Layer | str]]) -> Descriptor:
    """Write an index of one image a platform, with a BuildKit attestation beside them."""
    layout = Layout.create(path)
    items = []
    for platform, entries in images.items():
        found = _write(layout, entries, {"User": "app"}, platform)
        system, architecture = platform.split("/")
        items.append(
            Descriptor(
                found.media_type,
                found.digest,
                found.size,
                platform=Platform(system, architecture),
            ).to_json()
        )
    attestation = _write(layout, [Layer({"a": b"b"})], {}, "unknown/unknown")
    items.append(
        {
            **attestation.to_json(),
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        }
    )
    document = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": items}
    index = layout.write_blob(json.dumps(document).encode(), INDEX_TYPE)
    layout.replace("latest", index)
    return index


def sparse_archive(name: str, size: int = 1 << 35) -> bytes:
    """A tar stream of one executable that reads as ``size`` zero bytes (GNU's sparse form)."""
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.GNUTYPE_SPARSE, 0o755
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (size, 0)
    header[483:495] = b"%012o" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + b"\0" * 1024


def blob(path: Path, digest: Digest) -> Path:
    """The file of a blob in a layout."""
    return path / "blobs" / "sha256" / digest.hex


def dpkg_status(packages: Mapping[str, str], source: str | None = None) -> bytes:
    """A dpkg database of these installed packages."""
    stanzas = []
    for name, version in packages.items():
        lines = [f"Package: {name}", "Status: install ok installed", "Architecture: amd64"]
        lines += [f"Source: {source}"] if source else []
        stanzas.append("\n".join([*lines, f"Version: {version}", "Maintainer: Debian", ""]))
    return "\n".join(stanzas).encode() + b"\n"


def debian(packages: Mapping[str, str] | None = None) -> Layer:
    """The layer of a Debian 12 base image."""
    status = dpkg_status({"openssl": "3.0.9-1"} if packages is None else packages)
    files = {
        "etc/os-release": DEBIAN,
        "etc/debian_version": b"12.5\n",
        "var/lib/dpkg/status": status,
    }
    return Layer(files, created_by="/bin/sh -c #(nop) ADD file:base in / ")


def python_package(name: str, version: str) -> dict[str, bytes]:
    """The metadata of an installed Python package."""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    return {f"usr/local/lib/python3.11/site-packages/{name}-{version}.dist-info/METADATA": metadata}


def _write(
    layout: Layout, entries: Sequence[Layer | str], settings: Mapping[str, Any], platform: str
) -> Descriptor:
    system, architecture = platform.split("/")
    layers, diff_ids, history = [], [], []
    for entry in entries:
        if isinstance(entry, str):
            history.append({"created_by": entry, "empty_layer": True})
            continue
        data = _tar(entry)
        packed = gzip.compress(data, mtime=0) if entry.media_type == GZIP else data
        layers.append(layout.write_blob(packed, entry.media_type).to_json())
        diff_ids.append(str(Digest.of(data)))
        history.append({"created_by": entry.created_by})
    config = {
        "architecture": architecture,
        "os": system,
        "config": dict(settings),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    }
    written = layout.write_blob(json.dumps(config).encode(), CONFIG_TYPE)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": written.to_json(),
        "layers": layers,
    }
    return layout.write_blob(json.dumps(manifest).encode(), MANIFEST_TYPE)


def _tar(layer: Layer) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in layer.files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name in layer.deleted:
            directory, _, base = name.rpartition("/")
            archive.addfile(tarfile.TarInfo(f"{directory}/.wh.{base}".lstrip("/")))
    return stream.getvalue()
