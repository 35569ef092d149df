"""Addresses and commits that git is given, and those that it never sees."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from secure_pipeline.errors import UsageError
from secure_pipeline.tools.remote import Remote

COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example/team/service.git",
        "https://git.example:8443/team/service/",
        "https://dev.azure.example/team/My%20Project/_git/service",
        "https://git.example/team/.github",
        "ssh://git@git.example/team/service.git",
        "ssh://git.example:2222/~team/service.git",
        "https://[::1]:8443/service.git",
    ],
)
def test_an_address_is_taken_as_it_is(url: str) -> None:
    """What a repository's address is for the usual servers is kept as it was written."""
    assert Remote(url, COMMIT).url == url
    assert Remote(url, COMMIT).object_format == "sha1"
    assert Remote(url, "a" * 64).object_format == "sha256"


BAD = (
    "", "-", "--upload-pack=touch /tmp/pwned", "-oProxyCommand=id", "ext::sh -c id",
    "fd::17", "file:///etc", "/srv/git/service.git", "service.git", "git@git.example:service.git",
    "git://git.example/service.git", "ftp://git.example/service.git",
    "HTTPS://git.example/service.git", "https://git.example", "https://git.example/",
    "https:///service.git", "ssh://-oProxyCommand=id/service.git", "ssh://git@-oProxyCommand=id/x",
    "ssh://git:secret@git.example/service.git", "https://token@git.example/service.git",
    "https://user:token@git.example/service.git", "https://git.example/../service.git",
    "https://git.example/a/%2e%2e/service.git", "https://git.example/a/%2E./service.git",
    "https://git.example/a/./service.git", "https://git.example/-a/service.git",
    "https://git.example/%2da/service.git", "https://git.example/a%2fb",
    "https://git.example/a%5cb", "https://git.example/a\\b", "https://git.example/a%0ab",
    "https://git.example/a\nb", "https://git.example/a b", "https://git.example/a;id",
    "https://git.example/$(id)", "https://git.example/a'b", "https://git.example/a?b=c",
    "https://git.example/a#b", "https://git.example/a//b", "https://gït.example/a",
    "https://git.example:port/a", "https://git.example@evil.example/a",
    f"https://git.example/{'a' * 1000}", "https://git.example/a\x00b", "https://git.example/a\n",
)  # fmt: skip


@pytest.mark.parametrize("url", BAD)
def test_ci_11_what_is_no_address_is_refused(url: str) -> None:
    """Options, helpers, local paths, users, ways out of a path and shell: exit 2 before git."""
    with pytest.raises(UsageError):
        Remote(url, COMMIT, plain_http=True)


@pytest.mark.parametrize(
    "commit",
    ["", "HEAD", "main", "v1.0", "-h", "--upload-pack=id", COMMIT[:39], COMMIT.upper() + "A",
     "A" * 40, f"{COMMIT}\n", f"{COMMIT}:main", f"{COMMIT}^", "g" * 40, "a" * 41],
)  # fmt: skip
def test_ci_11_what_is_no_commit_is_refused(commit: str) -> None:
    """Branches, tags, options, refspecs and short forms are refused."""
    with pytest.raises(UsageError):
        Remote("https://git.example/service.git", commit)


@pytest.mark.parametrize("ref", ["refs/heads/main", "refs/tags/v1.2", "refs/heads/team/a-b_c"])
def test_a_branch_is_named_in_full(ref: str) -> None:
    """Branches and tags by their full names."""
    assert Remote("https://git.example/service.git", COMMIT, ref=ref).ref == ref


@pytest.mark.parametrize(
    "ref",
    ["", "main", "-main", "refs/heads/", "refs/heads/-a", "refs/heads/a:refs/heads/b", "refs/a",
     "refs/heads/*", "refs/heads/a..b", "refs/heads/a.lock", "refs/heads/a/", "refs/heads//a",
     "refs/pull/1/head", "+refs/heads/a", "refs/heads/a b", "refs/heads/a\n", "refs/heads/a@{1}",
     "refs/heads/.a", "refs/heads/a.", "refs/heads/a^", "refs/heads/a~1", "HEAD"],
)  # fmt: skip
def test_ci_11_what_is_no_branch_is_refused(ref: str) -> None:
    """Short names, refspecs, patterns, options, and what others may push to."""
    with pytest.raises(UsageError):
        Remote("https://git.example/service.git", COMMIT, ref=ref)


def test_ci_11_a_refusal_does_not_show_a_token() -> None:
    """An address with a token in it is refused without repeating the token."""
    for url in ("https://glpat-0123@git.example/a", "https://x:glpat-0123@git.example/a"):
        with pytest.raises(UsageError) as error:
            Remote(url, COMMIT)
        assert "glpat" not in f"{error.value}{error.value.hint}"


def test_http_is_asked_for() -> None:
    """An address of http is taken only where that is said."""
    with pytest.raises(UsageError, match="not encrypted"):
        Remote("http://127.0.0.1/service.git", COMMIT)
    assert Remote("http://127.0.0.1/service.git", COMMIT, plain_http=True).scheme == "http"


@given(st.text(max_size=60), st.sampled_from(("", "https://", "ssh://", "https://git.example/")))
@example("git.example/%2e%2e/a", "https://")
def test_ci_11_an_address_that_is_taken_is_harmless(text: str, head: str) -> None:
    """Whatever is accepted is one word of one of the schemes, without a way out or an option."""
    try:
        remote = Remote(head + text, COMMIT)
    except UsageError:
        return
    assert re.fullmatch(r"(https|ssh)://[!-~]+", remote.url)
    host, *path = remote.url.partition("://")[2].split("/")
    assert not host.rpartition("@")[2].startswith("-")
    assert not {"..", "."} & set(path)
    assert not any(part.startswith("-") for part in path)
