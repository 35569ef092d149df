"""What an engine takes over from a stage, and holds against the next one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.cli._results import MAX_BYTES, write_results
from secure_pipeline.errors import ExitCode, Inconclusive, UsageError, VerificationFailed
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.run import GRAPH, RunOutcome, StageOutcome
from secure_pipeline.runs import (
    Run,
    RunHeader,
    RunStore,
    StoredResult,
    dump_result,
    parse_expected,
    result_digest,
)
from secure_pipeline.stages.result import StageResult, Verdict
from secure_pipeline.tools.locate import ToolStore
from secure_pipeline.wiring.options import Options, World
from secure_pipeline.wiring.reporting import report_run

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = f"sha256:{'a' * 64}"


def result(stage: str, verdict: Verdict = Verdict.PASS, summary: str = "") -> StageResult:
    reasons = () if verdict is Verdict.PASS else ("because",)
    return StageResult(stage, verdict, summary, NOW, NOW, 1.0, reasons)


def outcome_of(*stages: StageOutcome) -> RunOutcome:
    return RunOutcome(stages, (), 1.0)


def ended(stage: str, verdict: Verdict = Verdict.PASS) -> StageOutcome:
    return StageOutcome(stage, StoredResult(result(stage, verdict), (), "r"))


def read(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_results_are_small_files_without_a_newline(tmp_path: Path) -> None:
    """Verdict, digest of the result, name and digest of the image, each alone and exactly."""
    outcome = outcome_of(ended("build"))
    write_results(tmp_path, outcome, f"127.0.0.1:5000/a/b@{DIGEST}")
    stored = outcome.stages[0].stored
    assert stored is not None
    assert read(tmp_path) == {
        "VERDICT": "PASS",
        "RESULT_DIGEST": result_digest(stored),
        "IMAGE": f"127.0.0.1:5000/a/b@{DIGEST}",
        "IMAGE_URL": "127.0.0.1:5000/a/b",
        "IMAGE_DIGEST": DIGEST,
    }


def test_a_stage_without_a_result_is_no_pass(tmp_path: Path) -> None:
    """An error is told as ERROR, with nothing that a later stage could hold against anything."""
    failed = StageOutcome("scan", None, Inconclusive("killed"))
    write_results(tmp_path, outcome_of(failed), None)
    assert read(tmp_path) == {"VERDICT": "ERROR"}


@given(name=st.from_regex(r"[a-z0-9]{1,3000}", fullmatch=True))
def test_results_never_reach_the_limit_of_a_task(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    """However long the name of the image: a quarter of Tekton's 4096 bytes, or nothing at all."""
    directory = tmp_path_factory.mktemp("results")
    try:
        write_results(directory, outcome_of(ended("build")), f"{name}@{DIGEST}")
    except UsageError:
        assert read(directory) == {}
    else:
        assert sum(map(len, read(directory).values())) <= MAX_BYTES == 1024


def test_every_name_of_an_image_fits() -> None:
    """The longest name that an image may have is within the limit."""
    longest = "a" * 255
    assert ImageReference.parse(f"{longest}@{DIGEST}").name == longest
    assert 3 * len(DIGEST) + 2 * len(longest) + len("INCONCLUSIVE") < MAX_BYTES


def test_a_forged_result_is_refused_by_who_reads_it(tmp_path: Path) -> None:
    """A whole and valid result that another wrote is exit 11; the true one is read."""
    run = Run(tmp_path)
    failed = result("scan", Verdict.FAIL)
    run.save(failed)
    digest = result_digest(StoredResult(failed, (), run.id))
    reader = Run(tmp_path, {"scan": digest})
    stored = reader.load("scan")
    assert stored is not None
    assert stored.result.verdict is Verdict.FAIL
    (tmp_path / "stages/scan.json").write_bytes(dump_result(result("scan"), run.id))
    assert Run(tmp_path).load("scan") is not None, "it is valid by itself"
    with pytest.raises(VerificationFailed, match="not the result that scan ended with"):
        reader.load("scan")


def test_a_removed_result_that_is_expected_is_no_missing_stage(tmp_path: Path) -> None:
    """What must be there and is not is an error, not a stage that has not run."""
    with pytest.raises(Exception, match=r"scan\.json"):
        Run(tmp_path, {"scan": DIGEST}).load("scan")


@pytest.mark.parametrize(
    "word",
    ["scan", "scan=", "scan=sha256:abc", f"scan={'a' * 64}", f"../scan={DIGEST}", f"={DIGEST}",
     f"scan={DIGEST}\n", f"scan={DIGEST.upper()}"],
)  # fmt: skip
def test_an_expectation_that_cannot_be_read_is_refused(word: str) -> None:
    """Nothing is passed over: a wrong word is exit 2."""
    with pytest.raises(UsageError):
        parse_expected([word])


def test_an_expectation_comes_once() -> None:
    """Two for one stage are refused; different stages are kept apart."""
    assert parse_expected([f"scan={DIGEST}"]) == {"scan": DIGEST}
    with pytest.raises(UsageError):
        parse_expected([f"scan={DIGEST}", f"scan={DIGEST}"])


# --- report --------------------------------------------------------------------------------

PASSED = {name: "Succeeded" for name in GRAPH}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "secure-pipeline.yaml").write_text("version: 1\nname: shop\n")
    header = RunHeader("r1", NOW, "shop", None, "t", False, DIGEST, DIGEST, "b")
    run = RunStore(tmp_path / ".secure-pipeline/runs").create(header)
    for stage in GRAPH:
        if stage != "verify":
            run.save(result(stage))
    return tmp_path


def reported(place: Path, **statuses: str) -> RunOutcome:
    world = World({}, "/usr/bin:/bin", ToolStore(place / "tools"), place)
    words = [f"{name}={status}" for name, status in statuses.items()]
    done = report_run(words, Options(run="r1"), world)
    assert done.path is not None
    document = json.loads(done.path.read_bytes())
    assert (document["verdict"] == "PASS") == (done.outcome.code is ExitCode.PASS)
    return done.outcome


def test_a_run_that_passed_is_told_as_passed(place: Path) -> None:
    """All stages Succeeded with their results there: PASS, and the dashboard says so."""
    assert reported(place, **PASSED).code is ExitCode.PASS


@pytest.mark.parametrize("stage", GRAPH)
@pytest.mark.parametrize("status", ["Failed", "None", "Cancelled", "Unknown"])
def test_what_the_engine_does_not_call_passed_is_no_pass(
    place: Path, stage: str, status: str
) -> None:
    """A result that says PASS of a stage that failed, was killed or never ran counts nothing."""
    assert reported(place, **{**PASSED, stage: status}).code is not ExitCode.PASS


def test_a_stage_that_left_nothing_is_told(place: Path) -> None:
    """A stage that was killed is in the dashboard as an error with the engine's word."""
    (place / ".secure-pipeline/runs/r1/stages/scan.json").unlink()
    outcome = reported(place, **{**PASSED, "scan": "Failed", "sign": "None", "verify": "None"})
    scan = next(stage for stage in outcome.stages if stage.stage == "scan")
    assert "the engine says Failed" in str(scan.error)
    assert outcome.not_run == ("sign", "verify")


def test_a_damaged_result_is_told(place: Path) -> None:
    """What cannot be read is an error of its stage and hides no other stage."""
    (place / ".secure-pipeline/runs/r1/stages/scan.json").write_text("{")
    outcome = reported(place, **PASSED)
    assert outcome.code is ExitCode.CONFIG
    assert len(outcome.stages) == len(GRAPH)


def test_a_run_that_never_began_is_told(tmp_path: Path) -> None:
    """The source could not be fetched: no stage ran, no dashboard, no configuration, no pass."""
    world = World({}, "/usr/bin:/bin", ToolStore(tmp_path / "tools"), tmp_path)
    options = Options(run="r1", state=tmp_path / "state")
    done = report_run([f"{name}=None" for name in GRAPH], options, world)
    assert done.path is None
    assert done.outcome.not_run == tuple(GRAPH)
    assert done.outcome.code is not ExitCode.PASS
    done = report_run([f"{name}=Succeeded" for name in GRAPH], options, world)
    assert done.outcome.code is not ExitCode.PASS, "who says so left nothing"
    with pytest.raises(UsageError, match="there is no run"):
        report_run([], options, world)


@pytest.mark.parametrize("words", [["scan"], ["other=Failed"], ["scan=a b"], ["scan=A", "scan=B"]])
def test_a_status_that_cannot_be_read_is_refused(place: Path, words: list[str]) -> None:
    """Nothing is passed over: a wrong word is exit 2."""
    world = World({}, "/usr/bin:/bin", ToolStore(place / "tools"), place)
    with pytest.raises(UsageError):
        report_run(words, Options(run="r1"), world)
