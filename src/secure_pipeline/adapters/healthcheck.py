"""Whether something answers that it can serve."""

from __future__ import annotations

from secure_pipeline.adapters.http import HttpLimits, Transport
from secure_pipeline.errors import PipelineError
from secure_pipeline.ports import Clock

SECONDS = 2.0
"""For the whole question: an abort waits for it."""


class HealthCheck:
    """Asks addresses; sends no credential, follows nothing."""

    def __init__(self, clock: Clock) -> None:
        limits = HttpLimits(connect=SECONDS, silence=SECONDS, total=SECONDS, attempts=1)
        self._transport = Transport(clock, plain_http=True, limits=limits)

    def healthy(self, url: str) -> bool:
        """Whether the address answers 2xx in time; whatever else it does is no."""
        try:
            with self._transport.request("GET", url, follow=False) as answer:
                return 200 <= answer.status < 300
        except PipelineError:
            return False
