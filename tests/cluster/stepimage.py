"""The image of the steps of a pipeline, for tests.

Debian with git, buildah and what they need; the program itself and its pinned tools are this
machine's own and are mounted where they are. So it is made in seconds after the first time.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from fakes.workplace import BASE, ROOT
from secure_pipeline.files import locked
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.image import choose
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import CONFIG_TYPE, MANIFEST_TYPE, Descriptor
from secure_pipeline.tools.pins import this_platform
from secure_pipeline.wiring import tool_store

PACKAGES = (
    *("git", "buildah", "runc", "uidmap", "netavark", "ca-certificates", "python3"),
    *("redis-server", "libssl3", "libffi8", "libsqlite3-0", "libbz2-1.0", "liblzma5"),
    *("libreadline8", "libncursesw6"),
)
USER = 65532
_TOOLS = "opt/secure-pipeline/tools"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


def mounted() -> list[Path]:
    """Directories of this machine that the steps need at the same place."""
    found: list[Path] = []
    for path in (ROOT, Path(sys.prefix), Path(sys.base_prefix), tool_store().root):
        if path != Path("/usr") and not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return found


def step_image(path: Path, tag: str, variables: dict[str, str]) -> Descriptor:
    """Write the image into a layout at ``path`` under ``tag``; ``variables`` are its own."""
    base, layout = Layout.open(_base()), Layout.create(path)
    image = choose(base, this_platform())
    for item in image.manifest.layers:
        layout.receive(item.digest, item.size, base.stream_blob(item.digest, item.size))
    config = json.loads(base.read_blob(image.manifest.config.digest, 1 << 20))
    data = _layer()
    layer = layout.write_blob(data, _LAYER)
    config["rootfs"]["diff_ids"].append(str(Digest.of(data)))
    config["history"] = []
    config["config"] = {
        "Env": [f"{name}={value}" for name, value in _environment(variables).items()]
    }
    written = layout.write_blob(json.dumps(config).encode(), CONFIG_TYPE)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": written.to_json(),
        "layers": [item.to_json() for item in (*image.manifest.layers, layer)],
    }
    descriptor = layout.write_blob(json.dumps(manifest).encode(), MANIFEST_TYPE)
    layout.replace(tag, descriptor)
    return descriptor


def _base() -> Path:
    """Debian with the packages, kept between test runs like the tools."""
    name = hashlib.sha256(",".join(PACKAGES).encode()).hexdigest()[:12]
    path = BASE.parent / f"tekton-steps-{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):
        if not (path / "index.json").exists():
            options = ["--suite", "bookworm", "--include", ",".join(PACKAGES)]
            subprocess.run(
                [sys.executable, "-m", "secure_pipeline", "base", "debian", *options,
                 "--output", str(path)],
                check=True, capture_output=True, timeout=600,
            )  # fmt: skip
    return path


def _environment(variables: dict[str, str]) -> dict[str, str]:
    system = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    return {
        "PATH": f"{sys.prefix}/bin:{system}",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SECURE_PIPELINE_TOOLS": f"/{_TOOLS}",
        **variables,
    }


def _layer() -> bytes:
    """The user of the steps with its subordinate ids, and where the tools are."""
    stream = io.BytesIO()
    account = f"steps:x:{USER}:"
    files = {
        "etc/passwd": f"root:x:0:0::/root:/bin/sh\n{account}{USER}::/tmp:/bin/sh\n",
        "etc/group": f"root:x:0:\n{account}\n",
        "etc/subuid": "steps:100000:65536\n",
        "etc/subgid": "steps:100000:65536\n",
    }
    with tarfile.open(fileobj=stream, mode="w") as packed:
        for name, text in files.items():
            _add(packed, name, text.encode(), mode=0o644)
        for name in ("root", "opt/secure-pipeline", "opt/secure-pipeline/databases"):
            _add(packed, name, None, type=tarfile.DIRTYPE, mode=0o755)
        _add(packed, _TOOLS, None, type=tarfile.SYMTYPE, linkname=str(tool_store().root))
    return stream.getvalue()


def _add(packed: tarfile.TarFile, name: str, data: bytes | None, **more: Any) -> None:
    member = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(member, key, value)
    member.size = len(data or b"")
    packed.addfile(member, io.BytesIO(data) if data else None)
