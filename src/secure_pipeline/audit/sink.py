"""What is delivered, and where to: the ports of audit/delivery.py and their errors."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar, Protocol

from secure_pipeline.audit.spool import Position
from secure_pipeline.errors import ExitCode, PipelineError, Unavailable
from secure_pipeline.files import canonical_json, sha256_bytes


@dataclass(frozen=True)
class LedgerEvent:
    """One entry as it is delivered."""

    sequence: int
    id: str
    """The entry's hash in the chain: the same whenever it is sent (AUD-09)."""
    time: datetime
    ledger: str
    """Id of the ledger's first entry, which names the ledger."""
    data: bytes
    """The entry exactly as the ledger holds it, without the end of the line."""
    offset: int = 0
    """Byte of the ledger at which it begins."""
    whole: bool = True
    """False if ``data`` is only a note about an entry that is too large."""

    @property
    def position(self) -> Position:
        """Where it is in the ledger."""
        return Position(self.sequence, self.id, self.offset)


def within(event: LedgerEvent, limit: int) -> LedgerEvent:
    """The event, or a note with size and digest in place of more than ``limit`` bytes.

    Cut content could not be told from altered content, and an entry that is refused would
    hold back all that follow it; the digest binds what only the ledger holds.
    """
    if len(event.data) <= limit:
        return event
    note = {
        "note": "entry too large to deliver; the ledger holds it",
        "ledger": event.ledger,
        "sequence": event.sequence,
        "id": event.id,
        "bytes": len(event.data),
        "sha256": sha256_bytes(event.data),
    }
    return replace(event, data=canonical_json(note), whole=False)


class Source(Protocol):
    """The ledger that is read."""

    def events(self, first: int, offset: int) -> Iterator[LedgerEvent]:
        """Yield the entries from sequence number ``first`` up, in order, up to the last one.

        ``offset``: where this or an earlier entry began when it was last read; a hint. A torn
        tail is not yielded. Raises: VerificationFailed at an entry that is wrong; Inconclusive,
        Unavailable (it cannot be read).
        """


class Cursor(Protocol):
    """Where the last acknowledged entry is kept (audit/spool.py)."""

    def load(self) -> Position | None:
        """The last acknowledged entry."""

    def save(self, position: Position) -> None:
        """Keep it, durably. Raises: Unavailable."""


class Busy(Unavailable):
    """The destination took nothing of the batch and wants it later."""

    def __init__(self, message: str, *, where: str, after: float = 0.0) -> None:
        """``after``: seconds that it asks for."""
        super().__init__(message, where=where)
        self.after = after


class TooLarge(Unavailable):
    """The destination took nothing, because the batch is larger than it allows."""


class Lost(Unavailable):
    """It is not known what the destination holds of what it has not acknowledged."""


class Refused(PipelineError):
    """The destination will not take it, now or later, unless someone changes something."""

    exit_code: ClassVar[ExitCode] = ExitCode.UNAVAILABLE


class Sink(Protocol):
    """A destination. A ticket stands for one batch that it took but did not acknowledge yet."""

    def encode(self, event: LedgerEvent) -> bytes:
        """The event in the destination's form; its length counts for a batch."""

    def send(self, parts: Sequence[bytes]) -> Hashable:
        """Send one batch and return its ticket.

        Raises: Busy, TooLarge (nothing was taken); any other Unavailable (not known);
        Refused, Inconclusive, ConfigError (sending again will not help).
        """

    def settled(self, tickets: Sequence[Hashable]) -> frozenset[Hashable]:
        """Which of these batches are acknowledged: stored for good, not only taken.

        Raises: Lost (never will be told); any other Unavailable (ask again).
        """

    def renew(self) -> None:
        """Give up every ticket and begin a new channel."""


class Acceptor(Protocol):
    """A destination that takes batches and never says whether it stored them."""

    def encode(self, event: LedgerEvent) -> bytes:
        """As ``Sink.encode``."""

    def accept(self, parts: Sequence[bytes]) -> None:
        """Send one batch. Raises: as ``Sink.send``."""

    def alive(self) -> None:
        """Return if it is healthy. Raises: Unavailable."""


class Confirming:
    """A sink without acknowledgements, where an operator has said that it must do.

    A batch counts as acknowledged once the destination was healthy at every look for the whole
    window since it took the batch, the last look at its end. Any failure in between makes
    everything doubtful that is not confirmed, and it is sent again (AUD-08).
    """

    def __init__(self, acceptor: Acceptor, window: float, now: Callable[[], float]) -> None:
        """``window``: seconds."""
        self._acceptor, self._window, self._now = acceptor, window, now
        self._taken: dict[Hashable, float] = {}
        self._count = 0

    def encode(self, event: LedgerEvent) -> bytes:
        """As the destination has it."""
        return self._acceptor.encode(event)

    def send(self, parts: Sequence[bytes]) -> Hashable:
        """Send one batch; its time begins when the destination has taken it."""
        self._acceptor.accept(parts)
        self._count += 1
        self._taken[self._count] = self._now()
        return self._count

    def settled(self, tickets: Sequence[Hashable]) -> frozenset[Hashable]:
        """The batches whose window has passed in good health. Raises: Lost."""
        try:
            self._acceptor.alive()
        except Unavailable as error:
            raise Lost(f"not confirmed: {error.message}", where=error.where) from error
        due = self._now() - self._window
        return frozenset(item for item in tickets if self._taken[item] <= due)

    def renew(self) -> None:
        """Forget what was taken."""
        self._taken.clear()
