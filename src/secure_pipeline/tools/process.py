"""The only module that starts other programs (DESIGN rule 2).

Every command has a complete environment of its own (nothing is inherited), a deadline,
an output limit and its own process group, which is ended as a whole.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from secure_pipeline.errors import Interrupted, Unavailable

GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.1
OnLine = Callable[[str], None]


@dataclass(frozen=True)
class Limits:
    """Resource limits of a command, set by prlimit(1); None leaves the system's."""

    address_space: int | None = None
    """Bytes, each process."""
    processes: int | None = None
    """Processes and threads of the user."""
    file_size: int | None = None
    """Bytes of any file written."""


@dataclass(frozen=True)
class Command:
    """A program to run. ``argv[0]`` is an absolute path: PATH is never searched here (CLI-06)."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    timeout: float
    """Seconds for the whole command."""
    output_limit: int = 64 << 20
    """Bytes kept of stdout and of stderr; the rest is read, dropped and said so."""
    stdin: bytes | None = None
    network: bool = True
    """False: run in an empty network namespace, or not at all (SBX-07)."""
    limits: Limits = field(default_factory=Limits)
    secrets: tuple[str, ...] = ()
    """Values never shown in errors."""

    def __post_init__(self) -> None:
        if not self.argv or not os.path.isabs(self.argv[0]):
            raise ValueError(f"not an absolute path: {self.argv[:1]}")


@dataclass(frozen=True)
class Outcome:
    """How a command ended. ``returncode`` is negative for a signal, as in subprocess."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes
    truncated: bool
    timed_out: bool
    seconds: float

    @property
    def ok(self) -> bool:
        """Exit code 0, in time, with the whole output."""
        return self.returncode == 0 and not self.timed_out and not self.truncated

    def describe(self) -> str:
        """Say in words how it ended: 'exited with 3', 'killed by SIGKILL', 'timed out'."""
        name = os.path.basename(self.argv[0])
        if self.timed_out:
            return f"{name} timed out after {self.seconds:.0f} s"
        if self.returncode < 0:
            return f"{name} was killed by {signal.Signals(-self.returncode).name}"
        if self.truncated:
            return f"{name} wrote more than the output limit"
        return f"{name} exited with {self.returncode}"

    def tail(self, lines: int = 12) -> str:
        """The last lines of stderr, or of stdout when stderr is empty."""
        text = (self.stderr.strip() or self.stdout).decode("utf-8", "replace").strip()
        return "\n".join(text.splitlines()[-lines:])


class Processes:
    """Runs commands until ``cancelled`` is set; then ends them and raises Interrupted."""

    def __init__(self, cancelled: threading.Event) -> None:
        self._cancelled = cancelled

    def check(self) -> None:
        """Raise Interrupted when cancelled: for those who wait without a command."""
        if self._cancelled.is_set():
            raise Interrupted("interrupted")

    def run(self, command: Command, on_line: OnLine | None = None) -> Outcome:
        """Run to the end or to the deadline; ``on_line`` sees each line of both streams.

        Raises: Unavailable if the program cannot be started; Interrupted when cancelled.
        """
        started = time.monotonic()
        if self._cancelled.is_set():
            raise Interrupted("interrupted")
        try:
            process = subprocess.Popen(
                _wrapped(command),
                cwd=command.cwd,
                env=dict(command.env),
                stdin=subprocess.DEVNULL if command.stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"cannot start: {error.strerror}", where=command.argv[0]) from error
        collector = _Collector(process, command, on_line)
        timed_out = False
        try:
            while not collector.drain(_POLL_SECONDS):
                if self._cancelled.is_set():
                    raise Interrupted("interrupted")
                if time.monotonic() - started > command.timeout:
                    timed_out = True
                    break
            if not timed_out:
                timed_out = not _wait_for(process, started + command.timeout, self._cancelled)
        finally:
            _end_group(process, gentle=not timed_out)
            collector.close()
        return Outcome(
            argv=command.argv,
            returncode=process.returncode,
            stdout=bytes(collector.kept["stdout"]),
            stderr=bytes(collector.kept["stderr"]),
            truncated=collector.truncated,
            timed_out=timed_out,
            seconds=time.monotonic() - started,
        )


class _Collector:
    """Feeds stdin and drains both pipes without ever holding more than the limit."""

    def __init__(
        self, process: subprocess.Popen[bytes], command: Command, on_line: OnLine | None
    ) -> None:
        self.kept = {"stdout": bytearray(), "stderr": bytearray()}
        self.truncated = False
        self._limit = command.output_limit
        self._on_line = on_line
        self._partial = {"stdout": b"", "stderr": b""}
        self._selector = selectors.DefaultSelector()
        self._streams = [process.stdout, process.stderr, process.stdin]
        for name in ("stdout", "stderr"):
            stream = getattr(process, name)
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ, name)
        self._input = memoryview(command.stdin or b"")
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            self._selector.register(process.stdin, selectors.EVENT_WRITE, "stdin")

    def drain(self, seconds: float) -> bool:
        """Move what is ready; return True when both outputs have ended."""
        for key, _ in self._selector.select(seconds):
            if key.data == "stdin":
                self._write(key.fileobj)
            else:
                self._read(key.fileobj, key.data)
        return all(key.data == "stdin" for key in self._selector.get_map().values())

    def close(self) -> None:
        for name, rest in self._partial.items():
            if rest and self._on_line:
                self._on_line(rest.decode("utf-8", "replace"))
            self._partial[name] = b""
        self._selector.close()
        for stream in self._streams:
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _write(self, stream: object) -> None:
        fileno = stream.fileno()  # type: ignore[attr-defined]
        try:
            self._input = self._input[os.write(fileno, self._input[: 1 << 16]) :]
        except BrokenPipeError:
            self._input = self._input[:0]
        if not self._input:
            self._selector.unregister(stream)  # type: ignore[arg-type]
            stream.close()  # type: ignore[attr-defined]

    def _read(self, stream: object, name: str) -> None:
        data = os.read(stream.fileno(), 1 << 16)  # type: ignore[attr-defined]
        if not data:
            self._selector.unregister(stream)  # type: ignore[arg-type]
            return
        kept = self.kept[name]
        room = self._limit - len(kept)
        self.truncated |= len(data) > room
        kept += data[: max(room, 0)]
        if self._on_line:
            *lines, rest = (self._partial[name] + data).split(b"\n")
            self._partial[name] = rest[-(1 << 16) :]
            for line in lines:
                self._on_line(line.decode("utf-8", "replace"))


def _wrapped(command: Command) -> list[str]:
    argv = list(command.argv)
    limits = command.limits
    flags = ["--core=0"]
    if limits.address_space is not None:
        flags.append(f"--as={limits.address_space}")
    if limits.processes is not None:
        flags.append(f"--nproc={limits.processes}")
    if limits.file_size is not None:
        flags.append(f"--fsize={limits.file_size}")
    if len(flags) > 1:
        argv = [_helper("prlimit"), *flags, "--", *argv]
    if not command.network:
        user = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
        argv = [_helper("unshare"), *user, "--net", "--", *argv]
    return argv


def _helper(name: str) -> str:
    path = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
    if path is None:
        raise Unavailable(
            f"{name} is needed to confine a tool and is not installed",
            hint="install util-linux",
        )
    return path


def _wait_for(
    process: subprocess.Popen[bytes], deadline: float, cancelled: threading.Event
) -> bool:
    while process.poll() is None:
        if cancelled.is_set():
            raise Interrupted("interrupted")
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _end_group(process: subprocess.Popen[bytes], *, gentle: bool) -> None:
    """End what is left of the process group; a child that outlived its parent goes too."""
    if process.poll() is None and gentle:
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
