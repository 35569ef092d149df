"""The private copy of the sources."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.errors import Inconclusive
from secure_pipeline.tools import snapshot
from secure_pipeline.tools.snapshot import Snapshot, concerns, printable, take


def copy(root: Path, *paths: str, exclude: tuple[str, ...] = (), size: int = 100) -> Snapshot:
    target = root.parent / "copy"
    return take(root, paths or snapshot.walk(root), target, exclude=exclude, max_size=size)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "repository"
    (directory / "a" / "b").mkdir(parents=True)
    (directory / "a" / "b" / "c.py").write_text("x = 1\n")
    return directory


def test_contents_and_execute_bits_are_copied(root: Path) -> None:
    """The copy has the same bytes below the same names."""
    tool = root / "tool"
    tool.write_text("#!/usr/bin/env python3\n")
    tool.chmod(0o755)
    result = copy(root)
    assert result.names == {"a/b/c.py": "a/b/c.py", "tool": "tool"}
    assert (result.root / "a/b/c.py").read_text() == "x = 1\n"
    assert os.access(result.root / "tool", os.X_OK)
    assert not os.access(result.root / "a/b/c.py", os.X_OK)


def test_large_and_unreadable_files_are_missing_where_rules_concern_them(root: Path) -> None:
    """A large Python file leaves Python rules without an answer, a large table does not."""
    (root / "big.py").write_text("#" * 101)
    (root / "big.csv").write_text("," * 101)
    result = copy(root)
    assert {path for path, _ in result.skipped} == {"big.py", "big.csv"}
    assert result.missing({"python"}) == ["big.py: not analysed: larger than 100 bytes"]
    assert result.missing({"dockerfile"}) == []
    assert len(result.missing({"python", "generic"})) == 2


def test_a_dockerfile_by_another_name_is_there_twice(root: Path) -> None:
    """Rules for Dockerfiles see it by a name they know, other rules by its own."""
    for name in ("Dockerfile", "Dockerfile.dev", "Containerfile", "x.Dockerfile"):
        (root / name).write_text("FROM scratch\n")
    for name in ("dockerfile_tool.py", "Dockerfile.md", "dockerfile.yaml"):
        (root / name).write_text("FROM\n")
    (root / "Dockerfile.dev.dockerfile").write_text("FROM other\n")
    result = copy(root)
    twice = {
        "Containerfile.dockerfile": "Containerfile",
        "Dockerfile.dev~.dockerfile": "Dockerfile.dev.dockerfile",
        "Dockerfile.dev.dockerfile": "Dockerfile.dev",
    }
    assert {n: shown for n, shown in result.names.items() if n != shown} == twice
    assert set(result.names.values()) == {
        str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()
    }


def test_settings_of_the_analyser_stay_behind_at_any_depth(root: Path) -> None:
    """Ignore files are not copied, and said so."""
    (root / ".semgrepignore").write_text("*")
    (root / "a" / ".semgrepignore").write_text("*")
    result = copy(root)
    assert set(result.names) == {"a/b/c.py"}
    assert len(result.skipped) == 2


def test_paths_that_leave_the_repository_are_not_read(root: Path) -> None:
    """Dots and links upward give a reason instead of a file."""
    (root.parent / "secret.py").write_text("x\n")
    (root / "up").symlink_to("..")
    result = copy(root, "../secret.py", "up/secret.py", "a/b/c.py")
    assert set(result.names) == {"a/b/c.py"}
    assert len(result.skipped) == 2


def test_too_many_files_are_inconclusive(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits end the copy instead of cutting the answer."""
    monkeypatch.setattr(snapshot, "MAX_BYTES", 3)
    with pytest.raises(Inconclusive):
        copy(root)


@pytest.mark.parametrize(
    ("name", "languages", "expected"),
    [
        ("a/x.py", {"python"}, True),
        ("a/x.PY", {"python"}, True),
        ("a/x.py", {"dockerfile"}, False),
        ("Dockerfile", {"dockerfile"}, True),
        ("Dockerfile.dev", {"dockerfile"}, True),
        ("claude.Dockerfile", {"dockerfile"}, True),
        ("Containerfile", {"dockerfile"}, True),
        ("dockerfiles.md", {"dockerfile"}, False),
        ("x.yml", {"yaml"}, True),
        ("x.rs", {"klingon"}, True),
        ("x.py", set(), False),
    ],
)
def test_names_concern_languages(name: str, languages: set[str], expected: bool) -> None:
    """A language that is not known concerns every file."""
    assert concerns(name, languages) is expected


NAMES = st.binary(min_size=1, max_size=20).filter(lambda b: not {0, 47} & set(b))


@given(NAMES, NAMES | st.sampled_from([b"\\xff", b"\xff", b"\n", b"\\n"]))
def test_different_names_stay_different(a: bytes, b: bytes) -> None:
    """No file can be shown under the name of another one, and so use its baseline."""
    assert (printable(os.fsdecode(a)) == printable(os.fsdecode(b))) == (a == b)


@given(NAMES)
def test_any_name_becomes_text_without_controls(name: bytes) -> None:
    """Whatever bytes a name has, it is shown as printable UTF-8 (CLI-01, AUD-10)."""
    shown = printable(os.fsdecode(name))
    assert shown.isprintable()
    shown.encode("utf-8")
