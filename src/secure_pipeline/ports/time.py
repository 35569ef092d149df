"""Time."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Time, so that no stage reads it by itself."""

    def now(self) -> datetime:
        """The present time, UTC."""

    def monotonic(self) -> float:
        """Seconds for measuring durations."""
