"""A vulnerability database of which only the names of its buckets are real, and a still clock."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fakes.boltfile import bolt_file
from secure_pipeline.tools.trivydb import CONTENT, METADATA

BUCKETS = ["data-source", "debian 12", "vulnerability"]
TIMES = {"UpdatedAt": "2026-03-01T06:00:00Z", "NextUpdate": "2026-03-02T06:00:00Z"}
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class FixedClock:
    """Always the same time."""

    time: datetime = NOON

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return 0.0


def make_database(directory: Path, buckets: list[str] | None = None, **metadata: Any) -> Path:
    """Write the two files of a database."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CONTENT).write_bytes(bolt_file(BUCKETS if buckets is None else buckets))
    (directory / METADATA).write_text(json.dumps({"Version": 2, **TIMES, **metadata}))
    return directory
