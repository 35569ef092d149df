"""The build context: .dockerignore, the manifest digest, and files that must not be sent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.dockerfile import context as contexts
from secure_pipeline.dockerfile.context import examine
from secure_pipeline.dockerfile.ignore import IgnoreFile, load, parse
from secure_pipeline.errors import ConfigError

PRIVATE_KEY = "-----BEGIN " + "PRIVATE KEY-----\nMC4\n"


def ignores(text: str, path: str) -> bool:
    return IgnoreFile("x", parse(text.encode(), "x")).ignores(path)


@pytest.mark.parametrize(
    ("patterns", "path", "ignored"),
    [
        ("a", "a", True),
        ("a", "a/b/c", True),
        ("a", "b/a", False),
        ("**/a", "b/c/a", True),
        ("**/a", "a", True),
        ("a/**", "a/b", True),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/x/y/c", True),
        ("*.md", "README.md", True),
        ("*.md", "docs/README.md", False),
        ("*/*.md", "docs/README.md", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("/a/", "a", True),
        ("./a/../b", "b", True),
        ("*.md\n!README.md", "README.md", False),
        ("!README.md\n*.md", "README.md", True),
        ("docs\n!docs/keep", "docs/keep", False),
        ("docs\n!docs/keep", "docs/other", True),
        ("# a\n\n b ", "b", True),
        ("# a", "a", False),
        (r"\#a", "#a", True),
        (r"a\*", "a*", True),
        (r"a\*", "ab", False),
        ("a+(b)", "a+(b)", True),
        ("**", "anything/at/all", True),
        ("**\n!src/**", "src/a/b", False),
    ],
)
def test_bld_08_dockerignore_matches_as_docker_does(
    patterns: str, path: str, ignored: bool
) -> None:
    """Anchoring, wildcards, exceptions and order follow moby's patternmatcher."""
    assert ignores(patterns, path) is ignored


@pytest.mark.parametrize("pattern", ["!", "a[", "[z-a]", "! "])
def test_a_bad_pattern_is_named_by_line(pattern: str) -> None:
    """A pattern that names nothing is an error of the file, not ignored."""
    with pytest.raises(ConfigError) as caught:
        parse(f"ok\n{pattern}\n".encode(), ".dockerignore")
    assert caught.value.where == ".dockerignore:2"


@given(st.text(alphabet="ab*?!/[]^-\\.# \n", max_size=30), st.text(alphabet="ab/.", max_size=12))
def test_any_ignore_file_decides_or_is_refused(text: str, path: str) -> None:
    """No pattern crashes the matcher."""
    try:
        patterns = parse(text.encode(), "x")
    except ConfigError:
        return
    assert IgnoreFile("x", patterns).ignores(path) in (True, False)


def test_the_dockerfiles_own_ignore_file_comes_first(tmp_path: Path) -> None:
    """NAME.dockerignore replaces .dockerignore; extra patterns come last."""
    (tmp_path / ".dockerignore").write_text("general\n")
    dockerfile = tmp_path / "App.Dockerfile"
    assert load(tmp_path, dockerfile).patterns == ("general",)
    (tmp_path / "App.Dockerfile.dockerignore").write_text("own\n!state\n")
    rules = load(tmp_path, dockerfile, ("state",))
    assert (rules.source, rules.patterns) == (
        "App.Dockerfile.dockerignore",
        ("own", "!state", "state"),
    )
    assert rules.ignores("state/x")


def test_bld_06_an_ignore_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """What is sent is never decided by a file outside the context."""
    (tmp_path / ".dockerignore").symlink_to("/etc/hostname")
    with pytest.raises(ConfigError, match="symbolic link"):
        load(tmp_path, tmp_path / "Dockerfile")


def everything(root: Path, patterns: str = "") -> contexts.Context:
    return examine(root, IgnoreFile("x", parse(patterns.encode(), "x")))


def test_bld_08_the_manifest_digest_names_exactly_what_is_sent(tmp_path: Path) -> None:
    """Content, path, mode and link targets count; ignored files do not."""
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_text("2")
    first = everything(tmp_path)
    assert (first.files, first.size) == (3, 2)
    (tmp_path / "ignored").write_text("3")
    assert everything(tmp_path, "ignored\n").digest == first.digest
    digests = {first.digest}
    for change in (
        lambda: (tmp_path / "a").write_text("4"),
        lambda: (tmp_path / "a").chmod(0o755),
        lambda: (tmp_path / "a").rename(tmp_path / "aa"),
        lambda: (tmp_path / "l").symlink_to("a"),
        lambda: ((tmp_path / "l").unlink(), (tmp_path / "l").symlink_to("b")),
    ):
        change()
        digests.add(everything(tmp_path, "ignored\n").digest)
    assert len(digests) == 6


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".env", "A=b"),
        ("deploy/.env.production", "A=b"),
        ("tls/server.pem", PRIVATE_KEY),
        ("key", PRIVATE_KEY),
        ("release.key", PRIVATE_KEY.replace("PRIVATE", "ENCRYPTED SIGSTORE PRIVATE")),
        (".ssh/id_rsa", "x"),
        (".netrc", "x"),
        (".aws/credentials", "x"),
        ("sub/.docker/config.json", "{}"),
        ("store.p12", "x"),
        (".npmrc", "//r/:_authToken=abc"),
    ],
)
def test_bld_08_secrets_in_the_context_are_refused_until_ignored(
    tmp_path: Path, name: str, content: str
) -> None:
    """Credentials, key stores and private keys are not sent to a builder."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    found = everything(tmp_path).refusals
    assert [(item.rule, item.subject) for item in found] == [("secret-in-context", name)]
    assert name in found[0].hint
    assert everything(tmp_path, f"{name}\n").refusals == ()


@pytest.mark.parametrize(
    ("name", "content"),
    [(".env.example", "A=b"), ("cert.pem", "-----BEGIN CERTIFICATE-----"), (".env", ""),
     ("app.py", PRIVATE_KEY), (".npmrc", "registry=x"), ("id_rsa.pub", "x")],
)  # fmt: skip
def test_samples_certificates_and_source_are_sent(tmp_path: Path, name: str, content: str) -> None:
    """What only resembles a secret does not refuse a build."""
    (tmp_path / name).write_text(content)
    assert everything(tmp_path).refusals == ()


def test_bld_08_a_git_directory_is_reported(tmp_path: Path) -> None:
    """.git is no refusal, and is said aloud until it is ignored."""
    (tmp_path / ".git").mkdir()
    assert ".git is sent" in everything(tmp_path).notes[0]
    assert everything(tmp_path, ".git\n").notes == ()


def test_bld_06_links_are_hashed_and_not_followed(tmp_path: Path) -> None:
    """A link out of the context brings nothing of its target into the digest."""
    outside = tmp_path / "outside"
    outside.write_text("1")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(outside)
    before = everything(root)
    outside.write_text("2")
    assert everything(root).digest == before.digest
    assert before.size == 0


def test_files_that_block_are_not_read(tmp_path: Path) -> None:
    """A FIFO in the context does not hang the check."""
    os.mkfifo(tmp_path / "pipe")
    assert everything(tmp_path).files == 1


def test_a_context_over_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walk stops at its limit and says what to do."""
    monkeypatch.setattr(contexts, "MAX_FILES", 3)
    for number in range(5):
        (tmp_path / str(number)).touch()
    with pytest.raises(ConfigError) as caught:
        everything(tmp_path)
    assert ".dockerignore" in str(caught.value.hint)


def test_a_context_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    """A missing context is an error before anything is built."""
    with pytest.raises(ConfigError, match="no directory"):
        everything(tmp_path / "missing")
