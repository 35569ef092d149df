"""An image unpacked, and its program run by runc: read-only, without a network, a plain user."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from types import MappingProxyType
from typing import Any

from fakes.workplace import Ended
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import Descriptor
from secure_pipeline.tools.locate import SYSTEM_PATH

RUNC = "/usr/sbin/runc"


@dataclass(frozen=True)
class Unpacked:
    """The files of an image, and what its config says."""

    root: Path
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, layout: Layout, image: Descriptor, root: Path) -> Unpacked:
        """Unpack the layers one over the other; owners and modes stay."""
        root.mkdir(parents=True)
        manifest = layout.read_manifest(image)
        for layer in manifest.layers:
            path = layout.path / "blobs/sha256" / layer.digest.hex
            command = ["tar", "-xpf", path, "--numeric-owner", "-C", root]
            subprocess.run(command, check=True, capture_output=True, timeout=120)
        config = json.loads(layout.read_blob(manifest.config.digest, 1 << 20))
        return cls(root, config["config"])

    def run(
        self,
        *arguments: str,
        binds: Mapping[str, Path] = MappingProxyType({}),
        variables: Mapping[str, str] = MappingProxyType({}),
        writable: tuple[str, ...] = ("/tmp",),
    ) -> Ended:
        """Run the entrypoint to its end. ``binds``: path inside to directory of this machine."""
        name = f"own-image-{token_hex(4)}"
        bundle = self.root.parent / name
        bundle.mkdir()
        spec = self._spec(arguments, binds, variables, writable)
        (bundle / "config.json").write_text(json.dumps(spec))
        runc = [RUNC, "--root", str(self.root.parent / "runc")]
        environment = {"PATH": SYSTEM_PATH, "HOME": str(bundle)}
        try:
            ended = subprocess.run(
                [*runc, "run", "--bundle", bundle, name],
                capture_output=True, text=True, timeout=300, env=environment,
            )  # fmt: skip
        finally:
            delete = [*runc, "delete", "--force", name]
            subprocess.run(delete, capture_output=True, timeout=60, env=environment)
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def _spec(
        self,
        arguments: tuple[str, ...],
        binds: Mapping[str, Path],
        variables: Mapping[str, str],
        writable: tuple[str, ...],
    ) -> dict[str, Any]:
        user, _, group = self.settings["User"].partition(":")
        given = [f"{key}={value}" for key, value in variables.items()]
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            *(_temporary(path, user, group) for path in writable),
            *(_bound(path, source) for path, source in binds.items()),
        ]
        kinds = ("pid", "network", "ipc", "uts", "mount")
        return {
            "ociVersion": "1.0.2",
            "root": {"path": str(self.root), "readonly": True},
            "process": {
                "args": [*self.settings["Entrypoint"], *arguments],
                "env": [*self.settings["Env"], *given],
                "cwd": self.settings["WorkingDir"],
                "user": {"uid": int(user), "gid": int(group)},
                "noNewPrivileges": True,
            },
            "mounts": mounts,
            "linux": {
                "namespaces": [{"type": kind} for kind in kinds],
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
                "readonlyPaths": ["/proc/sys", "/proc/bus"],
            },
        }


def _temporary(path: str, user: str, group: str) -> dict[str, Any]:
    """Of the user: runc gives it the mode of the directory that is there."""
    options = ["nosuid", "nodev", f"uid={user}", f"gid={group}"]
    return {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": options}


def _bound(path: str, source: Path) -> dict[str, Any]:
    options = ["bind", "nosuid", "nodev"]
    return {"destination": path, "type": "bind", "source": str(source), "options": options}
