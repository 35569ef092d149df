"""Weights for shares, and the answers of HAProxy's runtime API, hostile ones among them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.adapters import haproxy
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.haproxy import Haproxy, Unknown, parse
from secure_pipeline.adapters.weights import split
from secure_pipeline.canary.target import HaproxyRouter
from secure_pipeline.errors import ConfigError, Unavailable

COLUMNS = (
    *("pxname", "svname", "qcur", "scur", "slim", "status", "weight", "bck", "type"),
    *("last_chk", "cookie", "mode", "algo", "uweight", "-"),
)
EMPTY = dict.fromkeys(COLUMNS, "")
SERVER = EMPTY | {"qcur": "0", "scur": "0", "status": "UP", "bck": "0", "type": "2"}
BACKEND = EMPTY | {
    **{"pxname": "app", "svname": "BACKEND", "type": "1"},
    **{"mode": "http", "algo": "roundrobin"},
}


def server(name: str, weight: int, **changes: str) -> dict[str, str]:
    text = str(weight)
    return SERVER | {"pxname": "app", "svname": name, "weight": text, "uweight": text} | changes


def table(*rows: dict[str, str], columns: tuple[str, ...] = COLUMNS) -> bytes:
    lines = [",".join(row[name] for name in columns) + "," for row in rows]
    return "\n".join([f"# {','.join(columns)},", *lines, "", ""]).encode()


class Answers:
    """Plays HAProxy: keeps weights, and what the canary's share was after each command."""

    def __init__(self, **weights: int) -> None:
        self.rows = {name: server(name, weight) for name, weight in weights.items()}
        self.backend = dict(BACKEND)
        self.commands: list[str] = []
        self.refused: dict[str, str] = {}
        """Server to what it is answered with."""
        self.seen = [self.share]

    @property
    def share(self) -> Fraction:
        blue, green = (int(self.rows[name]["uweight"]) for name in ("blue", "green"))
        return Fraction(green, blue + green) if green else Fraction(0)

    def __call__(self, path: str, question: bytes, **more: object) -> bytes:
        command = question.decode().strip()
        self.commands.append(command)
        if command.startswith("show stat"):
            return table(*self.rows.values(), self.backend)
        name, weight = command.rpartition("/")[2].split(" ")
        if name in self.refused:
            return f"{self.refused[name]}\n\n".encode()
        self.rows[name] |= {"weight": weight, "uweight": weight}
        self.seen.append(self.share)
        return b"\n"


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Haproxy, Answers]]:
    def make(**weights: int) -> tuple[Haproxy, Answers]:
        answers = Answers(**weights)
        monkeypatch.setattr(haproxy, "exchange", answers)
        config = HaproxyRouter("/run/admin.sock", "app", {"blue": "blue", "green": "green"})
        return Haproxy(config, SystemClock()), answers

    return make


@given(st.fractions(0, 1, max_denominator=100_000), st.sampled_from([100, 256]))
def test_the_greatest_share_that_is_not_over(share: Fraction, most: int) -> None:
    """No pair of weights gives more without giving too much; 0 and 1 are exact."""
    canary, baseline = split(share, most)
    assert 0 <= canary <= most
    assert 0 <= baseline <= most
    found = Fraction(canary, canary + baseline)
    assert found <= share
    if share == 1:
        assert found == 1
        return
    for other in range(1, most + 1):
        best = min(most, int(share / (1 - share) * other))
        assert Fraction(best, best + other) <= found


@given(st.fractions(0, 1))
def test_fine_weights_are_close(share: Fraction) -> None:
    """With weights up to 10000 a share is met within a ten thousandth."""
    canary, baseline = split(share, 10_000)
    assert share - Fraction(1, 10_000) <= Fraction(canary, canary + baseline) <= share


@pytest.mark.parametrize(
    ("share", "weights"),
    [("1/20", (5, 95)), ("1/4", (25, 75)), ("0", (0, 100)), ("1", (100, 0)), ("1/200", (1, 199)),
     ("1/3", (1, 2)), ("1/300", (0, 100)), ("1/257", (1, 256)), ("999/1000", (256, 1))],
)  # fmt: skip
def test_weights_that_people_know(share: str, weights: tuple[int, int]) -> None:
    """Per cent read as per cent; under 1 in 257 HAProxy can only give nothing."""
    assert split(Fraction(share), 256) == weights


@given(
    st.lists(st.fractions(0, 1), min_size=1, max_size=5), st.integers(0, 256), st.integers(0, 256)
)
def test_never_more_on_the_way(shares: list[Fraction], blue: int, green: int) -> None:
    """Between the two commands of a change the canary has at most the old or the new share."""
    with pytest.MonkeyPatch.context() as patch:
        answers = Answers(blue=blue, green=green)
        patch.setattr(haproxy, "exchange", answers)
        config = HaproxyRouter("/run/admin.sock", "app", {"blue": "blue", "green": "green"})
        router = Haproxy(config, SystemClock())
        for share in shares:
            answers.seen = [answers.share]
            router.set("green", share)
            before, between, after = answers.seen
            assert between <= max(before, after)
            assert after == router.read().shares["green"] <= share


def test_an_abort_takes_the_canary_off_first(place: Callable[..., tuple[Haproxy, Answers]]) -> None:
    """Where the baseline serves, 0 for the canary comes first, and counts though the rest fails."""
    router, answers = place(blue=50, green=50)
    answers.refused = {"blue": "Backend is using a static LB algorithm"}
    with pytest.raises(Unavailable, match="static LB algorithm"):
        router.set("green", Fraction(0))
    assert router.read().shares == {"blue": 1, "green": 0}


def test_back_from_everything_leaves_no_gap(
    place: Callable[..., tuple[Haproxy, Answers]],
) -> None:
    """Where the baseline has no weight it gets some before the canary loses its own."""
    router, answers = place(blue=0, green=100)
    router.set("green", Fraction(0))
    assert answers.commands[1:] == ["set weight app/blue 100", "set weight app/green 0"]


@pytest.mark.parametrize(
    "status",
    ["DOWN", "DOWN 1/2", "DOWN (agent)", "MAINT", "MAINT (via app/x)", "DRAIN", "NOLB", "NOLB 1/2",
     "MAINT (resolution)", "something new", "UPWARD"],
)  # fmt: skip
def test_can_16_a_baseline_that_takes_nothing(
    place: Callable[..., tuple[Haproxy, Answers]], status: str
) -> None:
    """Whatever it is but up: the canary gets everything, whatever its weight is."""
    router, answers = place(blue=95, green=5)
    answers.rows["blue"]["status"] = status
    found = router.read()
    assert found.shares["green"] == 1
    assert status in found.detail


@pytest.mark.parametrize(
    "changes", [{"status": "DOWN"}, {"weight": "40"}, {"slim": "1", "scur": "1"}]
)
def test_can_16_nothing_upwards_beside_a_baseline_that_takes_less(
    place: Callable[..., tuple[Haproxy, Answers]], changes: dict[str, str]
) -> None:
    """The canary would get what the baseline leaves: not begun; all or nothing can be asked for."""
    router, answers = place(blue=100, green=0)
    answers.rows["blue"] |= changes
    with pytest.raises(Unavailable, match="the canary would get more: blue weight 100"):
        router.set("green", Fraction(1, 20))
    assert not [command for command in answers.commands if command.startswith("set")]
    router.set("green", Fraction(1))
    router.set("green", Fraction(0))
    assert router.read().shares["green"] == 0


@pytest.mark.parametrize("status", ["UP", "UP 2/3", "no check"])
def test_up(place: Callable[..., tuple[Haproxy, Answers]], status: str) -> None:
    """States in which weights count."""
    router, answers = place(blue=95, green=5)
    answers.rows["blue"]["status"] = status
    assert router.read().shares == {"blue": Fraction(19, 20), "green": Fraction(1, 20)}


def test_a_canary_that_is_down_keeps_its_weight(
    place: Callable[..., tuple[Haproxy, Answers]],
) -> None:
    """It may be up in a second: its share is only 0 once its weight is; and it is given no more."""
    router, answers = place(blue=95, green=5)
    answers.rows["green"]["status"] = "DOWN"
    assert router.read().shares == {"blue": 1, "green": Fraction(1, 20)}
    with pytest.raises(Unavailable, match="cannot take traffic: green weight 5 DOWN"):
        router.set("green", Fraction(1))
    router.set("green", Fraction(0))
    assert router.read().shares == {"blue": 1, "green": 0}


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({"weight": "45"}, Fraction(1, 10)),  # a slow start
        ({"slim": "3", "scur": "3"}, Fraction(1)),  # its maxconn is reached
        ({"slim": "3", "qcur": "1"}, Fraction(1)),
        ({"slim": "3", "scur": "2"}, Fraction(1, 20)),
        ({"slim": "0", "scur": "2"}, Fraction(1, 20)),
        ({"bck": "1"}, Fraction(1)),
    ],
)
def test_what_makes_the_canary_get_more(
    place: Callable[..., tuple[Haproxy, Answers]], changes: dict[str, str], share: Fraction
) -> None:
    """A baseline that is slow-starting, full, or only a backup gives its share away."""
    router, answers = place(blue=95, green=5)
    answers.rows["blue"] |= changes
    assert router.read().shares["green"] == share


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"algo": "leastconn"}, "balance leastconn"),
        ({"algo": "source"}, "balance source"),
        ({"mode": "tcp"}, "mode tcp"),
        ({"cookie": "SRV"}, "cookie SRV"),
    ],
)
def test_where_weights_decide_nothing(
    place: Callable[..., tuple[Haproxy, Answers]], changes: dict[str, str], words: str
) -> None:
    """The canary may get everything, it is given nothing, and it can be taken off all the same."""
    router, answers = place(blue=95, green=5)
    answers.backend |= changes
    found = router.read()
    assert found.shares == {"blue": 1, "green": 1}
    assert words in found.detail
    with pytest.raises(Unavailable, match=words):
        router.set("green", Fraction(1, 20))
    router.set("green", Fraction(0))
    assert router.read().shares == {"blue": 1, "green": 0}


def test_other_servers(place: Callable[..., tuple[Haproxy, Answers]]) -> None:
    """One that serves too is named and refused; one without weight or in maintenance is none."""
    router, answers = place(blue=100, green=0)
    answers.rows["old"] = server("old", 1)
    with pytest.raises(Unavailable, match="server old serves too"):
        router.set("green", Fraction(1, 20))
    assert "old weight 1 UP" in router.read().detail
    router.set("green", Fraction(0))
    for changes in ({"uweight": "0", "weight": "0"}, {"status": "MAINT"}):
        answers.rows["old"] = server("old", 1) | changes
        router.set("green", Fraction(1, 20))
        assert router.read().shares["green"] == Fraction(1, 20)


def test_a_slot_that_is_a_backup_server(place: Callable[..., tuple[Haproxy, Answers]]) -> None:
    """It gets nothing while the other is up, whatever its weight: refused."""
    router, answers = place(blue=100, green=0)
    answers.rows["green"]["bck"] = "1"
    with pytest.raises(Unavailable, match="server green is a backup"):
        router.set("green", Fraction(1, 20))


def test_permission(place: Callable[..., tuple[Haproxy, Answers]]) -> None:
    """A socket of a lower level: what to write in HAProxy's configuration."""
    router, answers = place(blue=100, green=0)
    answers.refused = {"blue": "Permission denied", "green": "Permission denied"}
    with pytest.raises(Unavailable, match="Permission denied") as caught:
        router.set("green", Fraction(1, 20))
    assert "level admin" in str(caught.value.hint)
    answers.backend["algo"] = ""
    with pytest.raises(Unavailable, match="does not tell how") as caught:
        router.read()
    assert "level admin" in str(caught.value.hint)


def test_names_that_are_not_there(place: Callable[..., tuple[Haproxy, Answers]]) -> None:
    """The names that there are are in the hint."""
    router, answers = place(blue=100, green=0)
    answers.rows["verde"] = answers.rows.pop("green") | {"svname": "verde"}
    with pytest.raises(Unavailable, match="no server green") as caught:
        router.read()
    assert caught.value.hint == "there is: blue, verde"
    answers.backend["pxname"] = "web"
    with pytest.raises(Unavailable, match="no backend app") as caught:
        router.read()
    assert caught.value.hint == "there is: web"


@pytest.mark.parametrize(
    "config",
    [
        HaproxyRouter("run/admin.sock", "app", {"blue": "b", "green": "g"}),
        HaproxyRouter("/" + "x" * 107, "app", {"blue": "b", "green": "g"}),
        HaproxyRouter("/run/s", "app; disable frontend x", {"blue": "b", "green": "g"}),
        HaproxyRouter("/run/s", "app", {"blue": "b\nshutdown", "green": "g"}),
        HaproxyRouter("/run/s", "app", {"blue": "", "green": "g"}),
    ],
)
def test_names_that_cannot_be(config: HaproxyRouter) -> None:
    """A name cannot carry a second command; a path fits into a socket's address."""
    with pytest.raises(ConfigError):
        Haproxy(config, SystemClock())


GOOD = table(server("blue", 95), server("green", 5), BACKEND)


def test_quoted_values_and_other_columns() -> None:
    """HAProxy quotes what it was told by others; unknown columns and proxies are passed over."""
    odd = server("blue", 95, last_chk='"a ""quoted"", thing\n# pxname,x"')
    extra = ("new", *COLUMNS)
    rows = [row | {"new": "1"} for row in (odd, server("green", 5), BACKEND)]
    other = [row | {"pxname": "other", "status": "DOWN"} for row in rows]
    found = parse(table(*rows, *other, columns=("pxname", "new", *COLUMNS[1:])), "app")
    assert {name: each.weight for name, each in found.servers.items()} == {"blue": 95, "green": 5}
    assert found.servers["blue"].up
    with pytest.raises(ValueError, match="no table"):
        parse(table(*rows, columns=extra), "app")


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"\n", b"\n\n", b"Permission denied\n\n", b"\xff\n\n", GOOD[:-1], GOOD[:-40] + b"\n\n",
        GOOD.replace(b"uweight", b"vweight"), GOOD.replace(b"slim", b"scur"),
        GOOD.replace(b",95,", b",-95,"), GOOD.replace(b",95,", b",nan,"),
        GOOD.replace(b",95,", b",257,"), GOOD.replace(b",95,", b",,"),
        GOOD.replace(b",95,", ",９５,".encode()), GOOD.replace(b"green", b"blue"),
        GOOD.replace(b",UP,", b",,"), GOOD.replace(b",UP,", b',"UP,'),
        GOOD + GOOD, table(server("blue", 1), BACKEND, BACKEND),
    ],
    ids=lambda answer: repr(answer[-30:]),
)  # fmt: skip
def test_answers_that_tell_nothing(answer: bytes) -> None:
    """Cut off, refused, doubled, without a column, with numbers that are none: never weights."""
    with pytest.raises(ValueError, match=r".*"):
        parse(answer, "app")


@given(st.integers(0, len(GOOD) - 1))
def test_a_part_is_never_the_whole(end: int) -> None:
    """Wherever the answer breaks off, it is refused."""
    with pytest.raises((ValueError, Unknown)):
        parse(GOOD[:end], "app")


@given(st.binary(max_size=300), st.integers(0, len(GOOD)), st.integers(0, 40))
def test_nothing_but_refused(noise: bytes, at: int, cut: int) -> None:
    """Noise anywhere gives a table or a refusal, never another error."""
    try:
        found = parse(GOOD[:at] + noise + GOOD[at + cut :], "app")
    except (ValueError, Unknown):
        return
    assert all(0 <= each.weight <= 256 for each in found.servers.values())


def test_no_such_socket(tmp_path: Path) -> None:
    """Nobody listens: Unavailable, with the path."""
    config = HaproxyRouter(f"{tmp_path}/s", "app", {"blue": "b", "green": "g"})
    with pytest.raises(Unavailable, match="nobody answers") as caught:
        Haproxy(config, SystemClock()).read()
    assert caught.value.where == f"{tmp_path}/s"


def test_the_table_of_weights_is_in_order() -> None:
    """A greater share never gets a smaller one."""
    found = [split(Fraction(n, 1000), 256) for n in range(1001)]
    quotients = [Fraction(canary, canary + baseline) for canary, baseline in found]
    assert all(one <= two for one, two in pairwise(quotients))
