"""``dashboard.json``: the figures of a run and of the runs before it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from secure_pipeline import strictjson
from secure_pipeline.errors import ConfigError
from secure_pipeline.files import read_bounded
from secure_pipeline.run import RunOutcome, StageOutcome
from secure_pipeline.runs import RunHeader, RunStore

FILE = "dashboard.json"
HISTORY = 50
MAX_BYTES = 4 << 20


def dashboard(
    header: RunHeader, outcome: RunOutcome, earlier: Iterable[dict[str, Any]]
) -> dict[str, Any]:
    """The document: totals, cache, scan, stages and history (newest last; times in seconds)."""
    stages = {o.stage: o for o in outcome.stages}
    this = {
        "run": header.id,
        "started": header.started.isoformat(),
        "verdict": "PASS" if outcome.code == 0 else outcome.code.name,
        "total": {"seconds": round(outcome.seconds, 3), "stages": len(outcome.stages)},
        "cache": _cache(outcome, stages.get("build")),
        "scan": _figures(stages.get("scan")),
    }
    return {
        "apiVersion": "secure-pipeline/v1",
        "kind": "Dashboard",
        **this,
        "image": _figures(stages.get("build")).get("digest"),
        "commit": header.commit,
        "stages": [_stage(o) for o in outcome.stages],
        "notRun": list(outcome.not_run),
        "history": [*list(earlier)[-HISTORY + 1 :], this],
    }


def read(directory: Path) -> dict[str, Any] | None:
    """The dashboard of a run that came to its end, or None."""
    try:
        document = strictjson.loads(read_bounded(directory / FILE, MAX_BYTES))
    except (ConfigError, strictjson.InvalidJson):
        return None
    return document if isinstance(document, dict) and document.get("kind") == "Dashboard" else None


def earlier(store: RunStore, run_id: str) -> list[dict[str, Any]]:
    """The entries of all other runs that came to their end, oldest first."""
    documents = [read(run.directory) for run in store.all() if run.id != run_id]
    return [entry(document) for document in documents if document is not None]


def entry(document: dict[str, Any]) -> dict[str, Any]:
    """The part of an earlier dashboard that the history keeps."""
    return {k: document[k] for k in ("run", "started", "verdict", "total", "cache", "scan")}


def _stage(outcome: StageOutcome) -> dict[str, Any]:
    stored = outcome.stored
    return {
        "stage": outcome.stage,
        "verdict": stored.result.verdict.value if stored else "ERROR",
        "seconds": round(outcome.seconds, 3),
        "reusedFrom": stored.origin if stored and outcome.cached else None,
        "summary": stored.result.summary if stored else str(outcome.error),
    }


def _cache(outcome: RunOutcome, build: StageOutcome | None) -> dict[str, Any]:
    reused = [o for o in outcome.stages if o.cached and o.stored]
    figures = _figures(build)
    return {
        "stagesReused": len(reused),
        "stagesExecuted": len(outcome.stages) - len(reused),
        "secondsSaved": round(sum(o.stored.result.seconds for o in reused if o.stored), 3),
        "buildStepsCached": figures.get("steps_cached"),
        "buildStepsExecuted": figures.get("steps_executed"),
        "buildSecondsCached": figures.get("seconds_cached"),
        "buildSecondsExecuted": figures.get("seconds_executed"),
    }


def _figures(outcome: StageOutcome | None) -> dict[str, Any]:
    if outcome is None or outcome.stored is None:
        return {}
    return dict(outcome.stored.result.figures)
