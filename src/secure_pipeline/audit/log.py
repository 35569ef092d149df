"""The ledger's file: appended to by many processes, durable before it is acknowledged.

An append holds an exclusive lock from reading the head to the end of fsync (AUD-05), so that only
the last entry can ever be unfinished. What a killed writer left behind the last line end is moved
aside and recorded (AUD-03); an entry that was altered is never built upon.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.audit import entry
from secure_pipeline.audit.entry import (
    MAX_LINE_BYTES,
    NO_HASH,
    Actor,
    Entry,
    InvalidEntry,
    Kind,
    Line,
    Outcome,
    Value,
)
from secure_pipeline.audit.lockedfile import (
    altered,
    exclusive,
    last_line,
    split,
    unavailable,
    write_all,
)
from secure_pipeline.audit.reader import find_intent
from secure_pipeline.errors import Inconclusive, Unavailable
from secure_pipeline.files import (
    fsync_directory,
    read_bounded,
    sha256_bytes,
    sha256_file,
    write_atomic,
)
from secure_pipeline.ports import Clock, SecretUse

LOCK_SECONDS = 30.0
"""How long an append waits for others."""
MAX_TORN_BYTES = 4 << 20
_STAGE = "ledger"


@dataclass(frozen=True)
class Head:
    """The end of a ledger at some time: what a checkpoint commits to."""

    origin: str
    """Hash of the ledger's first entry, which names the ledger."""
    seq: int
    hash: str


@dataclass(frozen=True)
class _Tail:
    """What the end of the file holds."""

    size: int
    """Bytes up to the last line end."""
    seq: int
    hash: str
    kind: bytes
    torn: bytes
    """Bytes after the last line end."""


@dataclass(frozen=True)
class _Draft:
    """What an entry says, before its place in the chain is known."""

    kind: Kind
    use: SecretUse
    details: Mapping[str, Value]
    intent: str | None = None
    outcome: Outcome | None = None


class FileLedger:
    """A ledger in a file; implements ports.Ledger."""

    def __init__(
        self, path: Path, actor: Actor, clock: Clock, *, wait: float = LOCK_SECONDS
    ) -> None:
        self.path = path
        self.actor = actor
        self._pending = path.with_name(f"{path.name}.torn")
        self._clock = clock
        self._wait = wait
        self._uses: dict[str, SecretUse] = {}
        self._named = False

    def acting_as(self, actor: Actor) -> FileLedger:
        """The same ledger for entries of another caller, such as one that Vault has verified."""
        other = FileLedger(self.path, actor, self._clock, wait=self._wait)
        other._uses = self._uses
        return other

    def intend(self, use: SecretUse) -> str:
        """Record what is about to happen; its hash, once it is on the disk.

        Raises: Unavailable (full, read-only, busy), VerificationFailed (the last entry is
        altered). Then it must not happen.
        """
        intent = self._append(_Draft(Kind.INTENT, use, use.details))
        self._uses[intent] = use
        return intent

    def conclude(
        self, intent: str, outcome: str, details: Mapping[str, str | int | bool | None]
    ) -> None:
        """Record how it ended: 'done', 'failed' or 'refused'.

        Raises: Unavailable, also for an intent that is not in this ledger; VerificationFailed.
        """
        use = self._uses.get(intent) or self._earlier(intent)
        self._append(_Draft(Kind.CONCLUSION, use, details, intent, Outcome(outcome)))
        self._uses.pop(intent, None)

    def head(self) -> Head:
        """The last entry, whatever came after this process's own; it is on the disk.

        Raises: Unavailable if there is none, VerificationFailed if it is altered.
        """
        with exclusive(self.path, self._wait, create=False) as descriptor:
            tail = self._tail(descriptor)
            try:
                os.fsync(descriptor)  # its writer may have been killed before this
            except OSError as error:
                raise self._refused(error) from error
            return Head(self._origin(descriptor), tail.seq, tail.hash)

    def recover(self) -> bool:
        """Move a torn tail aside now instead of at the next append; False if there is none.

        Raises: Unavailable, VerificationFailed.
        """
        with exclusive(self.path, self._wait, create=False) as descriptor:
            if not self._tail(descriptor).torn and not self._pending.exists():
                return False
            self._settled(descriptor)
            return True

    def rotate(self, reason: str, *, damage: str | None = None) -> Path:
        """Seal this file under another name and open a new one that commits to it (AUD-02).

        ``damage`` says what is wrong with a file that cannot be continued: it stays as it is, and
        the new ledger commits to all of its bytes. Returns the sealed file's path.
        Raises: Unavailable; VerificationFailed for an altered end without ``damage``.
        """
        with exclusive(self.path, self._wait, create=False) as descriptor:
            details: dict[str, Value] = {"reason": reason}
            if damage is None:
                tail = self._settled(descriptor)
                details["previousOrigin"] = self._origin(descriptor)
                details |= {"previousSeq": tail.seq, "previousHash": tail.hash}
            first = os.pread(descriptor, MAX_LINE_BYTES, 0).partition(b"\n")[0]
            sealed = self.path.with_name(f"{self.path.name}.{sha256_bytes(first)[:16]}.sealed")
            details |= {
                "previousFile": sealed.name,
                "previousSha256": sha256_file(self.path),
                "previousDamage": damage,
            }
            self._replace(sealed, _opening(details))
            return sealed

    # --- appending ---------------------------------------------------------------------

    def _append(self, new: _Draft) -> str:
        """Append one entry behind whatever is there; its hash.

        Raises: Unavailable, VerificationFailed.
        """
        try:
            if not self._named:
                self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refused(error) from error
        with exclusive(self.path, self._wait, create=True) as descriptor:
            written = self._write(descriptor, self._settled(descriptor), new)
            if not self._named:
                self._make_name_durable()
            return written.hash

    def _write(self, descriptor: int, tail: _Tail, new: _Draft) -> _Tail:
        """Write an entry behind the tail and wait for the disk; on failure nothing is left."""
        line = self._line(new, tail.seq + 1, tail.hash)
        data = line.data + b"\n"
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        except OSError as error:
            with suppress(OSError):  # a torn tail is told from an altered entry all the same
                os.ftruncate(descriptor, tail.size)
                os.fsync(descriptor)
            raise self._refused(error) from error
        return _Tail(tail.size + len(data), line.seq, line.hash, new.kind.value.encode(), b"")

    def _settled(self, descriptor: int) -> _Tail:
        """Open an empty ledger; move torn bytes aside and record it. Any kill repeats it.

        The bytes are safe in a file of a fixed name before they are cut off, and that file gets
        its final name after the entry that records it.
        """
        tail = self._tail(descriptor)
        if tail.torn:
            self._set_aside(tail.torn)
            try:
                os.ftruncate(descriptor, tail.size)
                os.fsync(descriptor)
            except OSError as error:
                raise self._refused(error) from error
        if tail.size == 0:
            self._named = False
            tail = self._write(descriptor, tail, _opening({}))
        if self._pending.exists():
            tail = self._record_torn(descriptor, tail)
        return tail

    def _record_torn(self, descriptor: int, tail: _Tail) -> _Tail:
        torn = read_bounded(self._pending, MAX_TORN_BYTES)
        digest = sha256_bytes(torn)
        final = self.path.with_name(f"{self.path.name}.{digest[:16]}.torn")
        details: dict[str, Value] = {"file": final.name, "bytes": len(torn), "sha256": digest}
        if not self._is_recorded(descriptor, tail, details):
            tail = self._write(descriptor, tail, _Draft(Kind.RECOVERED, _own("recover"), details))
        self._rename(self._pending, final)
        return tail

    def _set_aside(self, torn: bytes) -> None:
        """Keep torn bytes; behind those that an earlier recovery kept and did not record."""
        before = read_bounded(self._pending, MAX_TORN_BYTES) if self._pending.exists() else b""
        if len(before) + len(torn) > MAX_TORN_BYTES:
            raise Unavailable("too many torn bytes were set aside", where=str(self._pending))
        if not before.endswith(torn):
            write_atomic(self._pending, before + torn, mode=0o600)

    def _is_recorded(self, descriptor: int, tail: _Tail, details: Mapping[str, Value]) -> bool:
        """Tell whether the last entry records these torn bytes already."""
        if tail.kind != Kind.RECOVERED.value.encode():
            return False
        line = last_line(descriptor, tail.size, str(self.path))
        return dict(entry.read(line).details) == dict(details)

    # --- reading the end -----------------------------------------------------------------

    def _tail(self, descriptor: int) -> _Tail:
        """Read the last entry and what is behind it. Raises: VerificationFailed, Unavailable."""
        where = str(self.path)
        try:
            size = os.fstat(descriptor).st_size
            whole, torn = split(descriptor, size, where)
            if whole == 0:
                return _Tail(0, -1, NO_HASH, b"", torn)
            line = last_line(descriptor, whole, where)
        except OSError as error:
            raise self._refused(error) from error
        try:
            link = entry.scan(line)
        except InvalidEntry as error:
            raise altered(f"the last entry is not what was written: {error}", where) from None
        return _Tail(whole, link.seq, link.hash.decode(), link.kind, torn)

    def _origin(self, descriptor: int) -> str:
        first, end, _ = os.pread(descriptor, MAX_LINE_BYTES, 0).partition(b"\n")
        try:
            link = entry.scan(first)
        except InvalidEntry as error:
            raise altered(f"the first entry is altered: {error}", str(self.path)) from None
        if not end or link.seq != 0:
            raise altered("the first entry is missing", str(self.path))
        return link.hash.decode()

    def _earlier(self, intent: str) -> SecretUse:
        """What an intent of another process was about. Raises: Unavailable if there is none."""
        try:
            found = find_intent(self.path, intent)
        except Inconclusive as error:
            raise Unavailable(error.message, where=error.where) from None
        if found is None:
            raise Unavailable(f"there is no intent {intent[:64]!r}", where=str(self.path))
        return SecretUse(found.action, found.stage, found.subject, found.run)

    # --- making entries and files --------------------------------------------------------

    def _line(self, new: _Draft, seq: int, prev: str) -> Line:
        """The entry at its place in the chain. Raises: Unavailable if no line can hold it."""
        try:
            return entry.write(
                Entry(
                    seq=seq,
                    prev=prev,
                    time=self._clock.now(),
                    kind=new.kind,
                    action=new.use.action,
                    stage=new.use.stage,
                    subject=new.use.subject,
                    actor=self.actor,
                    run=new.use.run,
                    intent=new.intent,
                    outcome=new.outcome,
                    details=new.details,
                )
            )
        except (ValueError, TypeError) as error:
            raise Unavailable(f"cannot be recorded: {error}", where=str(self.path)) from None

    def _replace(self, sealed: Path, opening: _Draft) -> None:
        """Give the present file another name and put a new ledger in its place."""
        line = self._line(opening, 0, NO_HASH)
        try:
            os.link(self.path, sealed)
        except FileExistsError as error:
            if not os.path.samefile(self.path, sealed):  # else: a rotation that was killed here
                raise self._refused(error) from error
        except OSError as error:
            raise self._refused(error) from error
        write_atomic(self.path, line.data + b"\n", mode=0o600)

    def _make_name_durable(self) -> None:
        """Make the file's name durable, once a process: whoever made it may have been killed."""
        try:
            fsync_directory(self.path.parent)
        except OSError as error:
            raise self._refused(error) from error
        with suppress(OSError):  # the directory may be new as well
            fsync_directory(self.path.parent.parent)
        self._named = True

    def _rename(self, old: Path, new: Path) -> None:
        try:
            os.replace(old, new)
            fsync_directory(new.parent)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> Unavailable:
        return unavailable(error, self.path)


def _opening(details: Mapping[str, Value]) -> _Draft:
    """The first entry; its nonce makes it, and so the ledger's name, unique."""
    return _Draft(Kind.OPENED, _own("open"), {"nonce": secrets.token_hex(16), **details})


def _own(action: str) -> SecretUse:
    return SecretUse(action, _STAGE, _STAGE)
