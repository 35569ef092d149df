"""The rules of delivery, one by one, against a sink of a few lines."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import pytest

from fakes.ledgerlines import HandClock, Lines, Memory, event
from secure_pipeline.audit.delivery import Delivery, DeliveryLimits, drive
from secure_pipeline.audit.sink import (
    Busy,
    Confirming,
    LedgerEvent,
    Lost,
    Refused,
    TooLarge,
    within,
)
from secure_pipeline.audit.spool import Position
from secure_pipeline.errors import Inconclusive, Unavailable, VerificationFailed

LIMITS = DeliveryLimits(events=3, bytes=1000, window=2, acknowledge=60.0)


class Box:
    """A sink that takes all and acknowledges what ``open`` allows."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.sends: list[Callable[[], None]] = []
        """What happens instead of the next sends."""
        self.acknowledged: set[int] | None = None
        """Numbers of batches; None: all."""
        self.renewed = 0

    @property
    def everything(self) -> list[bytes]:
        return [item for batch in self.batches for item in batch]

    def encode(self, item: LedgerEvent) -> bytes:
        return item.data

    def send(self, parts: Sequence[bytes]) -> Hashable:
        if self.sends:
            self.sends.pop(0)()
        self.batches.append(list(parts))
        return len(self.batches) - 1

    def settled(self, tickets: Sequence[Hashable]) -> frozenset[Hashable]:
        allowed = self.acknowledged
        return frozenset(t for t in tickets if allowed is None or t in allowed)

    def renew(self) -> None:
        self.renewed += 1


class Bench:
    def __init__(self, ledger: Lines, cursor: Memory | None = None, begin: int | None = None):
        self.clock, self.ledger, self.sink = HandClock(), ledger, Box()
        self.cursor = cursor or Memory()
        self.delivery = Delivery(
            ledger, self.sink, self.cursor, now=self.clock.monotonic, jitter=lambda: 1.0,
            limits=LIMITS, begin=begin,
        )  # fmt: skip

    def drive(self, seconds: float = 1000.0) -> bool:
        return drive(
            self.delivery,
            now=self.clock.monotonic,
            sleep=self.clock.sleep,
            until=self.clock.seconds + seconds,
        )


def fails(error: Exception) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it


def test_everything_goes_in_order_and_in_bounds() -> None:
    """Batches have at most three events and 1000 bytes; together they are the ledger."""
    bench = Bench(Lines.of(10, filler=400))
    assert bench.drive()
    assert bench.sink.everything == [item.data for item in bench.ledger.entries]
    assert {len(batch) for batch in bench.sink.batches} == {2}
    assert bench.cursor.position == bench.ledger.entries[-1].position


def test_an_empty_ledger_is_delivered() -> None:
    """Nothing to send is all acknowledged."""
    bench = Bench(Lines())
    assert bench.drive()
    assert bench.sink.batches == []
    assert bench.cursor.position is None


def test_aud_08_the_cursor_waits_for_the_acknowledgement() -> None:
    """What was taken is not delivered: at the deadline the cursor has not moved."""
    bench = Bench(Lines.of(2))
    bench.sink.acknowledged = set()
    assert not bench.drive(30.0)
    assert bench.cursor.saved == []
    assert bench.delivery.progress.waiting == 2


def test_aud_08_a_later_acknowledgement_does_not_cover_an_earlier_batch() -> None:
    """The cursor stops in front of the first batch that is not acknowledged."""
    bench = Bench(Lines.of(6))
    bench.sink.acknowledged = {1}
    assert not bench.drive(30.0)
    assert bench.cursor.saved == []
    bench.sink.acknowledged = {0, 1}
    assert bench.drive()
    assert bench.cursor.saved == [bench.ledger.entries[5].position]


def test_at_most_a_window_is_ahead() -> None:
    """No more than two batches wait for their acknowledgement."""
    bench = Bench(Lines.of(30))
    bench.sink.acknowledged = set()
    bench.drive(30.0)
    assert len(bench.sink.batches) == 2


def test_aud_09_without_acknowledgement_the_same_is_sent_again() -> None:
    """After the time for it, the same bytes go out again on a new channel."""
    bench = Bench(Lines.of(3))
    bench.sink.acknowledged = {1}
    assert bench.drive()
    assert bench.sink.batches[0] == bench.sink.batches[1]
    assert bench.sink.renewed == 1
    assert bench.delivery.progress.again == 3
    assert bench.clock.seconds >= LIMITS.acknowledge


@pytest.mark.parametrize("error", [Lost("x"), Unavailable("cut"), TimeoutError])
def test_what_may_have_been_taken_is_sent_again(error: Exception) -> None:
    """An unknown end of a send goes back to the cursor; a bug is not swallowed."""
    bench = Bench(Lines.of(6))
    bench.sink.sends = [lambda: None, fails(error)]
    if error is TimeoutError:
        with pytest.raises(TimeoutError):
            bench.drive()
        return
    assert bench.drive()
    assert bench.sink.renewed == 1
    assert bench.sink.batches[0] == bench.sink.batches[1]


def test_a_forgotten_channel_is_not_waited_for(monkeypatch) -> None:
    """Where no acknowledgement can come any more, everything is sent again at once."""
    bench = Bench(Lines.of(3))
    answer = bench.sink.settled

    def forgotten(tickets: Sequence[Hashable]) -> frozenset[Hashable]:
        monkeypatch.setattr(bench.sink, "settled", answer)
        raise Lost("it does not know the channel")

    monkeypatch.setattr(bench.sink, "settled", forgotten)
    assert bench.drive()
    assert bench.sink.batches[0] == bench.sink.batches[1]
    assert bench.clock.seconds < LIMITS.acknowledge / 2


def test_a_busy_destination_is_waited_for() -> None:
    """Nothing was taken: the batch stays, the waits grow, and what it asks for is respected."""
    bench = Bench(Lines.of(3))
    bench.sink.sends = [fails(Busy("busy", where="x")) for _ in range(4)]
    bench.sink.sends.append(fails(Busy("busy", where="x", after=33.0)))
    assert bench.drive()
    assert bench.sink.renewed == 0
    assert bench.clock.seconds >= 0.5 + 1 + 2 + 4 + 33
    assert len(bench.sink.batches) == 1


def test_waits_are_bounded() -> None:
    """However often and however long: no wait is longer than the limit."""
    bench = Bench(Lines.of(1))
    for _ in range(100):
        bench.sink.sends = [fails(Busy("busy", where="x", after=1e9))]
        wait = bench.delivery.step()
        assert wait is not None
        assert 0 < wait <= LIMITS.pause
        bench.clock.sleep(wait)


def test_a_batch_too_large_is_halved() -> None:
    """Down to one entry; one that is too large alone stops with its number."""
    bench = Bench(Lines.of(4))
    bench.sink.sends = [fails(TooLarge("413"))]
    assert bench.drive()
    assert [len(batch) for batch in bench.sink.batches] == [1, 1, 1, 1]
    bench = Bench(Lines.of(4))
    bench.sink.sends = [fails(TooLarge("413"))] * 2
    with pytest.raises(Refused, match="entry 0 alone"):
        bench.drive()


def test_a_refusal_ends_it() -> None:
    """What a retry cannot cure is raised, with nothing marked as delivered."""
    bench = Bench(Lines.of(4))
    bench.sink.sends = [fails(Inconclusive("no acknowledgements"))]
    with pytest.raises(Inconclusive):
        bench.drive()
    assert bench.cursor.saved == []


def test_a_wrong_entry_stops_what_follows_and_not_what_comes_before() -> None:
    """Entries before the wrong one are delivered and acknowledged; then it is said (11)."""
    ledger = Lines.of(8)
    ledger.wrong = 5
    bench = Bench(ledger)
    with pytest.raises(VerificationFailed, match="entry 5"):
        bench.drive()
    assert bench.cursor.position == ledger.entries[4].position
    assert bench.sink.everything == [item.data for item in ledger.entries[:5]]


def test_a_gap_in_the_ledger_is_wrong() -> None:
    """An entry that does not follow by one is not sent."""
    ledger = Lines.of(8)
    del ledger.entries[4]
    bench = Bench(ledger)
    with pytest.raises(VerificationFailed, match="entry 5 follows entry 3"):
        bench.drive()
    assert bench.cursor.position == event(3).position


@pytest.mark.parametrize("position", [Position(3, "f" * 64), Position(99, event(3).id)])
def test_aud_01_a_ledger_that_was_cut_or_replaced_is_noticed(position: Position) -> None:
    """The entry delivered last must still be in the ledger, unchanged."""
    bench = Bench(Lines.of(8), Memory(position))
    with pytest.raises(VerificationFailed, match="cut or replaced") as caught:
        bench.drive()
    assert caught.value.hint is not None
    assert bench.sink.batches == []


def test_from_a_number_on_everything_is_sent_again() -> None:
    """``begin`` ignores the cursor, also a wrong one."""
    bench = Bench(Lines.of(8), Memory(Position(3, "f" * 64)), begin=6)
    assert bench.drive()
    assert bench.sink.everything == [event(6).data, event(7).data]


def test_entries_added_meanwhile_are_seen_when_looked_for() -> None:
    """The end is the end until someone looks again."""
    bench = Bench(Lines.of(2))
    assert bench.drive()
    bench.ledger.add(2)
    assert bench.delivery.step() is None
    bench.delivery.look_again()
    assert bench.drive()
    assert bench.cursor.position == bench.ledger.entries[3].position


def test_it_can_be_stopped() -> None:
    """Between two steps, at once."""
    bench = Bench(Lines.of(2))
    assert not drive(
        bench.delivery, now=bench.clock.monotonic, sleep=bench.clock.sleep, until=1e9,
        stopped=lambda: True,
    )  # fmt: skip
    assert bench.sink.batches == []


def test_an_entry_too_large_becomes_a_note() -> None:
    """It is not cut: number, id, size and digest are sent in its place, and it says so."""
    large = event(1, filler=1000)
    assert within(event(1), 1000) == event(1)
    note = within(large, 1000)
    assert note.whole is False
    assert note.id == large.id
    assert len(note.data) < 1000
    assert b'"bytes":1019' in note.data


class Unsure:
    """An acceptor whose health is a list of answers."""

    def __init__(self, *health: bool) -> None:
        self.health = list(health)
        self.taken: list[bytes] = []

    def encode(self, item: LedgerEvent) -> bytes:
        return item.data

    def accept(self, parts: Sequence[bytes]) -> None:
        self.taken += parts

    def alive(self) -> None:
        if self.health and not self.health.pop(0):
            raise Unavailable("its queues are full", where="x")


def confirming(acceptor: Unsure, seconds: float) -> tuple[bool, Memory]:
    clock, memory = HandClock(), Memory()
    sink = Confirming(acceptor, 20.0, clock.monotonic)
    delivery = Delivery(
        Lines.of(2), sink, memory, now=clock.monotonic, jitter=lambda: 1.0, limits=LIMITS
    )
    return drive(delivery, now=clock.monotonic, sleep=clock.sleep, until=seconds), memory


def test_aud_08_without_acknowledgements_a_window_must_pass() -> None:
    """What was taken counts only after the window."""
    done, memory = confirming(Unsure(), 19.0)
    assert not done
    assert memory.saved == []
    done, memory = confirming(Unsure(), 60.0)
    assert done
    assert memory.position == event(1).position


def test_a_failure_within_the_window_makes_it_doubtful() -> None:
    """Once unhealthy, everything that is not confirmed is sent again."""
    acceptor = Unsure(True, True, False)
    done, _ = confirming(acceptor, 200.0)
    assert done
    assert acceptor.taken == [event(0).data, event(1).data] * 2
