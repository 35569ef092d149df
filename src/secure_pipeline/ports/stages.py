"""What the stages up to the scan need: source, analyser, tests, builder, scanner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from secure_pipeline.config import Network, SecretConfig
from secure_pipeline.errors import FindingsOverGate
from secure_pipeline.events import OnEvent
from secure_pipeline.findings import Finding


@dataclass(frozen=True)
class ToolIdentity:
    """Which program did the work."""

    name: str
    version: str
    digest: str
    """``sha256:…`` of the executable (of the lock file for a Python environment)."""


@dataclass(frozen=True)
class SourceState:
    """What the working tree is."""

    commit: str | None
    """40 or 64 hex digits; None outside git."""
    tree: str
    """``sha256:…`` over paths, modes and contents of all files that are not ignored."""
    uncommitted: bool
    """True when files differ from the commit (always outside git)."""
    time: int
    """Commit time in seconds since 1970, for SOURCE_DATE_EPOCH; 0 outside git."""
    remote: str | None
    """URL of origin without credentials."""


class Source(Protocol):
    """The repository under test."""

    def state(self) -> SourceState:
        """Read commit and content digest of the working tree as it is now."""


@dataclass(frozen=True)
class AnalysisRequest:
    """What to analyse. ``root`` is the repository; packs are files or directories of rules."""

    root: Path
    packs: tuple[Path, ...]
    exclude: tuple[str, ...]
    timeout: timedelta
    max_file_size: int


@dataclass(frozen=True)
class AnalysisReport:
    """What the analyser did. Incomplete work is listed, never dropped."""

    tool: ToolIdentity
    rules_digest: str
    """``sha256:…`` over all rule files used."""
    rules_count: int
    findings: tuple[Finding, ...]
    """Paths relative to the root."""
    scanned: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    """(path, reason)."""
    errors: tuple[str, ...]
    """Errors of the engine, of rules and of parsing: any makes the analysis incomplete."""
    raw: bytes
    """The tool's own report."""


class Analyzer(Protocol):
    """Static analysis."""

    def analyze(self, request: AnalysisRequest, on_event: OnEvent) -> AnalysisReport:
        """Analyse. Raises: Unavailable, Inconclusive (crash, time-out, part of a report)."""


@dataclass(frozen=True)
class TestRequest:
    """A command of the project to run with limits and a clean environment."""

    command: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str]
    timeout: timedelta
    memory: int
    processes: int
    output: int


@dataclass(frozen=True)
class TestOutcome:
    """How the command ended."""

    returncode: int
    timed_out: bool
    description: str
    """'exited with 1', 'killed by SIGKILL'."""
    output: bytes
    truncated: bool
    seconds: float


class TestRunner(Protocol):
    """Runs the project's tests."""

    def run(self, request: TestRequest, on_event: OnEvent) -> TestOutcome:
        """Run to the end or to the deadline. Raises: Unavailable if it cannot start."""


@dataclass(frozen=True)
class BaseImage:
    """A base image as FROM names it and what it resolved to."""

    name: str
    digest: str
    """``sha256:…`` of its manifest or index."""
    layers: tuple[str, ...] = ()
    """Its diff ids (``sha256:…``), to tell the base's layers from the build's."""


@dataclass(frozen=True)
class BuildStep:
    """One executed or cached instruction."""

    text: str
    line: int | None
    """Line in the Dockerfile, from 1."""
    cached: bool
    seconds: float


@dataclass(frozen=True)
class BuildRequest:
    """What to build. All paths are absolute; ``bases`` maps FROM names to OCI layouts."""

    context: Path
    dockerfile: Path
    target: str | None
    platforms: tuple[str, ...]
    args: Mapping[str, str]
    secrets: tuple[SecretConfig, ...]
    secret_values: Mapping[str, str]
    """Values of env secrets, read by wiring."""
    bases: Mapping[str, Path]
    network: Network
    source_date_epoch: int
    timeout: timedelta
    output: Path
    """OCI layout directory to put the image into."""
    name: str
    ignore: tuple[str, ...] = ()
    """Patterns after those of .dockerignore, for products of the pipeline itself."""
    dockerfile_name: str = ""
    """How messages name the Dockerfile: its path in the repository."""
    root: Path | None = None
    """The repository, where files of secrets are looked up; the context by default."""


@dataclass(frozen=True)
class BuildOutcome:
    """The image that was built."""

    tool: ToolIdentity
    digest: str
    """``sha256:…`` of the manifest, or of the index for several platforms."""
    media_type: str
    size: int
    bases: tuple[BaseImage, ...]
    steps: tuple[BuildStep, ...]
    log: bytes


class BuildFailed(FindingsOverGate):
    """A step of the Dockerfile failed; ``where`` is its file:line."""

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        steps: tuple[BuildStep, ...] = (),
        log: bytes = b"",
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.steps = steps
        """Finished steps."""
        self.log = log


class Builder(Protocol):
    """Builds images into an OCI layout."""

    def build(self, request: BuildRequest, on_event: OnEvent) -> BuildOutcome:
        """Build. Raises: Unavailable, BuildFailed (names the step and its line)."""


@dataclass(frozen=True)
class Database:
    """The vulnerability database that a scan used."""

    digest: str
    """``sha256:…`` of its content."""
    version: int
    updated: datetime
    source: str
    """Where it came from: a repository, a path, or 'demonstration database'."""
    demonstration: bool
    metadata_digest: str = ""
    """``sha256:…`` of its metadata file."""


@dataclass(frozen=True)
class ScanRequest:
    """One image of one platform, by the digest of its manifest, in a layout."""

    layout: Path
    digest: str
    """``sha256:…`` of an image manifest; never of an index."""
    name: str
    """Repository name, for the SBOMs."""
    timeout: timedelta


@dataclass(frozen=True)
class ScanReport:
    """What the scanner found; times are its real start and end, UTC."""

    tool: ToolIdentity
    database: Database
    """Identity and age read after the scan."""
    artifact_digest: str
    """Digest of the image that the report itself names."""
    os: str | None
    """Family and version, such as 'debian 12.5'; None when unknown."""
    os_end_of_life: bool
    packages: int
    findings: tuple[Finding, ...]
    started: datetime
    finished: datetime
    cyclonedx: Mapping[str, Any]
    spdx: Mapping[str, Any]
    raw: Mapping[str, Any]
    """The tool's own report, without the surroundings of secrets."""
    uncovered: tuple[str, ...] = ()
    """Kinds of packages in the image that the database knows nothing about."""


class Scanner(Protocol):
    """Scans an image for vulnerabilities, secrets and misconfiguration."""

    def scan(self, request: ScanRequest, on_event: OnEvent) -> ScanReport:
        """Scan. Raises: Unavailable (tool, database), Inconclusive (no complete report)."""
