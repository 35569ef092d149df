"""A source from those who mean harm: the server, the repository, or who names them (CI-11)."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.authority import make_authority
from fakes.gitserver import GitServer, git_server
from fakes.sources import Repository, failed, fetch, git, make_repository, served_service
from secure_pipeline.errors import Inconclusive, Unavailable
from secure_pipeline.tools import gitfetch
from secure_pipeline.tools.gitfetch import GitFetch
from secure_pipeline.tools.process import Command, OnLine, Outcome, Processes
from secure_pipeline.tools.remote import Remote
from secure_pipeline.wiring import locate_tool

pytestmark = pytest.mark.integration
LOGIN = "robot:glpat-secret"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[GitServer, Repository]]:
    """A server with the repository ``service``."""
    with served_service(tmp_path) as made:
        yield made


def test_ci_11_arguments_are_no_options(tmp_path: Path) -> None:
    """What begins with a dash, names a helper or a local path never reaches git: exit 2."""
    pwned = tmp_path / "pwned"
    (tmp_path / "local").mkdir()
    git(tmp_path / "local", "init", "-q")
    for words in (
        (f"--upload-pack=touch {pwned}", "1" * 40),
        ("--", f"--upload-pack=touch {pwned}", "1" * 40),
        (f"ext::touch {pwned}", "1" * 40),
        (str(tmp_path / "local"), "1" * 40),
        ("--", "https://git.example/a.git", "--upload-pack=id"),
    ):
        ended = fetch(*words, SECURE_PIPELINE_SOURCE_DIRECTORY=str(tmp_path / "source"))
        assert ended.code == 2, ended.text
    assert not pwned.exists()
    assert not (tmp_path / "source").exists()


def test_ci_11_a_tag_is_not_the_commit(
    served: tuple[GitServer, Repository], tmp_path: Path
) -> None:
    """The digest of a tag, a tree or a file leads to a commit or none: exit 11, nothing is left."""
    server, repository = served
    git(repository.path, "tag", "-a", "-m", "t", "v1", repository.commit)
    for name in ("v1", f"{repository.commit}^{{tree}}", f"{repository.commit}:a.txt"):
        other = git(repository.path, "rev-parse", name)
        assert failed(server, other, tmp_path / "source").code == 11, name


@pytest.mark.parametrize("filters", [True, False])
def test_ci_11_a_commit_of_a_fork_is_not_of_the_branch(
    served: tuple[GitServer, Repository], tmp_path: Path, filters: bool
) -> None:
    """A server gives out what a request brought; with a branch named it is exit 11."""
    server, repository = served
    server.filters = filters
    tree = git(repository.path, "rev-parse", f"{repository.commit}^{{tree}}")
    parent = ("-p", repository.commit)
    foreign = git(repository.path, "commit-tree", *parent, "-m", "by somebody", tree)
    git(repository.path, "update-ref", "refs/pull/1/head", foreign)
    url, place = server.url("service.git"), tmp_path / "source"
    where = ("--directory", str(place), "--plain-http")
    ended = fetch(url, foreign, *where)
    assert ended.code == 0, "without a branch: what the server has"
    main = ("--ref", "refs/heads/main")
    ended = fetch(url, foreign, *where, *main)
    assert ended.code == 11, "also what is there already"
    assert "not in the history" in ended.err
    shutil.rmtree(place)
    assert failed(server, foreign, place, *main).code == 11
    assert failed(server, repository.commit, place, "--ref", "refs/heads/none").code == 4
    ended = fetch(url, repository.commit, *where, *main)
    assert ended.code == 0, ended.text
    assert "promisor" not in (place / ".git/config").read_text()


def hostile(repository: Repository, entries: str) -> str:
    """A commit with these lines of ``ls-tree`` instead of files."""
    tree = git(repository.path, "mktree", "--missing", given=entries.encode())
    commit = git(repository.path, "commit-tree", "-m", "hostile", tree)
    git(repository.path, "update-ref", "refs/heads/hostile", commit)
    return commit


def test_ci_11_a_path_does_not_lead_out(
    served: tuple[GitServer, Repository], tmp_path: Path
) -> None:
    """Files named to be written elsewhere or into git's own directory are not: exit 11."""
    server, repository = served
    blob = git(repository.path, "rev-parse", f"{repository.commit}:a.txt")
    inner = git(repository.path, "mktree", given=f"100755 blob {blob}\tpost-checkout\n".encode())
    for name in ("..", ".git", ".GIT", "git~1", "."):
        commit = hostile(repository, f"040000 tree {inner}\t{name}\n")
        assert failed(server, commit, tmp_path / "source").code == 11, name
    assert not (tmp_path / "post-checkout").exists()


def test_ci_11_a_link_is_not_followed(served: tuple[GitServer, Repository], tmp_path: Path) -> None:
    """A link is a link, and no file is written through it."""
    server, repository = served
    (tmp_path / "outside").mkdir()
    given = str(tmp_path / "outside").encode()
    link = git(repository.path, "hash-object", "-w", "--stdin", given=given)
    blob = git(repository.path, "rev-parse", f"{repository.commit}:a.txt")
    inner = git(repository.path, "mktree", given=f"100644 blob {blob}\tb\n".encode())
    commit = hostile(repository, f"120000 blob {link}\ta\n040000 tree {inner}\ta\n")
    assert failed(server, commit, tmp_path / "source").code == 11
    assert not any((tmp_path / "outside").iterdir())


def test_ci_11_nothing_of_the_repository_runs(tmp_path: Path) -> None:
    """Attributes, filters, LFS pointers and configuration in the repository are only files."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    files = {
        ".gitattributes": b"* filter=lfs eol=crlf ident working-tree-encoding=UTF-16\n",
        ".lfsconfig": b"[lfs]\n\turl = http://127.0.0.1:1/\n",
        ".gitconfig": b"[core]\n\tfsmonitor = touch pwned\n",
        "hooks/post-checkout": b"#!/bin/sh\ntouch pwned\n",
        "big.bin": pointer,
        "id.txt": b"$Id$\n",
    }
    work = tmp_path / "work/plain"
    repository = make_repository(tmp_path, "plain", {"id.txt": b"$Id$\n"})
    for name, data in files.items():
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_bytes(data)
    blobs = {n: git(work, "hash-object", "-w", "--no-filters", n) for n in files}
    for name, blob in blobs.items():
        git(work, "update-index", "--add", "--cacheinfo", f"100755,{blob},{name}")
    commit = git(work, "commit-tree", "-m", "hostile", git(work, "write-tree"))
    git(work, "push", "-q", str(repository.path), f"{commit}:refs/heads/hostile")
    place = tmp_path / "source"
    with git_server(tmp_path / "served") as server:
        where = ("--directory", str(place), "--plain-http")
        ended = fetch(server.url("plain.git"), commit, *where)
    assert ended.code == 0, ended.text
    assert {name: (place / name).read_bytes() for name in files} == files
    assert not list(place.rglob("pwned"))
    assert not (place / ".git/hooks").exists()


def test_ci_11_a_submodule_is_refused(served: tuple[GitServer, Repository], tmp_path: Path) -> None:
    """A source that is in part elsewhere is not whole: exit 3, and nobody is asked for it."""
    server, repository = served
    module = b'[submodule "m"]\n\tpath = m\n\turl = http://127.0.0.1:1/m.git\n'
    blob = git(repository.path, "hash-object", "-w", "--stdin", given=module)
    entries = f"100644 blob {blob}\t.gitmodules\n160000 commit {'1' * 40}\tm\n"
    ended = failed(server, hostile(repository, entries), tmp_path / "source")
    assert ended.code == 3
    assert "submodule" in ended.err


def access(directory: Path, line: str) -> Path:
    directory.mkdir()
    (directory / "credentials").write_text(f"{line}\n")
    return directory


class Watched(Processes):
    """Remembers what was started."""

    def __init__(self) -> None:
        super().__init__(threading.Event())
        self.commands: list[Command] = []

    def run(self, command: Command, on_line: OnLine | None = None) -> Outcome:
        self.commands.append(command)
        return super().run(command, on_line)


def test_ci_11_a_token_stays_where_it_was(
    served: tuple[GitServer, Repository], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent to its server over TLS, and is in no argument, variable or file afterwards."""
    _, repository = served
    authority = make_authority(tmp_path / "authority")
    tls = (authority.certificate, authority.key)
    watched, place, temporary = Watched(), tmp_path / "source", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with git_server(tmp_path / "served", login=LOGIN, tls=tls) as server:
        given = access(tmp_path / "given", f"https://{LOGIN}@{server.place}")
        (given / "ca.crt").write_bytes(authority.ca.read_bytes())
        remote = Remote(server.url("service.git"), repository.commit)
        GitFetch(locate_tool("git"), watched).fetch(remote, place, given)
        assert any(authorization for _, authorization in server.asked)
    for command in watched.commands:
        assert "secret" not in " ".join((*command.argv, *command.env.values()))
    for path in place.rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes(), path
    assert not any(temporary.iterdir())


def test_ci_11_a_refused_token_is_not_shown(
    served: tuple[GitServer, Repository], tmp_path: Path
) -> None:
    """No login, or one that is refused: exit 4 without a prompt, and the file is as it was."""
    server, repository = served
    server.login = LOGIN
    assert failed(server, repository.commit, tmp_path / "source").code == 4
    line = f"http://robot:glpat-other@{server.place}"
    given = access(tmp_path / "given", line)
    more = ("--credentials", str(given))
    ended = failed(server, repository.commit, tmp_path / "source", *more)
    assert ended.code == 4
    assert "glpat" not in ended.text
    assert (given / "credentials").read_text() == f"{line}\n"
    empty = tmp_path / "empty"
    empty.mkdir()
    more = ("--credentials", str(empty))
    assert failed(server, repository.commit, tmp_path / "source", *more).code == 3


def test_ci_11_a_redirect_gets_nothing(
    served: tuple[GitServer, Repository], tmp_path: Path
) -> None:
    """A server that sends us elsewhere is not followed: the other one is never asked."""
    other, repository = served
    with git_server(tmp_path / "served", redirect=f"http://{other.place}") as server:
        given = access(tmp_path / "given", f"http://{LOGIN}@{server.place}")
        more = ("--credentials", str(given))
        assert failed(server, repository.commit, tmp_path / "source", *more).code == 4
        assert server.asked
    assert not other.asked


def test_ci_11_what_is_too_large_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what is large on its way, nor what is small on its way and large in the end."""
    random = make_repository(tmp_path, "random", {"a": os.urandom(3 << 20)})
    zeros = make_repository(tmp_path, "zeros", {"a": bytes(3 << 20)})
    monkeypatch.setattr(gitfetch, "MAX_BYTES", 1 << 20)
    place = tmp_path / "source"
    with git_server(tmp_path / "served") as server:
        for made, error in ((random, Unavailable), (zeros, Inconclusive)):
            remote = Remote(server.url(made.path.name), made.commit, plain_http=True)
            with pytest.raises(error):
                GitFetch(locate_tool("git"), Watched()).fetch(remote, place)
            assert not any(place.iterdir())
