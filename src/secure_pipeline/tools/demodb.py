"""The demonstration database: a few real advisories of our own, for machines without another.

It proves how the gate works and nothing about an image, so every report names it and only a
policy that says ``allow-demonstration-database`` accepts it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.errors import Unavailable
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.tools.locate import LocatedTool
from secure_pipeline.tools.process import Command, Processes
from secure_pipeline.tools.trivydb import DEMONSTRATION, DatabaseStore, PreparedDatabase

SECONDS = 120.0


@dataclass(frozen=True)
class DemonstrationDatabase:
    """Written by the program ``demodb`` from a file of advisories."""

    advisories: Path
    """JSON, such as tools/go/demodb/advisories.json."""
    locate: Callable[[], LocatedTool]
    """Finds or installs ``demodb``; called only when the database is needed."""
    store: DatabaseStore
    processes: Processes

    def prepare(self, on_event: OnEvent) -> PreparedDatabase:
        """Write the database. Raises: Unavailable, Inconclusive."""
        on_event(Progress("scan", "writing the demonstration database"))
        with tempfile.TemporaryDirectory(prefix="demodb.") as temporary:
            write(self.advisories, Path(temporary), self.locate(), self.processes)
            return self.store.add(Path(temporary), DEMONSTRATION)


def write(advisories: Path, directory: Path, tool: LocatedTool, processes: Processes) -> None:
    """Write trivy.db and metadata.json into a new or empty ``directory``.

    Raises: Unavailable, naming what is wrong with the advisories.
    """
    directory.mkdir(parents=True, exist_ok=True)
    outcome = processes.run(
        Command(
            argv=(str(tool.path), str(advisories.absolute()), str(directory.absolute())),
            cwd=directory,
            env={"HOME": str(directory)},
            timeout=SECONDS,
            network=False,
        )
    )
    if not outcome.ok:
        raise Unavailable(f"{outcome.describe()}: {outcome.tail(1)}", where=str(advisories))
