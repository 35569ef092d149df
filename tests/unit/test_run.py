"""Tests of the graph of stages."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline import run as runner
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.cache import Cache
from secure_pipeline.errors import ExitCode, Interrupted, Unavailable
from secure_pipeline.events import Event, StageFinished, ignore
from secure_pipeline.run import Executor, Results, RunOutcome, Task
from secure_pipeline.runs import Run, RunHeader, RunStore
from secure_pipeline.stages.result import StageResult, Verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def result(stage: str, verdict: Verdict = Verdict.PASS, **more: Any) -> StageResult:
    reasons = () if verdict is Verdict.PASS else (f"{stage} is not fine",)
    return StageResult(stage, verdict, stage, NOW, NOW, 0.0, reasons=reasons, **more)


class World:
    """Tasks whose answers a test sets, and a record of what was executed."""

    def __init__(self, directory: Path) -> None:
        self.answers: dict[str, StageResult | Exception] = {s: result(s) for s in runner.GRAPH}
        self.inputs: dict[str, Mapping[str, Any] | None] = {s: {"v": 1} for s in runner.GRAPH}
        self.executed: list[str] = []
        self.seen: dict[str, set[str]] = {}
        self.events: list[Event] = []
        self.store = RunStore(directory / "runs")
        self.cache = Cache(directory / "cache")

    def run_of(self, name: str) -> Run:
        return self.store.create(RunHeader(name, NOW, "n", None, "sha256:0", False, "c", "p", "b"))

    def task(self, stage: str) -> Task:
        def execute(results: Results, on_event: object) -> StageResult:
            self.executed.append(stage)
            self.seen[stage] = set(results)
            answer = self.answers[stage]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return Task(stage, execute, lambda results: self.inputs[stage])

    def go(self, *stages: str, name: str = "r1", cache: bool = True) -> RunOutcome:
        executor = Executor(
            self.run_of(name), self.cache if cache else None, SystemClock(), self.events.append,
            threading.Event(),
        )  # fmt: skip
        return executor.execute({s: self.task(s) for s in stages or runner.GRAPH})


def test_all_stages_pass_in_the_order_of_the_graph(tmp_path: Path) -> None:
    """Every stage runs once, after all it needs, and the run passes."""
    world = World(tmp_path)
    outcome = world.go()
    assert outcome.code is ExitCode.PASS
    assert (
        sorted(world.executed[:3]) == ["analyze", "build", "test"] or "scan" in world.executed[:4]
    )
    for stage, needs in runner.GRAPH.items():
        for need in needs:
            assert world.executed.index(need) < world.executed.index(stage)
    assert world.seen["sign"] >= {"analyze", "test", "build", "scan"}


def test_a_failure_stops_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    """After a failed test the scan is still done, but nothing is signed."""
    world = World(tmp_path)
    world.answers["test"] = result("test", Verdict.FAIL)
    outcome = world.go()
    assert set(world.executed) == {"analyze", "test", "build", "scan"}
    assert outcome.not_run == ("sign", "verify")
    assert outcome.code is ExitCode.FINDINGS


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (result("scan", Verdict.INCONCLUSIVE), ExitCode.INCONCLUSIVE),
        (result("scan", Verdict.FAIL, exit_code=ExitCode.DENIED), ExitCode.DENIED),
        (Unavailable("trivy is gone"), ExitCode.UNAVAILABLE),
    ],
)
def test_the_exit_code_is_that_of_the_first_stage_that_did_not_pass(
    tmp_path: Path, answer: StageResult | Exception, code: ExitCode
) -> None:
    """Whatever is not a PASS gives its own code, never 0."""
    world = World(tmp_path)
    world.answers["scan"] = answer
    assert world.go().code is code


def test_an_unexpected_exception_is_not_swallowed(tmp_path: Path) -> None:
    """A bug in a stage ends the run as a bug (SIG-26)."""
    world = World(tmp_path)
    world.answers["scan"] = KeyError("x")
    with pytest.raises(KeyError):
        world.go()


def test_unchanged_inputs_reuse_evidence_and_changed_ones_do_not(tmp_path: Path) -> None:
    """A second run executes only what changed, and says where the rest came from."""
    world = World(tmp_path)
    world.go(name="r1")
    world.executed.clear()
    world.inputs["scan"] = {"v": 2}
    world.inputs["verify"] = None
    outcome = world.go(name="r2")
    assert sorted(world.executed) == ["scan", "verify"]
    origins = {o.stage: o.stored.origin for o in outcome.stages if o.stored}
    assert origins["build"] == "r1"
    assert origins["scan"] == "r2"
    finished = [e for e in world.events if isinstance(e, StageFinished)]
    assert {e.stage for e in finished if e.cached} == {"analyze", "test", "build", "sign"}


def test_without_a_cache_everything_is_executed(tmp_path: Path) -> None:
    """--no-cache reads nothing and keeps nothing."""
    world = World(tmp_path)
    world.go(name="r1", cache=False)
    world.go(name="r2", cache=False)
    assert len(world.executed) == 2 * len(runner.GRAPH)
    assert not world.cache.directory.exists()


def test_a_failure_is_never_reused(tmp_path: Path) -> None:
    """A stage that failed is executed again although its inputs are the same."""
    world = World(tmp_path)
    world.answers["scan"] = result("scan", Verdict.FAIL)
    world.go(name="r1")
    world.answers["scan"] = result("scan")
    assert world.go(name="r2").code is ExitCode.PASS


def test_a_stage_alone_takes_earlier_results_from_the_run(tmp_path: Path) -> None:
    """Sign by itself sees what analyze, test, build and scan left in the same run."""
    world = World(tmp_path)
    world.go("analyze", "test", "build", "scan", name="r1")
    world.go("sign", name="r1")
    assert world.seen["sign"] == {"analyze", "test", "build", "scan"}
    world.go("sign", name="r2", cache=False)
    assert world.seen["sign"] == set()


def test_nothing_to_run_is_not_success(tmp_path: Path) -> None:
    """An empty run is INCONCLUSIVE."""
    assert RunOutcome((), (), 0.0).code is ExitCode.INCONCLUSIVE


def test_a_cancelled_run_is_interrupted(tmp_path: Path) -> None:
    """When the run is cancelled, no later stage starts and the code is 130."""
    world = World(tmp_path)
    cancelled = threading.Event()

    def stop(results: Results, on_event: object) -> StageResult:
        cancelled.set()
        raise Interrupted("interrupted")

    executor = Executor(world.run_of("r1"), None, SystemClock(), ignore, cancelled)
    tasks = {s: world.task(s) for s in runner.GRAPH} | {
        "build": Task("build", stop, lambda r: None)
    }
    with pytest.raises(Interrupted):
        executor.execute(tasks)
    assert not {"scan", "sign", "verify"} & set(world.executed)


@given(
    failing=st.sets(st.sampled_from(list(runner.GRAPH))),
    verdict=st.sampled_from([Verdict.FAIL, Verdict.INCONCLUSIVE]),
)
def test_a_run_passes_only_when_every_stage_did(
    tmp_path_factory: pytest.TempPathFactory, failing: set[str], verdict: Verdict
) -> None:
    """For any set of failing stages the code is 0 exactly when the set is empty."""
    world = World(tmp_path_factory.mktemp("w"))
    for stage in failing:
        world.answers[stage] = result(stage, verdict)
    outcome = world.go(cache=False)
    assert (outcome.code is ExitCode.PASS) == (not failing)
    for stage in world.executed:
        assert not set(runner.GRAPH[stage]) & failing
