"""Find a pinned program and prove that it is the pinned one before anything runs it.

A program that must have an exact digest is hashed first and never started when the digest
is another (CLI-06, SCN-04). Hashing 160 MB takes about a tenth of a second, so the digest is
taken each time and never remembered.
"""

from __future__ import annotations

import json
import os
import pwd
import stat
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.errors import ConfigError, Unavailable
from secure_pipeline.files import read_bounded, sha256_file
from secure_pipeline.ports import ToolIdentity
from secure_pipeline.tools.environments import check_environment
from secure_pipeline.tools.pins import Pin, Pins, load_pins, this_platform
from secure_pipeline.tools.process import Command, Processes

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
VERSION_SECONDS = 60.0
MAX_RECEIPT_BYTES = 64 << 10
MAX_EXECUTABLE_BYTES = 1 << 30
RECEIPT = "receipt.json"


@dataclass(frozen=True)
class LocatedTool:
    """A program on this machine that is the one its pin names."""

    name: str
    path: Path
    """Absolute path of the executable."""
    version: str
    digest: str
    """``sha256:…`` of the executable (of the lock file for a Python environment)."""

    @property
    def identity(self) -> ToolIdentity:
        """What evidence says about the program."""
        return ToolIdentity(self.name, self.version, self.digest)


@dataclass(frozen=True)
class ToolStore:
    """The directory that installed tools are in, one directory each, named by their pin."""

    root: Path

    @classmethod
    def default(cls) -> ToolStore:
        """The store in the user's cache directory, whatever the environment says."""
        return cls(default_store({}))

    def directory(self, pin: Pin) -> Path:
        """Where the tool of this exact pin is, or will be."""
        return self.root / pin.directory_name


def default_store(environment: Mapping[str, str]) -> Path:
    """The store's directory: SECURE_PIPELINE_TOOLS, or in XDG_CACHE_HOME, or in ~/.cache.

    Raises: Unavailable if the user has no home directory.
    """
    if chosen := environment.get("SECURE_PIPELINE_TOOLS"):
        return Path(os.path.abspath(chosen))
    cache = environment.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        cache = os.path.join(environment.get("HOME") or _home(), ".cache")
    return Path(cache) / "secure-pipeline" / "tools"


def _home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise Unavailable(
            "this user has no home directory to keep tools in",
            hint="set SECURE_PIPELINE_TOOLS to a directory",
        ) from None


def locate(
    name: str,
    *,
    store: ToolStore | None = None,
    path: str = SYSTEM_PATH,
    processes: Processes | None = None,
    pins: Pins | None = None,
) -> LocatedTool:
    """Return the program called ``name``: from the store, else from ``path``.

    ``path`` is a list of directories as in PATH; relative ones are passed over.
    Raises: UsageError for a name that is not pinned; Unavailable when the program is
    missing, another version or another digest than the pinned ones, with what to type.
    """
    pin = (pins or load_pins())[name]
    store = store or ToolStore.default()
    processes = processes or Processes(threading.Event())
    if not pin.system and (store.directory(pin) / RECEIPT).exists():
        return from_store(pin, store)
    found = search(name, path)
    if found is None:
        raise Unavailable(f"{name} is not installed", hint=how_to_install(pin))
    return _system(pin, found, processes) if pin.system else _pinned(pin, found)


def from_store(pin: Pin, store: ToolStore) -> LocatedTool:
    """Return the installed tool after checking its digest against pin and receipt.

    Raises: Unavailable if it was never installed there or is not what was installed.
    """
    directory = store.directory(pin)
    receipt = _receipt(pin, directory)
    _refuse_foreign_writes(pin, directory / RECEIPT)
    executable = directory / pin.executable
    if pin.python:
        check_environment(directory, receipt["files"], hint=how_to_install(pin))
        return LocatedTool(pin.name, executable, pin.version, f"sha256:{receipt['digest']}")
    expected = pin.expected(receipt["source"], this_platform()) or receipt["digest"]
    return LocatedTool(pin.name, executable, pin.version, _digest(pin, executable, (expected,)))


def tool_key(pin: Pin, path: str) -> str:
    """What the program would be, without proving it: for the names of cache entries only.

    The pin's lock for a pinned program, the digest of the file found on ``path`` for one of
    the system.
    """
    if not pin.system:
        return pin.lock
    found = search(pin.name, path)
    return _sha256(pin, found) if found else "missing"


def how_to_install(pin: Pin) -> str:
    """The command that provides a missing tool."""
    if pin.debian:
        return f"apt-get install {pin.debian}"
    return f"secure-pipeline tools install {pin.name}"


def read_version(pin: Pin, executable: Path, processes: Processes) -> str:
    """Run the program for its version. Raises: Unavailable if it does not tell.

    The version of a program that cannot be asked is in its file: a Go program's lists the
    modules that it was built from.
    """
    if not pin.version_arguments:
        return _written_version(pin, executable)
    with tempfile.TemporaryDirectory(prefix="secure-pipeline-") as home:
        outcome = processes.run(
            Command(
                argv=(str(executable), *pin.version_arguments),
                cwd=Path(home),
                env={"PATH": SYSTEM_PATH, "HOME": home, "LC_ALL": "C.UTF-8"},
                timeout=VERSION_SECONDS,
                output_limit=1 << 20,
            )
        )
    text = (outcome.stdout + b"\n" + outcome.stderr).decode("utf-8", "replace")
    match = pin.version_pattern.search(text)
    if not outcome.ok or match is None:
        raise Unavailable(
            f"{pin.name} does not tell its version: {outcome.describe()}",
            where=str(executable),
            hint=how_to_install(pin),
        )
    return match[1]


def _written_version(pin: Pin, executable: Path) -> str:
    text = read_bounded(executable, MAX_EXECUTABLE_BYTES).decode("latin-1")
    match = pin.version_pattern.search(text)
    if match is None:
        raise Unavailable(
            f"the file of {pin.name} does not tell its version",
            where=str(executable),
            hint=how_to_install(pin),
        )
    return match[1]


def check_version(pin: Pin, version: str, where: Path) -> None:
    """Refuse a version that is refused by name, too old, or not the pinned one."""
    if reason := pin.refused.get(version):
        raise Unavailable(
            f"{pin.name} {version} is never used: {reason}",
            where=str(where),
            hint=how_to_install(pin),
        )
    if pin.system and _numbers(version) < _numbers(pin.version):
        raise Unavailable(
            f"{pin.name} {version} is older than {pin.version}",
            where=str(where),
            hint=how_to_install(pin),
        )
    if not pin.system and version != pin.version:
        raise Unavailable(
            f"{pin.name} is version {version}, pinned is {pin.version}",
            where=str(where),
            hint=how_to_install(pin),
        )


def _system(pin: Pin, executable: Path, processes: Processes) -> LocatedTool:
    _refuse_foreign_writes(pin, executable)
    version = read_version(pin, executable, processes)
    check_version(pin, version, executable)
    return LocatedTool(pin.name, executable, version, f"sha256:{_sha256(pin, executable)}")


def _pinned(pin: Pin, executable: Path) -> LocatedTool:
    accepted = pin.executables(this_platform())
    digest = _digest(pin, executable, accepted)
    return LocatedTool(pin.name, executable, pin.version, digest)


def _digest(pin: Pin, executable: Path, accepted: tuple[str, ...]) -> str:
    digest = _sha256(pin, executable)
    if digest not in accepted:
        wanted = " or ".join(f"sha256:{value}" for value in accepted) or "none on this platform"
        raise Unavailable(
            f"{pin.name} has the digest sha256:{digest}, pinned is {wanted}",
            where=str(executable),
            hint=how_to_install(pin),
        )
    return f"sha256:{digest}"


def _sha256(pin: Pin, executable: Path) -> str:
    try:
        return sha256_file(executable)
    except OSError as error:
        raise Unavailable(
            f"cannot read {pin.name}: {error.strerror}",
            where=str(executable),
            hint=how_to_install(pin),
        ) from error


def _receipt(pin: Pin, directory: Path) -> dict[str, str]:
    path = directory / RECEIPT
    try:
        receipt = json.loads(read_bounded(path, MAX_RECEIPT_BYTES))
        if not isinstance(receipt, dict) or receipt["lock"] != pin.lock:
            raise ValueError("it is for another pin")
        return {key: str(receipt[key]) for key in ("source", "digest", "files")}
    except (ConfigError, ValueError, KeyError, RecursionError) as error:
        raise Unavailable(
            f"{pin.name} was not installed whole: {error}",
            where=str(path),
            hint=how_to_install(pin),
        ) from None


def _again(pin: Pin) -> str:
    return how_to_install(pin)


def search(name: str, path: str) -> Path | None:
    """The first program of that name in absolute directories of ``path``; links resolved."""
    for directory in path.split(os.pathsep):
        candidate = os.path.join(directory, name)
        if os.path.isabs(directory) and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return Path(os.path.realpath(candidate))
    return None


def _refuse_foreign_writes(pin: Pin, executable: Path) -> None:
    """What no pinned digest protects, at least nobody else may be able to replace."""
    for place in (executable, executable.parent):
        if place.stat().st_mode & stat.S_IWOTH:
            raise Unavailable(
                f"everybody may replace {pin.name} there",
                where=str(place),
                hint=how_to_install(pin),
            )


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 1.1.5+ds1 is (1, 1, 5)."""
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
