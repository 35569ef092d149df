"""What every ledger promises to those who use keys, whoever they are and wherever it lies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.ledgers import USE, ledger
from secure_pipeline.audit.log import FileLedger
from secure_pipeline.audit.reader import entries
from secure_pipeline.errors import Unavailable
from secure_pipeline.ports import Ledger

Open = Callable[[], Ledger]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def opened(path: Path) -> Open:
    """Opens the same ledger, each time as another process would."""
    return lambda: ledger(path)


def test_an_intent_is_there_when_it_is_acknowledged(opened: Open, path: Path) -> None:
    """Its id names an entry that any other process can read."""
    intent = opened().intend(USE)
    assert intent in {item.hash for item in entries(path / "ledger.jsonl")}


def test_every_intent_has_an_id_of_its_own(opened: Open) -> None:
    """The same use twice is two entries."""
    book = opened()
    assert len({book.intend(USE) for _ in range(3)} | {opened().intend(USE)}) == 4


@pytest.mark.parametrize("outcome", ["done", "failed", "refused"])
def test_an_intent_is_concluded_with_its_outcome(opened: Open, outcome: str) -> None:
    """By the process that made it, or by another one."""
    first = opened()
    first.conclude(first.intend(USE), outcome, {"a": 1, "b": True, "c": None, "d": "text"})
    opened().conclude(first.intend(USE), outcome, {})


def test_an_intent_that_is_not_there_cannot_be_concluded(opened: Open) -> None:
    """A conclusion without its intent would be no record."""
    with pytest.raises(Unavailable):
        opened().conclude("0" * 64, "done", {})


def test_details_that_cannot_be_recorded_are_refused(opened: Open) -> None:
    """Rather than recorded as something else."""
    book = opened()
    intent = book.intend(USE)
    for details in ({"a b": 1}, {"x": 1.5}, {f"x{n}": n for n in range(100)}):
        with pytest.raises(Unavailable):
            book.conclude(intent, "done", details)  # type: ignore[arg-type]


def test_aud_07_a_ledger_that_cannot_be_written_refuses(tmp_path: Path) -> None:
    """Unavailable, so that what was asked for does not happen."""
    (tmp_path / "file").touch()
    for place in (tmp_path, Path("/dev/full"), tmp_path / "file" / "ledger.jsonl"):
        fresh = ledger(tmp_path / "x")
        book: Ledger = FileLedger(place, fresh.actor, fresh._clock)
        with pytest.raises(Unavailable):
            book.intend(USE)
