"""What one version of a key in Vault has signed, as the ledger tells it.

A stage's own entry names the artifact and the key; the entries of the key's store between its
intent and its conclusion name the version. What was only intended counts: it may have happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from secure_pipeline.audit import reader
from secure_pipeline.audit.entry import Entry, Kind
from secure_pipeline.audit.ledgerfiles import ledgers
from secure_pipeline.audit.reader import Stored
from secure_pipeline.errors import Inconclusive, PipelineError, UsageError
from secure_pipeline.keys.uri import KeyRef

MAX_USES = 1_000_000
"""Entries of one key that are kept."""
_ACTIONS = tuple(b'{"action":"%s",' % name for name in (b"sign", b"fetch", b"push"))
"""How the lines begin that matter; an entry's one form makes this exact."""


@dataclass(frozen=True)
class Use:
    """One artifact that was signed, or may have been."""

    artifact: str
    """``NAME@sha256:…``; 'ledger' for a head of the ledger itself."""
    stage: str
    run: str | None
    time: datetime
    """When it was about to be signed, UTC."""
    outcome: str
    """'done', 'failed', 'refused', or 'unknown' where nothing was recorded afterwards."""
    signatures: int
    """Requests for a signature by this version; 0 for a key that is fetched."""
    pushed: tuple[str, ...] = ()
    """Repositories that the image was sent to."""


@dataclass(frozen=True)
class Usage:
    """What the ledger knows."""

    uses: tuple[Use, ...]
    loose: int
    """Uses of this version that belong to no artifact."""
    blind: tuple[str, ...]
    """What could not be seen here."""


@dataclass
class _Open:
    stored: Stored
    entry: Entry
    signatures: int = 0
    touched: bool = False
    outcome: str = "unknown"


@dataclass
class _Work:
    """One pass over all ledgers, the oldest first."""

    ref: KeyRef
    version: int
    found: list[_Open] = field(default_factory=list)
    current: dict[str | None, _Open] = field(default_factory=dict)
    """The artifact that a run is signing at the moment."""
    by_hash: dict[str, _Open] = field(default_factory=dict)
    fetches: set[str] = field(default_factory=set)
    fetched: dict[str | None, int] = field(default_factory=dict)
    """Which version a run has fetched last."""
    pushed: dict[str, set[str]] = field(default_factory=dict)
    loose: int = 0

    def take(self, stored: Stored) -> None:
        item = stored.entry
        if item.kind is Kind.INTENT:
            self._intent(stored, item)
        elif item.kind is Kind.CONCLUSION and item.intent and item.outcome:
            self._conclusion(item, item.intent, item.outcome.value)

    def _intent(self, stored: Stored, item: Entry) -> None:
        if item.action == "push":
            name, at, digest = item.subject.rpartition("@")
            if at:
                self.pushed.setdefault(digest, set()).add(name)
        elif item.action == "fetch" and self._is_key(item.subject):
            self.fetches.add(stored.hash)
        elif item.action == "sign" and self._is_key(item.subject):
            if item.details.get("version") == self.version:
                self._signature(item.run)
        elif item.action == "sign" and self._is_key(item.details.get("key")):
            opened = _Open(stored, item)
            opened.touched = self.fetched.get(item.run) == self.version
            self.found.append(opened)
            self.current[item.run] = self.by_hash[stored.hash] = opened
        if len(self.found) + len(self.fetches) > MAX_USES:
            raise Inconclusive(f"more than {MAX_USES} uses of {self.ref}")

    def _conclusion(self, item: Entry, intent: str, outcome: str) -> None:
        if intent in self.fetches:
            version = item.details.get("version")
            if isinstance(version, int):
                self.fetched[item.run] = version
                if version == self.version:
                    self._signature(item.run, fetched=True)
        elif intent in self.by_hash:
            opened = self.by_hash.pop(intent)
            opened.outcome = outcome
            if self.current.get(item.run) is opened:
                del self.current[item.run]

    def _signature(self, run: str | None, *, fetched: bool = False) -> None:
        opened = self.current.get(run)
        if opened is None:
            self.loose += 1
            return
        opened.touched = True
        opened.signatures += 0 if fetched else 1

    def _is_key(self, value: object) -> bool:
        """Whether a text of an entry is this key, in whatever spelling and version."""
        if not isinstance(value, str) or ":" not in value:
            return False
        try:
            other = KeyRef.parse(value)
        except UsageError:
            return False
        return other.vault is not None and identity(other) == identity(self.ref)


def identity(ref: KeyRef) -> tuple[str, str, str, str | None]:
    """What makes two references the same key, whatever their versions."""
    assert ref.vault is not None
    return ref.scheme, ref.vault.mount, ref.vault.path, ref.vault.field


def usage(path: Path, ref: KeyRef, version: int) -> Usage:
    """Read the ledger and those that were sealed before it.

    Raises: Inconclusive if there is none.
    """
    work = _Work(ref, version)
    files = ledgers(path)
    if not files:
        raise Inconclusive("there is no ledger", where=str(path), hint="name it with --ledger")
    blind = [f"{files[0].path}: the ledger before it is not here"] if files[0].previous else []
    for file in files:
        blind += _read(work, file.path)
    return Usage(tuple(_uses(work)), work.loose, tuple(blind))


def _read(work: _Work, path: Path) -> list[str]:
    """Take every entry that can be believed; what was not read, if anything."""
    last = -1
    try:
        for stored in reader.entries(path):
            if stored.data.startswith(_ACTIONS):
                work.take(stored)
            last = stored.seq
    except PipelineError as error:
        return [f"{path}: nothing behind entry {last} ({error.message})"]
    return []


def _uses(work: _Work) -> Iterator[Use]:
    for opened in work.found:
        if not opened.touched:
            continue
        item = opened.entry
        digest = item.subject.rpartition("@")[2]
        yield Use(
            artifact=item.subject,
            stage=item.stage,
            run=item.run,
            time=item.time,
            outcome=opened.outcome,
            signatures=opened.signatures,
            pushed=tuple(sorted(work.pushed.get(digest, ()))),
        )


def artifacts(uses: Iterable[Use]) -> frozenset[str]:
    """Digests of the images among them."""
    return frozenset(u.artifact.rpartition("@")[2] for u in uses if "@" in u.artifact)
