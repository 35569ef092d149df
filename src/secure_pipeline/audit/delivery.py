"""Delivery of a ledger's entries: batches, acknowledgements, going back, waiting.

A state machine over four ports (the ledger, the destination, the cursor, the clock) that
knows no socket and never sleeps. Its rules:

1. The cursor moves only over entries that the destination has acknowledged, without gaps.
2. Batches are sent in order, a bounded number of them ahead of their acknowledgements.
3. Where it is not known what the destination holds (an answer that was cut off, an
   acknowledgement that does not come, a channel that was forgotten), everything after the
   cursor is sent again, under the same ids, on a new channel (AUD-08, AUD-09).
4. An entry that follows no other by one is never sent: the ledger itself is wrong then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from secure_pipeline.audit.sink import (
    Busy,
    Cursor,
    LedgerEvent,
    Lost,
    Refused,
    Sink,
    Source,
    TooLarge,
)
from secure_pipeline.audit.spool import Position
from secure_pipeline.errors import PipelineError, Unavailable, VerificationFailed


@dataclass(frozen=True)
class DeliveryLimits:
    """Bounds of a delivery. Times in seconds."""

    events: int = 200
    """In one batch."""
    bytes: int = 512 << 10
    """In one batch; a collector of old takes a request of 1,000,000."""
    window: int = 8
    """Batches that may wait for their acknowledgement."""
    acknowledge: float = 300.0
    """After which a batch without acknowledgement is sent again."""
    poll: float = 10.0
    """Longest time between two questions for acknowledgements."""
    pause: float = 60.0
    """Longest time between two attempts."""


@dataclass
class _Flight:
    ticket: Hashable
    last: Position
    events: int
    sent: float
    settled: bool = False


@dataclass(frozen=True)
class Progress:
    """What came of a delivery so far."""

    acknowledged: int
    """Entries acknowledged by this delivery."""
    waiting: int
    """Entries that were taken and are not acknowledged."""
    again: int
    """Entries that had to be sent once more."""
    position: Position | None
    """The last acknowledged entry, of this or an earlier delivery."""
    trouble: PipelineError | None
    """What went wrong last, if it was not overcome."""


_FIRST_POLL = 0.25
_FIRST_PAUSE = 0.5
_LEAST = 0.05
"""Seconds: no wait is shorter."""


class Delivery:
    """Delivers from where the cursor is. Call ``step`` again and again; it never sleeps."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        cursor: Cursor,
        *,
        now: Callable[[], float],
        jitter: Callable[[], float],
        limits: DeliveryLimits | None = None,
        begin: int | None = None,
    ) -> None:
        """``now``: monotonic seconds. ``jitter``: 0 to 1.

        ``begin``: deliver from this sequence number on, also what was acknowledged before.
        Raises: ConfigError if the cursor's file is damaged.
        """
        self.limits = limits or DeliveryLimits()
        self._source, self._sink, self._cursor = source, sink, cursor
        self._now, self._jitter = now, jitter
        self._first = begin or 0
        self._position = None if begin is not None else cursor.load()
        self._sent = self._position
        self._stream: Iterator[LedgerEvent] | None = None
        self._ready: list[tuple[Position, bytes]] = []
        self._flights: deque[_Flight] = deque()
        self._ended = False
        self._broken: VerificationFailed | None = None
        self._batch, self._window = self.limits.events, self.limits.window
        self._failures, self._send_at = 0, 0.0
        self._poll_at, self._poll_wait = 0.0, _FIRST_POLL
        self._acknowledged = self._again = 0
        self._trouble: PipelineError | None = None

    @property
    def progress(self) -> Progress:
        """What came of it so far."""
        waiting = sum(flight.events for flight in self._flights)
        return Progress(self._acknowledged, waiting, self._again, self._position, self._trouble)

    def step(self) -> float | None:
        """Do one thing of each kind; return the seconds to wait, or None once all is acknowledged.

        Raises: VerificationFailed (the ledger is wrong; what comes before is delivered),
        Refused, Inconclusive, ConfigError (from the destination), Unavailable (the cursor).
        """
        self._poll()
        self._expire()
        if self._send() and len(self._flights) < self._window and not self._ended:
            return 0.0
        if self._flights or self._ready or not self._ended:
            return max(_LEAST, self._next() - self._now())
        if self._broken is not None:
            raise self._broken
        return None

    def look_again(self) -> None:
        """Look for entries that were added since the ledger was opened."""
        self._stream, self._ended, self._broken = None, False, None

    def _next(self) -> float:
        times = [flight.sent + self.limits.acknowledge for flight in self._flights]
        if self._flights:
            times.append(self._poll_at)
        if (self._ready or not self._ended) and len(self._flights) < self._window:
            times.append(self._send_at)
        return min(times)

    def _poll(self) -> None:
        if not self._flights or self._now() < self._poll_at:
            return
        try:
            settled = self._sink.settled([flight.ticket for flight in self._flights])
        except Lost as error:
            return self._go_back(error)
        except Unavailable as error:
            self._trouble, settled = error, frozenset()
        for flight in self._flights:
            flight.settled = flight.settled or flight.ticket in settled
        self._advance()
        self._poll_wait = _FIRST_POLL if settled else min(self._poll_wait * 2, self.limits.poll)
        self._poll_at = self._now() + self._poll_wait
        return None

    def _advance(self) -> None:
        """Move the cursor over the batches at the front that are acknowledged (rule 1)."""
        done = 0
        while self._flights and self._flights[0].settled:
            flight = self._flights.popleft()
            self._position = flight.last
            done += flight.events
            self._window = min(self._window + 1, self.limits.window)
        if done and self._position is not None:
            self._acknowledged += done
            self._failures, self._trouble = 0, None
            self._cursor.save(self._position)

    def _expire(self) -> None:
        due = self._now() - self.limits.acknowledge
        if self._flights and self._flights[0].sent <= due:
            self._go_back(Lost(f"no acknowledgement within {self.limits.acknowledge:g} seconds"))

    def _send(self) -> bool:
        """Send the next batch, if it is time for one; True if it was taken."""
        if len(self._flights) >= self._window or self._now() < self._send_at:
            return False
        batch = self._fill()
        if not batch:
            return False
        try:
            ticket = self._sink.send([part for _, part in batch])
        except Busy as error:
            self._pause(error, error.after)
        except TooLarge as error:
            self._halve(batch, error)
        except Unavailable as error:
            self._go_back(error)
        else:
            del self._ready[: len(batch)]
            self._sent = batch[-1][0]
            self._flights.append(_Flight(ticket, self._sent, len(batch), self._now()))
            self._poll_wait = _FIRST_POLL
            self._poll_at = self._now() + _FIRST_POLL
            return True
        return False

    def _halve(self, batch: list[tuple[Position, bytes]], error: TooLarge) -> None:
        if len(batch) == 1:
            raise Refused(
                f"entry {batch[0][0].sequence} alone is too large for it", where=error.where
            ) from error
        self._batch = len(batch) // 2

    def _pause(self, error: Unavailable, least: float = 0.0) -> None:
        """Wait before the next attempt: growing, bounded, never two alike."""
        self._trouble = error
        wait = min(self.limits.pause, _FIRST_PAUSE * 2.0 ** min(self._failures, 20))
        self._failures += 1
        asked = min(least, self.limits.pause)
        self._send_at = self._now() + max(asked, wait * (0.5 + self._jitter() / 2))

    def _go_back(self, error: Unavailable) -> None:
        """Send everything after the cursor again (rule 3), one batch at first."""
        self._again += sum(flight.events for flight in self._flights)
        self._flights.clear()
        self._ready.clear()
        self._stream, self._sent = None, self._position
        self._ended, self._broken = False, None
        self._window = 1
        self._sink.renew()
        self._pause(error)

    def _fill(self) -> list[tuple[Position, bytes]]:
        """The next batch, at the front of ``_ready``; empty at the ledger's end."""
        size = sum(len(part) for _, part in self._ready)
        while len(self._ready) < self._batch and size <= self.limits.bytes and not self._ended:
            event = self._read()
            if event is not None:
                self._ready.append((event.position, self._sink.encode(event)))
                size += len(self._ready[-1][1])
        count = size = 0
        for _, part in self._ready[: self._batch]:
            size += len(part)
            if count and size > self.limits.bytes:
                break
            count += 1
        return self._ready[:count]

    def _read(self) -> LedgerEvent | None:
        try:
            if self._stream is None:
                self._stream = self._open()
            event = next(self._stream, None)
            if event is not None:
                self._check(event)
                return event
        except VerificationFailed as error:
            self._broken = error
        self._stream, self._ended = None, True
        return None

    def _open(self) -> Iterator[LedgerEvent]:
        sent = self._ready[-1][0] if self._ready else self._sent
        return self._source.events(self._first, 0) if sent is None else after(self._source, sent)

    def _check(self, event: LedgerEvent) -> None:
        before = self._ready[-1][0] if self._ready else self._sent
        if before is not None and event.sequence != before.sequence + 1:
            raise VerificationFailed(f"entry {event.sequence} follows entry {before.sequence}")


def after(source: Source, position: Position | None) -> Iterator[LedgerEvent]:
    """The entries after one that was delivered, which must still be there (AUD-01).

    Raises: VerificationFailed, as ``Source.events``.
    """
    if position is None:
        return source.events(0, 0)
    stream = source.events(position.sequence, position.offset)
    found = next(stream, None)
    if found is None or found.position != position:
        raise VerificationFailed(
            f"entry {position.sequence} is not the one that was delivered before: "
            "the ledger was cut or replaced",
            hint="to deliver this ledger from its beginning all the same: --from 0",
        )
    return stream


def drive(
    delivery: Delivery,
    *,
    now: Callable[[], float],
    sleep: Callable[[float], None],
    until: float,
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Step until all is acknowledged (True), or ``until`` or ``stopped`` ends it (False).

    Raises: as ``Delivery.step``.
    """
    while not stopped():
        wait = delivery.step()
        if wait is None:
            return True
        left = until - now()
        if left <= 0:
            return False
        sleep(min(wait, left))
    return False
