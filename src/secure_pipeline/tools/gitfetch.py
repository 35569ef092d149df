"""A source at a commit, brought into a directory by git.

Neither the remote nor the repository has a say in what runs here (CI-11): no hook, filter,
submodule, configuration or credential of this user, no redirect, one protocol; files are what
the commit holds, byte for byte, and the digest of the commit is what makes them true.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from secure_pipeline.errors import (
    ConfigError,
    Inconclusive,
    Unavailable,
    UsageError,
    VerificationFailed,
)
from secure_pipeline.files import read_bounded
from secure_pipeline.ports import SourceState
from secure_pipeline.tools.git import MAX_BYTES, MAX_FILES, GitSource, without_credentials
from secure_pipeline.tools.locate import SYSTEM_PATH, LocatedTool
from secure_pipeline.tools.process import Command, Limits, Outcome, Processes
from secure_pipeline.tools.remote import Remote

SECONDS = 600.0
MAX_LISTING = 64 << 20
MAX_ACCESS_BYTES = 1 << 20
_CREDENTIALS, _AUTHORITIES, _KEY, _KNOWN = "credentials", "ca.crt", "ssh-privatekey", "known_hosts"
"""What a directory with access may hold; the names are those of Secrets for git in a cluster."""
_ATTRIBUTES = "* -text !eol -ident !filter !working-tree-encoding\n"
"""Stronger than those of the repository: files are written as they are in the commit."""
_SETTINGS = (
    *("advice.detachedHead=false", "core.fsmonitor=false", "core.hooksPath=/dev/null"),
    *("core.autocrlf=false", "core.protectHFS=true", "core.protectNTFS=true", "gc.auto=0"),
    *("credential.helper=", "fetch.fsckObjects=true", "fetch.unpackLimit=1"),
    *("http.followRedirects=false", "http.lowSpeedLimit=1000", "http.lowSpeedTime=60"),
    *("init.defaultBranch=source", "maintenance.auto=false", "protocol.allow=never"),
    *("protocol.version=2", "safe.directory=*", "submodule.recurse=false"),
    "transfer.bundleURI=false",
)
_WRONG = (b"fsck error", b"did not send all necessary objects", b"hash mismatch")
"""What git says of content that is not what was asked for, or not sound."""


@dataclass(frozen=True)
class GitFetch:
    """Brings one commit, once."""

    tool: LocatedTool
    processes: Processes
    seconds: float = SECONDS
    """For all of it."""
    proxies: Mapping[str, str] | None = None
    """Variables that name proxies."""
    path: str = SYSTEM_PATH
    """Where git finds ssh."""

    def fetch(self, remote: Remote, directory: Path, access: Path | None = None) -> SourceState:
        """Make an empty or missing directory the source at a commit; or see that it is that.

        ``access``: a directory with ``credentials`` (of git's credential store), ``ca.crt``, or
        for ssh ``ssh-privatekey`` and ``known_hosts``, each if it is needed. Nothing of it is
        left behind, and what did not become the source is removed.
        Raises: UsageError for a directory with anything else in it; Unavailable;
        VerificationFailed if what came is not that commit, or the commit is not of the branch
        asked for; Inconclusive if it is too large; ConfigError for submodules.
        """
        there = self._already(remote, directory) if _has_anything(directory) else None
        if there and not remote.ref:
            return there
        with self._opened(remote, directory, access) as git:
            if remote.ref:
                _check_history(git, remote, remote.ref)
            if there:
                return there
            try:
                return self._fetched(git, remote)
            except BaseException:
                _empty(directory)
                raise

    def _already(self, remote: Remote, directory: Path) -> SourceState:
        if (directory / ".git").is_dir():
            state = self._state(directory)
            if state.remote == without_credentials(remote.url) and _is(state, remote):
                return state
        raise UsageError(
            "the directory is neither empty nor this source at this commit",
            where=str(directory),
            hint="--directory with a new name",
        )

    def _fetched(self, git: _Git, remote: Remote) -> SourceState:
        git.must("init", "--quiet", "--template=", f"--object-format={remote.object_format}")
        attributes = git.directory / ".git/info/attributes"
        attributes.parent.mkdir()
        attributes.write_text(_ATTRIBUTES)
        fetched = git.run(
            *("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules"),
            *("--no-write-fetch-head", "--", remote.url, remote.commit),
        )
        _check_fetched(fetched, remote)
        kind = git.must("cat-file", "-t", remote.commit).strip()
        if kind != b"commit":
            raise VerificationFailed(f"{remote.commit} is a {kind.decode()}", where=remote.url)
        _check_content(git.run("ls-tree", "-r", "-l", "-z", "--full-tree", remote.commit), remote)
        git.must("checkout", "--quiet", "--detach", "--force", remote.commit, "--")
        git.must("config", "remote.origin.url", remote.url)
        state = self._state(git.directory)
        if not _is(state, remote):
            raise VerificationFailed("the files are not those of the commit", where=remote.url)
        return state

    def _state(self, directory: Path) -> SourceState:
        return GitSource(self.tool, self.processes, directory).state()

    @contextmanager
    def _opened(self, remote: Remote, directory: Path, access: Path | None) -> Iterator[_Git]:
        with tempfile.TemporaryDirectory(prefix="secure-pipeline-fetch-") as name:
            home = Path(name)
            given = _taken(access, home) if access else frozenset()
            settings = [*_SETTINGS, f"protocol.{remote.scheme}.allow=always"]
            if _CREDENTIALS in given:
                settings.append("credential.helper=store")
            if _AUTHORITIES in given:
                settings.append(f"http.sslCAInfo={home / _AUTHORITIES}")
            environment = {
                **(self.proxies or {}),
                "PATH": self.path,
                "LC_ALL": "C.UTF-8",
                "HOME": name,
                "GIT_CONFIG_GLOBAL": os.devnull,
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_TERMINAL_PROMPT": "0",
                "GIT_SSH_COMMAND": _ssh(home),
                "GIT_SSH_VARIANT": "ssh",
            }
            yield _Git(self, directory, tuple(settings), environment, time.monotonic())


@dataclass(frozen=True)
class _Git:
    """git, told in full what it may do."""

    owner: GitFetch
    directory: Path
    settings: tuple[str, ...]
    environment: Mapping[str, str]
    started: float

    def run(self, *arguments: str) -> Outcome:
        options = [word for setting in self.settings for word in ("-c", setting)]
        left = self.owner.seconds - (time.monotonic() - self.started)
        return self.owner.processes.run(
            Command(
                argv=(str(self.owner.tool.path), *options, *arguments),
                cwd=self.directory,
                env=self.environment,
                timeout=max(left, 0.0),
                output_limit=MAX_LISTING,
                limits=Limits(file_size=MAX_BYTES),
            )
        )

    def must(self, *arguments: str) -> bytes:
        outcome = self.run(*arguments)
        if not outcome.ok:
            raise Unavailable(f"{outcome.describe()}: {outcome.tail(1)}", where=str(self.directory))
        return outcome.stdout


def _taken(access: Path, home: Path) -> frozenset[str]:
    """Copies, for this user alone: git changes the file of credentials when they are refused."""
    names = {
        name: ".git-credentials" if name == _CREDENTIALS else name
        for name in (_CREDENTIALS, _AUTHORITIES, _KEY, _KNOWN)
        if (access / name).exists()
    }
    if not names:
        raise ConfigError(
            f"none of {_CREDENTIALS}, {_AUTHORITIES}, {_KEY}, {_KNOWN} is there", where=str(access)
        )
    for name, own in names.items():
        with open(os.open(home / own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(read_bounded(access / name, MAX_ACCESS_BYTES))
    return frozenset(names)


def _ssh(home: Path) -> str:
    """The command: with the given key, to hosts that are known, with nothing of this user."""
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(home / _KNOWN),
        "GlobalKnownHostsFile": "/dev/null",
        "IdentityFile": str(home / _KEY),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "ConnectTimeout": "30",
    }
    return shlex.join(["ssh", "-F", "none", *(f"-o{n}={v}" for n, v in options.items())])


def _check_fetched(outcome: Outcome, remote: Remote) -> None:
    if outcome.ok:
        return
    said = outcome.tail(1)
    if any(words in outcome.stderr for words in _WRONG):
        raise VerificationFailed(f"what came is not sound: {said}", where=remote.url)
    raise Unavailable(
        f"{outcome.describe()}: {said}",
        where=remote.url,
        hint="is the commit pushed, the address its own (no redirect), and the login right?",
    )


def _check_history(git: _Git, remote: Remote, ref: str) -> None:
    """Of the history only the commits are fetched, where the server can leave out the rest."""
    history = replace(git, directory=Path(git.environment["HOME"]) / "history")
    history.directory.mkdir()
    history.must(
        *("init", "--quiet", "--bare", "--template=", f"--object-format={remote.object_format}")
    )
    history.must("config", "remote.origin.url", remote.url)
    fetched = history.run(
        *("fetch", "--quiet", "--filter=tree:0", "--no-tags", "--no-write-fetch-head"),
        *("--no-recurse-submodules", "origin", f"+{ref}:refs/asked"),
    )
    _check_fetched(fetched, remote)
    if remote.commit.encode() not in history.must("rev-list", "refs/asked", "--").splitlines():
        raise VerificationFailed(
            f"{remote.commit} is not in the history of {ref}", where=remote.url
        )


def _check_content(listing: Outcome, remote: Remote) -> None:
    """Before anything is written: how much it is, and whether it is all there."""
    files = size = 0
    for line in listing.stdout.split(b"\0")[:-1]:
        head, _, name = line.partition(b"\t")
        mode, _, _, length = head.split()
        if mode == b"160000":
            raise ConfigError(
                f"{os.fsdecode(name)[:200]!r} is a submodule, which is not fetched",
                where=remote.url,
                hint="keep its files in the repository itself",
            )
        files, size = files + 1, size + int(length)
    if listing.truncated or files > MAX_FILES or size > MAX_BYTES:
        raise Inconclusive(
            f"the source is larger than {MAX_FILES} files or 4 GiB", where=remote.url
        )
    if not listing.ok:
        raise Unavailable(f"{listing.describe()}: {listing.tail(1)}", where=remote.url)


def _is(state: SourceState, remote: Remote) -> bool:
    return state.commit == remote.commit and not state.uncommitted


def _has_anything(directory: Path) -> bool:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return any(directory.iterdir())
    except OSError as error:
        raise UsageError(
            f"cannot be filled: {error.strerror}", where=str(directory), hint="--directory DIR"
        ) from error


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
