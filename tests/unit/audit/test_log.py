"""The ledger's file: what is acknowledged stays, what cannot be recorded does not happen."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import threading

import pytest

from fakes.ledgers import ACTOR, USE, Ticking, ledger
from secure_pipeline.audit import entry
from secure_pipeline.audit.entry import Actor, Kind, Outcome
from secure_pipeline.audit.log import FileLedger, Head
from secure_pipeline.audit.reader import entries
from secure_pipeline.audit.recording import recorded
from secure_pipeline.audit.verify import Fault, verify
from secure_pipeline.errors import (
    ExitCode,
    Inconclusive,
    PolicyDenied,
    Unavailable,
    VerificationFailed,
)
from secure_pipeline.ports import SecretUse


@pytest.fixture
def log(tmp_path):
    return ledger(tmp_path)


def kinds(log):
    return [item.entry.kind.value for item in entries(log.path)]


def test_intent_and_conclusion_are_recorded(log):
    """Who, when, stage, run, what was used, and how it ended; the first entry opens the ledger."""
    intent = log.intend(USE)
    log.conclude(intent, "done", {"signature": "sha256:0"})
    opened, first, second = (item.entry for item in entries(log.path))
    assert opened.kind is Kind.OPENED
    assert (first.action, first.stage, first.subject, first.run) == ("sign", "sign", *USE_PLACE)
    assert (first.actor, dict(first.details)) == (ACTOR, USE.details)
    assert (second.intent, second.outcome, second.run) == (intent, Outcome.DONE, USE.run)
    assert second.time > first.time > opened.time
    assert verify(log.path).exit_code is ExitCode.PASS
    assert log.path.stat().st_mode & 0o777 == 0o600


USE_PLACE = (USE.subject, USE.run)


def test_the_id_of_an_intent_is_its_hash(log):
    """What the port returns names the entry (AUD-09)."""
    intent = log.intend(USE)
    assert [item.hash for item in entries(log.path)][-1] == intent


def test_another_process_can_conclude(log, tmp_path):
    """An intent that was left open is concluded later; one that there is not is refused."""
    intent = log.intend(USE)
    ledger(tmp_path).conclude(intent, "failed", {})
    last = list(entries(log.path))[-1].entry
    assert (last.intent, last.subject) == (intent, USE.subject)
    with pytest.raises(Unavailable, match="no intent"):
        ledger(tmp_path).conclude("0" * 64, "done", {})


def test_a_verified_caller_is_named_as_such(log):
    """Once Vault says who it is, the entries say so."""
    entity = Actor("vault", "entity/1234", verified=True)
    other = log.acting_as(entity)
    log.conclude(other.intend(USE), "done", {})
    first, second = [item.entry.actor for item in entries(log.path)][1:]
    assert (first, second) == (entity, ACTOR)


def test_threads_and_instances_share_one_chain(tmp_path):
    """16 writers at once, each with an instance of its own: every entry, one chain."""

    def write():
        mine = ledger(tmp_path)
        for _ in range(5):
            mine.conclude(mine.intend(USE), "done", {})

    threads = [threading.Thread(target=write) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = verify(tmp_path / "ledger.jsonl")
    assert (found.exit_code, found.entries, found.open) == (ExitCode.PASS, 161, 0)


# --- a torn tail ---------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [b"{", b'{"action":"sign","actor', b"\0" * 700, b"\xff\xfe"])
def test_aud_03_a_torn_tail_is_moved_aside_and_recorded(log, torn):
    """The chain goes on from the last whole entry; the bytes are kept, and nothing is glued."""
    log.intend(USE)
    before = log.path.read_bytes()
    log.path.write_bytes(before + torn)
    log.intend(USE)
    assert log.path.read_bytes().startswith(before)
    assert kinds(log) == ["opened", "intent", "recovered", "intent"]
    details = list(entries(log.path))[2].entry.details
    assert (log.path.parent / str(details["file"])).read_bytes() == torn
    assert details["bytes"] == len(torn)
    assert verify(log.path).exit_code is ExitCode.PASS


def test_aud_03_a_page_that_never_reached_the_disk_is_a_torn_tail(log):
    """After a power failure the last line may have its end, and zeros before it."""
    log.intend(USE)
    before = log.path.read_bytes()
    torn = b"\0" * 300 + b'"time":"2026"}\n'
    log.path.write_bytes(before + torn)
    assert verify(log.path).torn == len(torn)
    assert len(list(entries(log.path))) == 2
    log.intend(USE)
    assert kinds(log) == ["opened", "intent", "recovered", "intent"]
    assert [path.read_bytes() for path in log.path.parent.glob("*.torn")] == [torn]
    log.path.write_bytes(before.replace(b'"kind"', b'"k\0nd"', 1) + before.splitlines()[1])
    assert verify(log.path).damage.seq == 0


def test_aud_03_a_torn_first_entry_leaves_an_empty_ledger(log):
    """A writer killed in its very first write: the ledger is opened again, the bytes are kept."""
    log.path.write_bytes(b'{"act')
    log.intend(USE)
    assert kinds(log) == ["opened", "recovered", "intent"]


def test_aud_03_recovery_continues_where_it_was_killed(log):
    """Bytes set aside but not recorded are recorded; recorded but not renamed are renamed."""
    log.intend(USE)
    pending = log.path.with_name("ledger.jsonl.torn")
    pending.write_bytes(b"{x")
    assert log.recover()
    assert kinds(log) == ["opened", "intent", "recovered"]
    (kept,) = log.path.parent.glob("*.torn")
    kept.rename(pending)
    log.intend(USE)
    assert kinds(log) == ["opened", "intent", "recovered", "intent"]
    assert not pending.exists()
    assert not log.recover()


def test_aud_03_a_torn_record_of_a_torn_tail_loses_neither(log):
    """A recovery killed while it wrote its own entry: both pieces are kept in one file."""
    log.intend(USE)
    log.path.with_name("ledger.jsonl.torn").write_bytes(b"{first")
    with log.path.open("ab") as stream:
        stream.write(b"{second")
    log.intend(USE)
    (kept,) = log.path.parent.glob("*.torn")
    assert kept.read_bytes() == b"{first{second"
    assert verify(log.path).exit_code is ExitCode.PASS


def test_what_is_longer_than_an_entry_is_no_torn_tail(log):
    """No writer of ours leaves so much: refused, and kept as it is."""
    log.intend(USE)
    with log.path.open("ab") as stream:
        stream.write(b"x" * (entry.MAX_LINE_BYTES + 1))
    before = log.path.read_bytes()
    with pytest.raises(VerificationFailed, match="longer than an entry"):
        log.intend(USE)
    assert log.path.read_bytes() == before


def test_aud_02_nothing_is_built_upon_an_altered_entry(log):
    """An altered last entry stops the step, and the file stays as it is."""
    log.intend(USE)
    data = log.path.read_bytes().replace(b"release.key", b"another.key")
    log.path.write_bytes(data)
    for act in (lambda: log.intend(USE), log.head, lambda: log.rotate("x")):
        with pytest.raises(VerificationFailed, match="hash"):
            act()
    assert log.path.read_bytes() == data


# --- rotation ------------------------------------------------------------------------------


def test_aud_02_a_new_ledger_commits_to_the_old_one(log):
    """Its first entry names the old head and the digest of the whole old file."""
    log.intend(USE)
    head, content = log.head(), log.path.read_bytes()
    sealed = log.rotate("quarterly")
    assert sealed.read_bytes() == content
    details = next(entries(log.path)).entry.details
    assert details["previousOrigin"] == head.origin
    assert (details["previousSeq"], details["previousHash"]) == (head.seq, head.hash)
    assert (details["previousFile"], details["previousDamage"]) == (sealed.name, None)
    log.intend(USE)
    assert verify(log.path).exit_code is ExitCode.PASS
    assert verify(log.path).origin != head.origin


def test_aud_02_a_damaged_ledger_is_sealed_as_it_is(log):
    """The damage stays in the sealed file and on record: nothing turns an alarm green."""
    log.intend(USE)
    data = log.path.read_bytes().replace(b"release.key", b"another.key")
    log.path.write_bytes(data)
    sealed = log.rotate("after the incident", damage="entry 1 is edited")
    assert sealed.read_bytes() == data
    details = next(entries(log.path)).entry.details
    assert details["previousDamage"] == "entry 1 is edited"
    assert "previousHash" not in details
    assert verify(sealed).damage.fault is Fault.EDITED


def test_a_rotation_that_was_killed_is_repeated(log):
    """The old file has its second name already, and is still the ledger."""
    log.intend(USE)
    sealed = log.rotate("first")
    os.link(log.path, log.path.with_name("x"))
    first = log.path.read_bytes()
    os.replace(sealed, log.path)
    os.link(log.path, sealed)
    log.intend(USE)
    assert log.rotate("again") == sealed
    assert kinds(log) == ["opened"]
    assert log.path.read_bytes() != first


def test_a_writer_that_waited_follows_to_the_new_file(log, tmp_path):
    """A lock on a file that was rotated meanwhile is not the ledger's lock."""
    log.intend(USE)
    with log.path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        waiting = threading.Thread(target=lambda: ledger(tmp_path).intend(USE))
        waiting.start()
        new = tmp_path / "new"
        other = FileLedger(new, ACTOR, Ticking())
        other.intend(USE)
        os.replace(new, log.path)
    waiting.join()
    assert kinds(log) == ["opened", "intent", "intent"]


# --- what cannot be written ----------------------------------------------------------------


@pytest.fixture
def small_disk():
    """A file size limit, which fails in the middle of a write as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 1, 200])
def test_aud_07_a_full_disk_stops_the_step_and_harms_nothing(log, small_disk, room):
    """A write that ends in the middle is taken back; with room again the chain goes on."""
    log.intend(USE)
    before = log.path.read_bytes()
    small_disk(len(before) + room)
    with pytest.raises(Unavailable, match="cannot record"):
        log.intend(USE)
    assert log.path.read_bytes() == before
    small_disk(1 << 30)
    log.intend(USE)
    assert verify(log.path).exit_code is ExitCode.PASS


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_aud_07_nothing_is_acknowledged_that_the_disk_refused(log, monkeypatch, call, code):
    """Full, over quota, broken, read-only: the step is stopped and the entry is not there."""
    log.intend(USE)
    before = log.path.read_bytes()

    def refuse(*arguments):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(Unavailable, match=os.strerror(code)):
            log.intend(USE)
    assert log.path.read_bytes() == before


def test_aud_05_nothing_is_acknowledged_before_the_directory_is_on_disk(log, monkeypatch):
    """A new file whose name may not survive is no record."""
    real = os.fsync

    def refuse(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EIO, "disk")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(Unavailable):
        log.intend(USE)


def test_aud_05_a_ledger_that_vanished_is_made_durable_again(log, monkeypatch):
    """Its name too, although this process has done that once."""
    log.intend(USE)
    log.path.unlink()
    real, synced = os.fsync, []

    def note(descriptor):
        synced.append(os.path.isdir(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    log.intend(USE)
    assert True in synced


def test_aud_05_a_head_is_on_the_disk_before_it_is_signed(log, monkeypatch):
    """Its writer may have been killed between its write and its fsync."""
    log.intend(USE)

    def refuse(descriptor):
        raise OSError(errno.EIO, "disk")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(Unavailable, match="cannot record"):
        log.head()


def test_aud_07_places_that_are_no_file_are_refused(tmp_path):
    """A directory, a FIFO without reader, a file below a file: an error, never a hang."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "file" / "ledger.jsonl"):
        with pytest.raises(Unavailable):
            FileLedger(path, ACTOR, Ticking()).intend(USE)


def test_a_stopped_writer_does_not_stop_all_others_for_good(log, tmp_path):
    """Whoever waits for the lock gives up at its deadline."""
    log.intend(USE)
    with log.path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="holds the ledger"):
            ledger(tmp_path, wait=0.05).intend(USE)


def test_details_that_cannot_be_recorded_stop_the_step(log):
    """A name that no line may have, too many details: nothing is recorded, nothing happens."""
    for details in ({"a b": 1}, {f"x{n}": n for n in range(30)}):
        with pytest.raises(Unavailable, match="cannot be recorded"):
            log.intend(SecretUse("sign", "sign", "x", None, details))
    assert kinds(log) in ([], ["opened"])


# --- reading -------------------------------------------------------------------------------


def test_entries_are_read_from_any_number_with_their_exact_bytes(log):
    """By number, and by number and offset; what comes is what the file holds."""
    for _ in range(6):
        log.intend(USE)
    everything = list(entries(log.path))
    data = log.path.read_bytes()
    assert all(data[s.offset : s.next_offset] == s.data + b"\n" for s in everything)
    assert list(entries(log.path, 4)) == everything[4:]
    assert list(entries(log.path, 4, offset=everything[3].next_offset)) == everything[4:]
    assert list(entries(log.path, 7)) == []
    with pytest.raises(Inconclusive, match="no entry begins"):
        list(entries(log.path, 0, offset=5))


def test_a_reader_stops_at_damage_and_before_a_torn_tail(log):
    """What is not whole is not read; what is altered is an error."""
    for _ in range(3):
        log.intend(USE)
    good = log.path.read_bytes()
    log.path.write_bytes(good + b'{"torn')
    assert len(list(entries(log.path))) == 4
    lines = good.splitlines(keepends=True)
    log.path.write_bytes(b"".join([lines[0], lines[2], lines[3]]))
    with pytest.raises(VerificationFailed, match="does not follow"):
        list(entries(log.path))
    log.path.write_bytes(good.replace(b"release.key", b"another.key", 1))
    with pytest.raises(VerificationFailed, match="altered"):
        list(entries(log.path))


def test_the_head_names_the_ledger_and_its_end(log):
    """What a checkpoint commits to; there is none without a ledger."""
    with pytest.raises(Unavailable, match="no ledger"):
        log.head()
    intent = log.intend(USE)
    origin = next(entries(log.path)).hash
    assert log.head() == Head(origin, 1, intent)


# --- recording -----------------------------------------------------------------------------


def test_recorded_concludes_whatever_happens(log):
    """Done, failed, refused; the first error is the one that is raised."""
    with recorded(log, USE) as details:
        details["signatures"] = 7
    with pytest.raises(VerificationFailed), recorded(log, USE):
        raise VerificationFailed("wrong key")
    with pytest.raises(PolicyDenied), recorded(log, USE):
        raise PolicyDenied("not you")
    with pytest.raises(KeyboardInterrupt), recorded(log, USE):
        raise KeyboardInterrupt
    ended = [i.entry for i in entries(log.path) if i.entry.kind is Kind.CONCLUSION]
    assert [item.outcome.value for item in ended] == ["done", "failed", "refused", "failed"]
    assert [dict(item.details) for item in ended] == [
        {"signatures": 7},
        {"reason": "wrong key"},
        {"reason": "not you"},
        {"reason": "KeyboardInterrupt"},
    ]


def test_aud_07_what_cannot_be_recorded_does_not_happen(tmp_path):
    """The body does not run without its intent on the disk."""
    broken = FileLedger(tmp_path, ACTOR, Ticking())
    with pytest.raises(Unavailable), recorded(broken, USE):
        pytest.fail("it happened")
