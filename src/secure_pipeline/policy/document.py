"""The trusted policy: who may sign what, which evidence a release needs, where gates stand.

The operator names it (``--policy`` or SECURE_PIPELINE_POLICY); the repository under test
cannot. Every list that would trust something is empty by default, and empty refuses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from pathlib import Path

from secure_pipeline.documents import MAX_BYTES, Size, decode, field, parse_yaml
from secure_pipeline.files import read_bounded, sha256_bytes
from secure_pipeline.findings import Severity
from secure_pipeline.policy.names import check_id, check_identity, check_pattern
from secure_pipeline.policy.rotation import RotationRule


class Algorithm(Enum):
    """Signature algorithms; bound to a key here, never read from a message (SIG-22)."""

    ECDSA_P256_SHA256 = "ecdsa-p256-sha256"
    ECDSA_P384_SHA384 = "ecdsa-p384-sha384"
    ED25519 = "ed25519"


@dataclass(frozen=True)
class TrustedKey:
    """A public key and when it may be trusted (SIG-21, SIG-22)."""

    id: str = field("Name used by this policy.")
    public_key: str = field("PEM text, or the path of a PEM file beside the policy.")
    algorithm: Algorithm = field("The one algorithm of this key.")
    not_before: date | None = field("First day, UTC, on which it is trusted.", default=None)
    not_after: date | None = field("Last day, UTC, on which it is trusted.", default=None)

    def __post_init__(self) -> None:
        check_id(self.id)
        if not self.public_key.strip():
            raise ValueError("public-key is empty")
        if self.not_before and self.not_after and self.not_after < self.not_before:
            raise ValueError("not-after is before not-before: the key would never be trusted")

    def trusted_at(self, moment: datetime) -> bool:
        """Tell whether a moment lies in the key's window; both days count whole."""
        day = moment.astimezone(UTC).date()
        return (self.not_before is None or self.not_before <= day) and (
            self.not_after is None or day <= self.not_after
        )


@dataclass(frozen=True)
class TrustedIdentity:
    """Who may sign without a key: an identity as a Sigstore certificate names it (CLI-07)."""

    id: str = field("Name used by this policy.")
    issuer: str = field("URL of the OpenID Connect issuer, matched exactly.")
    identity: str | None = field(
        "E-mail address or URI of the certificate, matched exactly.", default=None
    )
    identity_pattern: str | None = field(
        "Regular expression that the whole identity must match, instead of 'identity'.",
        default=None,
    )

    def __post_init__(self) -> None:
        check_id(self.id)
        if not re.fullmatch(r"https://[^\s*]+", self.issuer):
            raise ValueError(f"issuer {self.issuer!r} is not the https:// URL of one issuer")
        if (self.identity is None) == (self.identity_pattern is None):
            raise ValueError("exactly one of identity and identity-pattern is needed")
        if self.identity is not None:
            check_identity(self.identity)
        if self.identity_pattern is not None:
            check_pattern(self.identity_pattern)

    def matches(self, identity: str, issuer: str) -> bool:
        """Tell whether a verified certificate is this identity's. Empty never matches."""
        if not identity or issuer != self.issuer:
            return False
        if self.identity_pattern is None:
            return identity == self.identity
        return re.fullmatch(self.identity_pattern, identity) is not None


@dataclass(frozen=True)
class Requirement:
    """One predicate type that a release must carry."""

    predicate: str = field("Predicate type URI, matched exactly.")
    name: str | None = field("For test results: configuration[0].name.", default=None)
    keys: tuple[str, ...] | None = field(
        "Ids of the keys and identities that may sign it; if omitted, all and the operator's.",
        default=None,
    )
    quorum: int = field("How many different keys or identities must have signed it.", default=1)
    max_age: timedelta | None = field("Evidence older than this refuses.", default=None)

    def __post_init__(self) -> None:
        if "://" not in self.predicate:
            raise ValueError(f"predicate {self.predicate!r} is not a predicate type URI")
        if self.name is not None and not self.name:
            raise ValueError("name is empty")
        if self.quorum < 1:
            raise ValueError(f"quorum is {self.quorum}: at least one key must sign (1 or more)")
        if self.keys is None:
            return
        if not self.keys:
            raise ValueError("keys is empty: nobody could satisfy this requirement")
        if self.quorum > len(set(self.keys)):
            raise ValueError(
                f"quorum is {self.quorum}, but only {len(set(self.keys))} keys may sign"
            )

    @property
    def title(self) -> str:
        """The type, and the name for a test result."""
        return f"{self.predicate} '{self.name}'" if self.name else self.predicate


@dataclass(frozen=True)
class PolicyException:
    """A scoped, reasoned, expiring permission to ignore one finding (SCN-09)."""

    id: str = field("Rule id or vulnerability id, matched exactly.")
    reason: str = field("Why the finding does not matter here.")
    expires: date = field("Last day on which it counts.")
    package: str | None = field("Only in this package, matched exactly.", default=None)
    path: str | None = field("Only under this path (glob; ** crosses directories).", default=None)

    def __post_init__(self) -> None:
        if not self.id.strip() or any(c in self.id for c in "*?"):
            raise ValueError("id must name one rule or vulnerability: no wildcard, not empty")
        if len(self.reason.strip()) < 10:
            raise ValueError("reason must say why, in at least 10 characters")
        for name, value in (("package", self.package), ("path", self.path)):
            if value is not None and not value.strip():
                raise ValueError(f"{name} is empty: leave the key out, or name one")


BUILD_RULES = ("unpinned-base", "add-without-checksum", "secret-argument", "secret-in-context")


@dataclass(frozen=True)
class Relaxation:
    """A build rule that the policy switches off, with its reason."""

    rule: str = field("unpinned-base, add-without-checksum, secret-argument or secret-in-context.")
    reason: str = field("Why that is acceptable.")

    def __post_init__(self) -> None:
        if self.rule not in BUILD_RULES:
            raise ValueError(f"rule {self.rule!r} is not known")
        if len(self.reason.strip()) < 10:
            raise ValueError("reason must say why, in at least 10 characters")


@dataclass(frozen=True)
class AnalyzeGate:
    """When static analysis fails."""

    severity: Severity = field("Findings from this severity up fail.", default=Severity.HIGH)
    rules: tuple[str, ...] = field(
        "Packs that always run: 'builtin:NAME' or a path beside the policy.",
        default=("builtin:all",),
    )
    exclude: tuple[str, ...] = field("Files that need no analysis (globs).", default=())
    baseline: str | None = field("Baseline file beside the policy.", default=None)
    max_file_size: Size = field("Files up to this size are always analysed.", default=Size(2 << 20))
    repository_may_ignore: bool = field(
        "Honour 'exclude' and 'baseline' of the repository's own configuration.", default=False
    )

    def __post_init__(self) -> None:
        _check_severity(self.severity)


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
    database: str | None = field("Only the database with this digest, sha256:….", default=None)
    vex: tuple[str, ...] = field(
        "VEX files beside the policy; only these set findings aside.", default=()
    )

    def __post_init__(self) -> None:
        _check_severity(self.severity)


def _check_severity(gate: Severity) -> None:
    """A gate at 'unknown' would let every known severity through."""
    if gate is Severity.UNKNOWN:
        raise ValueError("severity 'unknown' is no gate: unknown findings always count")


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
class SealRule:
    """The seal that closes a run's evidence set."""

    required: bool = field(
        "Whether evidence without a seal refuses; false is for evidence that others made.",
        default=True,
    )
    keys: tuple[str, ...] | None = field(
        "Ids of the keys and identities that may seal; if omitted, all and the operator's.",
        default=None,
    )
    max_age: timedelta | None = field("A seal older than this refuses.", default=None)

    def __post_init__(self) -> None:
        if self.keys is not None and not self.keys:
            raise ValueError("keys is empty: nobody could seal")


@dataclass(frozen=True)
class QuarantineRule:
    """Whose word keeps an image from passing, and whose lets it pass again."""

    keys: tuple[str, ...] | None = field(
        "Ids of the keys and identities that may quarantine; if omitted, all and the operator's.",
        default=None,
    )
    release_keys: tuple[str, ...] | None = field(
        "Ids of the keys and identities that may release; if omitted, all and the operator's.",
        default=None,
    )

    def __post_init__(self) -> None:
        if self.keys is not None and not self.keys:
            raise ValueError("keys is empty: nobody could quarantine")
        if self.release_keys is not None and not self.release_keys:
            raise ValueError("release-keys is empty: nobody could release")


@dataclass(frozen=True)
class SigningRule:
    """Which keys in Vault may sign, and with which tokens."""

    allow_fetched_keys: bool = field(
        "Accept keys that leave Vault (vault-kv://…); transit keys never do.", default=False
    )
    max_token_ttl: timedelta = field(
        "A Vault token that lives longer is refused and revoked.", default=timedelta(minutes=15)
    )
    token_policies: tuple[str, ...] | None = field(
        "Vault policies that a token may have; if omitted, all but root.", default=None
    )

    def __post_init__(self) -> None:
        if not timedelta(seconds=1) <= self.max_token_ttl <= timedelta(hours=24):
            raise ValueError("max-token-ttl must be from 1s to 24h")


@dataclass(frozen=True)
class Policy:
    """The whole document."""

    version: int = field("Version of this format: 1.")
    keys: tuple[TrustedKey, ...] = field("Keys that may sign.", default=())
    identities: tuple[TrustedIdentity, ...] = field(
        "Identities that may sign without a key, by Sigstore certificates.", default=()
    )
    trust_root: str | None = field(
        "Sigstore trusted_root.json beside the policy; if omitted, the one of the public "
        "instance that came with this program. Never fetched.",
        default=None,
    )
    require: tuple[Requirement, ...] = field("Evidence that a release needs.", default=())
    source: SourceRule = field("Source.", default=SourceRule())
    gates: Gates = field("Gates of the stages.", default=Gates())
    exceptions: tuple[PolicyException, ...] = field("Findings to ignore.", default=())
    builders: tuple[str, ...] = field("builder.id values accepted; empty refuses.", default=())
    seal: SealRule = field("The seal.", default=SealRule())
    quarantine: QuarantineRule = field("Quarantine.", default=QuarantineRule())
    signing: SigningRule = field("Keys in Vault.", default=SigningRule())
    rotation: RotationRule = field("How old those may be.", default=RotationRule())
    clock_skew: timedelta = field(
        "Evidence dated further ahead than this is no answer.", default=timedelta(minutes=5)
    )

    def __post_init__(self) -> None:
        if self.version != 1:
            raise ValueError(f"version {self.version} is not known; this program reads 1")
        if self.clock_skew > timedelta(hours=1):
            raise ValueError("clock-skew is more than an hour")
        if any(not builder.strip() for builder in self.builders):
            raise ValueError("builders: an empty builder id would match a missing one")
        self._check_keys()

    def _check_keys(self) -> None:
        ids = [key.id for key in self.keys] + [entry.id for entry in self.identities]
        if len(set(ids)) != len(ids):
            raise ValueError(f"two keys or identities have the same id {_repeated(ids)!r}")
        who = [(e.issuer, e.identity, e.identity_pattern) for e in self.identities]
        if len(set(who)) != len(who):
            raise ValueError("one identity stands under two ids, which would count twice")
        if self.trust_root is not None and not self.trust_root.strip():
            raise ValueError("trust-root is empty: leave the key out, or name a file")
        titles = [requirement.title for requirement in self.require]
        if len(set(titles)) != len(titles):
            raise ValueError(f"{_repeated(titles)} is required twice")
        lists = [(r.title, r.keys) for r in self.require] + [("seal", self.seal.keys)]
        lists.append(("quarantine.keys", self.quarantine.keys))
        lists.append(("quarantine.release-keys", self.quarantine.release_keys))
        for title, keys in lists:
            unknown = set(keys or ()) - set(ids)
            if unknown:
                raise ValueError(f"{title}: unknown key {sorted(unknown)[0]!r}")


def _repeated(names: list[str]) -> str:
    return next(name for name in names if names.count(name) > 1)


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
