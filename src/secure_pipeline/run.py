"""The graph of stages: which may run, side by side, and whose evidence can be reused.

A task starts when all it needs has passed. A failure stops what depends on it and nothing
else, so that one run shows every failure that can be seen. Nothing here knows a tool.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from secure_pipeline.cache import Cache
from secure_pipeline.errors import ExitCode, Interrupted, PipelineError
from secure_pipeline.events import OnEvent, StageFinished, StageStarted
from secure_pipeline.ports import Clock
from secure_pipeline.runs import Run, StoredResult
from secure_pipeline.stages.result import StageResult, Verdict

GRAPH: Mapping[str, tuple[str, ...]] = {
    "analyze": (),
    "test": (),
    "build": (),
    "scan": ("build",),
    "sign": ("analyze", "test", "build", "scan"),
    "verify": ("sign",),
}
WORKERS = 3

Results = Mapping[str, StoredResult]


@dataclass(frozen=True)
class Task:
    """One stage, bound to its inputs and ports."""

    stage: str
    execute: Callable[[Results, OnEvent], StageResult]
    inputs: Callable[[Results], Mapping[str, Any] | None]
    """All that the answer depends on, as JSON values; None: never reused."""
    reusable: Callable[[StageResult], bool] = lambda result: True
    """A last check of a cached result against the world. May raise: tampering is an alarm."""


@dataclass(frozen=True)
class StageOutcome:
    """A stage's result in this run, or the error that stopped it."""

    stage: str
    stored: StoredResult | None
    error: PipelineError | None = None
    seconds: float = 0.0
    """Time spent in this run: near 0 when reused."""
    cached: bool = False

    @property
    def passed(self) -> bool:
        """True only for a PASS."""
        return self.stored is not None and self.stored.result.verdict is Verdict.PASS

    @property
    def code(self) -> ExitCode:
        """The exit code that this stage alone would give."""
        if self.error is not None:
            return self.error.exit_code
        return self.stored.result.code if self.stored else ExitCode.INCONCLUSIVE


@dataclass(frozen=True)
class RunOutcome:
    """All stages that ran, in the graph's order, and those that could not."""

    stages: tuple[StageOutcome, ...]
    not_run: tuple[str, ...]
    seconds: float

    @property
    def code(self) -> ExitCode:
        """0 only when every stage passed; else the code of the first that did not."""
        for outcome in self.stages:
            if not outcome.passed:
                return outcome.code
        return ExitCode.PASS if self.stages and not self.not_run else ExitCode.INCONCLUSIVE


class Executor:
    """Runs tasks of one run in the order of the graph."""

    def __init__(
        self,
        run: Run,
        cache: Cache | None,
        clock: Clock,
        on_event: OnEvent,
        cancelled: threading.Event,
    ) -> None:
        self._run = run
        self._cache = cache
        self._clock = clock
        self._on_event = on_event
        self._cancelled = cancelled

    def execute(self, tasks: Mapping[str, Task]) -> RunOutcome:
        """Run all tasks; what a task needs outside ``tasks`` is taken from the run's files.

        Raises: Interrupted on Ctrl-C or SIGTERM, after every child has ended.
        """
        started = self._clock.monotonic()
        outcomes: dict[str, StageOutcome] = {}
        running: dict[Future[StageOutcome], str] = {}
        with ThreadPoolExecutor(WORKERS) as pool:
            try:
                while True:
                    for name in self._ready(tasks, outcomes, set(running.values())):
                        results = self._results(name, outcomes)
                        running[pool.submit(self._one, tasks[name], results)] = name
                    if not running:
                        break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        outcomes[running.pop(future)] = future.result()
            except BaseException:
                self._cancelled.set()
                raise
        if self._cancelled.is_set():
            raise Interrupted("interrupted")
        order = [name for name in GRAPH if name in tasks]
        return RunOutcome(
            stages=tuple(outcomes[name] for name in order if name in outcomes),
            not_run=tuple(name for name in order if name not in outcomes),
            seconds=self._clock.monotonic() - started,
        )

    def _ready(
        self, tasks: Mapping[str, Task], outcomes: Mapping[str, StageOutcome], running: set[str]
    ) -> list[str]:
        return [
            name
            for name in GRAPH
            if name in tasks
            and name not in outcomes
            and name not in running
            and all(n not in tasks or (n in outcomes and outcomes[n].passed) for n in GRAPH[name])
        ]

    def _results(self, name: str, outcomes: Mapping[str, StageOutcome]) -> Results:
        """Results of everything before ``name``: of this execution, or stored in the run."""
        results: dict[str, StoredResult] = {}
        for earlier in list(GRAPH)[: list(GRAPH).index(name)]:
            if earlier in outcomes:
                stored = outcomes[earlier].stored
            else:
                stored = self._run.load(earlier) if earlier in GRAPH[name] else None
            if stored is not None:
                results[earlier] = stored
        return results

    def _one(self, task: Task, results: Results) -> StageOutcome:
        begun = self._clock.monotonic()
        self._on_event(StageStarted(task.stage))
        try:
            stored, cached = self._reuse_or_execute(task, results)
        except PipelineError as error:
            seconds = self._clock.monotonic() - begun
            word = "INTERRUPTED" if isinstance(error, Interrupted) else "ERROR"
            self._on_event(StageFinished(task.stage, word, str(error), seconds))
            return StageOutcome(task.stage, None, error, seconds)
        seconds = self._clock.monotonic() - begun
        result = stored.result
        self._on_event(
            StageFinished(task.stage, result.verdict.value, result.summary, seconds, cached)
        )
        return StageOutcome(task.stage, stored, None, seconds, cached)

    def _reuse_or_execute(self, task: Task, results: Results) -> tuple[StoredResult, bool]:
        inputs = task.inputs(results)
        key = Cache.key(task.stage, inputs) if inputs is not None else None
        if self._cache and key:
            stored = self._cache.get(task.stage, key)
            if stored and task.reusable(stored.result):
                self._run.save(stored.result, stored.origin)
                return stored, True
        result = task.execute(results, self._on_event)
        self._run.save(result)
        if self._cache and key:
            self._cache.put(key, result, self._run.id)
        return StoredResult(result, (), self._run.id), False
