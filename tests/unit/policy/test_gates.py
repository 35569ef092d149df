"""Effective gates: the repository can only tighten."""

from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline import config
from secure_pipeline.findings import Severity
from secure_pipeline.policy import document
from secure_pipeline.policy.gates import analyze_severity, minimum_coverage, scan_severity

known = st.sampled_from([s for s in Severity if s is not Severity.UNKNOWN])
per_cent = st.none() | st.floats(0, 100)


@given(known, st.none() | st.sampled_from(Severity), st.sampled_from(Severity))
def test_rule_11_no_repository_weakens_a_severity_gate(
    policy: Severity, own: Severity | None, found: Severity
) -> None:
    """Whatever the repository writes, all that the policy's gate stops is still stopped."""
    effective = {
        analyze_severity(document.AnalyzeGate(policy), config.AnalyzeConfig(severity=own)),
        scan_severity(document.ScanGate(policy), config.ScanConfig(severity=own)),
    }
    assert len(effective) == 1
    assert found.reaches(effective.pop()) >= found.reaches(policy)


@given(per_cent, per_cent)
def test_rule_11_no_repository_lowers_the_coverage(policy: float | None, own: float | None) -> None:
    """The higher minimum holds, and none only if neither side asks."""
    repository = config.TestConfig(
        ("true",), "junit.xml", config.CoverageConfig("c.xml", minimum=own)
    )
    effective = minimum_coverage(document.TestGate(policy), repository)
    asked = [value for value in (policy, own) if value is not None]
    assert effective == (sorted(asked)[-1] if asked else None)


def test_repository_tightens() -> None:
    """A repository that asks for more gets it."""
    assert (
        scan_severity(document.ScanGate(), config.ScanConfig(severity=Severity.LOW)) is Severity.LOW
    )
    repository = config.TestConfig(("true",), "j.xml", config.CoverageConfig("c.xml", minimum=95))
    assert minimum_coverage(document.TestGate(80), repository) == 95
