"""The collector's adapter: what is sent, what the answers mean, who sees the token."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import faultproxy as fault
from fakes.authority import make_authority
from fakes.faultproxy import FaultProxy, fault_proxy
from fakes.ledgerlines import ORIGIN, HandClock, Lines, Memory, event
from fakes.splunkcollector import TOKEN, Collector, Direct, Token, serving
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.http import Transport
from secure_pipeline.adapters.splunk import (
    LIMITS,
    MAX_EVENT,
    SplunkAcceptor,
    SplunkAddress,
    SplunkClient,
    SplunkSink,
)
from secure_pipeline.audit.delivery import Delivery, drive
from secure_pipeline.audit.sink import Busy, Lost, Refused, TooLarge
from secure_pipeline.errors import (
    ConfigError,
    Inconclusive,
    PipelineError,
    Unavailable,
)

BASE = "http://127.0.0.1:8088"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def collector(clock: HandClock) -> Collector:
    return Collector(clock.monotonic)


def client(
    collector: Collector, clock: HandClock, token: str = TOKEN, index: str | None = None
) -> SplunkClient:
    address = SplunkAddress(BASE, token, index, "builder-1")
    return SplunkClient(address, Direct(collector, clock))


def impatient(base: str, ca: Path | None = None) -> SplunkClient:
    transport = Transport(SystemClock(), ca=ca, limits=replace(LIMITS, total=5.0))
    return SplunkClient(SplunkAddress(base, TOKEN), transport)


def sent(sink: SplunkSink, count: int = 2) -> list[bytes]:
    return [sink.encode(event(number)) for number in range(count)]


def test_an_event_has_the_documented_form(collector: Collector, clock: HandClock) -> None:
    """Time with milliseconds, flat fields of text, and the entry's exact bytes as a string."""
    sink = SplunkSink(client(collector, clock, index="main"))
    sink.send(sent(sink))
    first, second = collector.indexed
    assert second == {
        "time": 1748779200.125,
        "host": "builder-1",
        "source": "secure-pipeline",
        "sourcetype": "secure-pipeline:ledger",
        "index": "main",
        "event": event(1).data.decode(),
        "fields": {
            "entry_id": event(1).id,
            "ledger": ORIGIN,
            "sequence": "1",
            "whole": "true",
        },
    }
    assert first["fields"]["sequence"] == "0"
    body = collector.seen[0].body
    assert body.startswith(b'{"time":1748779200.000,')  # no powers of ten
    assert b"[" not in body  # concatenated, no array


def test_an_entry_too_large_is_sent_as_a_note(collector: Collector, clock: HandClock) -> None:
    """It keeps its number and id, says that it is not whole, and has the digest."""
    sink = SplunkSink(client(collector, clock))
    large = event(0, filler=MAX_EVENT)
    sink.send([sink.encode(large)])
    (found,) = collector.indexed
    assert found["fields"]["whole"] == "false"
    assert found["fields"]["entry_id"] == large.id
    assert json.loads(found["event"])["sha256"] == large.id


def test_aud_08_a_number_is_acknowledged_once_it_is_indexed(
    collector: Collector, clock: HandClock
) -> None:
    """A 200 settles nothing; the acknowledgement does, and only for what was asked."""
    collector.delay = 5.0
    sink = SplunkSink(client(collector, clock))
    first = sink.send(sent(sink))
    clock.sleep(2)
    second = sink.send(sent(sink))
    assert sink.settled([first, second]) == frozenset()
    clock.sleep(4)
    assert sink.settled([first, second]) == {first}
    assert sink.settled([first]) == frozenset()  # it is told once


def test_aud_08_numbers_that_begin_again_are_no_acknowledgement(
    collector: Collector, clock: HandClock
) -> None:
    """After a crash another batch gets the number of one that was lost: everything is doubtful."""
    collector.delay = 5.0
    sink = SplunkSink(client(collector, clock))
    sink.send(sent(sink))
    collector.restart()
    with pytest.raises(Lost, match="began again"):
        sink.send(sent(sink))


def test_a_new_channel_each_time(collector: Collector, clock: HandClock) -> None:
    """A channel is a GUID, and is left for good when its state is not known."""
    sink = SplunkSink(client(collector, clock))
    sink.send(sent(sink))
    sink.renew()
    sink.send(sent(sink))
    assert len(collector.channels) == 2
    assert [item.given for item in collector.channels.values()] == [1, 1]


def test_aud_08_a_token_without_acknowledgement_is_refused(
    collector: Collector, clock: HandClock
) -> None:
    """What cannot be acknowledged is not delivered, unless the operator says so."""
    collector.tokens[TOKEN] = Token(acknowledges=False)
    sink = SplunkSink(client(collector, clock))
    with pytest.raises(Inconclusive, match="will not acknowledge") as caught:
        sink.send(sent(sink))
    assert "--without-ack" in str(caught.value.hint)
    with pytest.raises(Inconclusive, match="code 14"):
        sink.settled([0])


def test_without_acknowledgements_when_told_to(collector: Collector, clock: HandClock) -> None:
    """Then a 200 is all there is; a token that does acknowledge is used that way."""
    acceptor = SplunkAcceptor(client(collector, clock))
    with pytest.raises(ConfigError, match="acknowledges"):
        acceptor.accept([acceptor.encode(event(0))])
    collector.tokens[TOKEN] = Token(acknowledges=False)
    acceptor.accept([acceptor.encode(event(0))])
    assert len(collector.indexed) == 1
    acceptor.alive()
    collector.healthy = False
    with pytest.raises(Unavailable, match="queues are full"):
        acceptor.alive()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"token": "F" * 20}, Refused, "not known there .status 403, code 4"),
        ({"disabled": True}, Refused, "disabled .status 403, code 1"),
        ({"index": "secret"}, ConfigError, "may not write to this index"),
        ({"fault": "busy"}, Busy, "busy .status 503, code 9"),
        ({"fault": "error"}, Unavailable, "internal error .status 500, code 8"),
        ({"fault": "too large"}, TooLarge, "status 413"),
        ({"fault": "redirect"}, Refused, "redirects .status 307., which is not followed"),
        ({"fault": "not ours"}, Unavailable, "code -1"),
        ({"fault": "cut"}, Unavailable, "no answer"),
        ({"parts": [b""]}, Inconclusive, "no data .status 400, code 5"),
        ({"parts": [b"{}"]}, Inconclusive, "code 12., at event 0"),
        ({"parts": [b'{"event":"x"}', b"{"]}, Inconclusive, "code 6., at event 1"),
        ({"parts": [b'{"event":""}']}, Inconclusive, "code 13"),
        ({"parts": [b'{"event":"x","time":"soon"}']}, Inconclusive, "code 15"),
        ({"parts": [b'{"event":"x","fields":{"a":1}}']}, Inconclusive, "code 15"),
    ],
)
def test_every_code_has_its_meaning(
    collector: Collector, clock: HandClock, change: dict, error: type[PipelineError], words: str
) -> None:
    """What can be waited for, what needs a person, and what is not known are told apart."""
    collector.tokens[TOKEN].disabled = change.get("disabled", False)
    collector.fault = lambda request: change.get("fault")
    sink = SplunkSink(client(collector, clock, change.get("token", TOKEN), change.get("index")))
    with pytest.raises(error, match=words) as caught:
        sink.send(change.get("parts") or sent(sink))
    assert type(caught.value) is error or error is Unavailable


def test_a_channel_that_is_gone_is_lost(collector: Collector, clock: HandClock) -> None:
    """Missing (10) and unknown (11) channels mean that nobody remembers what was sent."""
    collector.forgets_loudly = True
    sink = SplunkSink(client(collector, clock))
    ticket = sink.send(sent(sink))
    collector.restart()
    with pytest.raises(Lost, match="code 11"):
        sink.settled([ticket])


@given(st.one_of(st.binary(max_size=60), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["acks", "ackId", "code", "0", "text"]), inner, max_size=4),
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_no_answer_is_a_crash_or_a_false_acknowledgement(body: bytes) -> None:
    """Whatever a 200 holds: a number, or an error of ours; only ``true`` acknowledges."""
    clock = HandClock()
    collector = Collector(clock.monotonic)
    direct = Direct(collector, clock)
    sink = SplunkSink(SplunkClient(SplunkAddress(BASE, TOKEN), direct))
    ticket = sink.send([sink.encode(event(0))])

    class Odd:
        status = 200
        body = b""

    odd = Odd()
    odd.body = body
    collector.handle = lambda request: odd  # type: ignore[method-assign,assignment,return-value]
    try:
        settled = sink.settled([ticket])
    except (Unavailable, Inconclusive):
        pass
    else:
        assert (ticket in settled) == (json.loads(body)["acks"].get("0") is True)
    with contextlib.suppress(PipelineError):
        assert isinstance(sink.send([sink.encode(event(1))]), int)


# --- over real sockets ------------------------------------------------------------------


def test_over_http_on_this_machine(clock: HandClock) -> None:
    """The same over a real connection, from the first entry to the last acknowledgement."""
    collector = Collector(SystemClock().monotonic)
    ledger, memory, now = Lines.of(450), Memory(), SystemClock().monotonic
    with serving(collector) as base:
        sink = SplunkSink(impatient(base))
        delivery = Delivery(ledger, sink, memory, now=now, jitter=lambda: 0.0)
        assert drive(delivery, now=now, sleep=_nap, until=now() + 60)
    assert [item["event"] for item in collector.indexed] == [
        item.data.decode() for item in ledger.entries
    ]
    assert memory.position == ledger.entries[-1].position


def _nap(seconds: float) -> None:
    threading.Event().wait(min(seconds, 0.2))


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with fault_proxy() as proxy:
        yield proxy


def test_aud_11_only_https_but_on_this_machine() -> None:
    """A token never goes over plain http to another machine."""
    with pytest.raises(Unavailable, match="plain http"):
        impatient("http://splunk.example:8088")


def test_aud_11_an_unknown_authority_sees_no_token(tmp_path: Path) -> None:
    """Without its authority the collector is not spoken to; with it, it is."""
    authority = make_authority(tmp_path)
    collector = Collector(SystemClock().monotonic)
    with serving(collector, authority) as base:
        sink = SplunkSink(impatient(base))
        with pytest.raises(Unavailable, match="not trusted"):
            sink.send(sent(sink))
        assert collector.seen == []
        sink = SplunkSink(impatient(base, authority.ca))
        sink.send(sent(sink))
    assert collector.seen[0].headers["authorization"] == f"Splunk {TOKEN}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_aud_11_a_redirect_is_never_followed(proxy: FaultProxy, status: int) -> None:
    """Neither token nor entries go elsewhere, whatever the status says (VLT-01)."""
    with fault_proxy() as elsewhere:
        proxy.on("POST", "/services", fault.answer(status, Location=f"http://{elsewhere.host}/x"))
        proxy.on("GET", "/services", fault.answer(status, Location=f"http://{elsewhere.host}/x"))
        speaker = impatient(f"http://{proxy.host}")
        sink = SplunkSink(speaker)
        with pytest.raises(Refused, match="not followed"):
            sink.send(sent(sink))
        with pytest.raises(Refused, match="not followed"):
            sink.settled([0])
        with pytest.raises(Unavailable):
            SplunkAcceptor(speaker).alive()
        assert elsewhere.seen == []


def test_aud_11_an_error_shows_no_token(proxy: FaultProxy) -> None:
    """Not even where a service sends back what it was given, or the address holds secrets."""
    echo = f'{{"text":"bad token {TOKEN}","code":4}}'.encode()
    proxy.on("POST", "/services", fault.answer(403, echo))
    address = SplunkAddress(f"http://{proxy.host}", TOKEN)
    assert TOKEN not in repr(address)
    sink = SplunkSink(SplunkClient(address, Transport(SystemClock())))
    with pytest.raises(Refused) as caught:
        sink.send(sent(sink))
    assert TOKEN not in f"{caught.value!r} {caught.value} {caught.value.hint}"
    assert TOKEN not in repr(vars(sink))


def test_the_health_is_asked_without_the_token(proxy: FaultProxy) -> None:
    """Nothing that needs no token gets it."""
    proxy.on("GET", "/services/collector/health", fault.answer(200, b'{"code":17}'))
    impatient(f"http://{proxy.host}").alive()
    assert "authorization" not in proxy.seen[0].headers


@pytest.mark.parametrize("token", ["", "short", "two words here", "line\nline12345", "x" * 201])
def test_what_is_no_token_is_not_sent(token: str) -> None:
    """A token is one word of printable characters; an error does not show it."""
    with pytest.raises(ConfigError) as caught:
        SplunkAddress(BASE, token)
    assert not token or token not in str(caught.value)
