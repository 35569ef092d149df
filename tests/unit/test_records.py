"""Tests of stored records, runs and the cache."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.cache import Cache
from secure_pipeline.errors import ConfigError, ExitCode, UsageError
from secure_pipeline.findings import Finding, Ignored, Kind, Location, Severity
from secure_pipeline.records import InvalidRecord, decode, encode
from secure_pipeline.runs import RunHeader, RunStore, StoredResult
from secure_pipeline.stages.result import Evidence, Report, StageResult, Verdict

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
RESULT = StageResult(
    stage="scan",
    verdict=Verdict.PASS,
    summary="fine",
    started=NOW,
    finished=NOW,
    seconds=1.5,
    findings=(
        Finding(
            "CVE-1", Kind.VULNERABILITY, Severity.LOW, "m", "f", Location("p", 3),
            ignored=Ignored.EXCEPTION, reason="because",
        ),
    ),
    evidence=(Evidence("https://example.com/p", {"a": [1, {"b": None}]}),),
    reports=(Report("a.json", "application/json", b"{}"), Report("b.bin", "x/y", b"\x00\xff")),
    figures={"n": 1, "f": 0.5, "s": "x"},
)  # fmt: skip
FAILED = dataclasses.replace(
    RESULT, verdict=Verdict.FAIL, reasons=("why",), exit_code=ExitCode.DENIED
)
HEADER = RunHeader("r1", NOW, "n", None, "sha256:0", True, "c", "p", "b")


def test_a_stage_result_survives_being_stored(tmp_path: Path) -> None:
    """What a run saves is what it loads, report bytes included."""
    run = RunStore(tmp_path).create(HEADER)
    run.save(RESULT, "r0")
    assert run.load("scan") == StoredResult(RESULT, run.load("scan").reports, "r0")  # type: ignore[union-attr]
    run.save(FAILED)
    assert run.load("scan").result == FAILED  # type: ignore[union-attr]


def test_an_altered_report_is_noticed(tmp_path: Path) -> None:
    """A report whose bytes changed makes the stored result unusable."""
    run = RunStore(tmp_path).create(HEADER)
    run.save(RESULT)
    (run.directory / "reports/scan/a.json").write_bytes(b"[]")
    with pytest.raises(ConfigError, match="altered"):
        run.load("scan")


@given(st.data())
def test_a_torn_or_altered_cache_entry_is_no_entry(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever is cut from an entry, the cache answers None and never another result."""
    cache = Cache(tmp_path_factory.mktemp("cache"))
    key = Cache.key("scan", {"x": 1})
    cache.put(key, RESULT, "r1")
    path = cache.directory / "scan" / f"{key}.json"
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert cache.get("scan", key) is None


def test_the_cache_keeps_only_what_passed(tmp_path: Path) -> None:
    """A failure or an unknown is worked out again each time."""
    cache = Cache(tmp_path)
    cache.put("k", FAILED, "r1")
    assert cache.get("scan", "k") is None
    cache.put("k", RESULT, "r1")
    assert cache.get("scan", "k") == StoredResult(RESULT, cache.get("scan", "k").reports, "r1")  # type: ignore[union-attr]


def test_an_entry_answers_only_for_its_own_stage(tmp_path: Path) -> None:
    """An entry copied to another stage's place is not believed."""
    cache = Cache(tmp_path)
    cache.put("k", RESULT, "r1")
    (tmp_path / "sign").mkdir()
    (tmp_path / "sign/k.json").write_bytes((tmp_path / "scan/k.json").read_bytes())
    assert cache.get("sign", "k") is None


def test_a_pass_planted_as_a_failure_is_refused(tmp_path: Path) -> None:
    """A result with reasons can never be read back as PASS."""
    run = RunStore(tmp_path).create(HEADER)
    run.save(FAILED)
    path = run.directory / "stages/scan.json"
    document = json.loads(path.read_bytes())
    document["result"]["verdict"] = "PASS"
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="damaged"):
        run.load("scan")


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a\n", "x" * 65, "-x"])
def test_a_run_id_is_a_plain_name(tmp_path: Path, name: str) -> None:
    """A run id can never leave the directory of runs."""
    with pytest.raises(UsageError):
        RunStore(tmp_path).open(name)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x"])
def test_a_report_name_is_a_plain_name(name: str) -> None:
    """A report can never be written outside its directory."""
    with pytest.raises(ValueError, match="plain file name"):
        Report(name, "x/y", b"")


def test_decoding_refuses_other_shapes() -> None:
    """Missing, additional and wrongly typed members are all refused."""
    good = encode(HEADER)
    assert decode(RunHeader, good) == HEADER
    for bad in ({}, {**good, "more": 1}, {**good, "uncommitted": "yes"}, {**good, "started": "x"}):
        with pytest.raises(InvalidRecord):
            decode(RunHeader, bad)


def test_only_json_values_can_be_encoded() -> None:
    """Bytes in a record are a mistake of the caller."""
    with pytest.raises(TypeError):
        encode({"a": b"x"})


def test_runs_are_listed_by_their_start(tmp_path: Path) -> None:
    """The order is that of time, not of names."""
    store = RunStore(tmp_path)
    store.create(dataclasses.replace(HEADER, id="b", started=datetime(2026, 1, 1, tzinfo=UTC)))
    store.create(dataclasses.replace(HEADER, id="a", started=datetime(2026, 1, 2, tzinfo=UTC)))
    assert [run.id for run in store.all()] == ["b", "a"]


def test_a_damaged_run_is_no_run(tmp_path: Path) -> None:
    """One unreadable header does not stop the others from being listed."""
    store = RunStore(tmp_path)
    store.create(HEADER)
    store.create(dataclasses.replace(HEADER, id="r2"))
    (tmp_path / "r2/run.json").write_text("{")
    assert [run.id for run in store.all()] == ["r1"]
