"""The content of an installed directory as one digest, so that any changed file shows.

A Python environment is thousands of files, compiled ones among them that pip's RECORD does
not cover and that Python would run: so every file counts, and one that was added does too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from secure_pipeline.errors import Unavailable
from secure_pipeline.files import canonical_json, read_bounded, sha256_bytes, sha256_file
from secure_pipeline.strictjson import loads

FILES = "files.json"
MAX_FILES_BYTES = 32 << 20


def write_manifest(directory: Path) -> str:
    """Write files.json about everything below ``directory``; return its sha256 (hex)."""
    data = canonical_json(_measure(directory))
    (directory / FILES).write_bytes(data)
    return sha256_bytes(data)


def check_environment(directory: Path, expected: str, *, hint: str) -> None:
    """Refuse a directory in which a file was changed, added or removed since installation.

    ``expected`` is the sha256 (hex) of its files.json. Raises: Unavailable naming the file.
    """
    data = read_bounded(directory / FILES, MAX_FILES_BYTES)
    if sha256_bytes(data) != expected:
        raise Unavailable("the list of files was changed", where=str(directory / FILES), hint=hint)
    listed = loads(data)
    found = _measure(directory)
    for name in sorted(listed.keys() | found.keys()):
        if name not in found:
            raise Unavailable("file is missing", where=str(directory / name), hint=hint)
        if name not in listed:
            raise Unavailable("file was added", where=str(directory / name), hint=hint)
        if listed[name] != found[name]:
            raise Unavailable("file was changed", where=str(directory / name), hint=hint)


def _measure(directory: Path) -> dict[str, str]:
    """Relative path to sha256, or to ``-> target`` for a symbolic link."""
    skipped = {FILES, "receipt.json"}
    content = {}
    for path in _walk(directory):
        name = str(path.relative_to(directory))
        if name in skipped:
            continue
        content[name] = f"-> {os.readlink(path)}" if path.is_symlink() else sha256_file(path)
    return content


def _walk(directory: Path) -> Iterator[Path]:
    for root, directories, files in os.walk(directory, onerror=_raise):
        for name in directories:
            if (Path(root) / name).is_symlink():
                yield Path(root) / name
        for name in files:
            yield Path(root) / name


def _raise(error: OSError) -> None:
    raise error
