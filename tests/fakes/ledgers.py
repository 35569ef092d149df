"""Ledgers for tests: real ones in a directory, and lines of a chain without a file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from secure_pipeline.audit import entry
from secure_pipeline.audit.entry import NO_HASH, Actor, Entry, Kind, Outcome
from secure_pipeline.audit.log import FileLedger
from secure_pipeline.ports import SecretUse

ACTOR = Actor("os", "builder@host", verified=False)
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
IMAGE = "inference-service@sha256:" + "b" * 64
USE = SecretUse("sign", "sign", IMAGE, "r-1", {"key": "file:release.key", "version": 3})


class Ticking:
    """A clock that goes on by a quarter of a second whenever it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def now(self) -> datetime:
        self.reads += 1
        return START + timedelta(milliseconds=250 * self.reads)

    def monotonic(self) -> float:
        return 0.0


def ledger(directory: Path, *, wait: float = 30.0) -> FileLedger:
    return FileLedger(directory / "ledger.jsonl", ACTOR, Ticking(), wait=wait)


def chain(count: int) -> list[bytes]:
    """Lines of a chain without line ends: an opening, then intents and their conclusions."""
    lines: list[bytes] = []
    prev, intent = NO_HASH, ""
    for seq in range(count):
        kind = Kind.OPENED if seq == 0 else (Kind.INTENT, Kind.CONCLUSION)[(seq + 1) % 2]
        concludes = kind is Kind.CONCLUSION
        line = entry.write(
            Entry(
                seq=seq,
                prev=prev,
                time=START + timedelta(seconds=seq),
                kind=kind,
                action="sign",
                stage="sign",
                subject=f"{IMAGE} “{seq}”" if seq % 5 == 0 else IMAGE,
                actor=ACTOR,
                run=f"r-{seq // 7}",
                intent=intent if concludes else None,
                outcome=Outcome.DONE if concludes else None,
                details={"key": "file:release.key", "version": seq, "fresh": seq % 2 == 0},
            )
        )
        prev = line.hash
        intent = line.hash if kind is Kind.INTENT else intent
        lines.append(line.data)
    return lines


def as_file(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)
