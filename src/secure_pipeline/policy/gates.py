"""Effective gates: the stricter of the trusted policy's and the repository's (DESIGN rule 11).

The repository under test may tighten a gate and never weaken it, so each function takes both
and returns the one to use.
"""

from __future__ import annotations

from secure_pipeline.config import AnalyzeConfig, ScanConfig, TestConfig
from secure_pipeline.findings import Severity
from secure_pipeline.policy.document import AnalyzeGate, ScanGate, TestGate


def analyze_severity(gate: AnalyzeGate, config: AnalyzeConfig) -> Severity:
    """The severity from which findings of static analysis fail."""
    return _lower(gate.severity, config.severity)


def scan_severity(gate: ScanGate, config: ScanConfig) -> Severity:
    """The severity from which findings of the image scan fail."""
    return _lower(gate.severity, config.severity)


def minimum_coverage(gate: TestGate, config: TestConfig) -> float | None:
    """The least line coverage in per cent; None when neither side asks for any."""
    own = config.coverage.minimum if config.coverage else None
    asked = [value for value in (gate.minimum_coverage, own) if value is not None]
    return max(asked, default=None)


def _lower(policy: Severity, repository: Severity | None) -> Severity:
    """A lower severity gates more."""
    return policy if repository is None else min(policy, repository)
