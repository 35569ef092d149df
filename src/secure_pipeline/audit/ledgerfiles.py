"""A ledger's file, and the sealed ones before it, as sources of delivery."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.audit import reader
from secure_pipeline.audit.reader import Stored
from secure_pipeline.audit.sink import LedgerEvent
from secure_pipeline.errors import Inconclusive, PipelineError, VerificationFailed

MAX_LEDGERS = 1000


@dataclass(frozen=True)
class LedgerFile:
    """One file of entries."""

    path: Path
    origin: str
    """Id of its first entry."""
    damaged: bool = False
    """It was sealed as one that does not verify, which its successor says."""
    previous: str | None = None
    """Id of the first entry of the ledger before, where the first entry names it."""

    def events(self, first: int, offset: int) -> Iterator[LedgerEvent]:
        """Yield the entries from number ``first`` on (``audit.sink.Source``).

        Of a ledger that was sealed as damaged: those before the damage.
        """
        try:
            yield from self._events(first, offset)
        except VerificationFailed:
            if not self.damaged:
                raise

    def _events(self, first: int, offset: int) -> Iterator[LedgerEvent]:
        found = reader.entries(self.path, first, offset=offset)
        try:
            begun = next(found, None)
        except Inconclusive:
            if not offset:
                raise
            begun = None
        if offset and (begun is None or begun.seq != first):  # a hint that is wrong proves nothing
            found = reader.entries(self.path, first)
            begun = next(found, None)
        if begun is not None:
            yield self._event(begun)
            yield from map(self._event, found)

    def _event(self, stored: Stored) -> LedgerEvent:
        return LedgerEvent(
            sequence=stored.seq,
            id=stored.hash,
            time=stored.entry.time,
            ledger=self.origin,
            data=stored.data,
            offset=stored.offset,
        )


def ledgers(path: Path) -> tuple[LedgerFile, ...]:
    """The ledger at ``path`` and those that were sealed before it, the oldest first.

    Empty if there is none yet. A sealed one that is not there any more ends the row; one whose
    beginning is damaged, and was sealed so, does too. Raises: VerificationFailed, Inconclusive.
    """
    found: list[LedgerFile] = []
    damaged = False
    while len(found) < MAX_LEDGERS and path.exists():
        try:
            first = next(reader.entries(path), None)
        except PipelineError:
            if not damaged:
                raise
            break
        if first is None:
            break
        details = first.entry.details
        previous = details.get("previousOrigin")
        known = previous if isinstance(previous, str) else None
        found.append(LedgerFile(path, first.hash, damaged, known))
        name = details.get("previousFile")
        if not isinstance(name, str):
            break
        path, damaged = path.with_name(Path(name).name), details.get("previousDamage") is not None
    return tuple(reversed(found))
