"""Semgrep's report: whole, or no answer."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.errors import Inconclusive
from secure_pipeline.findings import Kind, Severity
from secure_pipeline.tools.semgrep_report import findings, parse_report, without

RESULT: dict[str, Any] = {
    "check_id": "r",
    "path": "@source/a.py",
    "start": {"line": 1, "col": 1, "offset": 0},
    "end": {"line": 1, "col": 4, "offset": 3},
    "extra": {
        "message": "do\n not",
        "severity": "ERROR",
        "metadata": {"kind": "misconfiguration", "references": ["https://example.com"]},
    },
}
REPORT: dict[str, Any] = {
    "version": "1.182.0",
    "results": [RESULT],
    "errors": [],
    "paths": {"scanned": ["@source/a.py", "@canary/canary.py"], "skipped": []},
    "skipped_rules": [],
}


def encoded(**changes: Any) -> bytes:
    return json.dumps({**REPORT, **changes}).encode()


def test_a_result_becomes_a_finding(tmp_path: Path) -> None:
    """Severity, kind, place, message on one line and help address are read."""
    (tmp_path / "a.py").write_text("bad\n")
    (found,) = findings(parse_report(encoded()).matches, {"a.py": "real.py"}, tmp_path, "@source/")
    assert (found.severity, found.kind, found.message) == (
        Severity.HIGH,
        Kind.MISCONFIGURATION,
        "do not",
    )
    assert str(found.location) == "real.py:1"
    assert found.url == "https://example.com"


@pytest.mark.parametrize(
    ("word", "severity"),
    [("INFO", Severity.LOW), ("WARNING", Severity.MEDIUM), ("NEW", Severity.UNKNOWN)],
)
def test_severities_are_translated(word: str, severity: Severity) -> None:
    """A severity that is not known is UNKNOWN, which reaches every gate."""
    item = copy.deepcopy(RESULT)
    item["extra"]["severity"] = word
    assert parse_report(encoded(results=[item])).matches[0].severity is severity


@pytest.mark.parametrize(
    "error",
    [
        {"level": "warn", "type": ["PartialParsing", []], "message": "x", "path": "@source/a.py"},
        {"level": "error", "type": "Timeout", "message": "x"},
        {"level": "error", "type": "InvalidRuleSchemaError", "long_msg": "x"},
        {"type": None},
    ],
)
def test_every_error_and_warning_is_kept(error: dict[str, Any]) -> None:
    """Whatever level it has, an error makes the report incomplete."""
    assert len(parse_report(encoded(errors=[error])).errors) == 1


def test_skipped_rules_are_errors() -> None:
    """A rule that did not run is no clean answer."""
    assert parse_report(encoded(skipped_rules=[{"rule_id": "r"}])).errors == ("rule skipped: r",)


BROKEN: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "half": lambda: encoded()[:-5],
    "trailing": lambda: encoded() + b"x",
    "a list": lambda: b"[]",
    "no errors member": lambda: json.dumps(
        {k: v for k, v in REPORT.items() if k != "errors"}
    ).encode(),
    "results is null": lambda: encoded(results=None),
    "a result without a path": lambda: encoded(results=[{**RESULT, "path": None}]),
    "a line that is none": lambda: encoded(results=[{**RESULT, "start": {"line": 0, "col": 1}}]),
    "NaN": lambda: encoded(version=float("nan")),
    "duplicate member": lambda: encoded().replace(b"{", b'{"results": [], ', 1),
}


@pytest.mark.parametrize("case", BROKEN)
def test_scn_05_a_report_that_is_not_whole_is_inconclusive(case: str) -> None:
    """Half, doubled, trailing and shapeless reports are refused."""
    with pytest.raises(Inconclusive):
        parse_report(BROKEN[case]())


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner)
       | st.dictionaries(st.sampled_from([*REPORT, *RESULT, "scanned", "skipped", "line", "col"]),
                         inner), max_leaves=12))  # fmt: skip
def test_any_json_is_a_report_or_inconclusive(value: Any) -> None:
    """No shape of JSON ends in another exception."""
    for document in (value, {**REPORT, "results": [value]}, {**REPORT, "errors": [value]}):
        try:
            assert parse_report(json.dumps(document).encode()).version
        except Inconclusive:
            continue


def test_fingerprints_do_not_depend_on_lines_or_indentation(tmp_path: Path) -> None:
    """The same code elsewhere in the file is the same finding; a second one is another."""
    (tmp_path / "a.py").write_text("bad  (1)\nbad (1)\n\n\n    bad (1)\n")

    def at(*lines: int) -> list[str]:
        items = [{**RESULT, "start": {"line": n, "col": 1}, "end": {"line": n}} for n in lines]
        report = parse_report(encoded(results=items))
        return [
            f.fingerprint for f in findings(report.matches, {"a.py": "a.py"}, tmp_path, "@source/")
        ]

    assert at(1) == at(5)
    assert len({*at(1, 2, 5)}) == 3
    assert at(1, 2) == at(2, 5)


def test_the_kept_report_is_about_the_repository_alone() -> None:
    """Canary and prefix are gone, and a name in the copy is the repository's again."""
    kept = json.loads(without(REPORT, {"a.py": "real.py"}, "@source/"))
    assert kept["paths"]["scanned"] == ["real.py"]
    assert [item["path"] for item in kept["results"]] == ["real.py"]
    assert "@" not in json.dumps(kept)
