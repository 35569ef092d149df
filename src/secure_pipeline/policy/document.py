"""The trusted policy: who may sign what, which evidence a release needs, where gates stand.

The operator names it (``--policy`` or SECURE_PIPELINE_POLICY); the repository under test
cannot. Every list that would trust something is empty by default, and empty refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum
from pathlib import Path

from secure_pipeline.documents import MAX_BYTES, decode, field, parse_yaml
from secure_pipeline.files import read_bounded, sha256_bytes
from secure_pipeline.findings import Severity


class Algorithm(Enum):
    """Signature algorithms; bound to a key here, never read from a message (SIG-22)."""

    ECDSA_P256_SHA256 = "ecdsa-p256-sha256"
    ECDSA_P384_SHA384 = "ecdsa-p384-sha384"
    ED25519 = "ed25519"


@dataclass(frozen=True)
class TrustedKey:
    """A public key and when it may be trusted."""

    id: str = field("Name used by this policy.")
    public_key: str = field("PEM text, or the path of a PEM file beside the policy.")
    algorithm: Algorithm = field("The one algorithm of this key.")
    not_before: date | None = field("Not trusted for evidence made before.", default=None)
    not_after: date | None = field("Not trusted for evidence made after.", default=None)


@dataclass(frozen=True)
class Requirement:
    """One predicate type that a release must carry."""

    predicate: str = field("Predicate type URI, matched exactly.")
    name: str | None = field("For test results: configuration[0].name.", default=None)
    keys: tuple[str, ...] = field("Ids of keys, each accepted alone.", default=())
    max_age: timedelta | None = field("Evidence older than this refuses.", default=None)

    def __post_init__(self) -> None:
        if not self.keys:
            raise ValueError("keys is empty: nobody could satisfy this requirement")


@dataclass(frozen=True)
class PolicyException:
    """A scoped, reasoned, expiring permission to ignore one finding (SCN-09)."""

    id: str = field("Rule id or vulnerability id.")
    reason: str = field("Why the finding does not matter here.")
    expires: date = field("Last day on which it counts.")
    package: str | None = field("Only in this package.", default=None)
    path: str | None = field("Only under this path (glob).", default=None)

    def __post_init__(self) -> None:
        if len(self.reason.strip()) < 10:
            raise ValueError("reason must say why, in at least 10 characters")


@dataclass(frozen=True)
class Relaxation:
    """A build rule that the policy switches off, with its reason."""

    rule: str = field("unpinned-base, add-without-checksum or secret-argument.")
    reason: str = field("Why that is acceptable.")

    def __post_init__(self) -> None:
        if self.rule not in ("unpinned-base", "add-without-checksum", "secret-argument"):
            raise ValueError(f"rule {self.rule!r} is not known")
        if len(self.reason.strip()) < 10:
            raise ValueError("reason must say why, in at least 10 characters")


@dataclass(frozen=True)
class AnalyzeGate:
    """When static analysis fails."""

    severity: Severity = field("Findings from this severity up fail.", default=Severity.HIGH)


@dataclass(frozen=True)
class TestGate:
    """When tests fail."""

    minimum_coverage: float | None = field("Least line coverage, per cent.", default=None)

    def __post_init__(self) -> None:
        if self.minimum_coverage is not None and not 0 <= self.minimum_coverage <= 100:
            raise ValueError("minimum-coverage must be from 0 to 100")


@dataclass(frozen=True)
class BuildGate:
    """Which builds are refused."""

    allow: tuple[Relaxation, ...] = field("Rules switched off, with reasons.", default=())


@dataclass(frozen=True)
class ScanGate:
    """When the scan fails."""

    severity: Severity = field("Findings from this severity up fail.", default=Severity.HIGH)
    fixed_only: bool = field("Count only vulnerabilities that have a fix.", default=False)
    max_database_age: timedelta = field("An older database is no answer.", default=timedelta(1))
    allow_demonstration_database: bool = field(
        "Accept the small database made for demonstrations.", default=False
    )


@dataclass(frozen=True)
class Gates:
    """The gates of all stages."""

    analyze: AnalyzeGate = field("Static analysis.", default=AnalyzeGate())
    test: TestGate = field("Tests.", default=TestGate())
    build: BuildGate = field("Build.", default=BuildGate())
    scan: ScanGate = field("Scan.", default=ScanGate())


@dataclass(frozen=True)
class SourceRule:
    """What is required of the source."""

    require_commit: bool = field("The source must be a git commit.", default=True)
    allow_uncommitted: bool = field("Uncommitted changes are accepted.", default=False)


@dataclass(frozen=True)
class Policy:
    """The whole document."""

    version: int = field("Version of this format: 1.")
    keys: tuple[TrustedKey, ...] = field("Keys that may sign.", default=())
    require: tuple[Requirement, ...] = field("Evidence that a release needs.", default=())
    source: SourceRule = field("Source.", default=SourceRule())
    gates: Gates = field("Gates of the stages.", default=Gates())
    exceptions: tuple[PolicyException, ...] = field("Findings to ignore.", default=())
    builders: tuple[str, ...] = field("builder.id values accepted.", default=())

    def __post_init__(self) -> None:
        if self.version != 1:
            raise ValueError(f"version {self.version} is not known; this program reads 1")
        ids = [key.id for key in self.keys]
        if len(set(ids)) != len(ids):
            raise ValueError("two keys have the same id")
        for requirement in self.require:
            unknown = set(requirement.keys) - set(ids)
            if unknown:
                raise ValueError(f"{requirement.predicate}: unknown key {sorted(unknown)[0]!r}")


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy with where it came from and the digest of its bytes."""

    policy: Policy
    source: Path
    digest: str
    """``sha256:…`` of the file."""


def load(path: Path) -> LoadedPolicy:
    """Read and check a policy file.

    Raises: ConfigError naming file:line.
    """
    data = read_bounded(path, MAX_BYTES)
    policy = decode(Policy, parse_yaml(data, str(path)))
    return LoadedPolicy(policy, path, f"sha256:{sha256_bytes(data)}")
