"""The HTTP client against a server on loopback that does wrong on purpose."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import faultproxy as fault
from fakes.faultproxy import FaultProxy, fault_proxy
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.http import (
    Cut,
    Grant,
    HttpLimits,
    Late,
    Origin,
    Transport,
    is_loopback,
    shown,
)
from secure_pipeline.errors import ConfigError, Inconclusive, Unavailable

SECRET = "Bearer only-for-tests"
START = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)


class HandClock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with fault_proxy() as proxy:
        yield proxy


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def transport(clock: HandClock) -> Transport:
    return Transport(clock, sleep=clock.sleep, jitter=lambda: 1.0)


def impatient(seconds: float = 1.0, silence: float = 30.0) -> Transport:
    """Real time, little of it."""
    return Transport(SystemClock(), limits=HttpLimits(total=seconds, silence=silence))


def url(proxy: FaultProxy, path: str = "/x") -> str:
    return f"http://{proxy.host}{path}"


def test_a_body_comes_as_it_was_sent(proxy: FaultProxy, transport: Transport) -> None:
    """Nothing is decoded, whatever Content-Encoding says: digests are over what is sent."""
    proxy.on("GET", "/x", fault.answer(200, b"\x1f\x8bnot gzip", Content_Encoding="gzip"))
    with transport.request("GET", url(proxy)) as answer:
        assert answer.read(100) == b"\x1f\x8bnot gzip"
    assert proxy.seen[0].headers["accept-encoding"] == "identity"


def test_connections_are_used_again(proxy: FaultProxy, transport: Transport) -> None:
    """Answers that are read or small give their connection back."""
    for _ in range(5):
        with transport.request("GET", url(proxy)) as answer:
            assert answer.status == 404
        with transport.request("PUT", url(proxy), body=b"data") as answer:
            assert answer.status == 404
    pools = transport._adapter.poolmanager.pools
    made = [pools[key].num_connections for key in pools.keys()]  # noqa: SIM118
    assert made == [1]


def test_a_busy_service_is_asked_again(
    proxy: FaultProxy, transport: Transport, clock: HandClock
) -> None:
    """429 and 5xx are repeated after growing waits, at least as long as Retry-After says."""
    proxy.on("GET", "/x", fault.answer(503), times=1)
    proxy.on("GET", "/x", fault.answer(429, Retry_After="7"), times=1)
    proxy.on("GET", "/x", fault.answer(500), times=1)
    proxy.on("GET", "/x", fault.cut, times=1)
    proxy.on("GET", "/x", fault.answer(200, b"at last"))
    with transport.request("GET", url(proxy)) as answer:
        assert answer.read(100) == b"at last"
    assert clock.slept == [0.25, 7.0, 1.0, 2.0]


def test_a_date_in_retry_after_is_honoured(
    proxy: FaultProxy, transport: Transport, clock: HandClock
) -> None:
    """Retry-After may be a date."""
    late = (START + timedelta(seconds=30)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    proxy.on("GET", "/x", fault.answer(429, Retry_After=late), times=1)
    proxy.on("GET", "/x", fault.answer(200))
    transport.request("GET", url(proxy)).close()
    assert clock.slept == [30.0]


def test_waiting_past_the_deadline_is_not_begun(
    proxy: FaultProxy, transport: Transport, clock: HandClock
) -> None:
    """A service that asks for more time than there is gets no second request."""
    proxy.on("GET", "/x", fault.answer(429, Retry_After="3600"))
    with transport.request("GET", url(proxy)) as answer:
        assert answer.status == 429
    assert clock.slept == []
    assert len(proxy.seen) == 1


def test_tries_are_bounded(proxy: FaultProxy, transport: Transport) -> None:
    """A service that stays busy, or keeps closing the connection, is given up."""
    proxy.on("GET", "/busy", fault.answer(502))
    proxy.on("GET", "/cut", fault.cut)
    with transport.request("GET", url(proxy, "/busy")) as answer:
        assert answer.status == 502
    with pytest.raises(Cut):
        transport.request("GET", url(proxy, "/cut"))
    assert len(proxy.requests("GET", "/busy")) == len(proxy.requests("GET", "/cut")) == 6


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_may_do_harm_is_not_repeated(
    proxy: FaultProxy, transport: Transport, method: str
) -> None:
    """Only calls that the caller knows to be idempotent are sent twice."""
    proxy.on(method, "/busy", fault.answer(503))
    proxy.on(method, "/cut", fault.cut)
    transport.request(method, url(proxy, "/busy"), body=b"x").close()
    with pytest.raises(Cut):
        transport.request(method, url(proxy, "/cut"), body=b"x")
    assert len(proxy.seen) == 2
    transport.request(method, url(proxy, "/busy"), body=b"x", retry=True).close()
    assert len(proxy.requests(method, "/busy")) == 1 + 6
    assert {item.body for item in proxy.seen} == {b"x"}


def test_a_refused_connection_is_unavailable(transport: Transport) -> None:
    """Nobody listening is said with address and reason."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with pytest.raises(Unavailable, match="Connection refused") as caught:
        transport.request("GET", f"http://127.0.0.1:{port}/x?token=secret")
    assert caught.value.where == f"http://127.0.0.1:{port}/x"


@pytest.mark.parametrize("slow", [fault.drip, fault.drip_headers, fault.silent])
def test_reg_16_a_slow_service_meets_the_deadline(proxy: FaultProxy, slow: fault.Fault) -> None:
    """Bodies and headers that drip in, each byte in time, do not outlast the deadline."""
    proxy.on("GET", "/x", slow)
    with (
        pytest.raises(Late, match="deadline"),
        impatient().request("GET", url(proxy), retry=False) as answer,
    ):
        answer.read(1 << 20)


def test_reg_16_silence_is_noticed_before_the_deadline(proxy: FaultProxy) -> None:
    """A connection on which nothing comes is broken off and may be tried again."""
    proxy.on("GET", "/x", fault.silent, times=1)
    proxy.on("GET", "/x", fault.answer(200, b"second"))
    with impatient(60.0, silence=0.3).request("GET", url(proxy)) as answer:
        assert answer.read(100) == b"second"


def test_a_body_over_the_limit_is_not_begun(proxy: FaultProxy, transport: Transport) -> None:
    """A length over the limit is refused by the header alone; an endless body at the limit."""
    proxy.on("GET", "/big", fault.answer(200, bytes(200_000)))
    proxy.on("GET", "/endless", fault.endless)
    with (
        transport.request("GET", url(proxy, "/big")) as answer,
        pytest.raises(Inconclusive, match="200000 bytes; limit 1000"),
    ):
        answer.read(1000)
    with (
        transport.request("GET", url(proxy, "/endless")) as answer,
        pytest.raises(Inconclusive, match="over the limit"),
    ):
        answer.read(1 << 20)


def test_a_cut_body_is_not_taken_for_whole(proxy: FaultProxy, transport: Transport) -> None:
    """Fewer bytes than announced is an error."""
    proxy.on("GET", "/x", fault.answer(200, bytes(100_000)))
    with fault_proxy(proxy.host) as front:
        front.on("GET", "/x", fault.cut_body(70_000))
        with transport.request("GET", url(front)) as answer, pytest.raises(Cut):
            answer.read(1 << 20)


def test_reg_10_a_redirect_elsewhere_carries_no_credentials(
    proxy: FaultProxy, transport: Transport
) -> None:
    """Another port is another origin: Authorization stays behind, and comes back with us."""
    with fault_proxy() as other:
        proxy.on("GET", "/away", fault.answer(307, Location=url(other, "/back")))
        other.on("GET", "/back", fault.answer(302, Location=url(proxy, "/home")))
        proxy.on("GET", "/home", fault.answer(200, b"home"))
        grant = Grant(Origin.of(url(proxy)), SECRET)
        headers = {"Range": "bytes=5-"}
        with transport.request("GET", url(proxy, "/away"), grant=grant, headers=headers) as got:
            assert got.read(10) == b"home"
            assert got.url == url(proxy, "/home")
        assert "authorization" not in other.seen[0].headers
        assert [item.headers.get("authorization") for item in proxy.seen] == [SECRET, SECRET]
        assert {item.headers["range"] for item in (*proxy.seen, *other.seen)} == {"bytes=5-"}


def test_reg_10_a_grant_is_for_its_origin_only(proxy: FaultProxy, transport: Transport) -> None:
    """A request to another origin than the grant's goes without it, redirect or not."""
    for other in ("https://127.0.0.1:1", "http://127.0.0.1:1", "http://localhost:1"):
        transport.request("GET", url(proxy), grant=Grant(Origin.of(other), SECRET)).close()
    assert all("authorization" not in item.headers for item in proxy.seen)
    assert SECRET not in repr(Grant(Origin.of(url(proxy)), SECRET))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_redirects_of_writing_are_not_followed(
    proxy: FaultProxy, transport: Transport, method: str
) -> None:
    """What is sent goes where it was meant to go; the caller sees the redirect."""
    proxy.on(method, "/x", fault.answer(307, Location="/other"))
    with transport.request(method, url(proxy), body=b"x") as answer:
        assert answer.status == 307
    assert len(proxy.seen) == 1


@pytest.mark.parametrize(
    "location",
    ["http://registry.example/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://u:p@[::1]/"],
)
def test_redirects_to_forbidden_places(
    proxy: FaultProxy, transport: Transport, location: str
) -> None:
    """Plain http to another machine, other schemes and user names in addresses are refused."""
    proxy.on("GET", "/x", fault.answer(302, Location=location))
    with pytest.raises(Unavailable) as caught:
        transport.request("GET", url(proxy))
    assert "u:p" not in str(caught.value)


def test_redirects_are_bounded(proxy: FaultProxy, transport: Transport) -> None:
    """A circle of redirects ends."""
    proxy.on("GET", "/x", fault.answer(302, Location="/x"))
    with pytest.raises(Unavailable, match="more than 5 redirects"):
        transport.request("GET", url(proxy))


def test_https_is_never_left(transport: Transport) -> None:
    """Nothing leads from https to http, not even on this machine."""
    with pytest.raises(Unavailable, match="from https"):
        transport.join("https://127.0.0.1:5000/x", "http://127.0.0.1:5000/y")
    assert transport.join("https://h/a/b", "../c?d#e") == "https://h/c?d"


def test_plain_http_is_for_this_machine_unless_allowed(clock: HandClock) -> None:
    """Another machine is asked over http only where the operator says so."""
    with pytest.raises(Unavailable, match="plain http"):
        Transport(clock).check("http://registry.example/v2/")
    Transport(clock, plain_http=True).check("http://registry.example/v2/")


def test_a_proxy_is_used_only_where_it_can_help(clock: HandClock, proxy: FaultProxy) -> None:
    """No proxy for this machine and for what 'no' names."""
    proxies = {"http": f"http://{proxy.host}", "no": "inside.example"}
    transport = Transport(clock, plain_http=True, proxies=proxies, sleep=clock.sleep)
    transport.request("GET", "http://outside.example/x").close()
    assert proxy.seen[0].path == "http://outside.example/x"
    assert transport._proxy("http://inside.example/x") == {}
    assert transport._proxy(url(proxy)) == {}


def test_a_missing_file_of_authorities_is_said_at_once(clock: HandClock, tmp_path: Path) -> None:
    """A wrong path of the CA file is a configuration error, before anything is asked."""
    with pytest.raises(ConfigError, match="no such file"):
        Transport(clock, ca=tmp_path / "gone.pem")


def test_a_quoted_answer_is_short_and_printable(proxy: FaultProxy, transport: Transport) -> None:
    """An error page cannot flood or steer a terminal."""
    proxy.on("GET", "/x", fault.answer(400, b"\x1b[2Jno\n\n  way\x00" + b"x" * 100_000))
    with transport.request("GET", url(proxy)) as answer:
        quoted = answer.quote()
    assert quoted.startswith("?[2Jno way?xxx")
    assert len(quoted) == 200


@given(st.text(max_size=200))
def test_addresses_in_messages_hide_what_may_be_secret(text: str) -> None:
    """Neither user nor query nor fragment of an address is shown."""
    hidden = shown(f"https://user:{'s3cr3t'}@host/path?{text}")
    assert hidden == "https://host/path"
    assert "s3cr3t" not in shown(f"https://host/path#s3cr3t{text}")


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *(("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("[::1]", True)),
        *(("::1", True), ("localhost.example", False), ("127.0.0.1.example", False)),
        *(("10.0.0.1", False), ("0.0.0.0", False), ("", False)),
    ],
)
def test_what_this_machine_is(host: str, here: bool) -> None:
    """Only loopback addresses and 'localhost' are this machine."""
    assert is_loopback(host) is here
