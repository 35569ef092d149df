"""Install a pinned program into the store: verified release, pinned Go module, or wheels.

An installation is made in its final directory, because a virtual environment cannot be
moved, and counts only once its receipt is there: the receipt is written last and at once.
Whatever ends an installation before that leaves a directory that nothing accepts, and that
is removed at once, or by the next attempt if the machine went down.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.errors import Unavailable, UsageError
from secure_pipeline.files import canonical_json, locked, sha256_file, write_atomic
from secure_pipeline.tools.golang import build_go
from secure_pipeline.tools.locate import (
    RECEIPT,
    LocatedTool,
    ToolStore,
    check_version,
    from_store,
    how_to_install,
    read_version,
)
from secure_pipeline.tools.pins import Pin, Pins, this_platform
from secure_pipeline.tools.release import Download, Unreachable, install_release
from secure_pipeline.tools.steps import Steps
from secure_pipeline.tools.virtualenv import install_environment


@dataclass(frozen=True)
class Installer:
    """Installs the tools that ``pins`` names into the store that ``steps`` works in."""

    pins: Pins
    steps: Steps
    download: Download

    def install(self, name: str, source: str | None = None) -> LocatedTool:
        """Install ``name`` unless it is there and whole; return it.

        ``source`` chooses one of the pin's sources instead of the first that answers.
        Raises: UsageError; Unavailable with the end of the log and where the log is.
        """
        pin = self.pins[name]
        _check_request(pin, source)
        try:
            with locked(self.steps.root / "locks" / name):
                return self._present(pin) or self._install(pin, source)
        except OSError as error:
            raise Unavailable(
                f"cannot install {name}: {error.strerror or error}",
                where=str(error.filename or self.steps.root),
                hint="make room, or set SECURE_PIPELINE_TOOLS to a directory you can write",
            ) from error

    @property
    def store(self) -> ToolStore:
        """Where tools go."""
        return ToolStore(self.steps.root)

    def _present(self, pin: Pin) -> LocatedTool | None:
        if not (self.store.directory(pin) / RECEIPT).exists():
            return None
        try:
            return from_store(pin, self.store)
        except Unavailable as error:
            self.steps.say(pin.name, f"installing again: {error}")
            return None

    def _install(self, pin: Pin, source: str | None) -> LocatedTool:
        directory = self.store.directory(pin)
        _remove(directory)
        try:
            (directory / "bin").mkdir(parents=True)
            write_receipt(pin, directory, **self._first_that_answers(pin, directory, source))
            return from_store(pin, self.store)
        except BaseException:
            _remove(directory)
            raise

    def _first_that_answers(self, pin: Pin, directory: Path, source: str | None) -> dict[str, str]:
        silent = ""
        for candidate in _candidates(pin, source):
            self.steps.say(pin.name, f"installing {pin.version} from {candidate}")
            try:
                return self._from(pin, candidate, directory)
            except Unreachable as error:
                silent += f"\n  {candidate}: {error}"
                self.steps.say(pin.name, f"{candidate} cannot be reached: {error}")
        raise Unavailable(
            f"no source of {pin.name} {pin.version} for {this_platform()} answers{silent}",
            hint="check the network and the proxy settings",
        )

    def _from(self, pin: Pin, source: str, directory: Path) -> dict[str, str]:
        executable = directory / pin.executable
        files = self._fetch(pin, source, directory)
        digest = sha256_file(executable)
        expected = pin.expected(source, this_platform())
        if expected not in (None, digest):
            raise Unavailable(
                f"{pin.name} from {source} has the digest sha256:{digest}, "
                f"pinned is sha256:{expected}",
                hint="nothing was installed; report this",
            )
        # A program is started only after its digest is known to be the pinned one.
        version = read_version(pin, executable, self.steps.processes)
        check_version(pin, version, executable)
        if pin.python:
            digest = sha256_file(pin.python.requirements)
        return {"source": source, "digest": digest, "files": files}

    def _fetch(self, pin: Pin, source: str, directory: Path) -> str:
        """Put the program into ``directory``; return the digest of its list of files, if any."""
        executable = directory / pin.executable
        if source == "release":
            install_release(pin.releases[this_platform()], executable, self.download)
        elif pin.go is not None:
            build_go(pin.name, pin.go, executable, self.pins, self.steps)
        elif pin.python is not None:
            return install_environment(pin.name, pin.python, directory, self.steps)
        return ""


def write_receipt(pin: Pin, directory: Path, *, source: str, digest: str, files: str) -> None:
    """Say that the tool in ``directory`` is whole.

    ``digest`` is the sha256 (hex) of its executable, or of its requirements if it is a Python
    environment; ``files`` is then that of its list of files, and else empty.
    """
    receipt = {
        "apiVersion": "secure-pipeline/v1",
        "kind": "ToolReceipt",
        "name": pin.name,
        "version": pin.version,
        "platform": this_platform(),
        "lock": pin.lock,
        "source": source,
        "digest": digest,
        "files": files,
    }
    write_atomic(directory / RECEIPT, canonical_json(receipt))


def _check_request(pin: Pin, source: str | None) -> None:
    if pin.system:
        raise UsageError(f"{pin.name} comes from the system", hint=how_to_install(pin))
    if source is not None and source not in pin.sources:
        raise UsageError(
            f"{pin.name} has no source {source!r}", hint=f"one of: {', '.join(pin.sources)}"
        )


def _candidates(pin: Pin, source: str | None) -> Iterator[str]:
    for candidate in pin.sources if source is None else (source,):
        if candidate != "release" or this_platform() in pin.releases:
            yield candidate


def _remove(directory: Path) -> None:
    """Remove an installation, the receipt first: half of one must not look whole."""
    (directory / RECEIPT).unlink(missing_ok=True)
    if directory.exists():
        shutil.rmtree(directory)
