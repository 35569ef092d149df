"""The durable cursor of a destination."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from secure_pipeline.audit.spool import Held, Position, Spool
from secure_pipeline.errors import ConfigError, Unavailable

TO = "splunk+https://splunk.example:8088"
LEDGER = "a" * 64


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """A cursor survives the process, for its destination and its ledger alone."""
    Spool(tmp_path, TO).cursor(LEDGER).save(Position(7, "b" * 64, 1234))
    found = Spool(tmp_path, TO).cursor(LEDGER).load()
    assert found == Position(7, "b" * 64)
    assert found is not None
    assert found.offset == 1234
    assert Spool(tmp_path, TO).cursor("c" * 64).load() is None
    assert Spool(tmp_path, "splunk+https://other.example:8088").cursor(LEDGER).load() is None
    assert [cursor.ledger for cursor in Spool(tmp_path, TO).cursors()] == [LEDGER]


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    """The file is the user's own."""
    cursor = Spool(tmp_path, TO).cursor(LEDGER)
    cursor.save(Position(0, "b" * 64))
    assert cursor.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"version":2}',
        b'{"version":1,"destination":"x","ledger":"y","sequence":1,"id":"z","offset":0}',
        b'{"version":1,"destination":"%s","ledger":"y","sequence":1,"id":"z","offset":0}',
        b'{"version":1,"destination":"%s","ledger":"%l","sequence":-1,"id":"z","offset":0}',
        b'{"version":1,"destination":"%s","ledger":"%l","sequence":true,"id":"z","offset":0}',
        b'{"version":1,"destination":"%s","ledger":"%l","sequence":1,"id":"","offset":0}',
        b'{"version":1,"destination":"%s","ledger":"%l","sequence":1,"id":"z"}',
        b"x" * 20000,
    ],
)
def test_a_damaged_cursor_is_never_guessed_at(tmp_path: Path, data: bytes) -> None:
    """What is not a cursor says so and what to type; it is neither the start nor the end."""
    cursor = Spool(tmp_path, TO).cursor(LEDGER)
    cursor.path.write_bytes(data.replace(b"%s", TO.encode()).replace(b"%l", LEDGER.encode()))
    with pytest.raises(ConfigError) as caught:
        cursor.load()
    assert str(cursor.path) in str(caught.value)
    assert caught.value.hint or "larger" in str(caught.value)


def test_a_full_disk_leaves_the_old_cursor(tmp_path: Path, monkeypatch) -> None:
    """A cursor that cannot be written is Unavailable, and the old one stays whole."""
    cursor = Spool(tmp_path, TO).cursor(LEDGER)
    cursor.save(Position(3, "b" * 64))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="No space left"):
        cursor.save(Position(4, "c" * 64))
    monkeypatch.undo()
    assert cursor.load() == Position(3, "b" * 64)
    assert [path.name for path in tmp_path.iterdir()] == [cursor.path.name]


def test_two_cannot_deliver_at_once(tmp_path: Path) -> None:
    """A second one is told at once, and another destination is not concerned."""
    with Spool(tmp_path, TO).held():
        with pytest.raises(Held), Spool(tmp_path, TO).held():
            pass
        with Spool(tmp_path, "https://other.example").held():
            pass
    with Spool(tmp_path, TO).held():
        pass


def _hold_and_die(directory: Path, ready) -> None:
    with Spool(directory, TO).held():
        ready.set()
        signal.pause()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    """Kill -9 of who delivers frees the destination."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold_and_die, args=(tmp_path, ready))
    holder.start()
    try:
        assert ready.wait(60)
        with pytest.raises(Held), Spool(tmp_path, TO).held():
            pass
    finally:
        holder.kill()
        holder.join(30)
    with Spool(tmp_path, TO).held():
        pass


def test_a_cursor_holds_no_secret(tmp_path: Path) -> None:
    """The file has the address, the ledger's name, a number and a digest; nothing else."""
    cursor = Spool(tmp_path, TO).cursor(LEDGER)
    cursor.save(Position(3, "b" * 64))
    assert sorted(json.loads(cursor.path.read_bytes())) == [
        "destination",
        "id",
        "ledger",
        "offset",
        "sequence",
        "version",
    ]
