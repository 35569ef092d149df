"""``secure-pipeline.yaml``: what a repository says about itself, typed and bounded.

The file is written by people of the repository under test, so nothing in it can weaken
a gate: gates live in the trusted policy (policy/document.py) and the values here only
tighten them (DESIGN rule 11).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path

from secure_pipeline.documents import MAX_BYTES, Size, decode, field, parse_yaml
from secure_pipeline.errors import ConfigError
from secure_pipeline.files import read_bounded
from secure_pipeline.findings import Severity

FILE_NAME = "secure-pipeline.yaml"
_FILES = re.compile(r"(?:/[A-Za-z0-9._+!~@=*?-]+)+")
MAX_FILE_PATTERNS = 16
MAX_WILDCARDS = 6
"""In one pattern."""
_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*\Z")


class BuilderName(Enum):
    """The programs that can build an image."""

    BUILDAH = "buildah"
    DOCKER = "docker"


class Network(Enum):
    """What the steps of a build may reach."""

    NONE = "none"
    HOST = "host"


class CoverageFormat(Enum):
    """Coverage reports that can be read; ``auto`` looks at the content."""

    AUTO = "auto"
    COBERTURA = "cobertura"
    """coverage.py's XML report is Cobertura too."""
    LCOV = "lcov"


@dataclass(frozen=True)
class AnalyzeConfig:
    """Static analysis with Semgrep."""

    rules: tuple[str, ...] = field(
        "Rule packs: 'builtin:NAME' of this program, or a path in the repository.",
        default=("builtin:all",),
    )
    severity: Severity | None = field("Findings from this severity up fail.", default=None)
    baseline: str | None = field("File of accepted fingerprints; others gate.", default=None)
    exclude: tuple[str, ...] = field("Glob patterns of files not to analyse.", default=())
    timeout: timedelta = field("Longest time for the whole stage.", default=timedelta(minutes=10))
    max_file_size: Size = field("Larger files are skipped and counted.", default=Size(2 << 20))


@dataclass(frozen=True)
class CoverageConfig:
    """Where the coverage report is and what it must reach."""

    file: str = field("Path of the report in the repository.")
    format: CoverageFormat = field("Format of the report.", default=CoverageFormat.AUTO)
    minimum: float | None = field("Least line coverage in per cent.", default=None)

    def __post_init__(self) -> None:
        if self.minimum is not None and not 0 <= self.minimum <= 100:
            raise ValueError("minimum must be from 0 to 100")


@dataclass(frozen=True)
class TestConfig:
    """The project's own tests."""

    command: tuple[str, ...] = field("The command, one word an item; no shell.")
    junit: str = field("Path of the JUnit XML that the command writes.")
    coverage: CoverageConfig | None = field("The coverage report.", default=None)
    environment: Mapping[str, str] = field("Variables that the command sees.", factory=dict)
    pass_environment: tuple[str, ...] = field("Variables handed on if set.", default=())
    timeout: timedelta = field("Longest time for the command.", default=timedelta(minutes=15))
    memory: Size = field("Most address space of one process.", default=Size(8 << 30))
    processes: int = field("Most processes and threads of the user.", default=4096)
    output: Size = field("Most output kept; more is cut and said so.", default=Size(10 << 20))

    def __post_init__(self) -> None:
        if not self.command:
            raise ValueError("command is empty")


@dataclass(frozen=True)
class SecretConfig:
    """A secret that a build step may mount; never an argument, never in a layer."""

    id: str = field("Name in RUN --mount=type=secret,id=….")
    file: str | None = field("File that holds it.", default=None)
    env: str | None = field("Environment variable that holds it.", default=None)

    def __post_init__(self) -> None:
        if (self.file is None) == (self.env is None):
            raise ValueError("give exactly one of file and env")


@dataclass(frozen=True)
class BuildConfig:
    """The image build."""

    dockerfile: str = field("Path in the repository.", default="Dockerfile")
    context: str = field("Directory sent to the builder.", default=".")
    target: str | None = field("Stage to build; the last one by default.", default=None)
    platforms: tuple[str, ...] = field("OS/ARCH pairs; the host's by default.", default=())
    builder: BuilderName | None = field("Which program builds; found by default.", default=None)
    args: Mapping[str, str] = field("Build arguments; never secrets.", factory=dict)
    secrets: tuple[SecretConfig, ...] = field("Secret mounts.", default=())
    bases: Mapping[str, str] = field(
        "Base images by the name that FROM uses: an OCI layout directory made by 'base'.",
        factory=dict,
    )
    files: tuple[str, ...] = field(
        "Files of the image that are signed on their own: absolute paths, with * and ? inside "
        "one name and ** across directories. Each must match a plain file.",
        default=(),
    )
    network: Network = field("What RUN steps may reach.", default=Network.HOST)
    timeout: timedelta = field("Longest time for the build.", default=timedelta(minutes=30))

    def __post_init__(self) -> None:
        if len(self.files) > MAX_FILE_PATTERNS:
            raise ValueError(f"files has {len(self.files)} patterns; limit {MAX_FILE_PATTERNS}")
        for pattern in self.files:
            if not _FILES.fullmatch(pattern) or {".", ".."} & {*pattern.split("/")}:
                raise ValueError(f"files: {pattern[:80]!r} is no path such as /opt/wheel/*.whl")
            if sum(pattern.count(sign) for sign in "*?") > MAX_WILDCARDS or len(pattern) > 200:
                raise ValueError(f"files: {pattern[:80]!r} is too long, or has too many signs")


@dataclass(frozen=True)
class ScanConfig:
    """The image scan with Trivy."""

    severity: Severity | None = field("Findings from this severity up fail.", default=None)
    vex: tuple[str, ...] = field("OpenVEX or CycloneDX VEX files.", default=())
    timeout: timedelta = field("Longest time for the scan.", default=timedelta(minutes=15))


@dataclass(frozen=True)
class SignConfig:
    """The signing key."""

    key: str | None = field("Key URI, such as file:keys/release.key.", default=None)


@dataclass(frozen=True)
class Config:
    """The whole file."""

    version: int = field("Version of this format: 1.")
    name: str = field("Name of the image, without registry and tag.")
    analyze: AnalyzeConfig = field("Static analysis.", default=AnalyzeConfig())
    test: TestConfig | None = field("Tests.", default=None)
    build: BuildConfig = field("Image build.", default=BuildConfig())
    scan: ScanConfig = field("Image scan.", default=ScanConfig())
    sign: SignConfig = field("Signing.", default=SignConfig())

    def __post_init__(self) -> None:
        if self.version != 1:
            raise ValueError(f"version {self.version} is not known; this program reads 1")
        if not _NAME.match(self.name) or len(self.name) > 200:
            raise ValueError(f"name {self.name!r} is not an image name such as team/service")


def find(start: Path) -> Path:
    """Return the nearest secure-pipeline.yaml from ``start`` upward.

    Raises: ConfigError if there is none.
    """
    for directory in (start, *start.parents):
        candidate = directory / FILE_NAME
        if candidate.is_file():
            return candidate
    raise ConfigError(
        f"no {FILE_NAME} in {start} or above",
        hint="run 'secure-pipeline init' to write one",
    )


def load(path: Path) -> Config:
    """Read and check a configuration file.

    Raises: ConfigError naming file:line.
    """
    return decode(Config, parse_yaml(read_bounded(path, MAX_BYTES), str(path)))
