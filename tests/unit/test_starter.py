"""Tests of init's look at a repository."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline import config, starter
from secure_pipeline.errors import UsageError


def test_a_python_project_is_recognised(tmp_path: Path) -> None:
    """Dockerfile, pytest with coverage, package name and CI are all found."""
    root = tmp_path / "My Service"
    (root / "tests").mkdir(parents=True)
    (root / "src/my_service").mkdir(parents=True)
    (root / ".github/workflows").mkdir(parents=True)
    (root / "docker").mkdir()
    (root / "docker/app.Dockerfile").write_text("FROM scratch\n")
    (root / "pyproject.toml").write_text(
        '[project]\nname = "my-service"\n[dependency-groups]\ndev = ["pytest-cov"]\n'
    )
    path, found = starter.write(root)
    written = config.load(path)
    assert written.name == "my-service"
    assert written.build.dockerfile == "docker/app.Dockerfile"
    assert written.test is not None
    assert "--cov=my_service" in written.test.command
    assert written.test.coverage is not None
    assert found.ci == ("GitHub Actions",)


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"package.json": '{"scripts": {"test": "jest"}}'}, "node"),
        ({"go.mod": "module x\n"}, "gotestsum"),
        ({"setup.py": "", "tests/test_a.py": ""}, "pytest"),
    ],
)
def test_other_test_runners_are_recognised(
    tmp_path: Path, files: dict[str, str], word: str
) -> None:
    """Each kind of project gets a command that writes JUnit."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    path, _ = starter.write(tmp_path)
    test = config.load(path).test
    assert test is not None
    assert word in " ".join(test.command)


def test_an_unknown_project_says_what_is_missing(tmp_path: Path) -> None:
    """Nothing is invented: no test section is written when no runner is seen."""
    path, found = starter.write(tmp_path)
    assert config.load(path).test is None
    assert (found.dockerfile, found.test) == (None, None)
    assert "No Dockerfile was found" in path.read_text()


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    """Init never overwrites without --force."""
    starter.write(tmp_path)
    with pytest.raises(UsageError, match="already"):
        starter.write(tmp_path)
    starter.write(tmp_path, force=True)


@given(st.text(max_size=40))
def test_any_directory_name_gives_a_valid_file(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    """Whatever the directory is called, the file that is written can be read."""
    cleaned = "".join(c for c in name if c not in "/\0" and not "\ud800" <= c <= "\udfff")
    root = tmp_path_factory.mktemp("w") / f"x{cleaned[:30]}"
    root.mkdir()
    path, _ = starter.write(root)
    config.load(path)


@given(st.binary(max_size=60))
def test_any_project_file_is_survived(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    """Broken pyproject.toml and package.json files do not stop init."""
    root = tmp_path_factory.mktemp("w")
    (root / "tests").mkdir()
    (root / "pyproject.toml").write_bytes(data + b"pytest-cov")
    (root / "package.json").write_bytes(data)
    starter.write(root)
