"""What a promotion leaves on disk: its intent before each move, its looks, the last good image.

``<state>/promotions/<target>/``: ``current.json`` while one is under way, one directory for each
promotion, ``known-good.json``; ``quarantine.json`` beside the targets. One program at a time
holds the target's lock.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from secure_pipeline import strictjson
from secure_pipeline.canary.controller import State
from secure_pipeline.canary.model import Look
from secure_pipeline.canary.story import StepRecord
from secure_pipeline.errors import ConfigError, Inconclusive, Unavailable
from secure_pipeline.files import read_bounded, write_atomic
from secure_pipeline.records import InvalidRecord, decode, encode

MAX_BYTES = 4 << 20
MAX_LOOKS = 20_000
"""Looks that are read back; older ones stay in the file."""
MAX_LOOKS_BYTES = 256 << 20


@dataclass(frozen=True)
class Saved:
    """A promotion as it stands on disk."""

    version: int
    id: str
    image: str
    """``NAME@sha256:…``"""
    canary: str
    baseline: str
    baseline_image: str | None
    target_digest: str
    started: datetime
    saved: datetime
    step_started: datetime
    step_look: int
    """Looks before this step."""
    state: State
    analysis: Mapping[str, Any]
    looks: int
    """Looks so far."""
    steps: tuple[StepRecord, ...]
    resumed: int


@dataclass(frozen=True)
class KnownGood:
    """The image that was last at 100 % with a verdict."""

    slot: str
    image: str
    since: datetime


@dataclass(frozen=True)
class Quarantined:
    """A digest that was rolled back here; kept until its signed statement is published."""

    image: str
    cause: str
    why: str
    time: datetime
    target: str
    promotion: str


class Journal:
    """The files of one target. Hold ``lock`` while writing."""

    def __init__(self, promotions: Path, target: str) -> None:
        self.directory = promotions / target
        self._current = self.directory / "current.json"
        self._known_good = self.directory / "known-good.json"
        self._quarantine = promotions / "quarantine.json"

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Yield True while this program alone has the target, False if another has it.

        Raises: Unavailable if nothing can be remembered here.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            opened = (self.directory / "lock").open("ab")
        except OSError as error:
            raise Unavailable(
                f"cannot write: {error.strerror}", where=str(self.directory)
            ) from error
        with opened as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def folder(self, promotion: str) -> Path:
        """The directory of one promotion."""
        return self.directory / promotion

    def unfinished(self) -> Saved | None:
        """The promotion that was under way when its program ended; None if there is none.

        Raises: Inconclusive if the file is damaged: then only a person can tell.
        """
        return self._read(Saved, self._current) if self._current.exists() else None

    def save(self, saved: Saved) -> None:
        """Make the present state durable. Raises: Unavailable; then nothing may be moved up."""
        write_atomic(self._current, _json(saved))

    def close(self) -> None:
        """The promotion is over and everything about it is written. Raises: Unavailable."""
        try:
            self._current.unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable(
                f"cannot remove: {error.strerror}", where=str(self._current)
            ) from error

    def append(self, promotion: str, look: Look) -> None:
        """Add a look to the promotion's file. Raises: Unavailable."""
        path = self.folder(promotion) / "looks.jsonl"
        line = json.dumps(encode(look), separators=(",", ":"), allow_nan=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError as error:
            raise Unavailable(f"cannot write: {error.strerror}", where=str(path)) from error

    def looks(self, promotion: str) -> list[Look]:
        """The last looks of a promotion; a line that was torn by a kill is left out."""
        path = self.folder(promotion) / "looks.jsonl"
        if not path.exists():
            return []
        lines = read_bounded(path, MAX_LOOKS_BYTES).splitlines()[-MAX_LOOKS:]
        looks = []
        for line in lines:
            try:
                looks.append(decode(Look, strictjson.loads(line, limit=MAX_BYTES)))
            except (strictjson.InvalidJson, InvalidRecord):
                continue
        return looks

    def known_good(self) -> KnownGood | None:
        """The image that was promoted last. Raises: Inconclusive if the file is damaged."""
        return self._read(KnownGood, self._known_good) if self._known_good.exists() else None

    def set_known_good(self, good: KnownGood) -> None:
        """Remember it. Raises: Unavailable."""
        write_atomic(self._known_good, _json(good))

    def quarantined(self) -> dict[str, Quarantined]:
        """Digest to what was rolled back here and is not published yet. Raises: Inconclusive."""
        if not self._quarantine.exists():
            return {}
        return dict(self._read(dict[str, Quarantined], self._quarantine))

    def set_quarantined(self, digest: str, entry: Quarantined | None) -> None:
        """Remember a digest, or forget one whose statement is published. Raises: Unavailable."""
        with (self._quarantine.with_suffix(".lock")).open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            entries = self.quarantined()
            entries.pop(digest, None)
            if entry is not None:
                entries[digest] = entry
            write_atomic(self._quarantine, _json(entries))

    def _read(self, kind: Any, path: Path) -> Any:
        try:
            return decode(kind, strictjson.loads(read_bounded(path, MAX_BYTES), limit=MAX_BYTES))
        except (InvalidRecord, strictjson.InvalidJson, ConfigError) as error:
            raise Inconclusive(
                f"cannot be read: {error}",
                where=str(path),
                hint="see that the canary has no traffic, then remove the file",
            ) from error


def _json(value: object) -> bytes:
    return json.dumps(encode(value), indent=2, allow_nan=False).encode() + b"\n"
