"""Tests of secure-pipeline.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from secure_pipeline import config
from secure_pipeline.errors import ConfigError


def test_the_smallest_file_gives_safe_defaults(tmp_path: Path) -> None:
    """Two keys are enough, and nothing is switched off by leaving a key out."""
    path = tmp_path / config.FILE_NAME
    path.write_text("version: 1\nname: team/service\n")
    value = config.load(path)
    assert value.analyze.rules == ("builtin:all",)
    assert value.test is None
    assert value.build.dockerfile == "Dockerfile"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 2\nname: a\n", "version 2 is not known"),
        ("version: 1\nname: A:latest\n", "is not an image name"),
        ("version: 1\nname: ../a\n", "is not an image name"),
        ("version: 1\nname: a\ntest: {command: [], junit: x}\n", "command is empty"),
        (
            "version: 1\nname: a\n"
            "test: {command: [a], junit: x, coverage: {file: c, minimum: 101}}\n",
            "from 0 to 100",
        ),
        ("version: 1\nname: a\nbuild: {secrets: [{id: x}]}\n", "exactly one of file and env"),
    ],
)
def test_values_that_make_no_sense_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """Wrong values are refused when read, not when they are used."""
    path = tmp_path / config.FILE_NAME
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        config.load(path)


def test_the_file_is_found_upward(tmp_path: Path) -> None:
    """The nearest file above the working directory is used."""
    (tmp_path / config.FILE_NAME).write_text("version: 1\nname: a\n")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert config.find(inner) == tmp_path / config.FILE_NAME


def test_no_file_says_what_to_type(tmp_path: Path) -> None:
    """A missing file is a configuration error with a hint."""
    with pytest.raises(ConfigError) as caught:
        config.find(tmp_path)
    assert "secure-pipeline init" in (caught.value.hint or "")


def test_an_unreadable_file_is_a_config_error(tmp_path: Path) -> None:
    """A directory in the file's place gives one line, not a traceback."""
    with pytest.raises(ConfigError, match="cannot read"):
        config.load(tmp_path)


@pytest.mark.parametrize(
    "pattern",
    [
        "opt/x.whl", "/", "/opt/", "//opt", "/opt//x", "/opt/../x", "/./x", "/opt/a b", "/opt/x\\n",
        "/opt/[ab]", "/é", "/*/*/*/*/*/*/*", "/" + "x" * 200, "",
    ],
)  # fmt: skip
def test_what_is_no_path_in_an_image_is_no_file_to_sign(tmp_path: Path, pattern: str) -> None:
    """Absolute, plain, short, and with few wildcards: matching stays quick whatever is there."""
    path = tmp_path / config.FILE_NAME
    path.write_text(f"version: 1\nname: a\nbuild: {{files: ['{pattern}']}}\n")
    with pytest.raises(ConfigError, match="files"):
        config.load(path)


def test_files_to_sign_are_patterns(tmp_path: Path) -> None:
    """Signs of a pattern and of version numbers are fine; too many patterns are not."""
    path = tmp_path / config.FILE_NAME
    good = ["/opt/wheel/*.whl", "/opt/**/app-1.0+local~1.tar.?z"]
    path.write_text(f"version: 1\nname: a\nbuild: {{files: {good}}}\n")
    assert config.load(path).build.files == tuple(good)
    path.write_text(f"version: 1\nname: a\nbuild: {{files: {good * 9}}}\n")
    with pytest.raises(ConfigError, match="18 patterns"):
        config.load(path)
