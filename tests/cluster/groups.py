"""The control group that all pods of a cluster are in, on machines with version 1 or 2."""

from __future__ import annotations

import time
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_SECONDS = 10


def make_group(name: str) -> None:
    """Make a control group with every controller that there is."""
    for root in _hierarchies():
        enable = root / "cgroup.subtree_control"
        if enable.exists():
            known = (root / "cgroup.controllers").read_text().split()
            enable.write_text(" ".join(f"+{controller}" for controller in known))
        (root / name).mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # version 1 does not inherit them
            if (root / setting).exists():
                (root / name / setting).write_text((root / setting).read_text())


def remove_group(name: str) -> None:
    """Remove a group and those in it; its processes have ended or are about to."""
    deadline = time.monotonic() + _SECONDS
    for root in _hierarchies():
        while (root / name).exists():
            try:
                for path in sorted((root / name).rglob("*/"), reverse=True):
                    path.rmdir()
                (root / name).rmdir()
            except OSError:
                assert time.monotonic() < deadline, f"{root / name} is still in use"
                time.sleep(0.05)


def _hierarchies() -> list[Path]:
    """The mount of version 2, or those of each controller of version 1."""
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    return [path for path in _ROOT.iterdir() if path.is_dir() and not path.is_symlink()]
