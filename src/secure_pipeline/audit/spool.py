"""How far a ledger was delivered to one destination, durably.

The ledger itself is the spool: it is on the disk before anything is delivered. All that is
kept besides is a cursor, the last entry that the destination has acknowledged together with
everything before it. A crash at any point delivers again at most what came after it; a cursor
that names an entry the ledger does not hold shows that the ledger was cut or replaced (AUD-01).
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secure_pipeline import shape
from secure_pipeline.errors import ConfigError, Unavailable, VerificationFailed
from secure_pipeline.files import canonical_json, read_bounded, sha256_bytes, write_atomic

VERSION = 1
_LIMIT = 16 << 10
_MOST = 1000
"""Cursors of one destination: one for each ledger that was rotated."""
_ID = re.compile(r"[!-~]{1,200}")


@dataclass(frozen=True)
class Position:
    """One entry of a ledger: its sequence number and its id."""

    sequence: int
    id: str
    offset: int = field(default=0, compare=False)
    """Byte at which it, or an earlier entry, begins: where to read from, no proof of anything."""

    def __post_init__(self) -> None:
        if self.sequence < 0 or self.offset < 0 or not _ID.fullmatch(self.id):
            raise ValueError("is no position in a ledger")


class Held(Unavailable):
    """Another process is delivering to the same destination."""


class Spool:
    """What one destination has acknowledged: a small file for each ledger."""

    def __init__(self, directory: Path, destination: str) -> None:
        """``destination``: its address without secrets; another address starts from nothing."""
        self.destination = destination
        self._directory = directory
        self._name = sha256_bytes(destination.encode())[:16]

    def cursor(self, ledger: str) -> LedgerCursor:
        """The cursor of the ledger whose first entry has this id."""
        name = f"{self._name}-{sha256_bytes(ledger.encode())[:16]}.json"
        return LedgerCursor(self._directory / name, self.destination, ledger)

    def cursors(self) -> tuple[LedgerCursor, ...]:
        """All that were ever saved. Raises: ConfigError for a file that is no cursor."""
        paths = sorted(self._directory.glob(f"{self._name}-*.json"))[:_MOST]
        return tuple(
            LedgerCursor(path, self.destination, _ledger(_document(path), path)) for path in paths
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only one that delivers to this destination while inside.

        Raises: Held at once if another process is; Unavailable if the disk refuses.
        """
        lock = self._directory / f"{self._name}.lock"
        try:
            lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(f"cannot lock: {error.strerror}", where=str(lock)) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Held(
                    "another process is delivering to this destination", where=self.destination
                ) from None
            yield
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class LedgerCursor:
    """How far one ledger was delivered to one destination."""

    path: Path
    destination: str
    ledger: str

    def load(self) -> Position | None:
        """Return the last acknowledged entry, or None before the first.

        Raises: ConfigError for a file that is not what this program writes.
        """
        if not self.path.exists():
            return None
        found, where = _document(self.path), str(self.path)
        try:
            if shape.member(found, "destination", str, where) != self.destination:
                raise ValueError("another destination")
            if _ledger(found, self.path) != self.ledger:
                raise ValueError("another ledger")
            return Position(
                shape.member(found, "sequence", int, where),
                shape.member(found, "id", str, where),
                shape.member(found, "offset", int, where),
            )
        except (VerificationFailed, ValueError) as error:
            raise _damaged(error, self.path) from None

    def save(self, position: Position) -> None:
        """Record durably that everything up to ``position`` is acknowledged. Raises: Unavailable.

        A failure loses nothing: what is not recorded is delivered again.
        """
        document = {
            "version": VERSION,
            "destination": self.destination,
            "ledger": self.ledger,
            "sequence": position.sequence,
            "id": position.id,
            "offset": position.offset,
        }
        write_atomic(self.path, canonical_json(document) + b"\n", mode=0o600)


def _document(path: Path) -> dict[str, Any]:
    """Parse a cursor's file. Raises: ConfigError."""
    try:
        found = shape.parse_object(read_bounded(path, _LIMIT), str(path), limit=_LIMIT)
        if shape.member(found, "version", int, str(path)) != VERSION:
            raise ValueError("another version")
    except (VerificationFailed, ValueError) as error:
        raise _damaged(error, path) from None
    return found


def _ledger(found: dict[str, Any], path: Path) -> str:
    try:
        return str(shape.member(found, "ledger", str, str(path)))
    except VerificationFailed as error:
        raise _damaged(error, path) from None


def _damaged(error: Exception, path: Path) -> ConfigError:
    message = error.message if isinstance(error, VerificationFailed) else str(error)
    return ConfigError(
        f"is no record of what was delivered: {message}",
        where=str(path),
        hint="remove it: everything is delivered again, under the same ids",
    )
