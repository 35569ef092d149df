"""What a stage gives back: a verdict, evidence, findings, reports and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from secure_pipeline.errors import ExitCode
from secure_pipeline.findings import Finding


class Verdict(Enum):
    """PASS is only ever positive proof; what cannot be decided is INCONCLUSIVE."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Evidence:
    """A predicate about the image, before it becomes a signed statement."""

    predicate_type: str
    predicate: Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """A file for people or other tools, kept under runs/<id>/reports/<stage>/."""

    name: str
    media_type: str
    content: bytes

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ValueError(f"not a plain file name: {self.name!r}")


@dataclass(frozen=True)
class StageResult:
    """The outcome of one stage. Times are UTC; durations come from a monotonic clock."""

    stage: str
    verdict: Verdict
    summary: str
    """One line for people."""
    started: datetime
    finished: datetime
    seconds: float
    reasons: tuple[str, ...] = ()
    """Why the verdict is not PASS, one line each; empty exactly for PASS."""
    findings: tuple[Finding, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    reports: tuple[Report, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Machine-readable numbers and short strings; keys are stable."""
    exit_code: ExitCode | None = None
    """Overrides the code of the verdict, for a refusal that has its own (11, 12)."""

    def __post_init__(self) -> None:
        if (self.verdict is Verdict.PASS) == bool(self.reasons):
            raise ValueError(f"{self.stage}: reasons must be empty exactly for PASS")

    @property
    def code(self) -> ExitCode:
        """Exit code of this result; never 0 unless the verdict is PASS."""
        if self.verdict is Verdict.PASS:
            return ExitCode.PASS
        if self.verdict is Verdict.INCONCLUSIVE:
            return self.exit_code or ExitCode.INCONCLUSIVE
        return self.exit_code or ExitCode.FINDINGS
