"""``verify`` evaluates the policy again from the evidence itself."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fakes.evidence import NAME, NOON, run_context
from fakes.release import (
    BUILDER,
    Release,
    built,
    open_findings,
    passed,
    policy,
    refused,
    rules,
    stage_evidence,
    statement,
    suite,
    vulns,
)
from secure_pipeline.attestations import predicates
from secure_pipeline.errors import ExitCode
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.stages.result import Evidence

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"require": "[]"}, "requires no evidence"),
        ({"builders": "[]"}, "accepts no builder"),
    ],
)
def test_cli_07_empty_policy_is_denied(
    tmp_path: Path, release: Release, changes: dict[str, str], words: str
) -> None:
    """A policy that asks for nothing, or accepts no builder, refuses even a whole run."""
    release.run()
    refused(release.verify(policy(tmp_path / "policy", **changes)), ExitCode.DENIED, words)


def test_builder_outside_the_list_is_denied(tmp_path: Path, release: Release) -> None:
    """A run by a builder that the policy does not name refuses with 12."""
    release.run()
    other = policy(tmp_path / "policy", builders="[https://builder.example/1]")
    refused(release.verify(other), ExitCode.DENIED, "builder:", BUILDER)


@pytest.mark.parametrize(
    ("context", "words"),
    [({"commit": None}, "not a git commit"), ({"uncommitted": True}, "uncommitted changes")],
)
def test_source_rules(
    tmp_path: Path,
    release: Release,
    trusted: LoadedPolicy,
    context: dict[str, Any],
    words: str,
) -> None:
    """A source without a commit, or with more than it, is denied unless the policy allows it."""
    release.run(**context)
    refused(release.verify(trusted), ExitCode.DENIED, "source:", words)
    more = "source: {require-commit: false, allow-uncommitted: true}"
    passed(release.verify(policy(tmp_path / "lax", more=more)))


@pytest.mark.parametrize(
    ("items", "code", "words"),
    [
        ({"test": suite("test", "FAILED")}, ExitCode.DENIED, "'test'"),
        ({"analyze": suite("analyze", "FAILED")}, ExitCode.DENIED, "'analyze'"),
        ({"test": suite("test", "WARNED")}, ExitCode.INCONCLUSIVE, "'WARNED'"),
        ({"test": suite("test", "passed")}, ExitCode.INCONCLUSIVE, "'passed'"),
        ({"vulns": vulns(("CVE-7", "HIGH"))}, ExitCode.DENIED, "CVE-7 (high)"),
        ({"vulns": vulns(("CVE-7", "critical"))}, ExitCode.DENIED, "CVE-7 (critical)"),
        ({"vulns": vulns(("CVE-7", "7.5"))}, ExitCode.DENIED, "CVE-7 (high)"),
        ({"vulns": vulns(("CVE-7", "who knows"))}, ExitCode.DENIED, "CVE-7 (unknown)"),
    ],
)
def test_gates_are_evaluated_from_the_evidence(
    release: Release,
    trusted: LoadedPolicy,
    items: dict[str, Evidence],
    code: ExitCode,
    words: str,
) -> None:
    """Signed and sealed evidence that misses a gate refuses, whatever its stage had said."""
    release.run(items=items)
    refused(release.verify(trusted), code, words)


def test_findings_below_the_gate_pass(release: Release, trusted: LoadedPolicy) -> None:
    """Medium findings do not reach the policy's gate at high."""
    release.run(items={"vulns": vulns(("CVE-7", "MEDIUM"), ("CVE-8", "3.1"))})
    passed(release.verify(trusted))


def test_exceptions_apply_and_expire(tmp_path: Path, release: Release) -> None:
    """An exception of the verifier's policy covers its id until its last day."""
    release.run(items={"vulns": vulns(("CVE-7", "HIGH"))})
    more = "exceptions: [{id: CVE-7, reason: not linked into it, expires: 2026-03-01}]"
    chosen = policy(tmp_path / "policy", more=more)
    result = release.verify(chosen)
    passed(result)
    assert "1 excused by the policy" in str(result.figures["decision"])
    refused(release.verify(chosen, NOON + DAY), ExitCode.DENIED, "CVE-7 (high)")


def test_rule_11_only_the_verifiers_policy_excuses(release: Release, trusted: LoadedPolicy) -> None:
    """What the scan itself had set aside counts again unless today's policy excuses it."""
    release.run(items={"vulns": vulns(("CVE-7", "HIGH"), ignored="vex")})
    refused(release.verify(trusted), ExitCode.DENIED, "vulnerabilities:", "CVE-7 (high)")


def test_vex_beside_the_policy_excuses(tmp_path: Path, release: Release) -> None:
    """A VEX document that the policy names sets aside what it names, for its package only."""
    document = {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": "https://example.org/vex/1",
        "author": "security team",
        "timestamp": "2026-02-01T00:00:00Z",
        "version": 1,
        "statements": [
            {
                "vulnerability": {"name": "CVE-7"},
                "products": [{"@id": "pkg:deb/debian/libc6"}],
                "status": "not_affected",
                "justification": "vulnerable_code_not_present",
            }
        ],
    }
    chosen = policy(tmp_path / "policy", more="gates: {scan: {vex: [excuses.json]}}")
    (tmp_path / "policy/excuses.json").write_text(json.dumps(document))
    release.run(items={"vulns": vulns(("CVE-7", "HIGH"), purl="pkg:deb/debian/libc6@2.36")})
    passed(release.verify(chosen))
    other = Release(tmp_path / "other")
    other.run(items={"vulns": vulns(("CVE-7", "HIGH"), purl="pkg:deb/debian/zlib@1")})
    refused(other.verify(chosen), ExitCode.DENIED, "CVE-7 (high)")


@pytest.mark.parametrize(
    ("scan", "code", "words"),
    [
        (vulns(more=2), ExitCode.DENIED, "2 secrets or misconfigurations reach high"),
        (vulns(("CVE-7", "HIGH"), more=-1), ExitCode.VERIFICATION, "lists 1"),
        (vulns(gate="critical"), ExitCode.INCONCLUSIVE, "the policy asks for high"),
        (
            Evidence(predicates.VULNS, vulns().predicate | {"secure-pipeline": None}),
            ExitCode.INCONCLUSIVE,
            "does not say what else",
        ),
    ],
    ids=["secrets", "miscounted", "looser-gate", "not-said"],
)
def test_findings_that_the_standard_has_no_place_for(
    release: Release, trusted: LoadedPolicy, scan: Evidence, code: ExitCode, words: str
) -> None:
    """Secrets and misconfigurations are judged from the figures; absent figures are no answer."""
    release.run(items={"vulns": scan})
    refused(release.verify(trusted), code, words)


@pytest.mark.parametrize(
    ("figures", "code", "words"),
    [
        ({"findings": open_findings(high=1)}, ExitCode.DENIED, "1 open findings reach high"),
        ({"findings": open_findings(unknown=2)}, ExitCode.DENIED, "2 open findings reach high"),
        ({}, ExitCode.INCONCLUSIVE, "does not say how many"),
        ({"findings": {"high": 0}}, ExitCode.INCONCLUSIVE, "does not say how many"),
        ({"findings": open_findings(low=-1)}, ExitCode.INCONCLUSIVE, "does not say how many"),
        ({"findings": open_findings() | {"high": True}}, ExitCode.INCONCLUSIVE, "how many"),
    ],
)
def test_analysis_is_judged_by_todays_gate(
    release: Release, trusted: LoadedPolicy, figures: dict[str, Any], code: ExitCode, words: str
) -> None:
    """PASSED under another gate does not help: the open findings are counted again."""
    release.run(items={"analyze": suite("analyze", **figures)})
    refused(release.verify(trusted), code, "analysis:", words)


def test_build_rules_switched_off_need_todays_policy(
    tmp_path: Path, release: Release, trusted: LoadedPolicy
) -> None:
    """A rule that was switched off for the build must be so in the verifier's policy."""
    release.run(items={"build": built(unpinned_base="mirrored and pinned there")})
    refused(release.verify(trusted), ExitCode.DENIED, "build-rules:", "unpinned-base")
    more = "gates: {build: {allow: [{rule: unpinned-base, reason: mirrored and pinned there}]}}"
    passed(release.verify(policy(tmp_path / "lax", more=more)))
    silent = Release(tmp_path / "silent")
    predicate = {**built().predicate}
    predicate["buildDefinition"] = {"buildType": "x", "externalParameters": {}}
    silent.run(items={"build": Evidence(predicates.PROVENANCE, predicate)})
    refused(silent.verify(trusted), ExitCode.INCONCLUSIVE, "does not say which build rules")


def test_coverage_below_the_minimum_is_denied(tmp_path: Path, release: Release) -> None:
    """The policy's minimum is compared with the signed figure."""
    release.run()
    passed(release.verify(policy(tmp_path / "a", more="gates: {test: {minimum-coverage: 97.5}}")))
    more = "gates: {test: {minimum-coverage: 98}}"
    refused(release.verify(policy(tmp_path / "b", more=more)), ExitCode.DENIED, "97.5 %")


@pytest.mark.parametrize(
    "figures",
    [
        {},
        {"coverage": None},
        {"coverage": "99"},
        {"coverage": True},
        {"coverage": 101},
        {"coverage": -1},
    ],
)
def test_coverage_that_is_not_said_is_undetermined(
    tmp_path: Path, release: Release, figures: dict[str, Any]
) -> None:
    """A missing or impossible figure never meets a minimum."""
    release.run(items={"test": suite("test", **figures)})
    more = "gates: {test: {minimum-coverage: 10}}"
    refused(
        release.verify(policy(tmp_path / "p", more=more)), ExitCode.INCONCLUSIVE, "does not say"
    )


def scanned(**changes: Any) -> dict[str, Evidence]:
    """The good scan with other database members."""
    predicate = json.loads(json.dumps(stage_evidence()["vulns"].predicate))
    predicate["scanner"]["db"] |= {k: v for k, v in changes.items() if k == "lastUpdate"}
    own = {k: v for k, v in changes.items() if k != "lastUpdate"}
    predicate["secure-pipeline"] = predicate["secure-pipeline"] | own
    return {"vulns": Evidence(predicates.VULNS, predicate)}


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"lastUpdate": "2026-02-27T06:00:00Z"}, ExitCode.DENIED, "old when used"),
        ({"lastUpdate": "2026-03-01T18:00:00Z"}, ExitCode.INCONCLUSIVE, "after the scan"),
        ({"lastUpdate": None}, ExitCode.INCONCLUSIVE, "does not say how old"),
        ({"lastUpdate": "yesterday"}, ExitCode.VERIFICATION, "not an RFC 3339 time"),
        ({"demonstrationDatabase": True}, ExitCode.DENIED, "demonstration database"),
        ({"demonstrationDatabase": None}, ExitCode.INCONCLUSIVE, "which kind"),
    ],
)
def test_scn_02_database_is_judged_from_the_evidence(
    release: Release,
    trusted: LoadedPolicy,
    changes: dict[str, Any],
    code: ExitCode,
    words: str,
) -> None:
    """A stale, undated or demonstration database refuses at verification too."""
    release.run(items=scanned(**changes))
    refused(release.verify(trusted), code, words)


def test_scn_03_pinned_database(tmp_path: Path, release: Release) -> None:
    """A policy that pins a database refuses a scan with another one, or with none named."""
    release.run()
    pinned = "gates: {scan: {database: 'sha256:" + "d" * 64 + "'}}"
    passed(release.verify(policy(tmp_path / "a", more=pinned)))
    other = policy(tmp_path / "b", more=pinned.replace("d" * 64, "e" * 64))
    refused(release.verify(other), ExitCode.DENIED, "database:", "e" * 64)


def test_sig_10_failing_scan_hidden_behind_a_good_one_is_refused(
    release: Release, trusted: LoadedPolicy
) -> None:
    """Another run's signed failing scan of this digest refuses, though the last run is good."""
    about = run_context("run-0", builder_id=BUILDER)
    bad = release.payloads([vulns(("CVE-9", "CRITICAL"))], about, NOON - DAY)
    release.attach(bad)
    release.run("run-1")
    result = release.verify(trusted)
    refused(result, ExitCode.DENIED, "each-of:", "CVE-9")
    assert rules(result)["seal"] == "allow"


def test_sig_10_failed_tests_hidden_behind_good_ones_are_refused(
    release: Release, trusted: LoadedPolicy
) -> None:
    """A signed FAILED result without any run is asked too."""
    payload = statement(
        subject=[{"name": NAME, "digest": {"sha256": release.image.digest.hex}}],
        predicateType=predicates.TEST_RESULT,
        predicate={"result": "FAILED", "configuration": [{"name": "manual"}]},
    )
    release.attach([payload])
    release.run()
    refused(release.verify(trusted), ExitCode.DENIED, "each-of:", "'manual'", "FAILED")
