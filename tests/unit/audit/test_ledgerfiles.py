"""Real ledger files as sources of delivery."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.ledgerlines import HandClock, Memory
from secure_pipeline.audit.delivery import after
from secure_pipeline.audit.entry import Actor
from secure_pipeline.audit.ledgerfiles import ledgers
from secure_pipeline.audit.log import FileLedger
from secure_pipeline.audit.spool import Position
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.ports import SecretUse


def ledger(path: Path, count: int = 5) -> FileLedger:
    made = FileLedger(path, Actor("os", "tester", verified=False), HandClock())
    fill(made, count)
    return made


def fill(made: FileLedger, count: int) -> None:
    for number in range(count):
        made.intend(SecretUse("sign", "sign", f"app@sha256:{number:064}"))


def test_no_ledger_is_nothing_to_deliver(tmp_path: Path) -> None:
    """Before the first entry there is nothing."""
    assert ledgers(tmp_path / "ledger.jsonl") == ()
    (tmp_path / "ledger.jsonl").touch()
    assert ledgers(tmp_path / "ledger.jsonl") == ()


def test_entries_have_their_exact_bytes_and_the_ledgers_name(tmp_path: Path) -> None:
    """Each event is one line of the file; its id is the entry's hash."""
    path = tmp_path / "ledger.jsonl"
    ledger(path)
    (found,) = ledgers(path)
    events = list(found.events(0, 0))
    assert b"".join(event.data + b"\n" for event in events) == path.read_bytes()
    assert [event.sequence for event in events] == list(range(6))
    assert {event.ledger for event in events} == {events[0].id} == {found.origin}
    assert [event.id.encode() in event.data for event in events] == [True] * 6


def test_reading_goes_on_where_it_ended(tmp_path: Path) -> None:
    """From the offset of the last entry; a wrong offset changes nothing but the time."""
    path = tmp_path / "ledger.jsonl"
    made = ledger(path)
    (found,) = ledgers(path)
    events = list(found.events(0, 0))
    fill(made, 2)
    last = events[3]
    for offset in (last.offset, 0, events[1].offset, events[5].offset, 7, 10**9):
        position = Position(last.sequence, last.id, offset)
        assert [event.sequence for event in after(found, position)] == [4, 5, 6, 7]


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_aud_01_a_tail_that_was_cut_off_is_noticed(tmp_path: Path, keep: int) -> None:
    """Entries that were delivered and are gone are an alarm, wherever the file ends now."""
    path = tmp_path / "ledger.jsonl"
    ledger(path)
    (found,) = ledgers(path)
    last = list(found.events(0, 0))[4]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:keep]))
    with pytest.raises(VerificationFailed, match="cut or replaced"):
        list(after(found, last.position))


def test_a_torn_tail_is_not_delivered(tmp_path: Path) -> None:
    """What a writer has not ended is no entry yet."""
    path = tmp_path / "ledger.jsonl"
    ledger(path)
    with path.open("ab") as stream:
        stream.write(b'{"action":"sign","act')
    (found,) = ledgers(path)
    assert len(list(found.events(0, 0))) == 6


def test_sealed_ledgers_come_first(tmp_path: Path) -> None:
    """After a rotation the old ledger is delivered to its end, then the new one."""
    path = tmp_path / "ledger.jsonl"
    made = ledger(path)
    made.rotate("a new year")
    fill(made, 1)
    old, new = ledgers(path)
    assert (old.path.suffix, new.path) == (".sealed", path)
    assert new.previous == old.origin
    assert len(list(old.events(0, 0))) == 6
    assert [event.sequence for event in new.events(0, 0)] == [0, 1]
    os.unlink(old.path)
    assert ledgers(path) == (new,)


def test_a_ledger_sealed_as_damaged_is_delivered_up_to_the_damage(tmp_path: Path) -> None:
    """What its successor says about it is no new alarm every time."""
    path = tmp_path / "ledger.jsonl"
    made = ledger(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    (found,) = ledgers(path)
    with pytest.raises(VerificationFailed):
        list(found.events(0, 0))
    made.rotate("someone was here", damage="line 4")
    old, _ = ledgers(path)
    assert old.damaged
    assert 0 < len(list(old.events(0, 0))) < 6
    data = bytearray(old.path.read_bytes())
    data[5] ^= 1
    old.path.write_bytes(bytes(data))
    assert [item.path for item in ledgers(path)] == [path]


def test_a_cursor_knows_nothing_of_offsets(tmp_path: Path) -> None:
    """Two positions are the same entry whatever the offset: it is a hint."""
    assert Position(1, "a" * 64, 5) == Position(1, "a" * 64, 9)
    assert Memory(Position(1, "a" * 64)).load() == Position(1, "a" * 64, 3)
