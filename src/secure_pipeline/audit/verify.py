"""Check a whole ledger in one pass and bounded memory, and name the first bad entry (AUD-02).

What the chain itself cannot show, a tail that was cut off or a ledger written anew, shows against
heads that were kept elsewhere (AUD-01).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from secure_pipeline.audit import entry
from secure_pipeline.audit.entry import (
    MAX_LINE_BYTES,
    NO_HASH,
    UNWRITTEN,
    InvalidEntry,
    Kind,
    Link,
    UnknownVersion,
    Value,
)
from secure_pipeline.audit.log import Head
from secure_pipeline.audit.reader import snapshot
from secure_pipeline.errors import ExitCode

MAX_OPEN = 100_000
"""Intents without a conclusion that are counted."""
_INTENT = Kind.INTENT.value.encode()


class Fault(Enum):
    """What is wrong with a ledger."""

    EDITED = "edited"
    INSERTED = "inserted"
    DELETED = "deleted"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    """Entries that an anchor has seen are missing at the end."""
    REPLACED = "replaced"
    """The ledger is another one than the anchor saw, or was written anew."""
    UNKNOWN = "unknown"
    """A version that this program does not know: neither proven right nor wrong."""


@dataclass(frozen=True)
class Damage:
    """The first bad entry."""

    fault: Fault
    seq: int
    """Number of the entry that is bad or missing."""
    line: int
    """From 1; where it is or should be."""
    offset: int
    """Of that line, in bytes."""
    message: str


@dataclass(frozen=True)
class Checked:
    """What one pass found. ``damage`` is about the chain and the anchors."""

    path: Path
    origin: str | None
    """Hash of the first entry; None if there is none."""
    head: Head | None
    """The last entry that is right; None if there is none."""
    entries: int
    """Entries that are right, from the first."""
    bytes: int
    damage: Damage | None
    torn: int
    """Bytes behind the last line end: what a killed writer left, never acknowledged."""
    open: int
    """Intents without a conclusion, at most MAX_OPEN."""
    opening: Mapping[str, Value] = field(default_factory=dict)
    """Details of the first entry: what it says of a ledger before."""
    anchors: int = 0
    """Anchors that fit."""

    @property
    def exit_code(self) -> ExitCode:
        """PASS only for a whole ledger with entries; a torn tail or an unknown version is open."""
        if self.damage is not None and self.damage.fault is not Fault.UNKNOWN:
            return ExitCode.VERIFICATION
        if self.damage is not None or self.torn or not self.entries:
            return ExitCode.INCONCLUSIVE
        return ExitCode.PASS


class _Walk:
    """One pass over the lines."""

    def __init__(self, stream: BinaryIO, size: int, wanted: set[int]) -> None:
        self.size = size
        self.wanted = wanted
        self.hashes: dict[int, str] = {}
        """Hashes of the wanted entries."""
        self.first = b""
        self.before: Link | None = None
        self.count = 0
        self.offset = 0
        self.previous_offset = 0
        self.torn = 0
        self.open: set[bytes] = set()
        self._stream = stream

    def run(self) -> Damage | None:
        """Read to the end or to the first bad line."""
        while self.offset < self.size:
            data = self._next()
            if not data.endswith(b"\n"):
                if len(data) > MAX_LINE_BYTES:
                    return self._damage(Fault.EDITED, "longer than an entry can be")
                self.torn = len(data)
                return None
            try:
                link = entry.scan(data[:-1])
            except UnknownVersion as error:
                return self._damage(Fault.UNKNOWN, str(error))
            except InvalidEntry as error:
                if UNWRITTEN in data and self.offset + len(data) == self.size:
                    self.torn = len(data)
                    return None
                return self._damage(Fault.EDITED, str(error))
            if link.seq != self.count or link.prev != self.expected:
                return self._misplaced(link)
            self._accept(link, data)
        return None

    @property
    def expected(self) -> bytes:
        """What the next line must name as the hash before it."""
        return self.before.hash if self.before else NO_HASH.encode()

    def _next(self) -> bytes:
        return self._stream.readline(min(MAX_LINE_BYTES, self.size - self.offset) + 1)

    def _accept(self, link: Link, data: bytes) -> None:
        if link.seq == 0:
            self.first = data[:-1]
        if link.seq in self.wanted:
            self.hashes[link.seq] = link.hash.decode()
        if link.kind == _INTENT and len(self.open) < MAX_OPEN:
            self.open.add(link.hash)
        elif link.intent is not None:
            self.open.discard(link.intent)
        self.before = link
        self.count += 1
        self.previous_offset = self.offset
        self.offset += len(data)

    def _damage(self, fault: Fault, message: str) -> Damage:
        return Damage(fault, self.count, self.count + 1, self.offset, message)

    def _misplaced(self, link: Link) -> Damage:
        """Say how a line that is whole came to where it does not belong.

        Its neighbours tell: whoever continues the chain is right.
        """
        following = self._following()
        follower = next(following, None)
        if follower is not None and self._continues(follower):
            if (link.seq, link.prev) == (follower.seq + 1, follower.hash):
                return self._damage(Fault.REORDERED, f"entry {link.seq} stands before it")
            return self._damage(Fault.INSERTED, "another entry stands before it")
        if link.seq < self.count:
            return self._damage(Fault.INSERTED, f"entry {link.seq} stands in its place")
        if link.seq == self.count:
            return self._rewritten()
        if any(self._continues(item) for item in following):
            return self._damage(Fault.REORDERED, f"entry {link.seq} stands in its place")
        missing = self.count if link.seq == self.count + 1 else f"{self.count} to {link.seq - 1}"
        return self._damage(Fault.DELETED, f"missing: {missing}; entry {link.seq} follows")

    def _rewritten(self) -> Damage:
        """The entry before is whole, but its follower commits to another content of it."""
        if self.before is None:
            return self._damage(Fault.EDITED, "the first entry names one before it")
        seq = self.before.seq
        message = f"its hash was made anew: entry {seq + 1} commits to another"
        return Damage(Fault.EDITED, seq, seq + 1, self.previous_offset, message)

    def _continues(self, link: Link) -> bool:
        return link.seq == self.count and link.prev == self.expected

    def _following(self) -> Iterator[Link]:
        """The lines behind the misplaced one that can be read; the stream is just behind it."""
        while data := self._stream.readline(MAX_LINE_BYTES + 1):
            try:
                yield entry.scan(data.removesuffix(b"\n"))
            except InvalidEntry:
                continue


def verify(path: Path, anchors: Sequence[Head] = ()) -> Checked:
    """Check every entry, and that the ledger goes on from every anchor.

    Raises: Inconclusive if there is no ledger, or it cannot be read.
    """
    with snapshot(path) as (stream, size):
        walk = _Walk(stream, size, {anchor.seq for anchor in anchors})
        damage = walk.run()
    origin = entry.scan(walk.first).hash.decode() if walk.first else None
    if damage is None:
        damage = _against(anchors, walk, origin)
    return Checked(
        path=path,
        origin=origin,
        head=Head(origin, walk.count - 1, walk.expected.decode()) if origin else None,
        entries=walk.count,
        bytes=walk.offset,
        damage=damage,
        torn=walk.torn,
        open=len(walk.open),
        opening=entry.read(walk.first).details if walk.first else {},
        anchors=0 if damage else len(anchors),
    )


def _against(anchors: Sequence[Head], walk: _Walk, origin: str | None) -> Damage | None:
    """Compare with what was seen before; the lowest entry that does not fit is named."""
    for anchor in sorted(anchors, key=lambda item: item.seq):
        if origin is not None and anchor.origin != origin:
            return Damage(
                Fault.REPLACED, 0, 1, 0, f"the anchor is of ledger {anchor.origin[:16]}…, not this"
            )
        if anchor.seq >= walk.count:
            return Damage(
                Fault.TRUNCATED,
                walk.count,
                walk.count + 1,
                walk.offset,
                f"missing from here to {anchor.seq}, which an anchor has seen",
            )
        if walk.hashes[anchor.seq] != anchor.hash:
            return Damage(
                Fault.REPLACED,
                anchor.seq,
                anchor.seq + 1,
                0,
                "the ledger was written anew: an anchor has seen another entry here",
            )
    return None
