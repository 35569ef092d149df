"""A ledger in memory, for tests of its delivery."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from secure_pipeline.audit.sink import LedgerEvent
from secure_pipeline.audit.spool import Position
from secure_pipeline.errors import VerificationFailed

ORIGIN = "0" * 64
START = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)


class HandClock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def event(sequence: int, filler: int = 0) -> LedgerEvent:
    """An entry whose id is a digest, as a ledger's is."""
    data = f'{{"seq":{sequence},"text":"{"x" * filler}"}}'.encode()
    digest = hashlib.sha256(data).hexdigest()
    return LedgerEvent(sequence, digest, START + timedelta(seconds=sequence / 8), ORIGIN, data)


@dataclass
class Lines:
    """Entries from 0 up; ``wrong`` is the number of one that does not verify."""

    entries: list[LedgerEvent] = field(default_factory=list)
    wrong: int | None = None

    @classmethod
    def of(cls, count: int, filler: int = 0) -> Lines:
        return cls([event(number, filler) for number in range(count)])

    def add(self, count: int = 1) -> None:
        self.entries += [event(len(self.entries) + number) for number in range(count)]

    def events(self, first: int, offset: int = 0) -> Iterator[LedgerEvent]:
        for item in self.entries[first:]:
            if item.sequence == self.wrong:
                raise VerificationFailed(f"entry {item.sequence} is not what was written")
            yield item


@dataclass
class Memory:
    """A cursor in memory."""

    position: Position | None = None
    saved: list[Position] = field(default_factory=list)

    def load(self) -> Position | None:
        return self.position

    def save(self, position: Position) -> None:
        self.position = position
        self.saved.append(position)
