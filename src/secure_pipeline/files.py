"""Bounded reads, crash-safe writes and digests of files."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from secure_pipeline.errors import ConfigError, Unavailable

CHUNK_BYTES = 1 << 20


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the whole file, refusing one over ``limit`` bytes instead of truncating.

    Raises: ConfigError if the file is missing, unreadable or too large.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"cannot read: {error.strerror}", where=str(path)) from error
    if len(data) > limit:
        raise ConfigError(f"larger than the limit of {limit} bytes", where=str(path))
    return data


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write ``data`` so that readers see the old file or the whole new one, never a part.

    Temporary file beside the target, fsync, rename, fsync of the directory.
    Raises: Unavailable if the disk refuses (full, read-only, quota).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                publish(stream, Path(temporary), path, mode)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Unavailable(f"cannot write: {error.strerror}", where=str(path)) from error


def publish(stream: BinaryIO, temporary: Path, path: Path, mode: int = 0o644) -> None:
    """Make a written temporary file the file at ``path``, durably. Raises: OSError."""
    os.fchmod(stream.fileno(), mode)
    stream.flush()
    os.fsync(stream.fileno())
    os.replace(temporary, path)
    fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Make a rename in ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive advisory lock on ``path`` (created if missing) while inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def locked_directory(path: Path) -> Iterator[None]:
    """Hold an exclusive advisory lock on a directory itself, leaving no lock file in it.

    Raises: Unavailable if it cannot be opened or locked.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise Unavailable(f"cannot lock: {error.strerror}", where=str(path)) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise Unavailable(f"cannot lock: {error.strerror}", where=str(path)) from error
        yield
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """Return the lower-case hex SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Return the lower-case hex SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: object) -> bytes:
    """Serialise to one stable form: sorted keys, no spaces, UTF-8, no NaN.

    For digests of our own documents. Bytes that were signed are never passed
    through here again.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def digest_of(value: Mapping[str, object]) -> str:
    """Return the hex SHA-256 of a document's canonical form."""
    return sha256_bytes(canonical_json(value))
