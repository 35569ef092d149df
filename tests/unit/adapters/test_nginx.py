"""nginx's file and its workers' answers: what is written, what is believed, what is refused."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.adapters import nginx
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.nginx import Nginx, parse, parse_answer, render
from secure_pipeline.canary.target import NginxRouter
from secure_pipeline.errors import ConfigError, Unavailable, VerificationFailed

SERVERS = {"blue": "127.0.0.1:8001", "green": "unix:/run/green.sock"}
CONFIG = NginxRouter("/etc/nginx/app.conf", "app", SERVERS, "unix:/run/promote/app.sock")
WEIGHTS = {"blue": 95, "green": 5}


def answer(weights: dict[str, int], **changes: object) -> bytes:
    told = {slot: {"server": SERVERS[slot], "weight": w} for slot, w in weights.items()}
    body = json.dumps(told | changes).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


GOOD = answer(WEIGHTS)


class Place:
    """A file, an nginx that takes it when told to, and what its workers say."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.sockets = directory / "sockets"
        self.sockets.mkdir(mode=0o700)
        self.config = replace(
            CONFIG, file=f"{directory}/app.conf", read_back=f"unix:{self.sockets}/s"
        )
        self.file = Path(self.config.file)
        self.calls: list[str] = []
        self.refuses = False
        self.deaf = False
        self.running: dict[str, int] = dict(WEIGHTS)
        self.next: deque[dict[str, int]] = deque()
        """What single workers answer before the others."""
        self.now = 0.0
        self.file.write_bytes(render(self.config, WEIGHTS))
        patch.setattr(nginx, "exchange", self._exchange)
        self.router = Nginx(self.config, self, self, sleep=self._sleep)  # type: ignore[arg-type]

    def check(self) -> None:
        self.calls.append("check")
        if self.refuses:
            raise Unavailable("nginx refuses its configuration")

    def reload(self) -> None:
        self.calls.append("reload")
        if not self.deaf:
            self.running = parse(self.file.read_bytes(), self.config)

    def monotonic(self) -> float:
        return self.now

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _exchange(self, *_: object, **more: object) -> bytes:
        return answer(self.next.popleft() if self.next else self.running)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_the_file() -> None:
    """Weights, no failover, ``down`` for 0, and the server that tells them."""
    assert render(CONFIG, {"blue": 100, "green": 0}).decode() == (
        """\
# Written by secure-pipeline promote, which overwrites it.
upstream app {
    zone app 64k;
    server 127.0.0.1:8001 weight=100 max_fails=0;
    server unix:/run/green.sock down;
}
server {
    listen unix:/run/promote/app.sock;
    access_log off;
    location / {
        default_type application/json;
        return 200 '{"blue": {"server": "127.0.0.1:8001", "weight": 100}, """
        """"green": {"server": "unix:/run/green.sock", "weight": 0}}';
    }
}
"""
    )


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_what_is_written_is_read(blue: int, green: int) -> None:
    """In the file and in an answer, with comments and other spaces in the file too."""
    weights = {"blue": blue, "green": green}
    data = render(CONFIG, weights)
    assert parse(data, CONFIG) == weights
    assert parse(b"# mine\n\n" + data.replace(b"    ", b"\t"), CONFIG) == weights
    assert parse_answer(answer(weights), CONFIG) == weights


def test_order(place: Place) -> None:
    """Written, checked, then reloaded; then the workers are asked until five agree."""
    place.next.extend([{"blue": 75, "green": 25}] * 4 + [WEIGHTS] * 2)
    place.router.set("green", Fraction(1, 4))
    assert place.calls == ["check", "reload"]
    assert not place.next
    assert place.now == pytest.approx((4 + 2 + 4) * nginx.PAUSE_SECONDS)
    assert place.router.read().shares == {"blue": Fraction(3, 4), "green": Fraction(1, 4)}


def test_refused(place: Place) -> None:
    """The old bytes are back, and nothing was reloaded."""
    before = place.file.read_bytes()
    place.refuses = True
    with pytest.raises(Unavailable, match="refuses"):
        place.router.set("green", Fraction(1, 4))
    assert place.file.read_bytes() == before
    assert place.calls == ["check"]


def test_not_in_time(place: Place) -> None:
    """A reload without effect is given up; the file already counts for what it could do."""
    place.deaf = True
    with pytest.raises(Unavailable, match="did not take the new weights within 20 s"):
        place.router.set("green", Fraction(1, 4))
    assert place.router.read().shares["green"] == Fraction(1, 4)


def test_can_16_an_old_worker_counts(place: Place) -> None:
    """One worker of several with a greater share: that one is told, with both in words."""
    place.next.extend([WEIGHTS, {"blue": 40, "green": 60}])
    found = place.router.read()
    assert found.shares == {"blue": Fraction(19, 20), "green": Fraction(3, 5)}
    assert "blue weight 95, green weight 5 or blue weight 40, green weight 60" in found.detail


def test_unknown_slot(place: Place) -> None:
    """A bug, and nothing is written."""
    with pytest.raises(ValueError, match="no slot red"):
        place.router.set("red", Fraction(1, 4))
    assert not place.calls


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o777, 0o755])
def test_directories_for_others(place: Place, mode: int) -> None:
    """Whoever may enter is one too many."""
    place.sockets.chmod(mode)
    with pytest.raises(Unavailable, match="only this user's"):
        place.router.read()
    place.sockets.chmod(0o700)
    place.router.read()


@pytest.mark.parametrize(
    "changes",
    [
        {"upstream": "app { } #"}, {"upstream": ""}, {"file": "app.conf"},
        {"read_back": "127.0.0.1:1"}, {"read_back": "unix:sock"}, {"read_back": "unix:/a b"},
        {"read_back": "unix:/a;"}, {"read_back": "unix:/" + "x" * 107},
        *({"servers": {"blue": "127.0.0.1:1", "green": bad}} for bad in (
            "app.example:80", "localhost:80", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999",
            "127.0.0.1:80 backup", "127.0.0.1:80;", "::1:80", "[::1]", "[127.0.0.1]:80",
            "unix:/a}", "unix:a", "", "127.0.0.1:80\n", "[0:0::1]:80",
        )),
    ],
)  # fmt: skip
def test_values_that_are_no_plain_ones(changes: dict[str, str]) -> None:
    """Nothing from a target can become another directive; names of machines are refused."""
    with pytest.raises(ConfigError):
        Nginx(replace(CONFIG, **changes), None, SystemClock())  # type: ignore[arg-type]


def test_addresses() -> None:
    """IPv4, IPv6 and sockets."""
    servers = {"blue": "[::1]:80", "green": "10.0.0.1:65535"}
    Nginx(replace(CONFIG, servers=servers), None, SystemClock())  # type: ignore[arg-type]


TEXT = render(CONFIG, WEIGHTS)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff", TEXT[:-3], TEXT + TEXT, TEXT.replace(b"weight=95", b"weight=94"),
        TEXT.replace(b"weight=95", b"weight=095"), TEXT.replace(b'"weight": 5', b'"weight": 4'),
        TEXT.replace(b"max_fails=0", b"max_fails=1"), TEXT.replace(b"64k;", b"64k; hash $uri;"),
        TEXT.replace(b"app {", b"web {"), TEXT.replace(b"8001", b"8002"),
        TEXT.replace(b"access_log off;", b"access_log off; # return 200 '';"),
        render(CONFIG, {"blue": 20_000, "green": 1}),
    ],
    ids=range(13),
)  # fmt: skip
def test_files_that_are_not_ours(data: bytes) -> None:
    """Anything but the form that is written tells nothing."""
    with pytest.raises(Unavailable, match="not as promote writes it"):
        parse(data, CONFIG)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\r\n\r\n", GOOD[:-1], GOOD + b" ", GOOD.replace(b" 200 ", b" 404 "),
        GOOD.replace(b"Content-Length", b"X"), GOOD.replace(b"HTTP/1.1", b"ICY"),
        GOOD.replace(b"OK\r\n", b"OK\r\nContent-Length: 1\r\n"), GOOD.replace(b"{", b"[", 1),
        answer(WEIGHTS, red={"server": "x", "weight": 1}), answer({"blue": 100}),
        answer(WEIGHTS, green={"server": SERVERS["green"]}), answer(WEIGHTS, green=5),
        answer(WEIGHTS, green={"server": SERVERS["blue"], "weight": 5}),
        *(answer(WEIGHTS, green={"server": SERVERS["green"], "weight": bad})
          for bad in (-1, 10_001, 0.5, True, "5", None)),
    ],
    ids=range(20),
)  # fmt: skip
def test_answers_that_tell_nothing(data: bytes) -> None:
    """Cut off, of another status, with other slots, servers or weights: refused."""
    with pytest.raises(VerificationFailed):
        parse_answer(data, CONFIG)


@given(st.binary(max_size=200), st.integers(0, len(GOOD)), st.integers(0, 40))
def test_nothing_but_refused(noise: bytes, at: int, cut: int) -> None:
    """Noise in an answer or a file gives weights or a refusal, never another error."""
    for good, read in ((GOOD, parse_answer), (TEXT, parse)):
        try:
            found = read(good[:at] + noise + good[at + cut :], CONFIG)
        except (Unavailable, VerificationFailed):
            continue
        assert all(0 <= weight <= nginx.MAX_WEIGHT for weight in found.values())
