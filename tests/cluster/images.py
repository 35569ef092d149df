"""Images of one static program, without a registry: as layouts and as archives to import."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import CONFIG_TYPE, MANIFEST_TYPE, Descriptor
from secure_pipeline.tools.pins import this_platform

BUSYBOX = Path("/bin/busybox")
"""Debian's busybox-static."""
_LAYER = "application/vnd.oci.image.layer.v1.tar"


def busybox_image(
    path: Path,
    tag: str,
    command: Sequence[str],
    files: Mapping[str, bytes] | None = None,
    kind: Literal["Cmd", "Entrypoint"] = "Cmd",
) -> Descriptor:
    """Write an image of busybox and some files into the layout at ``path`` under ``tag``.

    ``kind``: whether a pod's arguments replace the command, or come after it.
    """
    layout = Layout.create(path)
    contents = {"bin/busybox": BUSYBOX.read_bytes(), **(files or {})}
    data = _layer(contents)
    layer = layout.write_blob(data, _LAYER)
    system, architecture = this_platform().split("/")
    config = {
        "architecture": architecture,
        "os": system,
        "config": {kind: list(command), "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(data))]},
        "history": [{"created_by": "busybox"}],
    }
    written = layout.write_blob(json.dumps(config).encode(), CONFIG_TYPE)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": written.to_json(),
        "layers": [layer.to_json()],
    }
    descriptor = layout.write_blob(json.dumps(manifest).encode(), MANIFEST_TYPE)
    layout.replace(tag, descriptor)
    return descriptor


def archive(layout: Path, target: Path) -> Path:
    """Pack a layout as ``ctr images import`` takes it."""
    with tarfile.open(target, "w") as packed:
        for path in sorted(layout.rglob("*")):
            packed.add(path, str(path.relative_to(layout)), recursive=False)
    return target


def _layer(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as packed:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            packed.addfile(member, io.BytesIO(data))
        for name in ("sh", "sleep", "cp", "cat", "httpd"):
            member = tarfile.TarInfo(f"bin/{name}")
            member.type, member.linkname = tarfile.SYMTYPE, "busybox"
            packed.addfile(member)
        for name in ("tmp", "dev", "proc", "sys", "etc"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            packed.addfile(member)
    return stream.getvalue()
