"""The only module that knows the time."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class SystemClock:
    """Clock of this machine."""

    def now(self) -> datetime:
        """The present time, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds for measuring durations."""
        return time.monotonic()
