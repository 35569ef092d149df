"""The router port on a real HAProxy, with traffic through it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from contracts.test_router_contract import Elsewhere, RouterContract
from fakes.haproxy import CONFIG, RunningHaproxy, haproxy
from fakes.named import Named, answers, blue_and_green, ports
from fakes.routerprocess import wait_until
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.haproxy import Haproxy
from secure_pipeline.errors import Unavailable

pytestmark = pytest.mark.integration
FIVE = Fraction(1, 20)
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def servers() -> Iterator[dict[str, Named]]:
    with blue_and_green() as found:
        yield found


@pytest.fixture
def running(tmp_path: Path, servers: dict[str, Named]) -> Iterator[RunningHaproxy]:
    with haproxy(tmp_path, ports(servers)) as found:
        yield found


@pytest.fixture
def router(running: RunningHaproxy) -> Haproxy:
    return Haproxy(running.target_router, SystemClock())


class TestHaproxy(RouterContract):
    """HAProxy keeps the contract."""

    @pytest.fixture
    def elsewhere(self, running: RunningHaproxy) -> Elsewhere:
        def change(one: str, weight: int, other: str, rest: int) -> None:
            running.command(f"set weight inference/{one} {weight}")
            running.command(f"set weight inference/{other} {rest}")

        return change


def test_traffic_follows_the_weights(running: RunningHaproxy, router: Haproxy) -> None:
    """400 requests at 5 %: 20 to the canary, in turn; all at 100 %, none at 0."""
    assert answers(running.url, 50) == {"blue": 50}
    router.set("green", FIVE)
    assert 8 <= answers(running.url, 400)["green"] <= 21
    router.set("green", Fraction(1))
    assert answers(running.url, 50) == {"green": 50}
    router.set("green", Fraction(0))
    assert answers(running.url, 50) == {"blue": 50}


def test_can_16_a_killed_baseline_gives_everything_to_the_canary(
    running: RunningHaproxy, router: Haproxy, servers: dict[str, Named]
) -> None:
    """The read-back says 1 as soon as HAProxy does it, though the weight is 5."""
    router.set("green", FIVE)
    servers["blue"].end()
    wait_until(lambda: router.read().shares["green"] == 1, "blue is down")
    assert answers(running.url, 20) == {"green": 20}
    assert "green weight 5 UP" in router.read().detail
    # An abort is possible all the same: then nobody serves, rather than the canary.
    router.set("green", Fraction(0))
    assert router.read().shares["green"] == 0
    assert answers(running.url, 5) == {"503": 5}


def test_a_killed_canary_gets_no_more(
    running: RunningHaproxy, router: Haproxy, servers: dict[str, Named]
) -> None:
    """Its weight counts until it is taken away; no step upwards is made."""
    router.set("green", FIVE)
    servers["green"].end()
    wait_until(lambda: "green weight 5 DOWN" in router.read().detail, "green is down")
    assert router.read().shares == {"blue": 1, "green": FIVE}
    with pytest.raises(Unavailable, match="cannot take traffic"):
        router.set("green", Fraction(1, 4))
    router.set("green", Fraction(0))
    assert router.read().shares == {"blue": 1, "green": 0}


@pytest.mark.parametrize("state", ["maint", "drain"])
def test_can_16_a_baseline_that_is_taken_out(
    running: RunningHaproxy, router: Haproxy, state: str
) -> None:
    """By an operator, for maintenance: the canary gets everything, and the read-back says so."""
    router.set("green", FIVE)
    running.command(f"set server inference/blue state {state}")
    assert router.read().shares["green"] == 1
    running.command("set server inference/blue state ready")
    wait_until(lambda: router.read().shares["green"] == FIVE, "blue is up again")


def test_can_16_a_full_baseline(tmp_path: Path, servers: dict[str, Named]) -> None:
    """At its maxconn round robin passes it over: the canary gets everything, and that is read."""
    config = CONFIG.replace("check inter 200ms fall 2 rise 2", "maxconn 1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slots = ports(servers) | {"blue": silent.getsockname()[1]}
        with haproxy(tmp_path, slots, config=config) as running:
            router = Haproxy(running.target_router, SystemClock())
            router.set("green", FIVE)
            assert router.read().shares["green"] == FIVE
            with socket.create_connection(("127.0.0.1", running.port)) as held:
                held.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                wait_until(lambda: router.read().shares["green"] == 1, "blue is full")
                assert answers(running.url, 20) == {"green": 20}


def test_a_slow_start_of_the_baseline(tmp_path: Path, servers: dict[str, Named]) -> None:
    """Just up, it weighs less than its weight: the canary's share is greater, and that is read."""
    config = CONFIG.replace("fall 2 rise 2", "fall 2 rise 2 slowstart 60s")
    with haproxy(tmp_path, ports(servers), config=config) as running:
        router = Haproxy(running.target_router, SystemClock())
        router.set("green", FIVE)
        assert router.read().shares["green"] == FIVE
        running.command("set server inference/blue state maint")
        running.command("set server inference/blue state ready")
        wait_until(lambda: "blue weight 95 (now " in router.read().detail, "blue starts slowly")
        assert FIVE < router.read().shares["green"] < 1


def test_a_reload_resets_weights(running: RunningHaproxy, router: Haproxy) -> None:
    """To the configured ones: 100 and 0 here, which the read-back shows."""
    router.set("green", FIVE)
    running.reload()
    assert router.read().shares == {"blue": 1, "green": 0}


def test_agent_like_changes_are_read(running: RunningHaproxy, router: Haproxy) -> None:
    """A weight in per cent of the configured one, as agent checks set it."""
    router.set("green", FIVE)
    running.command("set weight inference/blue 20%")
    assert router.read().shares["green"] == Fraction(5, 25)


def test_level_operator(tmp_path: Path, servers: dict[str, Named]) -> None:
    """It may read and not set; the hint says what is missing. At level user it tells too little."""
    more = [f"stats socket {{socket}}{n} level {x}" for n, x in ((2, "operator"), (3, "user"))]
    extra = "\n    ".join(["level admin", *more])
    with haproxy(tmp_path, ports(servers), config=CONFIG.replace("level admin", extra)) as running:
        target = running.target_router
        router = Haproxy(replace(target, socket=f"{target.socket}2"), SystemClock())
        assert router.read().shares == {"blue": 1, "green": 0}
        with pytest.raises(Unavailable, match="Permission denied") as caught:
            router.set("green", FIVE)
        assert "level admin" in str(caught.value.hint)
        with pytest.raises(Unavailable, match="does not tell how") as caught:
            Haproxy(replace(target, socket=f"{target.socket}3"), SystemClock()).read()
        assert "level admin" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("balance static-rr", "balance static-rr"),
        ("balance source", "balance source"),
        ("balance leastconn", "balance leastconn"),
        ("balance first", "balance first"),
        ("mode tcp", "mode tcp"),
        ("balance roundrobin\n    cookie SRV insert", "cookie SRV"),
        ("balance roundrobin\n    server old 127.0.0.1:9",
         "server old serves too"),
    ],
)  # fmt: skip
def test_backends_that_cannot_be_steered(
    tmp_path: Path, servers: dict[str, Named], backend: str, words: str
) -> None:
    """Each is refused with its reason before anything moves, and 0 can be asked for."""
    old = "mode http" if backend == "mode tcp" else "balance roundrobin"
    config = CONFIG.replace(old, backend)
    with haproxy(tmp_path, ports(servers), config=config) as running:
        router = Haproxy(running.target_router, SystemClock())
        with pytest.raises(Unavailable, match=words):
            router.set("green", FIVE)
        router.set("green", Fraction(0))
        assert router.read().shares["green"] == 0


def test_the_page_shows_what_works(tmp_path: Path, servers: dict[str, Named]) -> None:
    """The fragment of docs/how-to/routers.md, with this test's ports and socket."""
    page = (ROOT / "docs/how-to/routers.md").read_text()
    shown = page.split("```haproxy\n")[1].split("```")[0]
    for fixed, ours in (
        ("/run/haproxy/admin.sock", "{socket}"),
        ("127.0.0.1:8080", "127.0.0.1:{port}"),
        ("127.0.0.1:8001", "127.0.0.1:{blue}"),
        ("127.0.0.1:8002", "127.0.0.1:{green}"),
    ):
        assert fixed in shown
        shown = shown.replace(fixed, ours)
    with haproxy(tmp_path, ports(servers), config=shown) as running:
        router = Haproxy(running.target_router, SystemClock())
        router.set("green", FIVE)
        assert router.read().shares == {"blue": Fraction(19, 20), "green": FIVE}
        assert 8 <= answers(running.url, 400)["green"] <= 21


def test_names_that_are_not_there(running: RunningHaproxy) -> None:
    """The hint says which there are."""
    target = running.target_router
    with pytest.raises(Unavailable, match="no backend nix") as caught:
        Haproxy(replace(target, backend="nix"), SystemClock()).read()
    assert caught.value.hint == "there is: inference"
    wrong = replace(target, servers={"blue": "blue", "green": "nix"})
    with pytest.raises(Unavailable, match="no server nix") as caught:
        Haproxy(wrong, SystemClock()).read()
    assert caught.value.hint == "there is: blue, green"


def test_haproxy_is_gone(running: RunningHaproxy, router: Haproxy) -> None:
    """Killed, its socket's file left behind; then without the file."""
    running.kill()
    for _ in range(2):
        with pytest.raises(Unavailable, match="nobody answers"):
            router.read()
        with pytest.raises(Unavailable, match="nobody answers"):
            router.set("green", Fraction(0))
        running.socket.unlink(missing_ok=True)


@pytest.mark.parametrize("words", [b"", b"# pxname,svname", b"\n" * 9])
def test_a_socket_that_hangs(tmp_path: Path, running: RunningHaproxy, words: bytes) -> None:
    """Silent, or silent in the middle: given up when the time for the call is over."""
    path, held = tmp_path / "hung.sock", []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def accept() -> None:
            connection = listener.accept()[0]
            connection.sendall(words)
            held.append(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        router = Haproxy(replace(running.target_router, socket=str(path)), SystemClock(), 0.3)
        with pytest.raises(Unavailable, match="no whole answer in time"):
            router.read()
        thread.join(30)
        held.pop().close()
