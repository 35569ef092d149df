"""Tests of the working tree's state, with the real git."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from secure_pipeline.files import sha256_file
from secure_pipeline.tools.git import GitSource
from secure_pipeline.tools.locate import LocatedTool
from secure_pipeline.tools.process import Processes


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q")
    (root / "a.txt").write_text("a\n")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("a.txt")
    (root / ".gitignore").write_text("ignored\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def source(root: Path, *exclude: str) -> GitSource:
    path = Path(shutil.which("git") or "/missing")
    tool = LocatedTool("git", path, "2", f"sha256:{sha256_file(path)}")
    return GitSource(tool, Processes(threading.Event()), root, exclude)


def test_a_clean_checkout_is_a_commit(repository: Path) -> None:
    """A tree equal to its commit says so, with the commit's id and time."""
    state = source(repository).state()
    assert state.commit == git(repository, "rev-parse", "HEAD").strip()
    assert state.uncommitted is False
    assert state.time == int(git(repository, "show", "-s", "--format=%ct"))


@pytest.mark.parametrize("change", ["content", "mode", "new", "deleted", "link", "staged"])
def test_every_change_is_seen(repository: Path, change: str) -> None:
    """Content, mode, new, deleted, relinked and only-staged files all make the tree uncommitted."""
    before = source(repository).state()
    match change:
        case "content":
            (repository / "a.txt").write_text("b\n")
        case "mode":
            (repository / "a.txt").chmod(0o755)
        case "new":
            (repository / "new").write_text("")
        case "deleted":
            (repository / "a.txt").unlink()
        case "link":
            (repository / "link").unlink()
            (repository / "link").symlink_to("run.sh")
        case "staged":
            (repository / "a.txt").write_text("b\n")
            git(repository, "add", "a.txt")
    after = source(repository).state()
    assert after.uncommitted is True
    assert after.tree != before.tree


def test_ignored_and_excluded_files_do_not_count(repository: Path) -> None:
    """What git ignores and what the pipeline itself writes is not source."""
    before = source(repository).state()
    (repository / "ignored").write_text("x")
    (repository / "reports").mkdir()
    (repository / "reports/junit.xml").write_text("x")
    assert source(repository, "reports/junit.xml").state() == before


def test_a_committed_file_cannot_be_excluded(repository: Path) -> None:
    """A repository that names its own source as a report hides nothing (DESIGN rule 11)."""
    (repository / "a.txt").write_text("changed")
    excluding = source(repository, "a.txt")
    assert excluding.state().uncommitted is True
    assert "a.txt" in set(excluding.files(repository))


def test_the_files_are_those_that_the_state_covers(repository: Path) -> None:
    """Tracked and new files are source; ignored ones and .git are not."""
    (repository / "new").write_text("")
    (repository / "ignored").write_text("")
    expected = {".gitignore", "a.txt", "link", "new", "run.sh"}
    assert set(source(repository).files(repository)) == expected


def test_a_part_of_a_repository_has_its_own_state(repository: Path) -> None:
    """Below the top level only the files of that directory count."""
    (repository / "part").mkdir()
    (repository / "part/b").write_text("b")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "second")
    (repository / "a.txt").write_text("changed outside")
    assert source(repository / "part").state().uncommitted is False


def test_outside_git_there_is_no_commit_but_a_digest(tmp_path: Path) -> None:
    """A plain directory is always uncommitted, and its digest follows its content."""
    (tmp_path / "a").write_text("1")
    first = source(tmp_path).state()
    assert (first.commit, first.uncommitted) == (None, True)
    (tmp_path / "a").write_text("2")
    assert source(tmp_path).state().tree != first.tree


def test_nothing_in_the_repository_is_executed(repository: Path) -> None:
    """A file-system monitor, hooks and filters set in .git/config do not run."""
    marker = repository.parent / "executed"
    git(repository, "config", "core.fsmonitor", f"touch {marker}; false")
    git(repository, "config", "filter.x.clean", f"touch {marker}; cat")
    (repository / ".gitattributes").write_text("* filter=x\n")
    (repository / "a.txt").write_text("changed")
    source(repository).state()
    assert not marker.exists()


def test_credentials_of_the_remote_are_not_kept(repository: Path) -> None:
    """The recorded remote has no user and no password."""
    git(repository, "remote", "add", "origin", "https://user:secret@example.com/a.git?x=1")
    assert source(repository).state().remote == "https://example.com/a.git"


def test_cli_01_a_name_that_is_not_utf8_is_hashed(repository: Path) -> None:
    """File names are bytes; one that is not UTF-8 neither crashes nor is left out."""
    before = source(repository).state()
    name = bytes(repository) + b"/caf\xe9"
    with open(name, "wb") as stream:
        stream.write(b"x")
    after = source(repository).state()
    assert after.tree != before.tree


def test_the_blob_ids_are_gits_own(repository: Path) -> None:
    """The comparison with the commit uses the same object ids as git."""
    data = (repository / "a.txt").read_bytes()
    expected = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    assert git(repository, "rev-parse", "HEAD:a.txt").strip() == expected
