"""SARIF 2.1.0 within GitHub's limits."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.findings import Finding, Ignored, Kind, Location, Severity
from secure_pipeline.ports import ToolIdentity
from secure_pipeline.report import to_sarif as module
from secure_pipeline.report.to_sarif import FINGERPRINT, to_sarif

TOOL = ToolIdentity("semgrep", "1.0", f"sha256:{'a' * 64}")
FINDING = Finding(
    rule="r1",
    kind=Kind.CODE,
    severity=Severity.HIGH,
    message="do not",
    fingerprint="f" * 64,
    location=Location("src/a.py", 3, 4, 5),
    url="https://example.com/r1",
)


def check(document: dict[str, Any]) -> None:
    """The rules of SARIF 2.1.0 (and GitHub's limits) for what is written here."""
    assert document["version"] == "2.1.0"
    assert 1 <= len(document["runs"]) <= 20
    assert len({run["automationDetails"]["id"] for run in document["runs"]}) == len(
        document["runs"]
    )
    for run in document["runs"]:
        rules = run["tool"]["driver"]["rules"]
        assert len({rule["id"] for rule in rules}) == len(rules)
        assert all(len(rule["properties"]["tags"]) <= 20 for rule in rules)
        assert all(0 < float(r["properties"]["security-severity"]) <= 10 for r in rules)
        assert len(run["results"]) <= 25_000
        for invocation in run["invocations"]:
            assert type(invocation["executionSuccessful"]) is bool
        for result in run["results"]:
            assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
            assert result["level"] in ("none", "note", "warning", "error")
            assert result["message"]["text"]
            assert 1 <= len(result["locations"]) <= 1_000
            place = result["locations"][0]["physicalLocation"]
            assert place["artifactLocation"]["uri"].isascii()
            assert not place["artifactLocation"]["uri"].startswith("/")
            assert place["region"]["startLine"] >= 1
            assert place["region"].get("endLine", 10**9) >= place["region"]["startLine"]
            assert result["partialFingerprints"][FINGERPRINT]


def load(*findings: Finding, errors: tuple[str, ...] = ()) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(to_sarif(TOOL, findings, errors))
    check(document)
    return document


def test_a_finding_becomes_a_result_at_its_place() -> None:
    """Rule, level, region, fingerprint and help address arrive."""
    run = load(FINDING)["runs"][0]
    result = run["results"][0]
    assert result["locations"][0]["physicalLocation"]["region"] == {
        "startLine": 3,
        "startColumn": 5,
        "endLine": 4,
    }
    assert result["partialFingerprints"] == {FINGERPRINT: "f" * 64}
    assert run["tool"]["driver"]["rules"][0]["helpUri"] == "https://example.com/r1"
    assert run["invocations"][0]["executionSuccessful"] is True


def test_an_incomplete_analysis_is_not_successful() -> None:
    """Errors become notifications of level error, and the invocation did not succeed."""
    invocation = load(errors=("a.py: broken",))["runs"][0]["invocations"][0]
    assert invocation["executionSuccessful"] is False
    assert invocation["toolExecutionNotifications"] == [
        {"level": "error", "message": {"text": "a.py: broken"}}
    ]


def test_an_ignored_finding_is_suppressed_with_its_reason() -> None:
    """What is set aside stays in the file and says why."""
    ignored = replace(FINDING, ignored=Ignored.EXCEPTION, reason="tested by hand")
    result = load(ignored)["runs"][0]["results"][0]
    assert result["suppressions"] == [
        {"kind": "external", "status": "accepted", "justification": "tested by hand"}
    ]


def test_a_finding_without_a_file_still_has_a_place() -> None:
    """GitHub refuses results without a location: the package's name is one."""
    vulnerability = replace(FINDING, location=None, package="lib ssl", installed="1", fixed="2")
    result = load(vulnerability)["runs"][0]["results"][0]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "lib%20ssl"
    assert result["message"]["text"] == "lib ssl 1, fixed in 2: do not"


def test_many_findings_become_several_runs_and_the_rest_is_said(monkeypatch: Any) -> None:
    """Over the limits the least severe are left out, aloud."""
    monkeypatch.setattr(module, "MAX_RESULTS", 2)
    monkeypatch.setattr(module, "MAX_RUNS", 2)
    many = [replace(FINDING, rule=f"r{n}", severity=Severity.LOW) for n in range(4)]
    document = load(*many, replace(FINDING, rule="worst", severity=Severity.CRITICAL))
    assert [len(run["results"]) for run in document["runs"]] == [2, 2]
    assert document["runs"][0]["results"][0]["ruleId"] == "worst"
    for run in document["runs"]:
        assert "1 findings are left out" in str(run["invocations"])
        assert run["invocations"][0]["executionSuccessful"] is False


@given(
    st.lists(
        st.builds(
            Finding,
            rule=st.sampled_from(["a", "b"]),
            kind=st.sampled_from(Kind),
            severity=st.sampled_from(Severity),
            message=st.text(min_size=1, max_size=20),
            fingerprint=st.text(alphabet="0123456789abcdef", min_size=64, max_size=64),
            location=st.none()
            | st.builds(
                Location,
                path=st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20),
                line=st.none() | st.integers(1, 9),
                end_line=st.none() | st.integers(1, 9),
            ),
        ),
        max_size=5,
    )
)
def test_any_findings_give_valid_sarif_in_a_stable_order(findings: list[Finding]) -> None:
    """Order of input does not matter, and every path comes back from its address."""
    document = load(*findings)
    assert to_sarif(TOOL, findings) == to_sarif(TOOL, findings[::-1]) or len(
        {f.fingerprint for f in findings}
    ) < len(findings)
    uris = {
        unquote(r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"])
        for r in document["runs"][0]["results"]
    }
    paths = {f.location.path.lstrip("/") for f in findings if f.location}
    assert {path for path in paths if path} <= uris
