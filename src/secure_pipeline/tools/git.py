"""The working tree: its commit, and a digest of what it holds.

Only plumbing that runs nothing from the repository is called: no hooks, no filters, no
file-system monitor (a hostile .git/config must not execute). Changes are found by hashing
files the way git does, in the same read as our own digest.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit, urlunsplit

from secure_pipeline.errors import Inconclusive, Unavailable
from secure_pipeline.files import CHUNK_BYTES
from secure_pipeline.ports import SourceState
from secure_pipeline.tools.locate import LocatedTool
from secure_pipeline.tools.process import Command, Outcome, Processes

MAX_FILES = 200_000
MAX_BYTES = 4 << 30
_SAFE = (
    "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "safe.directory=*",
    "-c", "protocol.allow=never", "-c", "core.quotePath=false", "--no-optional-locks",
)  # fmt: skip
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class _File:
    mode: str
    digest: str
    blob: str


class GitSource:
    """Implements ports.Source with git, or by walking where there is no repository."""

    def __init__(
        self, tool: LocatedTool, processes: Processes, root: Path, exclude: tuple[str, ...] = ()
    ) -> None:
        """``exclude``: paths under ``root`` that the pipeline writes: no source unless committed.

        The repository names some of them, so a committed file is never left out.
        """
        self._tool = tool
        self._processes = processes
        self._root = root
        self._exclude = exclude

    def state(self) -> SourceState:
        """Read the tree once. Raises: Inconclusive when it is too large or changes meanwhile."""
        commit = self._line("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        if commit is None or not _COMMIT.fullmatch(commit):
            files = self._read(self._walk(), "sha1")
            return SourceState(None, _tree_digest(files), True, 0, None)
        algorithm = "sha1" if len(commit) == 40 else "sha256"
        committed = self._committed(commit)
        files = self._read(self._listed(committed), algorithm)
        changed = {path: (file.mode, file.blob) for path, file in files.items()} != committed
        time = self._line("show", "-s", "--format=%ct", commit)
        return SourceState(
            commit=commit,
            tree=_tree_digest(files),
            uncommitted=changed,
            time=int(time or 0),
            remote=without_credentials(self._line("config", "--get", "remote.origin.url")),
        )

    def files(self, root: Path) -> Iterator[str]:
        """Paths of all files that are source, relative to ``root``, the root of this source."""
        if root != self._root:
            raise ValueError(f"{root} is not {self._root}")
        commit = self._line("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        if commit is None:
            return self._walk()
        return self._listed(self._committed(commit))

    def _git(self, *arguments: str) -> Outcome:
        return self._processes.run(
            Command(
                argv=(str(self._tool.path), *_SAFE, *arguments),
                cwd=self._root,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "GIT_CONFIG_GLOBAL": os.devnull,
                     "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"},
                timeout=60,
                network=True,
            )
        )  # fmt: skip

    def _line(self, *arguments: str) -> str | None:
        outcome = self._git(*arguments)
        return outcome.stdout.decode("utf-8", "replace").strip() if outcome.ok else None

    def _must(self, *arguments: str) -> bytes:
        outcome = self._git(*arguments)
        if not outcome.ok:
            raise Unavailable(f"{outcome.describe()}: {outcome.tail(1)}", where=str(self._root))
        return outcome.stdout

    def _listed(self, committed: Collection[str]) -> Iterator[str]:
        names = self._must("ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for name in sorted(set(names.split(b"\0")) - {b""}):
            path = os.fsdecode(name)
            if path in committed or not self._excluded(path):
                yield path

    def _committed(self, commit: str) -> dict[str, tuple[str, str]]:
        """Paths below the root with (mode, blob id), as in the commit."""
        entries = {}
        for line in self._must("ls-tree", "-r", "-z", commit).split(b"\0"):
            if line:
                head, name = line.split(b"\t", 1)
                mode, _, blob = head.decode().split()
                entries[os.fsdecode(name)] = (mode, blob)
        return entries

    def _walk(self) -> Iterator[str]:
        for directory, folders, names in os.walk(self._root):
            folders[:] = sorted(f for f in folders if f != ".git")
            for name in sorted(names):
                path = os.path.relpath(os.path.join(directory, name), self._root)
                if not self._excluded(path):
                    yield path

    def _excluded(self, path: str) -> bool:
        return any(path == e or path.startswith(f"{e}/") for e in self._exclude)

    def _read(self, paths: Iterator[str], algorithm: str) -> dict[str, _File]:
        files: dict[str, _File] = {}
        total = 0
        for path in paths:
            try:
                info = (self._root / path).lstat()
            except FileNotFoundError:
                continue
            total += info.st_size
            if len(files) >= MAX_FILES or total > MAX_BYTES:
                raise Inconclusive(f"the repository is larger than {MAX_FILES} files or 4 GiB")
            if entry := _hash(self._root / path, info, algorithm):
                files[path] = entry
        return files


def _hash(path: Path, info: os.stat_result, algorithm: str) -> _File | None:
    """Both digests in one read. Raises: Inconclusive if the file changes meanwhile."""
    if stat.S_ISLNK(info.st_mode):
        stream: BinaryIO = io.BytesIO(os.fsencode(os.readlink(path)))
        mode = "120000"
    elif stat.S_ISREG(info.st_mode):
        stream = path.open("rb")
        mode = "100755" if info.st_mode & stat.S_IXUSR else "100644"
    else:
        return None
    # git's object ids are SHA-1 in most repositories; our own digest beside it is SHA-256.
    blob = hashlib.new(algorithm, b"blob %d\0" % info.st_size, usedforsecurity=False)
    own = hashlib.sha256()
    size = 0
    with stream:
        while chunk := stream.read(CHUNK_BYTES):
            blob.update(chunk)
            own.update(chunk)
            size += len(chunk)
            if size > info.st_size:
                break
    if size != info.st_size:
        raise Inconclusive("a file changed while it was read", where=str(path))
    return _File(mode, own.hexdigest(), blob.hexdigest())


def _tree_digest(files: dict[str, _File]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{files[path].mode} {files[path].digest} ".encode())
        digest.update(os.fsencode(path) + b"\0")
    return f"sha256:{digest.hexdigest()}"


def without_credentials(url: str | None) -> str | None:
    """An address without user, password and query; anything else as it is."""
    if not url or "://" not in url:
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
