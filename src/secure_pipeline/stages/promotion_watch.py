"""Looks at metrics and identities beside the loop, so that the router is read all the time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from secure_pipeline.canary.controller import Identity
from secure_pipeline.canary.model import NoData, Sample
from secure_pipeline.errors import PipelineError
from secure_pipeline.ports import Clock


class Sampling(Protocol):
    """What ``canary.sampling.Sampler`` does."""

    def mark(self) -> None:
        """Only scrapes from now on count."""

    def sample(self) -> Sample:
        """Everything since the last sample; never raises for trouble with metrics."""


class Executor(Protocol):
    """Runs work beside the loop; in tests at once."""

    def submit(self, work: Callable[[], Glance], /) -> Future[Glance]:
        """Begin the work."""


@dataclass(frozen=True)
class Glance:
    """What one round gave."""

    generation: int
    sample: Sample
    identity: Identity


class Watcher:
    """One round at a time; what was begun before the last ``renew`` is thrown away."""

    def __init__(
        self,
        sampler: Sampling,
        identify: Callable[[], Identity],
        executor: Executor,
        clock: Clock,
        interval: float,
    ) -> None:
        """``interval``: seconds between the beginnings of two rounds."""
        self._sampler = sampler
        self._identify = identify
        self._executor = executor
        self._clock = clock
        self._interval = interval
        self._generation = 0
        self._marked = -1
        self._due = clock.monotonic()
        self._work: Future[Glance] | None = None

    def renew(self) -> None:
        """Traffic has just moved: nothing from before counts."""
        self._generation += 1
        self._due = self._clock.monotonic()

    def poll(self) -> Glance | None:
        """A finished round of the present generation, if there is one; never waits."""
        glance = self._finished()
        now = self._clock.monotonic()
        if self._work is None and now >= self._due:
            self._due = now + self._interval
            generation = self._generation
            self._work = self._executor.submit(lambda: self._round(generation))
            glance = glance or self._finished()
        return glance

    def _finished(self) -> Glance | None:
        if self._work is None or not self._work.done():
            return None
        work, self._work = self._work, None
        glance = work.result()
        return glance if glance.generation == self._generation else None

    def _round(self, generation: int) -> Glance:
        try:
            if self._marked != generation:
                self._sampler.mark()
                self._marked = generation
            sample = self._sampler.sample()
        except PipelineError as error:
            sample = Sample(NoData(str(error)))
        try:
            identity = self._identify()
        except PipelineError as error:
            identity = Identity(None, str(error))
        return Glance(generation, sample, identity)
