"""The plain HTTP collector's adapter: what each status means."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fakes import faultproxy as fault
from fakes.faultproxy import FaultProxy, fault_proxy
from fakes.ledgerlines import event
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.http import Transport
from secure_pipeline.adapters.httpsink import HttpAcceptor, HttpAddress, HttpClient, HttpSink
from secure_pipeline.adapters.splunk import LIMITS
from secure_pipeline.audit.sink import Busy, Refused, TooLarge
from secure_pipeline.errors import ConfigError, Inconclusive, PipelineError, Unavailable

SECRET = "only-for-tests"


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with fault_proxy() as proxy:
        yield proxy


def client(proxy: FaultProxy) -> HttpClient:
    address = HttpAddress(f"http://{proxy.host}/in?key=hidden", SECRET)
    return HttpClient(address, Transport(SystemClock(), limits=LIMITS))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (202, Inconclusive),
        (206, Inconclusive),
        (302, Refused),
        (400, Inconclusive),
        (401, Refused),
        (403, Refused),
        (404, Refused),
        (408, Unavailable),
        (413, TooLarge),
        (429, Busy),
        (500, Unavailable),
        (503, Busy),
    ],
)
def test_what_is_not_stored_is_an_error(
    proxy: FaultProxy, status: int, error: type[PipelineError]
) -> None:
    """Only 200, 201 and 204 acknowledge; no error shows the token or the query."""
    echo = SECRET.encode()
    proxy.on("POST", "/in", fault.answer(status, echo, Location="http://127.0.0.1:1/"))
    sink = HttpSink(client(proxy))
    with pytest.raises(error) as caught:
        sink.send([sink.encode(event(0))])
    assert type(caught.value) is error
    shown = f"{caught.value!r} {caught.value} {caught.value.hint} {caught.value.where}"
    assert SECRET not in shown
    assert "hidden" not in shown
    assert proxy.seen[0].headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("status", [200, 201, 204])
def test_what_is_stored_is_acknowledged(proxy: FaultProxy, status: int) -> None:
    """The answer is the acknowledgement."""
    proxy.on("POST", "/in", fault.answer(status))
    sink = HttpSink(client(proxy))
    ticket = sink.send([sink.encode(event(0))])
    assert sink.settled([ticket]) == {ticket}


def test_a_busy_one_says_for_how_long(proxy: FaultProxy) -> None:
    """Retry-After in seconds is handed on."""
    proxy.on("POST", "/in", fault.answer(503, Retry_After="17"))
    sink = HttpSink(client(proxy))
    with pytest.raises(Busy) as caught:
        sink.send([sink.encode(event(0))])
    assert caught.value.after == 17.0


def test_health_without_acknowledgements(proxy: FaultProxy) -> None:
    """A success, or an address that knows only POST, is a sign of life; nothing else is."""
    for status in (204, 404, 405, 502, 403, 302):
        proxy.on("HEAD", "/in", fault.answer(status, Location="http://127.0.0.1:1/"), times=1)
    acceptor = HttpAcceptor(client(proxy))
    for _ in range(3):
        acceptor.alive()
    for status in ("502", "403", "302"):
        with pytest.raises(Unavailable, match=status):
            acceptor.alive()


def test_aud_11_only_https_but_on_this_machine() -> None:
    """Entries and token do not cross a network in the clear."""
    with pytest.raises(Unavailable, match="plain http"):
        HttpClient(HttpAddress("http://log.example/in"), Transport(SystemClock()))


def test_what_is_no_token_is_refused() -> None:
    """A token cannot add a header."""
    with pytest.raises(ConfigError):
        HttpAddress("https://log.example/in", "a\r\nX-Other: b")
