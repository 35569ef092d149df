"""What a tool found, in one form for every tool and every report."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import total_ordering


@total_ordering
class Severity(Enum):
    """Ordered severities; UNKNOWN reaches every gate (SCN-10)."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"
    UNKNOWN = "unknown"

    def __lt__(self, other: Severity) -> bool:
        return _ORDER.index(self) < _ORDER.index(other)

    def reaches(self, gate: Severity) -> bool:
        """Tell whether a finding of this severity counts at a gate."""
        return self is Severity.UNKNOWN or self >= gate


_ORDER = (
    Severity.INFO,
    Severity.LOW,
    Severity.MEDIUM,
    Severity.HIGH,
    Severity.CRITICAL,
    Severity.UNKNOWN,
)


class Kind(Enum):
    """What sort of problem a finding is."""

    CODE = "code"
    VULNERABILITY = "vulnerability"
    SECRET = "secret"
    MISCONFIGURATION = "misconfiguration"


class Ignored(Enum):
    """Why a finding does not count at the gate. Always counted aloud in reports."""

    EXCEPTION = "exception"
    BASELINE = "baseline"
    VEX = "vex"
    UNFIXED = "unfixed"


@dataclass(frozen=True)
class Location:
    """A place in a file; lines and columns count from 1."""

    path: str
    line: int | None = None
    end_line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.line else self.path


@dataclass(frozen=True)
class Finding:
    """One finding of one tool."""

    rule: str
    """Stable id: rule id, CVE id."""
    kind: Kind
    severity: Severity
    message: str
    fingerprint: str
    """Stable over runs and unrelated edits: identifies "the same finding" for baselines."""
    location: Location | None = None
    package: str | None = None
    installed: str | None = None
    purl: str | None = None
    """Package URL, with the version."""
    fixed: str | None = None
    layer: str | None = None
    """Digest (``sha256:…``) of the image layer that brought it."""
    dockerfile_line: int | None = None
    url: str | None = None
    ignored: Ignored | None = None
    reason: str | None = None
    """For an ignored finding: the reason that the policy gives."""
