"""Delivery under random schedules of faults, on a simulated clock, with the real adapter."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.ledgerlines import HandClock, Lines, Memory
from fakes.splunkcollector import TOKEN, Collector, Direct, Request
from secure_pipeline.adapters.splunk import (
    SplunkAcceptor,
    SplunkAddress,
    SplunkClient,
    SplunkSink,
)
from secure_pipeline.audit.delivery import Delivery, DeliveryLimits
from secure_pipeline.audit.sink import Confirming, Sink
from secure_pipeline.audit.spool import Position
from secure_pipeline.errors import Unavailable

BASE = "http://127.0.0.1:8088"
LIMITS = DeliveryLimits(events=3, bytes=1500, window=3, acknowledge=20.0, poll=4.0, pause=8.0)
REQUESTS = (None, None, None, "busy", "error", "cut", "cut after", "not ours", "killed", "dies")
"""What happens to one request; 'killed': the shipper ends before it, 'dies': after it."""
MOMENTS = ("step", "step", "step", "grow", "restart", "stuck", "free", "kill", "disk", "unhealthy",
           "slow", "fast")  # fmt: skip


class Killed(BaseException):
    """kill -9 of the shipper."""


class Mortal(Direct):
    """A client whose process may be killed before a request, or before its answer is seen."""

    def __init__(self, collector: Collector, clock: HandClock, faults: Sequence[Any]) -> None:
        super().__init__(collector, clock)
        self.faults = list(faults)
        collector.fault = self._fault
        self._next: str | None = None

    def _fault(self, request: Request) -> str | None:
        return self._next

    def request(self, method: str, url: str, **more: Any) -> Any:
        self._next = self.faults.pop() if self.faults else None
        if self._next == "killed":
            raise Killed
        answer = super().request(method, url, **more)
        if self._next == "dies":
            raise Killed
        return answer


@dataclass
class Disk(Memory):
    """A cursor on a disk that may be full; a write that failed may still have happened."""

    full: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def save(self, position: Position) -> None:
        if self.full:
            self.full -= 1
            if self.chance.random() < 0.3:
                super().save(position)
            raise Unavailable("cannot write: No space left on device")
        super().save(position)


class World:
    """A ledger, a collector, and whoever ships at the moment."""

    def __init__(self, faults: Sequence[Any], *, delay: float, loud: bool, acks: bool) -> None:
        self.clock = HandClock()
        self.ledger = Lines.of(5, filler=100)
        self.collector = Collector(self.clock.monotonic, delay=delay, forgets_loudly=loud)
        self.collector.tokens[TOKEN].acknowledges = acks
        self.transport = Mortal(self.collector, self.clock, faults)
        self.acks = acks
        self.cursor = Disk()
        self.delivery = self.start()

    def start(self) -> Delivery:
        client = SplunkClient(SplunkAddress(BASE, TOKEN), self.transport)
        now = self.clock.monotonic
        sink: Sink = SplunkSink(client)
        if not self.acks:
            sink = Confirming(SplunkAcceptor(client), window=6.0, now=now)
        return Delivery(self.ledger, sink, self.cursor, now=now, jitter=lambda: 0.5, limits=LIMITS)

    def happen(self, moment: str) -> None:
        if moment == "grow":
            self.ledger.add(2)
            self.delivery.look_again()
        elif moment == "restart":
            self.collector.restart()
        elif moment in ("stuck", "free"):
            self.collector.stuck = moment == "stuck"
        elif moment == "unhealthy":
            self.collector.healthy = not self.collector.healthy
        elif moment in ("slow", "fast"):
            self.collector.delay = 12.0 if moment == "slow" else 0.0
        elif moment == "disk":
            self.cursor.full = 2
        elif moment == "kill":
            self.delivery = self.start()
        self.step()

    def step(self) -> bool:
        """One step and the wait after it; True once there is nothing left."""
        try:
            wait = self.delivery.step()
        except (Killed, Unavailable):
            self.delivery = self.start()
            wait = 0.1
        self.check()
        if wait is None:
            return True
        assert wait >= 0
        self.clock.sleep(min(wait, 30.0))
        return False

    def check(self) -> None:
        """The cursor never passes an entry that is not indexed; what is indexed is true."""
        held = self.collector.entries()
        done = self.cursor.position.sequence + 1 if self.cursor.position else 0
        missing = [item.sequence for item in self.ledger.entries[:done] if item.id not in held]
        assert self.acks is False or missing == []
        written = {item.id: item.data.decode() for item in self.ledger.entries}
        assert all(set(texts) == {written[name]} for name, texts in held.items())

    def settle(self) -> None:
        """Nothing goes wrong any more: it ends within bounds, and everything is there."""
        self.transport.faults.clear()
        self.collector.stuck, self.collector.healthy, self.cursor.full = False, True, 0
        self.delivery.look_again()
        assert any(self.step() for _ in range(2000))
        assert len(self.collector.entries()) >= len(self.ledger.entries) * self.acks
        assert self.cursor.position == self.ledger.entries[-1].position


@settings(max_examples=1000)
@given(
    faults=st.lists(st.sampled_from(REQUESTS), max_size=40),
    moments=st.lists(st.sampled_from(MOMENTS), max_size=40),
    delay=st.sampled_from([0.0, 1.0, 15.0]),
    loud=st.booleans(),
)
def test_aud_08_whatever_fails_every_entry_is_indexed_and_the_cursor_never_ahead(
    faults, moments, delay, loud
):
    """No entry is lost, none counts as delivered before it is indexed, and delivery ends.

    Whatever is busy, cut, lost, killed or full, in any order.
    """
    world = World(faults, delay=delay, loud=loud, acks=True)
    for moment in moments:
        world.happen(moment)
    world.settle()


@settings(max_examples=100)
@given(
    faults=st.lists(st.sampled_from(REQUESTS), max_size=40),
    moments=st.lists(st.sampled_from([m for m in MOMENTS if m != "restart"]), max_size=40),
)
def test_without_acknowledgements_an_end_is_reached(faults, moments):
    """Where a token gives none, delivery still ends, after the window of confirmation."""
    world = World(faults, delay=1.0, loud=False, acks=False)
    for moment in moments:
        world.happen(moment)
    world.settle()


@pytest.mark.parametrize("seed", range(20))
def test_aud_09_a_collector_that_crashes_all_the_time(seed):
    """Numbers that a crashed collector gives twice acknowledge nothing.

    Duplicates have the same id and the same bytes.
    """
    chance = random.Random(seed)
    world = World([], delay=3.0, loud=False, acks=True)
    for _ in range(120):
        world.happen(chance.choice(("grow", "step", "step", "restart")))
        world.transport.faults = ["cut after"] if chance.random() < 0.2 else []
    world.settle()
