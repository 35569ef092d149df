"""What happens during a run, as values: stages emit, the CLI renders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class StageStarted:
    """A stage began its work."""

    stage: str


@dataclass(frozen=True)
class Progress:
    """A line about what a stage is doing now; ``detail`` is for logs, not for the status line."""

    stage: str
    message: str
    detail: bool = False


@dataclass(frozen=True)
class StageFinished:
    """A stage ended; ``cached`` when its evidence was reused."""

    stage: str
    verdict: str
    summary: str
    seconds: float
    cached: bool = False


Event = StageStarted | Progress | StageFinished
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Drop an event: for callers that want none."""
