"""Progress of stages: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from secure_pipeline.cli._output import Output
from secure_pipeline.events import Event, Progress, StageFinished, StageStarted

if TYPE_CHECKING:
    from rich.table import Table


class ProgressView(Protocol):
    """Shows events while it is open."""

    def __enter__(self) -> ProgressView:
        """Begin to show."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""  # fmt: skip

    def __call__(self, event: Event) -> None:
        """Show one event; may be called from several threads."""


def progress(output: Output, stages: tuple[str, ...]) -> ProgressView:
    """The view that fits the stream."""
    return LiveView(output, stages) if output.colour else PlainView(output)


class PlainView:
    """One line an event, for CI logs."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._lock = threading.Lock()

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, event: Event) -> None:
        with self._lock:
            match event:
                case StageStarted():
                    self._output.text(f"{event.stage:8} started")
                case Progress(detail=False):
                    self._output.text(f"{event.stage:8} {event.message}")
                case StageFinished():
                    word = " (reused)" if event.cached else ""
                    self._output.text(
                        f"{event.stage:8} {event.verdict}{word} in {event.seconds:.1f} s: "
                        f"{event.summary}"
                    )


class LiveView:
    """A table with a row a stage, drawn again as things happen."""

    def __init__(self, output: Output, stages: tuple[str, ...]) -> None:
        from rich.console import Console
        from rich.live import Live

        self._rows = {stage: ["waiting", "", ""] for stage in stages}
        self._begun: dict[str, float] = {}
        self._lock = threading.Lock()
        console = Console(file=output.stream)
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=8)

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def __call__(self, event: Event) -> None:
        with self._lock:
            match event:
                case StageStarted():
                    self._begun[event.stage] = time.monotonic()
                    self._rows[event.stage] = ["running", "", ""]
                case Progress():
                    self._rows[event.stage][2] = event.message
                case StageFinished():
                    word = f"{event.verdict} (reused)" if event.cached else event.verdict
                    self._begun.pop(event.stage, None)
                    self._rows[event.stage] = [word, f"{event.seconds:.1f} s", event.summary]

    def _render(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        styles = {"PASS": "green", "FAIL": "bold red", "ERRO": "bold red", "INCO": "yellow"}
        grid = Table.grid(padding=(0, 2))
        with self._lock:
            for stage, (state, took, message) in self._rows.items():
                if stage in self._begun:
                    took = f"{time.monotonic() - self._begun[stage]:.0f} s"
                style = styles.get(state[:4], "cyan" if state == "running" else "dim")
                text = Text(message.replace("\n", " "), overflow="ellipsis", no_wrap=True)
                grid.add_row(stage, Text(state, style=style), took, text)
        return grid
