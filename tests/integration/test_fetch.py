"""A source at a commit from git's own server, as the commit has it or not at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.gitserver import GitServer, git_server
from fakes.sources import Repository, failed, fetch, git, make_repository, served_service
from secure_pipeline.tools.gitfetch import GitFetch
from secure_pipeline.tools.process import Processes
from secure_pipeline.tools.remote import Remote
from secure_pipeline.wiring import locate_tool

pytestmark = pytest.mark.integration


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[GitServer, Repository]]:
    """A server with the repository ``service``."""
    with served_service(tmp_path) as made:
        yield made


def test_a_source_at_a_commit(served: tuple[GitServer, Repository], tmp_path: Path) -> None:
    """An older commit is there as git has it and says where it is from; the same again is fine."""
    server, repository = served
    place, url = tmp_path / "source", server.url("service.git")
    told = {
        "SECURE_PIPELINE_SOURCE": url,
        "SECURE_PIPELINE_COMMIT": repository.commit,
        "SECURE_PIPELINE_SOURCE_DIRECTORY": str(place),
        "SECURE_PIPELINE_SOURCE_PLAIN_HTTP": "1",
    }
    ended = fetch("--json", **told)
    assert ended.code == 0, ended.text
    assert ended.document["commit"] == repository.commit
    assert ended.document["source"] == url
    assert (place / "src/run.py").read_bytes() == b"print()\n"
    assert git(place, "rev-parse", "HEAD") == repository.commit
    assert git(place, "status", "--porcelain") == ""
    asked = len(server.asked)
    assert fetch(**told).code == 0
    assert len(server.asked) == asked, "it was there already"
    (place / "a.txt").write_text("other\n")
    assert fetch(**told).code == 2


def test_a_repository_of_sha256(tmp_path: Path) -> None:
    """A commit of 64 digits is fetched too."""
    repository = make_repository(tmp_path, "long", {"a": b"a\n"}, "sha256")
    with git_server(tmp_path / "served") as server:
        where = str(tmp_path / "source")
        ended = fetch(
            server.url("long.git"), repository.commit, "--directory", where, "--plain-http"
        )
    assert ended.code == 0, ended.text


@pytest.mark.parametrize("what", ["file", "repository", "other remote"])
def test_a_directory_with_anything_else_is_left_alone(
    served: tuple[GitServer, Repository], tmp_path: Path, what: str
) -> None:
    """Exit 2, and what was there is there."""
    server, repository = served
    place = tmp_path / "source"
    place.mkdir()
    if what != "file":
        git(place, "init", "-q")
    if what == "other remote":
        git(place, "fetch", "-q", str(repository.path), repository.commit)
        git(place, "checkout", "-q", repository.commit)
        git(place, "config", "remote.origin.url", "https://other.example/service.git")
    (place / "kept").write_text("kept")
    url = server.url("service.git")
    ended = fetch(url, repository.commit, "--directory", str(place), "--plain-http")
    assert ended.code == 2, ended.text
    assert (place / "kept").read_text() == "kept"
    assert not server.asked


def test_a_commit_that_is_not_there(served: tuple[GitServer, Repository], tmp_path: Path) -> None:
    """A commit or a repository that the server does not have: exit 4."""
    server, repository = served
    assert failed(server, "1" * 40, tmp_path / "source").code == 4
    assert failed(server, repository.commit, tmp_path / "source", name="other").code == 4


def test_nobody_answers(tmp_path: Path) -> None:
    """Nobody listens: exit 4. Somebody listens and says nothing: exit 4 in the time given."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = GitServer(tmp_path, place=f"127.0.0.1:{listener.getsockname()[1]}")
        assert failed(server, "1" * 40, tmp_path / "source").code == 4
        listener.listen()
        ended = failed(server, "1" * 40, tmp_path / "source", "--timeout", "2s")
    assert ended.code == 4
    assert "timed out" in ended.err


SSH = """#!/bin/sh
printf '%s\\n' "$@" >"{log}"
for last; do :; done
exec env -i PATH=/usr/bin:/bin "GIT_PROTOCOL=$GIT_PROTOCOL" sh -c "$last"
"""


def test_ssh_is_told_what_it_may(served: tuple[GitServer, Repository], tmp_path: Path) -> None:
    """The program ssh gets the given key, knows its hosts, asks nobody, and reads no configuration.

    The other end is git's own upload-pack; the connection is not made, there is no sshd here.
    """
    _, repository = served
    (tmp_path / "bin").mkdir()
    log = tmp_path / "log"
    (tmp_path / "bin/ssh").write_text(SSH.format(log=log))
    (tmp_path / "bin/ssh").chmod(0o755)
    given = tmp_path / "given"
    given.mkdir()
    for name in ("ssh-privatekey", "known_hosts"):
        (given / name).write_text("x\n")
    remote = Remote(f"ssh://git@git.example:2222{repository.path}", repository.commit)
    fetcher = GitFetch(
        locate_tool("git"), Processes(threading.Event()), path=f"{tmp_path / 'bin'}:/usr/bin:/bin"
    )
    state = fetcher.fetch(remote, tmp_path / "source", given)
    assert state.remote == f"ssh://git.example:2222{repository.path}"
    said = log.read_text().splitlines()
    assert {"-oBatchMode=yes", "-oStrictHostKeyChecking=yes", "-oIdentityAgent=none"} <= set(said)
    assert said[:2] == ["-F", "none"]
    assert "git@git.example" in said
