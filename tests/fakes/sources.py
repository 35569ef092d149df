"""Repositories that a git server has, and ``secure-pipeline fetch`` from it as it is typed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fakes.gitserver import GitServer, git_server
from fakes.workplace import Ended


@dataclass(frozen=True)
class Repository:
    """A bare repository that a server has."""

    path: Path
    commit: str


def git(where: Path, *arguments: str, given: bytes | None = None) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments]
    done = subprocess.run(command, cwd=where, check=True, capture_output=True, input=given)
    return done.stdout.decode().strip()


def make_repository(
    root: Path, name: str, files: dict[str, bytes], form: str = "sha1"
) -> Repository:
    """Commit files; the commit is an older one, so that no branch has it as its tip."""
    work = root / "work" / name
    work.mkdir(parents=True)
    git(work, "-c", "init.defaultBranch=main", "init", "-q", f"--object-format={form}")
    for path, data in files.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_bytes(data)
    git(work, "add", "-A")
    git(work, "commit", "-qm", "asked for")
    commit = git(work, "rev-parse", "HEAD")
    git(work, "commit", "-qm", "newer", "--allow-empty")
    bare = root / "served" / f"{name}.git"
    git(root, "clone", "-q", "--bare", str(work), str(bare))
    return Repository(bare, commit)


def fetch(*arguments: str, **variables: str) -> Ended:
    """The command as it is typed."""
    kept = {"PATH": os.environ["PATH"], "HOME": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-m", "secure_pipeline", "fetch", *arguments],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


def failed(server: GitServer, commit: str, place: Path, *more: str, name: str = "service") -> Ended:
    """A fetch that must not end well, and must leave nothing."""
    url = server.url(f"{name}.git")
    ended = fetch(url, commit, "--directory", str(place), "--plain-http", *more)
    assert ended.code != 0, ended.text
    assert "hint:" in ended.err or "error:" in ended.err
    assert not place.exists() or not any(place.iterdir())
    return ended


@contextmanager
def served_service(root: Path) -> Iterator[tuple[GitServer, Repository]]:
    """A server of ``root/served`` with the repository ``service``."""
    files = {"a.txt": b"a\n", "src/run.py": b"print()\n", "service/config.yaml": b"version: 1\n"}
    repository = make_repository(root, "service", files)
    with git_server(root / "served") as server:
        yield server, repository
