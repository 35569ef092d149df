"""The real scanner with the databases that are at hand."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from secure_pipeline.events import ignore
from secure_pipeline.ports import Clock
from secure_pipeline.tools.demodb import DemonstrationDatabase
from secure_pipeline.tools.locate import LocatedTool, locate
from secure_pipeline.tools.process import Processes
from secure_pipeline.tools.trivy import Trivy
from secure_pipeline.tools.trivydb import (
    DatabaseSource,
    DatabaseStore,
    DirectoryDatabase,
    PreparedDatabase,
)

ROOT = Path(__file__).resolve().parents[2]
ADVISORIES = ROOT / "tools" / "go" / "demodb" / "advisories.json"
REAL = ROOT.parent / "shared" / "trivy-db" / "db.tar.gz"
DATABASES = ("demonstration", *(("real",) if REAL.is_file() else ()))
"""Names of the databases at hand; the demonstration one always is."""


@dataclass
class TickingClock:
    """Starts an hour after a database's time, and moves a second whenever it is asked."""

    time: datetime

    def now(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time

    def monotonic(self) -> float:
        return self.now().timestamp()


@cache
def trivy_tool() -> LocatedTool:
    """The pinned Trivy; a test fails where it is not installed."""
    return locate("trivy")


def source(name: str, directory: Path) -> DatabaseSource:
    """The database of that name, kept in ``directory``."""
    store = DatabaseStore(directory / "store")
    if name == "real":
        return DirectoryDatabase(REAL, store)
    processes = Processes(threading.Event())
    return DemonstrationDatabase(ADVISORIES, lambda: locate("demodb"), store, processes)


def prepared(name: str, directory: Path) -> PreparedDatabase:
    """The same, ready to use."""
    return source(name, directory).prepare(ignore)


def scanner(database: DatabaseSource, work: Path, clock: Clock) -> Trivy:
    """The real scanner."""
    return Trivy(trivy_tool(), Processes(threading.Event()), database, work, clock)
