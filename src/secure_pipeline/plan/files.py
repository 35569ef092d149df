"""Rendered files in a repository: written, or compared with what is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from secure_pipeline.errors import ConfigError
from secure_pipeline.files import read_bounded, write_atomic

MAX_BYTES = 4 << 20


def write(files: Mapping[str, str], root: Path) -> list[str]:
    """Write what differs and return its names. Raises: Unavailable."""
    names = differing(files, root)
    for name in names:
        write_atomic(root / name, files[name].encode())
    return names


def differing(files: Mapping[str, str], root: Path) -> list[str]:
    """Names of the files that are missing or have another content."""
    return sorted(name for name, text in files.items() if _read(root / name) != text.encode())


def _read(path: Path) -> bytes | None:
    try:
        return read_bounded(path, MAX_BYTES)
    except ConfigError:
        return None
