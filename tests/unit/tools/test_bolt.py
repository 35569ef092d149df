"""Names of buckets, from files that are sound and files that are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.boltfile import PAGE, bolt_file
from secure_pipeline.errors import Inconclusive
from secure_pipeline.tools.bolt import bucket_names

NAMES = ["data-source", "debian 12", "vulnerability"]
SOUND = bolt_file(NAMES)


@pytest.mark.parametrize("branch", [False, True])
def test_names_are_read(tmp_path: Path, branch: bool) -> None:
    """All top-level buckets are named, with and without a branch page."""
    (tmp_path / "db").write_bytes(bolt_file(NAMES, branch=branch))
    assert bucket_names(tmp_path / "db") == frozenset(NAMES)


def test_a_damaged_newer_meta_page_leaves_the_older(tmp_path: Path) -> None:
    """The meta page whose checksum fails is passed over."""
    data = bytearray(SOUND)
    data[PAGE + 40] ^= 1
    (tmp_path / "db").write_bytes(data)
    assert bucket_names(tmp_path / "db") == frozenset(NAMES)


@pytest.mark.parametrize("data", [b"", b"x", b"\0" * 9000, SOUND[:100], SOUND[: 3 * PAGE]])
def test_what_is_no_database_is_inconclusive(tmp_path: Path, data: bytes) -> None:
    """Empty, short and foreign files are refused."""
    (tmp_path / "db").write_bytes(data)
    with pytest.raises(Inconclusive):
        bucket_names(tmp_path / "db")


def test_a_missing_file_is_inconclusive(tmp_path: Path) -> None:
    """No file, no answer."""
    with pytest.raises(Inconclusive):
        bucket_names(tmp_path / "db")


def test_a_branch_that_leads_to_itself_ends(tmp_path: Path) -> None:
    """A cycle of pages is refused instead of followed for ever."""
    data = bytearray(bolt_file(NAMES, branch=True))
    start = 3 * PAGE + 16 + 8
    data[start : start + 8] = (3).to_bytes(8, "little")
    (tmp_path / "db").write_bytes(data)
    with pytest.raises(Inconclusive):
        bucket_names(tmp_path / "db")


@given(st.integers(2 * PAGE, len(SOUND) - 1), st.integers(0, 255))
def test_an_altered_byte_gives_names_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    """Whatever a page holds, the reader ends with names or with Inconclusive."""
    path = tmp_path_factory.getbasetemp() / "altered.db"
    data = bytearray(SOUND)
    data[position] = value
    path.write_bytes(data)
    try:
        names = bucket_names(path)
    except Inconclusive:
        return
    assert isinstance(names, frozenset)
