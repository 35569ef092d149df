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
