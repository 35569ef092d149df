"""Reading a ledger: its lines as they are, from any entry on, each checked against the one before.

A snapshot is read: what is appended meanwhile is seen by the next reading, and bytes behind the
last line end, which a writer may be writing just now, by none.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from secure_pipeline.audit import entry
from secure_pipeline.audit.entry import (
    MAX_LINE_BYTES,
    UNWRITTEN,
    Entry,
    InvalidEntry,
    Kind,
    UnknownVersion,
)
from secure_pipeline.errors import Inconclusive, VerificationFailed

BUFFER_BYTES = 1 << 20
_LOCK_SECONDS = 5.0
_PAUSE = 0.001


@dataclass(frozen=True)
class Stored:
    """An entry in the file."""

    seq: int
    hash: str
    """The entry's id, in hex."""
    data: bytes
    """The line's exact bytes, without the line end."""
    offset: int
    """Where the line begins."""

    @property
    def entry(self) -> Entry:
        """The parsed entry."""
        return entry.read(self.data)

    @property
    def next_offset(self) -> int:
        """Where the next line begins."""
        return self.offset + len(self.data) + 1


def _open(path: str, flags: int) -> int:
    """Never wait for the other end of a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def snapshot(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a ledger; yield the file and the number of bytes that count now.

    Raises: Inconclusive if there is no ledger, or it cannot be read.
    """
    try:
        stream = open(path, "rb", BUFFER_BYTES, opener=_open)  # noqa: SIM115
    except FileNotFoundError:
        raise Inconclusive(
            "there is no ledger", where=str(path), hint="name it with --ledger"
        ) from None
    except OSError as error:
        raise Inconclusive(f"cannot read: {error.strerror}", where=str(path)) from error
    with stream:
        yield stream, _quiet_size(stream)


def entries(path: Path, start: int = 0, *, offset: int = 0) -> Iterator[Stored]:
    """Yield the entries from number ``start`` on.

    ``offset``: where a line of that number or an earlier one begins, to skip what was read before
    (``Stored.next_offset`` of the last entry read); with it, the first line's link is not checked.
    Raises: VerificationFailed at the first line that is altered or does not follow the one
    before; Inconclusive (no ledger, unknown version, no line begins at ``offset``).
    """
    with snapshot(path) as (stream, size):
        _seek(stream, offset, size, path)
        before: entry.Link | None = None
        while offset < size:
            data = stream.readline(min(MAX_LINE_BYTES, size - offset) + 1)
            if not data.endswith(b"\n"):
                if len(data) > MAX_LINE_BYTES:
                    raise VerificationFailed(
                        "longer than an entry", where=f"{path} at byte {offset}"
                    )
                return
            if UNWRITTEN in data and offset + len(data) == size:
                return
            link = _scan(data[:-1], before, first=offset == 0, where=f"{path} at byte {offset}")
            if link.seq >= start:
                yield Stored(link.seq, link.hash.decode(), data[:-1], offset)
            before, offset = link, offset + len(data)


def find_intent(path: Path, intent: str) -> Entry | None:
    """The intent with this hash; None if there is none. Raises: like ``entries``."""
    for stored in entries(path):
        if stored.hash == intent and stored.entry.kind is Kind.INTENT:
            return stored.entry
    return None


def _scan(data: bytes, before: entry.Link | None, *, first: bool, where: str) -> entry.Link:
    try:
        link = entry.scan(data)
    except UnknownVersion as error:
        raise Inconclusive(str(error), where=where) from None
    except InvalidEntry as error:
        raise VerificationFailed(f"an entry is altered: {error}", where=where) from None
    follows = link.seq == 0 and link.prev == entry.NO_HASH.encode()
    if before is not None:
        follows = link.seq == before.seq + 1 and link.prev == before.hash
    if not follows and (first or before is not None):
        raise VerificationFailed(f"entry {link.seq} does not follow the one before", where=where)
    return link


def _seek(stream: BinaryIO, offset: int, size: int, path: Path) -> None:
    """Go to an offset; what is before must be a line end. Raises: Inconclusive."""
    if offset == 0:
        return
    if 0 < offset <= size:
        stream.seek(offset - 1)
        if stream.read(1) == b"\n":
            return
    raise Inconclusive(f"no entry begins at byte {offset}", where=str(path))


def _quiet_size(stream: BinaryIO) -> int:
    """The size while no writer is writing; whatever it is if one does not end."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE)
            continue
        except OSError:  # a file system without locks
            break
        size = os.fstat(stream.fileno()).st_size
        fcntl.flock(stream, fcntl.LOCK_UN)
        return size
    return os.fstat(stream.fileno()).st_size
