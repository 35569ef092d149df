"""What every destination of the ledger's entries keeps to, each over real connections."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fakes import faultproxy as fault
from fakes.authority import make_authority
from fakes.faultproxy import fault_proxy
from fakes.ledgerlines import HandClock, Lines, Memory, event
from fakes.splunkcollector import TOKEN, Collector, Token, serving
from fakes.syslogreceiver import receiving
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.http import Transport
from secure_pipeline.adapters.httpsink import HttpAcceptor, HttpAddress, HttpClient, HttpSink
from secure_pipeline.adapters.splunk import (
    LIMITS,
    SplunkAcceptor,
    SplunkAddress,
    SplunkClient,
    SplunkSink,
)
from secure_pipeline.adapters.syslog import SyslogAddress, SyslogReceiver
from secure_pipeline.audit.delivery import Delivery, DeliveryLimits, drive
from secure_pipeline.audit.sink import Confirming, Sink
from secure_pipeline.errors import Unavailable

Stored = Callable[[], list[tuple[str, int, str]]]
"""What the destination has: (id, sequence number, the entry's text), in order."""


@dataclass
class Place:
    """A destination that runs, what it has, and a second sink to one that does not run."""

    sink: Sink
    stored: Stored
    clock: HandClock
    nowhere: Sink


def confirming(acceptor, clock: HandClock) -> Confirming:
    return Confirming(acceptor, window=10.0, now=clock.monotonic)


@contextmanager
def splunk(directory: Path, *, acks: bool = True) -> Iterator[Place]:
    authority, clock = make_authority(directory), HandClock()
    collector = Collector(clock.monotonic, {TOKEN: Token(acknowledges=acks)}, delay=2.0)
    transport = Transport(SystemClock(), ca=authority.ca, limits=LIMITS)

    def make(base: str) -> Sink:
        client = SplunkClient(SplunkAddress(base, TOKEN), transport)
        return SplunkSink(client) if acks else confirming(SplunkAcceptor(client), clock)

    def stored() -> list[tuple[str, int, str]]:
        return [
            (item["fields"]["entry_id"], int(item["fields"]["sequence"]), item["event"])
            for item in collector.indexed
        ]

    with serving(collector, authority) as base:
        yield Place(make(base), stored, clock, make("https://127.0.0.1:1"))


@contextmanager
def http(directory: Path, *, acks: bool = True) -> Iterator[Place]:
    clock = HandClock()

    def make(url: str) -> Sink:
        client = HttpClient(HttpAddress(url, "secret"), Transport(SystemClock(), limits=LIMITS))
        return HttpSink(client) if acks else confirming(HttpAcceptor(client), clock)

    with fault_proxy() as proxy:
        proxy.on("POST", "/entries", fault.answer(200 if acks else 202))
        proxy.on("HEAD", "/entries", fault.answer(405))

        def stored() -> list[tuple[str, int, str]]:
            body = b"".join(seen.body for seen in proxy.requests("POST"))
            lines = [json.loads(line) for line in body.splitlines()]
            return [(item["entry_id"], item["sequence"], item["event"]) for item in lines]

        yield Place(
            make(f"http://{proxy.host}/entries"), stored, clock, make("http://127.0.0.1:1/entries")
        )


@contextmanager
def syslog(directory: Path, *, tls: bool = True) -> Iterator[Place]:
    authority, clock = make_authority(directory), HandClock()

    def make(port: int) -> Sink:
        address = SyslogAddress("127.0.0.1", port, tls, authority.ca if tls else None, "builder-1")
        return confirming(SyslogReceiver(address, SystemClock(), 10.0), clock)

    with receiving(authority if tls else None) as receiver:

        def stored() -> list[tuple[str, int, str]]:
            assert receiver.broken == []
            return [(item["id"], int(item["seq"]), item["text"]) for item in receiver.messages]

        yield Place(make(receiver.port), stored, clock, make(1))


KINDS = {
    "splunk": splunk,
    "splunk without acknowledgements": lambda path: splunk(path, acks=False),
    "http": http,
    "http that only accepts": lambda path: http(path, acks=False),
    "syslog over TLS": syslog,
    "syslog": lambda path: syslog(path, tls=False),
}


@pytest.fixture(params=list(KINDS))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with KINDS[request.param](tmp_path) as made:
        yield made


def wait_until(place: Place, ticket: object) -> None:
    for _ in range(20):
        if ticket in place.sink.settled([ticket]):
            return
        place.clock.sleep(1.0)
    raise AssertionError("never acknowledged")


def test_a_batch_arrives_as_it_is(place: Place) -> None:
    """Ids, numbers and the entries' exact bytes, in order, once it is acknowledged."""
    parts = [place.sink.encode(event(number, filler=number * 40)) for number in range(50)]
    wait_until(place, place.sink.send(parts))
    assert place.stored() == [
        (item.id, item.sequence, item.data.decode())
        for item in (event(number, filler=number * 40) for number in range(50))
    ]


def test_any_text_arrives(place: Place) -> None:
    """What would end a line, a frame or a string elsewhere does not here."""
    texts = ['{"a":"\\n] \\"}\\\\"}', '{"b":"<109>1 - 12 x"}', '{"c":"é\u2028"}']
    odd = [replace(event(number), data=text.encode()) for number, text in enumerate(texts)]
    wait_until(place, place.sink.send([place.sink.encode(item) for item in odd]))
    assert [text for _, _, text in place.stored()] == texts


def test_large_entries_arrive_as_notes(place: Place) -> None:
    """No destination cuts an entry: it gets a note with number, id and digest instead."""
    large = event(7, filler=70_000)
    wait_until(place, place.sink.send([place.sink.encode(large)]))
    ((found, number, text),) = place.stored()
    assert (found, number) == (large.id, 7)
    assert json.loads(text)["sha256"] == large.id


def test_nothing_is_settled_that_was_not_sent(place: Place) -> None:
    """No ticket, nothing acknowledged; and giving up is always possible."""
    assert place.sink.settled([]) == frozenset()
    place.sink.renew()
    place.sink.renew()


def test_who_does_not_answer_is_unavailable(place: Place) -> None:
    """A destination that does not run is an error of the kind that is tried again."""
    parts = [place.nowhere.encode(event(0))]
    with pytest.raises(Unavailable):
        place.nowhere.send(parts)


def test_a_whole_ledger_is_delivered(place: Place) -> None:
    """Through delivery: everything acknowledged, once and in order."""
    ledger, memory = Lines.of(500), Memory()
    delivery = Delivery(
        ledger, place.sink, memory, now=place.clock.monotonic, jitter=lambda: 0.5,
        limits=DeliveryLimits(events=70),
    )  # fmt: skip
    now, sleep = place.clock.monotonic, place.clock.sleep
    assert drive(delivery, now=now, sleep=sleep, until=100.0)
    assert [number for _, number, _ in place.stored()] == list(range(500))
    assert memory.position == ledger.entries[-1].position
