"""``verify running --watch``: look again and again, and tell what changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from secure_pipeline.errors import (
    ExitCode,
    Inconclusive,
    PipelineError,
    Unavailable,
    UsageError,
)
from secure_pipeline.ports import Clock
from secure_pipeline.stages.running import ContainerCheck, RunningReport, Standing

GONE = "GONE"
_WORST = (
    ExitCode.PASS,
    ExitCode.INCONCLUSIVE,
    ExitCode.DENIED,
    ExitCode.VERIFICATION,
)
_INTERVAL = re.compile(r"([1-9][0-9]{0,4})(s|m|h)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours"}
_LONGEST = timedelta(hours=24)


def parse_interval(text: str) -> timedelta:
    """Parse ``30s``, ``5m`` or ``1h``; from one second to a day.

    Raises: UsageError.
    """
    match = _INTERVAL.fullmatch(text)
    value = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not timedelta() < value <= _LONGEST:
        raise UsageError(
            f"{text[:40]!r} is no interval from 1s to 24h", hint="write --interval 30s"
        )
    return value


@dataclass(frozen=True)
class StandingChange:
    """How a container stands now, where it stood otherwise before."""

    time: datetime
    place: str
    before: str | None
    """None when it is seen for the first time."""
    now: str
    """MATCH, MISMATCH, UNREACHABLE or GONE."""
    check: ContainerCheck | None
    """What was found; None for GONE, and where nothing could be listed."""
    why: str = ""
    """Why there is no check."""


class Watch:
    """Looks every interval; ``code`` is the worst that was ever seen."""

    def __init__(
        self,
        look: Callable[[], RunningReport],
        clock: Clock,
        sleep: Callable[[float], object],
        interval: timedelta,
    ) -> None:
        self.code = ExitCode.PASS
        self._look = look
        self._clock = clock
        self._sleep = sleep
        self._interval = interval
        self._known: dict[str, tuple[str, object]] = {}

    def changes(self, count: int | None) -> Iterator[StandingChange]:
        """Yield each change, ``count`` looks long, or until interrupted.

        Raises: what the first look raises; later ones only tell that nothing is known.
        """
        yield from self._seen(self._look())
        looks = 1
        while count is None or looks < count:
            self._sleep(self._interval.total_seconds())
            looks += 1
            try:
                report = self._look()
            except UsageError:
                yield from self._gone(set())
                self._worse(ExitCode.INCONCLUSIVE)
            except (Unavailable, Inconclusive) as error:
                yield from self._lost(error)
            else:
                yield from self._seen(report)

    def _seen(self, report: RunningReport) -> Iterator[StandingChange]:
        self._worse(report.code)
        present: dict[str, ContainerCheck] = {}
        for check in report.checks:
            place = check.container.place
            if place not in present or check.standing is Standing.MISMATCH:
                present[place] = check
        for place, check in present.items():
            state = (check.standing.value, (check.image, check.decision.code))
            before = self._known.get(place)
            if before != state:
                self._known[place] = state
                yield StandingChange(
                    report.time, place, before[0] if before else None, state[0], check
                )
        yield from self._gone(set(present))

    def _gone(self, present: set[str]) -> Iterator[StandingChange]:
        for place in [place for place in self._known if place not in present]:
            before, _ = self._known.pop(place)
            yield StandingChange(self._clock.now(), place, before, GONE, None, "is gone")

    def _lost(self, error: PipelineError) -> Iterator[StandingChange]:
        self._worse(ExitCode.INCONCLUSIVE)
        state = Standing.UNREACHABLE.value
        for place, (before, _) in list(self._known.items()):
            self._known[place] = (state, None)
            if before != state:
                yield StandingChange(self._clock.now(), place, before, state, None, str(error))

    def _worse(self, code: ExitCode) -> None:
        self.code = max(self.code, code, key=_WORST.index)
