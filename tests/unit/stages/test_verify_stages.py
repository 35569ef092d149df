"""What the stages write is what ``verify`` reads: their own evidence, bound, sealed, judged."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from fakes.analyzer import FakeAnalyzer
from fakes.evidence import NAME, NOON
from fakes.release import FixedClock, Items, Release, passed, policy, refused, rules
from fakes.scanner import FakeScanner, secret, vulnerability
from secure_pipeline.config import AnalyzeConfig, ScanConfig
from secure_pipeline.errors import ExitCode
from secure_pipeline.events import ignore
from secure_pipeline.findings import Finding, Severity
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.document import AnalyzeGate, LoadedPolicy, PolicyException, ScanGate
from secure_pipeline.stages.analyze import AnalyzeInputs, analyze
from secure_pipeline.stages.result import Evidence, StageResult, Verdict
from secure_pipeline.stages.scan import ScanInputs, scan

EXCUSE = "{id: CVE-2024-0001, reason: not linked into the service, expires: 2026-12-31}"


def scanned(
    release: Release, *findings: Finding, gate: Severity = Severity.HIGH, excused: bool = False
) -> StageResult:
    """Run the scan stage on the release's image."""
    excuse = PolicyException("CVE-2024-0001", "not linked into the service", date(2026, 12, 31))
    inputs = ScanInputs(
        layout=release.path,
        image=ImageReference(NAME, release.image.digest),
        config=ScanConfig(),
        gate=ScanGate(severity=gate),
        exceptions=(excuse,) if excused else (),
        today=NOON.date(),
        root=release.path,
    )
    return scan(inputs, FakeScanner(findings), FixedClock(), ignore)


def analyzed(root: Path, code: str, gate: Severity = Severity.HIGH) -> StageResult:
    """Run the analyze stage on one file."""
    root.mkdir()
    (root / "app.py").write_text(code)
    (root / "rules.yaml").write_text("rules: []\n")
    inputs = AnalyzeInputs(
        root=root,
        packs=(root / "rules.yaml",),
        config=AnalyzeConfig(),
        gate=AnalyzeGate(severity=gate),
        today=NOON.date(),
    )
    return analyze(inputs, FakeAnalyzer(), FixedClock(), ignore)


def items(*results: StageResult) -> Items:
    """The evidence of stages in the place of the good run's."""
    found: dict[str, Evidence] = {}
    kinds = ("vulns", "cosign-vuln", "cyclonedx", "spdx")
    for result in results:
        names = ("analyze",) if result.stage == "analyze" else kinds
        found.update(zip(names, result.evidence, strict=True))
    return found


def test_evidence_of_analyze_and_scan_is_understood(
    tmp_path: Path, release: Release, trusted: LoadedPolicy
) -> None:
    """A clean analysis and a scan with a medium finding pass, with nothing undetermined."""
    analysis = analyzed(tmp_path / "source", "x = 1\n")
    found = scanned(release, vulnerability(severity=Severity.MEDIUM))
    assert {analysis.verdict, found.verdict} == {Verdict.PASS}
    release.run(items=items(analysis, found))
    result = release.verify(trusted)
    passed(result)
    gates = {"analysis", "vulnerabilities", "other-findings", "database"}
    assert gates <= rules(result).keys()


def test_rule_11_analysis_that_passed_a_looser_policy_is_refused(
    tmp_path: Path, release: Release, trusted: LoadedPolicy
) -> None:
    """What passed a gate at critical does not pass the verifier's at high."""
    analysis = analyzed(tmp_path / "source", "FINDING = 1\n", gate=Severity.CRITICAL)
    assert analysis.verdict is Verdict.PASS
    release.run(items=items(analysis))
    refused(release.verify(trusted), ExitCode.DENIED, "1 open findings reach high")


def test_exceptions_of_the_scan_do_not_bind_the_verifier(
    tmp_path: Path, release: Release, trusted: LoadedPolicy
) -> None:
    """A finding that the scan's policy excused needs an excuse of the verifier's policy too."""
    found = scanned(release, vulnerability(), excused=True)
    assert found.verdict is Verdict.PASS
    release.run(items=items(found))
    refused(release.verify(trusted), ExitCode.DENIED, "CVE-2024-0001 (high)")
    passed(release.verify(policy(tmp_path / "same", more=f"exceptions: [{EXCUSE}]")))


def test_sig_10_signed_failing_scan_is_refused_for_its_secret(
    release: Release, trusted: LoadedPolicy
) -> None:
    """A scan that failed for a secret alone, signed all the same, refuses."""
    found = scanned(release, secret())
    assert found.verdict is Verdict.FAIL
    release.run(items=items(found))
    refused(release.verify(trusted), ExitCode.DENIED, "1 secrets or misconfigurations reach high")
