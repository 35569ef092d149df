"""The dashboard of a run whose stages ran apart from each other, whatever became of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.errors import Inconclusive, PipelineError, UsageError
from secure_pipeline.report import dashboard
from secure_pipeline.run import GRAPH, RunOutcome, StageOutcome
from secure_pipeline.runs import Run, RunStore, StoredResult
from secure_pipeline.stages.result import StageResult, Verdict
from secure_pipeline.wiring.handover import open_place
from secure_pipeline.wiring.options import Options, World

_WORD = re.compile(r"([a-z]{1,20})=([A-Za-z]{1,20})\Z")
_KEEP_NOTHING = ("verify",)
_PASSED = "Succeeded"
_NOT_RUN = ("None", "Skipped")


@dataclass(frozen=True)
class Reported:
    """What was written."""

    outcome: RunOutcome
    path: Path | None
    """None if no stage came as far as to begin the run."""


def report_run(words: Iterable[str], options: Options, world: World) -> Reported:
    """Write dashboard.json of the run that ``options`` name.

    ``words``: STAGE=STATUS as the engine says, with Tekton's statuses. A result that is there
    counts for a stage that the engine calls Succeeded; any other status is no pass.
    Raises: UsageError, ConfigError, Unavailable.
    """
    statuses = _parse(words)
    if not options.run:
        raise UsageError("no run is named", hint="--run ID")
    store = RunStore(open_place(options, world).runs)
    if statuses and not store.exists(options.run):
        return Reported(_outcome(Run(store.directory / options.run), statuses), None)
    run = store.open(options.run)
    outcome = _outcome(run, statuses)
    earlier = dashboard.earlier(store, run.id)
    document = dashboard.dashboard(run.header, outcome, earlier)
    return Reported(outcome, run.save_document(dashboard.FILE, document))


def _parse(words: Iterable[str]) -> dict[str, str]:
    statuses: dict[str, str] = {}
    for word in words:
        match = _WORD.match(word)
        if match is None or match[1] not in GRAPH or match[1] in statuses:
            raise UsageError(
                f"{word[:120]!r} is no stage with its status, or one too many",
                hint=f"STAGE=STATUS, each stage once: {', '.join(GRAPH)}",
            )
        statuses[match[1]] = match[2]
    return statuses


def _outcome(run: Run, statuses: Mapping[str, str]) -> RunOutcome:
    stages, not_run = [], []
    for name in GRAPH:
        status = statuses.get(name)
        if status in _NOT_RUN:
            not_run.append(name)
            continue
        found = _stage(run, name, status)
        if found is None:
            not_run.append(name)
        else:
            stages.append(found)
    seconds = sum(stage.seconds for stage in stages)
    return RunOutcome(tuple(stages), tuple(not_run), seconds)


def _stage(run: Run, name: str, status: str | None) -> StageOutcome | None:
    """What a stage left; one that did not pass for the engine passes here neither."""
    try:
        stored = run.load(name) or (_by_word(run, name) if status == _PASSED else None)
    except PipelineError as error:
        return StageOutcome(name, None, error)
    if stored is None:
        return StageOutcome(name, None, _unknown(name, status)) if status else None
    outcome = StageOutcome(
        name, stored, None, stored.result.seconds, cached=stored.origin != run.id
    )
    if outcome.passed and status not in (None, _PASSED):
        return StageOutcome(name, None, _unknown(name, status))
    return outcome


def _by_word(run: Run, name: str) -> StoredResult | None:
    """What stands for a stage that passed and keeps no result; this is a report, no evidence."""
    if name not in _KEEP_NOTHING:
        return None
    now = SystemClock().now()
    said = "passed, as the engine says"
    return StoredResult(StageResult(name, Verdict.PASS, said, now, now, 0.0), (), run.id)


def _unknown(name: str, status: str | None) -> Inconclusive:
    return Inconclusive(f"{name} left no result; the engine says {status}")
