"""What tools/pins.toml says: every third-party program by version and digest.

The file ships with the program; a broken one is a broken installation, so every fault in
it is a ConfigError that names the place.
"""

from __future__ import annotations

import platform
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secure_pipeline.data import data_path
from secure_pipeline.errors import ConfigError, UsageError
from secure_pipeline.files import canonical_json, read_bounded, sha256_bytes

MAX_PINS_BYTES = 1 << 20
MAX_LOCK_BYTES = 8 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}\Z")
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_PRESENTATION = ("purpose", "optional", "version_arguments", "version_pattern")
"""Keys that do not change what is installed."""
SOURCES = ("release", "go", "python", "system")


@dataclass(frozen=True)
class Signature:
    """The project's Sigstore bundle over a release file, to check the pin against."""

    url: str
    identity: str
    issuer: str


@dataclass(frozen=True)
class Release:
    """An official release file for one platform."""

    url: str
    sha256: str
    """Of the file at ``url``."""
    member: str | None
    """Path of the executable inside the archive; None when the file is the executable."""
    executable: str
    """sha256 of the executable; equals ``sha256`` when there is no archive."""
    signature: Signature | None


@dataclass(frozen=True)
class GoModule:
    """A Go module of ours that pins the program in its go.mod and go.sum."""

    directory: Path
    package: str
    ldflags: str
    environment: Mapping[str, str]
    executables: Mapping[str, str]
    """Platform to the sha256 of the executable that the build gives."""


@dataclass(frozen=True)
class PythonEnvironment:
    """A virtual environment of its own."""

    requirements: Path
    executable: str
    """Path of the program inside the environment."""


@dataclass(frozen=True)
class Pin:
    """One program: which version, which digests, and where it comes from."""

    name: str
    version: str
    """Exact, except for system programs, where it is the least version."""
    purpose: str
    optional: bool
    """True when no ``run`` needs it."""
    version_arguments: tuple[str, ...]
    """Empty: the program has none, and the pattern is looked for in its file."""
    version_pattern: re.Pattern[str]
    sources: tuple[str, ...]
    releases: Mapping[str, Release]
    go: GoModule | None
    python: PythonEnvironment | None
    debian: str | None
    refused: Mapping[str, str]
    """Version to the reason why it is never accepted."""
    lock: str
    """sha256 (hex) over this entry and the lock files it names."""

    @property
    def system(self) -> bool:
        """True when the operating system provides the program."""
        return "system" in self.sources

    @property
    def executable(self) -> str:
        """Path of the program inside its directory of a tool store."""
        return self.python.executable if self.python else f"bin/{self.name}"

    @property
    def directory_name(self) -> str:
        """Name of its directory in a tool store."""
        return f"{self.name}-{self.version}-{self.lock[:16]}"

    def expected(self, source: str, machine: str) -> str | None:
        """The sha256 (hex) of the executable that ``source`` gives on a platform, if pinned."""
        if source == "release" and machine in self.releases:
            return self.releases[machine].executable
        if source == "go" and self.go is not None:
            return self.go.executables.get(machine)
        return None

    def executables(self, machine: str) -> tuple[str, ...]:
        """Every sha256 (hex) pinned for the executable on a platform; may be empty."""
        found = (self.expected(source, machine) for source in self.sources)
        return tuple(digest for digest in found if digest is not None)


@dataclass(frozen=True)
class Pins:
    """The whole file."""

    tools: Mapping[str, Pin]
    go_toolchain: str
    go_bootstrap: Path
    source: Path = field(compare=False)

    def __getitem__(self, name: str) -> Pin:
        """The pin of a tool. Raises: UsageError for a name that is not pinned."""
        try:
            return self.tools[name]
        except KeyError:
            raise UsageError(
                f"no tool is called {name!r}", hint=f"one of: {', '.join(self.tools)}"
            ) from None


def this_platform() -> str:
    """The platform of this machine as ``linux/amd64``."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}/{_MACHINES.get(machine, machine)}"


def load_pins(directory: Path | None = None) -> Pins:
    """Read pins.toml from ``directory`` (the installation's own by default).

    Raises: ConfigError naming the file and the key.
    """
    directory = directory or data_path("tools")
    path = directory / "pins.toml"
    data = read_bounded(path, MAX_PINS_BYTES)
    try:
        content = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"not valid TOML: {error}", where=str(path)) from None
    return _Reader(directory, path).pins(_Table(content, str(path)))


class _Table:
    """A TOML table of which every key must be asked for: what nobody asked for is refused."""

    def __init__(self, content: object, where: str) -> None:
        if not isinstance(content, dict):
            raise ConfigError("must be a table", where=where)
        self.content: dict[str, Any] = dict(content)
        self.where = where

    def take(self, key: str, kind: type, default: Any = ...) -> Any:
        value = self.content.pop(key, default)
        if value is ...:
            raise ConfigError(f"{key!r} is missing", where=self.where)
        if value is not default and not isinstance(value, kind):
            raise ConfigError(f"{key!r} must be of type {kind.__name__}", where=self.where)
        return value

    def text(self, key: str) -> str:
        value: str = self.take(key, str)
        if not value:
            raise ConfigError(f"{key!r} is empty", where=self.where)
        return value

    def digest(self, key: str) -> str:
        value = self.text(key)
        if not _SHA256.match(value):
            raise ConfigError(f"{key!r} is not a sha256 of 64 hex digits", where=self.where)
        return value

    def strings(self, key: str, *, empty: bool = False) -> tuple[str, ...]:
        values = self.take(key, list)
        if not (values or empty) or not all(isinstance(value, str) for value in values):
            raise ConfigError(f"{key!r} must be a list of strings", where=self.where)
        return tuple(values)

    def table(self, key: str, default: Any = ...) -> _Table:
        return _Table(self.take(key, dict, default), f"{self.where}: {key}")

    def mapping(self, key: str) -> dict[str, str]:
        values: dict[str, Any] = self.take(key, dict, {})
        if not all(isinstance(value, str) for value in values.values()):
            raise ConfigError(f"{key!r} must hold strings", where=self.where)
        return dict(values)

    def done(self) -> None:
        for key in self.content:
            raise ConfigError(f"unknown key {key!r}", where=self.where)


class _Reader:
    """Turns the tables into pins; ``directory`` is what relative paths start from."""

    def __init__(self, directory: Path, path: Path) -> None:
        self.directory = directory
        self.path = path

    def pins(self, root: _Table) -> Pins:
        header = root.table("format")
        if header.take("version", int) != 1:
            raise ConfigError("only format version 1 is known", where=header.where)
        header.done()
        toolchain = root.table("toolchain")
        refused = root.table("refused", {})
        reasons = {name: refused.mapping(name) for name in list(refused.content)}
        tools = root.table("tools")
        found = {
            name: self._pin(name, tools.table(name), reasons.get(name, {}))
            for name in list(tools.content)
        }
        if not found:
            raise ConfigError("no tool is pinned", where=str(self.path))
        pins = Pins(found, toolchain.text("go"), self._file(toolchain, "bootstrap"), self.path)
        toolchain.done()
        root.done()
        return pins

    def _pin(self, name: str, table: _Table, refused: Mapping[str, str]) -> Pin:
        if not _NAME.match(name):
            raise ConfigError(f"{name!r} is not a tool name", where=table.where)
        entry = {key: value for key, value in table.content.items() if key not in _PRESENTATION}
        sources = table.strings("sources")
        for source in sources:
            if source not in SOURCES:
                raise ConfigError(f"unknown source {source!r}", where=table.where)
        go = self._go(table.table("go")) if "go" in sources else None
        python = self._python(table.table("python")) if "python" in sources else None
        releases = self._releases(table.table("release")) if "release" in sources else {}
        pin = Pin(
            name=name,
            version=table.text("version"),
            purpose=table.text("purpose"),
            optional=table.take("optional", bool, False),
            version_arguments=table.strings("version_arguments", empty=True),
            version_pattern=_pattern(table),
            sources=sources,
            releases=releases,
            go=go,
            python=python,
            debian=self._debian(table.table("system")) if "system" in sources else None,
            refused=refused,
            lock=_lock(canonical_json(entry), go, python),
        )
        table.done()
        if pin.version in refused:
            raise ConfigError(
                f"{name} {pin.version} is never used: {refused[pin.version]}", where=table.where
            )
        return pin

    def _file(self, table: _Table, key: str) -> Path:
        relative = Path(table.text(key))
        if relative.is_absolute() or ".." in relative.parts:
            raise ConfigError(f"{key!r} must stay inside the directory", where=table.where)
        return self.directory / relative

    def _go(self, table: _Table) -> GoModule:
        module = GoModule(
            directory=self._file(table, "directory"),
            package=table.text("package"),
            ldflags=table.text("ldflags"),
            environment=table.mapping("environment"),
            executables=_digests(table.table("executables")),
        )
        table.done()
        return module

    def _python(self, table: _Table) -> PythonEnvironment:
        executable = self._file(table, "executable").relative_to(self.directory)
        environment = PythonEnvironment(self._file(table, "requirements"), str(executable))
        table.done()
        return environment

    def _releases(self, table: _Table) -> dict[str, Release]:
        return {name: self._release(table.table(name)) for name in list(table.content)}

    def _release(self, table: _Table) -> Release:
        url, digest = table.text("url"), table.digest("sha256")
        if not url.startswith("https://"):
            raise ConfigError("'url' must begin with https://", where=table.where)
        member = table.take("member", str, None)
        executable = digest if member is None else table.digest("executable")
        signature = _signature(table)
        table.done()
        return Release(url, digest, member, executable, signature)

    def _debian(self, table: _Table) -> str:
        package = table.text("debian")
        table.done()
        return package


def _pattern(table: _Table) -> re.Pattern[str]:
    text = table.text("version_pattern")
    try:
        pattern = re.compile(text, re.MULTILINE)
    except re.error as error:
        raise ConfigError(f"'version_pattern': {error}", where=table.where) from None
    if pattern.groups != 1:
        raise ConfigError("'version_pattern' must have one group", where=table.where)
    return pattern


def _signature(release: _Table) -> Signature | None:
    if "signature" not in release.content:
        return None
    table = release.table("signature")
    signature = Signature(table.text("url"), table.text("identity"), table.text("issuer"))
    table.done()
    return signature


def _digests(table: _Table) -> dict[str, str]:
    return {name: table.digest(name) for name in list(table.content)}


def _lock(entry: bytes, go: GoModule | None, python: PythonEnvironment | None) -> str:
    files = []
    if go:
        files += [go.directory / "go.mod", go.directory / "go.sum"]
        files += sorted(go.directory.glob("*.go"))
    if python:
        files.append(python.requirements)
    digests = [sha256_bytes(read_bounded(file, MAX_LOCK_BYTES)) for file in files]
    return sha256_bytes(b"\n".join([entry, *(digest.encode() for digest in digests)]))
