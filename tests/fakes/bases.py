"""Base images for tests: a tiny one made here, and a real Debian kept in the user's cache."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
from pathlib import Path

from cluster.images import busybox_image
from secure_pipeline.events import ignore
from secure_pipeline.files import locked
from secure_pipeline.oci.image import LAYER_TYPE, LayerWriter, store_file, write_image
from secure_pipeline.oci.layout import Layout
from secure_pipeline.tools.locate import default_store, locate
from secure_pipeline.tools.mmdebstrap import BaseRequest, Mmdebstrap
from secure_pipeline.tools.process import Processes


def tiny_base(directory: Path, architecture: str = "amd64") -> Path:
    """An image of one empty directory, in a layout of its own."""
    layout = Layout.create(directory)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folder = tarfile.TarInfo("etc")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
    writer = LayerWriter(directory)
    writer.write(buffer.getvalue())
    diff_id = writer.close()
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(diff_id)]},
    }
    layer = store_file(layout, writer.path, LAYER_TYPE, None)
    writer.path.unlink()
    layout.add_manifest(write_image(layout, json.dumps(config).encode(), [layer]))
    return directory


def small_debian(directory: Path) -> None:
    """One static program in what scanners take for a Debian, with one vulnerable package."""
    files = {
        "etc/os-release": b'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n',
        "etc/debian_version": b"12.5\n",
        "var/lib/dpkg/status": (
            b"Package: coreutils\nStatus: install ok installed\nArchitecture: amd64\n"
            b"Version: 9.1-1\nMaintainer: nobody\nDescription: none\n\n"
        ),
    }
    busybox_image(directory, "latest", ["/bin/sh"], files)


def debian_base() -> Path:
    """A real Debian with Python, made once and found again by later sessions."""
    directory = default_store(os.environ).parent / "bases" / "test-bookworm"
    with locked(directory.with_suffix(".lock")):
        maker = Mmdebstrap(locate("mmdebstrap"), Processes(threading.Event()))
        maker.make(BaseRequest("bookworm", ("python3-minimal",)), directory, ignore)
    return directory
