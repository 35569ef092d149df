"""The ledger's file as bytes: locked, read from its end, written to."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secure_pipeline.audit.entry import MAX_LINE_BYTES, UNWRITTEN
from secure_pipeline.errors import Unavailable, VerificationFailed

_TAIL_BYTES = 4 << 10
_PAUSE, _LONGEST_PAUSE = 0.0001, 0.001
_REOPENS = 100


@contextmanager
def exclusive(path: Path, wait: float, *, create: bool) -> Iterator[int]:
    """Open and lock the file that has this name now, even if it is replaced meanwhile.

    Raises: Unavailable.
    """
    deadline = time.monotonic() + wait
    for _ in range(_REOPENS):
        descriptor = _open(path, create=create)
        try:
            _lock(descriptor, fcntl.LOCK_EX, deadline, path)
            if _is_at(descriptor, path):
                yield descriptor
                return
        finally:
            os.close(descriptor)
    raise Unavailable("the ledger is replaced again and again", where=str(path))


def _open(path: Path, *, create: bool) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags | (os.O_CREAT if create else 0), 0o600)
    except FileNotFoundError:
        raise Unavailable("there is no ledger", where=str(path)) from None
    except OSError as error:
        raise unavailable(error, path) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unavailable("the ledger is not a regular file", where=str(path))
    return descriptor


def _lock(descriptor: int, kind: int, deadline: float, path: Path) -> None:
    """Lock, or give up at the deadline: a stopped process must not stop all others."""
    pause = _PAUSE
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Unavailable(
                    "another process holds the ledger",
                    where=str(path),
                    hint="find it with 'fuser' and let it end",
                ) from None
        except OSError as error:
            raise unavailable(error, path) from error
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def split(descriptor: int, size: int, where: str) -> tuple[int, bytes]:
    """Return (bytes up to the end of the last whole line, the torn bytes behind it)."""
    data = _before(descriptor, size, MAX_LINE_BYTES, b"\n")
    if b"\n" not in data and size > MAX_LINE_BYTES:
        raise altered("what is at its end is longer than an entry", where)
    torn = data.rpartition(b"\n")[2]
    whole = size - len(torn)
    if not torn and whole and UNWRITTEN in (last := last_line(descriptor, whole, where)):
        torn = last + b"\n"
        whole -= len(torn)
    return whole, torn


def last_line(descriptor: int, end: int, where: str) -> bytes:
    """The line whose line end is the last byte before ``end``."""
    data = _before(descriptor, end - 1, MAX_LINE_BYTES, b"\n")
    if b"\n" not in data and end - 1 > MAX_LINE_BYTES:
        raise altered("its last line is longer than an entry", where)
    return data.rpartition(b"\n")[2]


def _before(descriptor: int, end: int, most: int, until: bytes) -> bytes:
    """Read backwards from ``end`` until ``until`` is among it, at most ``most`` bytes."""
    length = min(end, _TAIL_BYTES)
    while True:
        data = os.pread(descriptor, length, end - length)
        if until in data or length >= min(end, most):
            return data
        length = min(end, most, length * 4)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it. Raises: OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def altered(message: str, where: str) -> VerificationFailed:
    """The error for a ledger that nothing may be built upon."""
    return VerificationFailed(
        message, where=where, hint="secure-pipeline audit verify names the first bad entry"
    )


def unavailable(error: OSError, path: Path) -> Unavailable:
    """The error for a ledger that cannot be written."""
    return Unavailable(
        f"cannot record: {error.strerror}",
        where=str(path),
        hint="make room, or name another place with --ledger; nothing happens unrecorded",
    )
