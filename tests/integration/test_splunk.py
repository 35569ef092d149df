"""``audit ship`` as people start it, against a collector on loopback, killed at any point."""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.authority import make_authority
from fakes.splunkcollector import TOKEN, Collector, Token, serving
from fakes.syslogreceiver import receiving
from fakes.workplace import Ended, Workplace
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.audit.entry import Actor
from secure_pipeline.audit.log import FileLedger
from secure_pipeline.ports import SecretUse

pytestmark = pytest.mark.integration


@dataclass
class Bench:
    """A ledger, a collector that speaks TLS, and the program."""

    place: Workplace
    ledger: FileLedger
    collector: Collector

    def fill(self, count: int) -> None:
        for number in range(count):
            self.ledger.intend(SecretUse("sign", "sign", f"app@sha256:{number:064}"))

    def lines(self) -> list[str]:
        return self.ledger.path.read_text().splitlines()

    def ship(self, *arguments: str, **more: str) -> Ended:
        ended = self.place.run("audit", "ship", *arguments, timeout=120, **more)
        assert TOKEN not in ended.text
        return ended

    def indexed(self) -> set[str]:
        self.collector.work()
        return {event["event"] for event in self.collector.indexed}

    def cursor(self) -> int:
        found = list(self.ledger.path.parent.glob("ledger.jsonl.shipped/*.json"))
        return json.loads(found[0].read_bytes())["sequence"] if found else -1


def open_bench(directory: Path, collector: Collector, base: str, **more: str) -> Bench:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(directory),
        "SECURE_PIPELINE_LEDGER": str(directory / "ledger.jsonl"),
        "SECURE_PIPELINE_AUDIT_TO": f"splunk+{base}",
        "SECURE_PIPELINE_AUDIT_TOKEN": TOKEN,
        **more,
    }
    actor = Actor("os", "tester", verified=False)
    ledger = FileLedger(directory / "ledger.jsonl", actor, SystemClock())
    return Bench(Workplace(directory, environment), ledger, collector)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    authority = make_authority(tmp_path / "tls")
    collector = Collector(time.monotonic, delay=0.1)
    with serving(collector, authority) as base:
        yield open_bench(tmp_path, collector, base, SECURE_PIPELINE_AUDIT_CA=str(authority.ca))


def test_a_ledger_is_in_splunk_when_the_command_passes(bench: Bench) -> None:
    """Exit code 0 means indexed; the second time there is nothing to do."""
    bench.fill(450)
    ended = bench.ship("--json")
    assert ended.code == 0, ended.text
    assert ended.document["acknowledged"] == 451
    assert [event["event"] for event in bench.collector.indexed] == bench.lines()
    ended = bench.ship("--json")
    assert (ended.code, ended.document["acknowledged"]) == (0, 0)
    assert len(bench.collector.indexed) == 451


def test_aud_08_taken_is_not_delivered(bench: Bench) -> None:
    """A collector that takes everything and indexes nothing: exit code 14, nothing forgotten."""
    bench.fill(3)
    bench.collector.stuck = True
    ended = bench.ship("--deadline", "2s")
    assert ended.code == 14
    assert "not acknowledged" in ended.err
    assert "hint: secure-pipeline audit ship" in ended.err
    assert bench.cursor() == -1
    bench.collector.stuck = False
    assert bench.ship().code == 0
    assert bench.indexed() == set(bench.lines())


@pytest.mark.parametrize("fault", ["busy", "error", "cut", "not ours"])
def test_aud_08_a_collector_that_is_down(bench: Bench, fault: str) -> None:
    """503, 500, a cut connection, an answer that is none: exit code 4, nothing forgotten."""
    bench.fill(3)
    bench.collector.fault = lambda request: fault
    ended = bench.ship("--deadline", "1s")
    assert ended.code == 4
    assert "not everything was sent" in ended.err
    bench.collector.fault = lambda request: None
    assert bench.ship().code == 0
    assert bench.indexed() == set(bench.lines())


def test_aud_08_a_token_without_acknowledgements(bench: Bench) -> None:
    """Refused with the way out (14); with --without-ack done once the window has passed."""
    bench.fill(3)
    bench.collector.tokens[TOKEN] = Token(acknowledges=False)
    ended = bench.ship()
    assert ended.code == 14
    assert "--without-ack" in ended.err
    assert bench.cursor() == -1
    ended = bench.ship("--without-ack", "--confirm-window", "2m")
    assert (ended.code, "--deadline" in ended.err) == (2, True)
    ended = bench.ship("--without-ack", "--confirm-window", "12s", "--deadline", "20s")
    assert ended.code == 0, ended.text
    bench.fill(1)
    begun = time.monotonic()
    ended = bench.ship("--without-ack", "--confirm-window", "1s")
    assert ended.code == 0, ended.text
    assert time.monotonic() - begun >= 1
    assert bench.cursor() == 4
    assert len(bench.collector.indexed) == 9  # the first four twice: once refused, once taken


def test_a_wrong_token_and_a_wrong_index(bench: Bench) -> None:
    """Each is said in one line with what to type, without the token."""
    bench.fill(1)
    ended = bench.ship(SECURE_PIPELINE_AUDIT_TOKEN="E" * 36)
    assert ended.code == 4
    assert "code 4" in ended.err
    assert "E" * 36 not in ended.text
    ended = bench.ship("--index", "secret")
    assert ended.code == 3
    assert "--index" in ended.err


def test_aud_11_the_token_is_in_no_argument(bench: Bench, tmp_path: Path) -> None:
    """It comes from a file or the environment; there is no option that takes it."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    bench.fill(1)
    ended = bench.ship("--token-file", "token", SECURE_PIPELINE_AUDIT_TOKEN="")
    assert ended.code == 0, ended.text
    text = bench.ship("--help").text
    assert "--token-file" in text
    assert "--token " not in text


def test_aud_11_without_its_authority_nothing_is_sent(bench: Bench) -> None:
    """A collector that is not trusted sees nothing; the message says what to name."""
    bench.fill(1)
    ended = bench.ship("--deadline", "1s", SECURE_PIPELINE_AUDIT_CA="")
    assert ended.code == 4
    assert "not trusted" in ended.err
    assert bench.collector.seen == []


def test_a_ledger_that_is_proven_wrong(bench: Bench) -> None:
    """Exit code 11; what comes before the wrong entry is delivered."""
    bench.fill(6)
    data = bench.ledger.path.read_bytes()
    bench.ledger.path.write_bytes(data.replace(b"app@sha256:%064d" % 4, b"app@sha256:%064d" % 7))
    ended = bench.ship()
    assert ended.code == 11
    assert "altered" in ended.err
    assert bench.indexed() == set(bench.lines()[:5])


def test_aud_01_a_ledger_cut_after_delivery(bench: Bench) -> None:
    """Entries that Splunk has and the file has not are an alarm, also under a new chain."""
    bench.fill(6)
    assert bench.ship().code == 0
    lines = bench.ledger.path.read_bytes().splitlines(keepends=True)
    bench.ledger.path.write_bytes(b"".join(lines[:4]))
    ended = bench.ship()
    assert ended.code == 11
    assert "cut or replaced" in ended.err
    bench.ledger.path.unlink()
    ended = bench.ship()
    assert ended.code == 11
    assert "is not here" in ended.err
    FileLedger(bench.ledger.path, bench.ledger.actor, SystemClock()).intend(
        SecretUse("sign", "sign", "another beginning")
    )
    ended = bench.ship()
    assert ended.code == 11
    assert "is not here" in ended.err


def test_a_rotated_ledger_goes_on(bench: Bench) -> None:
    """The sealed file is delivered to its end, then the new one, each under its own name."""
    bench.fill(3)
    assert bench.ship().code == 0
    bench.fill(2)
    sealed = bench.ledger.rotate("a new year")
    bench.fill(1)
    assert bench.ship().code == 0
    assert bench.indexed() == {*sealed.read_text().splitlines(), *bench.lines()}
    assert len({event["fields"]["ledger"] for event in bench.collector.indexed}) == 2
    sealed.unlink()
    assert bench.ship().code == 0


def test_again_from_a_number(bench: Bench) -> None:
    """--from sends what was acknowledged once more, under the same ids."""
    bench.fill(5)
    assert bench.ship().code == 0
    assert bench.ship("--from", "4").code == 0
    assert len(bench.collector.indexed) == 8
    assert len(bench.collector.entries()) == 6


def test_two_at_once_deliver_each_entry(bench: Bench) -> None:
    """One waits for the other; both succeed, and nothing is sent twice."""
    bench.fill(300)
    processes = [bench.place.start("audit", "ship") for _ in range(3)]
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(bench.collector.indexed) == 301


def test_aud_09_killed_at_any_point_it_loses_nothing(bench: Bench) -> None:
    """Kill -9 at 30 random points while entries are added: none is lost, none is altered.

    The cursor is never ahead of the index; duplicates have the same id and bytes.
    """
    chance = random.Random(7)
    bench.collector.delay = 0.05
    for _ in range(30):
        bench.fill(25)
        process = bench.place.start("audit", "ship")
        seen, limit = len(bench.collector.seen), time.monotonic() + 30
        after = chance.randrange(1, 5)
        while len(bench.collector.seen) < seen + after and process.poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.002)
        time.sleep(chance.random() * 0.1)
        process.kill()
        process.communicate(timeout=30)
        done = bench.cursor() + 1
        assert set(bench.lines()[:done]) <= bench.indexed()
    assert bench.ship().code == 0
    assert bench.indexed() == set(bench.lines())
    assert all(len(set(texts)) == 1 for texts in bench.collector.entries().values())


def test_watching_delivers_what_is_added(bench: Bench) -> None:
    """--watch goes on through a collector that is away, until it is interrupted (130)."""
    bench.fill(1)
    process = bench.place.start("audit", "ship", "--watch", "--interval", "1s", "--deadline", "1s")
    try:
        wait(lambda: len(bench.indexed()) == 2)
        bench.collector.fault = lambda request: "busy"
        bench.fill(2)
        time.sleep(2.5)
        bench.collector.fault = lambda request: None
        wait(lambda: len(bench.indexed()) == 4)
        wait(lambda: bench.cursor() == 3)
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "entries acknowledged" in out
    assert 1 <= err.count("error:") <= 3
    assert "interrupted" in err


def wait(condition) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_where_nothing_can_be_kept_nothing_is_sent(bench: Bench) -> None:
    """Without a place for the cursor: exit code 4, and the collector is not asked."""
    bench.fill(3)
    bench.ledger.path.with_name("ledger.jsonl.shipped").touch()
    ended = bench.ship()
    assert ended.code == 4
    assert "cannot lock" in ended.err
    assert bench.collector.seen == []


def test_a_full_disk_is_no_loss(bench: Bench) -> None:
    """Where the cursor cannot be written: exit code 4, and everything is sent again later."""
    bench.fill(3)
    with resource_limit(bench):
        ended = bench.ship()
    assert ended.code == 4
    assert "cannot write" in ended.err
    assert bench.cursor() == -1
    assert bench.ship().code == 0
    assert bench.indexed() == set(bench.lines())


@contextmanager
def resource_limit(bench: Bench) -> Iterator[None]:
    """Make every write of the program to a file fail, as a full disk does."""
    site = bench.place.root / "limited"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    )
    bench.place.environment["PYTHONPATH"] = str(site)
    bench.place.environment["PYTHONDONTWRITEBYTECODE"] = "1"
    try:
        yield
    finally:
        del bench.place.environment["PYTHONPATH"]


def test_syslog_over_tls(bench: Bench, tmp_path: Path) -> None:
    """Refused without --without-ack; with it every entry is there after the window."""
    authority = make_authority(tmp_path / "syslog")
    bench.fill(5)
    with receiving(authority) as receiver:
        to = f"syslog+tls://127.0.0.1:{receiver.port}"
        ended = bench.ship("--to", to)
        assert (ended.code, receiver.messages) == (2, [])
        ended = bench.ship(
            "--to", to, "--without-ack", "--confirm-window", "1s", "--audit-ca", str(authority.ca)
        )
        assert ended.code == 0, ended.text
        assert [message["text"] for message in receiver.messages] == bench.lines()


def test_a_run_delivers_behind_its_work(released: Workplace, tmp_path: Path) -> None:
    """The run's result is what it would be; its entries arrive, or one line says what to type."""
    import shutil

    root = tmp_path / "service"
    shutil.copytree(released.root, root, symlinks=True, ignore=shutil.ignore_patterns("builder"))
    (tmp_path / "bases").symlink_to((released.root.parent / "bases").resolve())
    place = Workplace(root, released.environment)
    collector = Collector(time.monotonic)
    with serving(collector) as base:
        to = {"SECURE_PIPELINE_AUDIT_TO": f"splunk+{base}", "SECURE_PIPELINE_AUDIT_TOKEN": TOKEN}
        ended = place.run("run", **to)
        assert ended.code == 0, ended.text
        lines = (place.state / "ledger.jsonl").read_text().splitlines()
        left = [line for line in ended.err.splitlines() if "not acknowledged yet" in line]
        assert place.run("audit", "ship", **to).code == 0
        assert {event["event"] for event in collector.indexed} == set(lines)
        assert len(left) <= 1


@pytest.mark.parametrize("how", ["nobody listens", "silent", "no token"])
def test_a_run_is_neither_failed_nor_delayed(released: Workplace, how: str, tmp_path: Path) -> None:
    """A collector that is away, hangs, or is configured wrong changes one line and no more."""
    import shutil
    import socket

    root = tmp_path / "service"
    shutil.copytree(released.root, root, symlinks=True, ignore=shutil.ignore_patterns("builder"))
    (tmp_path / "bases").symlink_to((released.root.parent / "bases").resolve())
    place = Workplace(root, released.environment)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if how == "silent":
            silent.listen()
        to = {"SECURE_PIPELINE_AUDIT_TO": f"splunk+http://127.0.0.1:{silent.getsockname()[1]}"}
        if how != "no token":
            to["SECURE_PIPELINE_AUDIT_TOKEN"] = TOKEN
        ended = place.run("run", timeout=300, **to)
    assert ended.code == 0, ended.text
    (line,) = [text for text in ended.err.splitlines() if "audit entries" in text]
    if how == "no token":
        assert "no token is named" in line
    else:
        assert line.endswith("deliver them with: secure-pipeline audit ship")
    assert threading.active_count() < 20
