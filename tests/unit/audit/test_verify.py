"""The first bad entry is named, whatever was done to a ledger."""

from __future__ import annotations

import hashlib
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.ledgers import as_file, chain
from secure_pipeline.audit import entry
from secure_pipeline.audit.log import Head
from secure_pipeline.audit.verify import Fault, verify
from secure_pipeline.errors import ExitCode, Inconclusive

LINES = chain(60)
HEAD = Head(entry.scan(LINES[0]).hash.decode(), len(LINES) - 1, entry.scan(LINES[-1]).hash.decode())


@pytest.fixture
def check(tmp_path):
    """Verifies bytes as a ledger, against the head of LINES."""
    path = tmp_path / "ledger.jsonl"

    def run(data: bytes, *anchors: Head):
        path.write_bytes(data)
        return verify(path, anchors or (HEAD,))

    return run


def test_a_whole_ledger_passes(check):
    """Every entry is right, the anchor fits, the open intent is counted."""
    found = check(as_file(LINES))
    assert (found.damage, found.torn, found.exit_code) == (None, 0, ExitCode.PASS)
    assert (found.head, found.entries, found.anchors, found.open) == (HEAD, 60, 1, 1)


def test_aud_02_every_damage_is_found_at_its_entry(check):
    """1,000 random trials: one bit flipped, or an entry deleted, doubled, swapped or cut."""
    chance = random.Random(20260301)
    for trial in range(1000):
        data, seq, faults = TRIALS[trial % len(TRIALS)](chance)
        found = check(data)
        assert found.damage, f"trial {trial} was not found"
        assert (found.damage.seq, found.damage.line) == (seq, seq + 1), f"trial {trial}: {found}"
        assert found.damage.fault in faults, f"trial {trial}: {found}"
        assert found.damage.offset == len(as_file(LINES[:seq]))
        assert found.exit_code is ExitCode.VERIFICATION


def flip(chance):
    data, seq = bytearray(as_file(LINES)), chance.randrange(60)
    start = len(as_file(LINES[:seq]))
    data[start + chance.randrange(len(LINES[seq]) + 1)] ^= 1 << chance.randrange(8)
    return bytes(data), seq, {Fault.EDITED, Fault.TRUNCATED if seq == 59 else Fault.EDITED}


def delete(chance):
    seq = chance.randrange(60)
    return as_file(LINES[:seq] + LINES[seq + 1 :]), seq, {
        Fault.TRUNCATED if seq == 59 else Fault.DELETED
    }  # fmt: skip


def swap(chance):
    first, second = sorted(chance.sample(range(60), 2))
    lines = list(LINES)
    lines[first], lines[second] = lines[second], lines[first]
    return as_file(lines), first, {Fault.REORDERED}


def insert(chance):
    """A copy of any entry anywhere: bad from the first place where it does not belong."""
    place, copied = chance.randrange(60), chance.randrange(60)
    lines = [*LINES[:place], LINES[copied], *LINES[place:]]
    seq = place + 1 if place == copied else place
    return as_file(lines), seq, {Fault.INSERTED, Fault.REORDERED}


def truncate(chance):
    """At any byte: behind the last whole entry the anchor misses the next."""
    whole = as_file(LINES)
    cut = chance.randrange(1, len(whole))
    return whole[:cut], whole[:cut].count(b"\n"), {Fault.TRUNCATED}


def rewrite(chance):
    """One entry edited, with its hash made anew: its follower tells."""
    seq = chance.randrange(59)
    lines = list(LINES)
    lines[seq] = rehash(LINES[seq], stage="promote")
    return as_file(lines), seq, {Fault.EDITED}


TRIALS = [flip, delete, swap, insert, truncate, rewrite]


def rehash(data: bytes, **changes: object) -> bytes:
    """Write a line with other members and a right hash."""
    value = json.loads(data)
    item = entry.read(data)
    fields = {**item.__dict__, **changes}
    assert value["seq"] == item.seq
    return entry.write(entry.Entry(**fields)).data


def test_aud_01_a_ledger_written_anew_is_caught_by_the_anchor(check):
    """Every hash is right and every link fits; only what was kept elsewhere tells."""
    lines, prev = [], entry.NO_HASH
    for number, line in enumerate(LINES):
        changes = {"stage": "promote"} if number == 20 else {}
        lines.append(rehash(line, prev=prev, **changes))
        prev = entry.scan(lines[-1]).hash.decode()
    early = Head(HEAD.origin, 10, entry.scan(LINES[10]).hash.decode())
    assert check(as_file(lines), early).exit_code is ExitCode.PASS
    found = check(as_file(lines), HEAD, early)
    assert (found.damage.fault, found.damage.seq) == (Fault.REPLACED, 59)


def test_aud_01_another_ledger_in_its_place_is_caught_by_the_anchor(check):
    """A ledger that was begun anew is not the one that the anchor saw."""
    lines = [rehash(LINES[0], stage="other")]
    assert check(as_file(lines)).damage.fault is Fault.REPLACED


def test_aud_01_without_an_anchor_a_cut_tail_does_not_show(tmp_path):
    """Which is why heads are anchored: the chain alone passes."""
    (tmp_path / "l").write_bytes(as_file(LINES[:30]))
    found = verify(tmp_path / "l")
    assert (found.exit_code, found.anchors) == (ExitCode.PASS, 0)


def test_aud_03_a_torn_tail_is_no_tampering_and_no_proof(tmp_path):
    """Bytes behind the last line end are reported as such; the exit code says 'not decided'."""
    (tmp_path / "l").write_bytes(as_file(LINES[:30]) + LINES[30][:100])
    found = verify(tmp_path / "l")
    assert (found.damage, found.torn, found.head.seq) == (None, 100, 29)
    assert found.exit_code is ExitCode.INCONCLUSIVE


@pytest.mark.parametrize("data", [b"", b"torn"])
def test_an_empty_ledger_proves_nothing(tmp_path, data):
    """No entry is no pass."""
    (tmp_path / "l").write_bytes(data)
    assert verify(tmp_path / "l").exit_code is ExitCode.INCONCLUSIVE


def test_a_missing_ledger_is_not_decided(tmp_path):
    """No file, a directory: neither right nor wrong."""
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(Inconclusive):
            verify(path)


def test_an_emptied_ledger_is_caught_by_the_anchor(check):
    """A file cut to nothing misses entry 0."""
    found = check(b"")
    assert (found.damage.fault, found.damage.seq) == (Fault.TRUNCATED, 0)


def test_an_unknown_version_is_not_decided(check):
    """A later program's entry stops the check at it, as neither right nor wrong."""
    data = LINES[30].replace(b'"v":1}', b'"v":7}')
    digest = entry.scan(LINES[30]).hash
    body = data.replace(b'"hash":"%s",' % digest, b"")
    later = data.replace(digest, hashlib.sha256(body).hexdigest().encode())
    found = check(as_file([*LINES[:30], later]))
    assert (found.damage.fault, found.damage.seq) == (Fault.UNKNOWN, 30)
    assert found.exit_code is ExitCode.INCONCLUSIVE


def test_a_line_without_end_is_not_read_whole(check):
    """A line longer than any entry is bad, after a bounded read."""
    found = check(as_file(LINES[:2]) + b"x" * (2 * entry.MAX_LINE_BYTES))
    assert (found.damage.fault, found.damage.seq) == (Fault.EDITED, 2)


@given(st.lists(st.sampled_from(range(60)), max_size=70))
def test_only_the_chain_itself_passes(tmp_path_factory, order):
    """Any other selection or order of its lines is damage, unless it is a beginning."""
    path = tmp_path_factory.mktemp("l") / "ledger.jsonl"
    path.write_bytes(as_file([LINES[number] for number in order]))
    found = verify(path)
    assert (found.damage is None) == (order == list(range(len(order))))
