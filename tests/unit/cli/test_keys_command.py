"""``secure-pipeline keys`` as people start it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SENTINEL = "correct horse battery"


def program(
    directory: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "secure_pipeline", *arguments],
        cwd=directory,
        env=kept | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a generated pair, release.key and release.pub."""
    directory = tmp_path_factory.mktemp("pair")
    ended = program(directory, "keys", "generate", SECURE_PIPELINE_KEY_PASSWORD=SENTINEL)
    assert ended.returncode == 0, ended.stderr
    assert SENTINEL not in ended.stdout + ended.stderr
    return directory


def test_generate_says_where_the_halves_are(pair: Path) -> None:
    """The default prefix gives release.key and release.pub, and nothing else."""
    assert sorted(os.listdir(pair)) == ["release.key", "release.pub"]
    assert SENTINEL not in (pair / "release.key").read_text()


def test_show_gives_the_same_key_from_both_halves(pair: Path) -> None:
    """The private file, with its password, and the public file show one id and PEM."""
    private = program(pair, "keys", "show", "file:release.key", "--json", COSIGN_PASSWORD=SENTINEL)
    public = program(pair, "keys", "show", "release.pub", "--json")
    assert private.returncode == public.returncode == 0
    assert json.loads(private.stdout) == json.loads(public.stdout)
    assert json.loads(public.stdout)["pem"] == (pair / "release.pub").read_text()


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "words"),
    [
        (["generate"], {"SECURE_PIPELINE_KEY_PASSWORD": "x"}, 2, "exists already"),
        (["generate", "--output", "new"], {}, 2, "password is not set"),
        (["generate", "--output", "new"], {"COSIGN_PASSWORD": ""}, 2, "empty password"),
        (["generate", "--output", "new", "--password", "x"], {}, 2, "password"),
        (["show", "file:release.key"], {}, 2, "password is not set"),
        (["show", "file:release.key"], {"COSIGN_PASSWORD": "wrong"}, 2, "does not open"),
        (["show", "file:none.key"], {}, 3, "none.key"),
        (["show", "file:"], {}, 2, "names no file"),
    ],
)
def test_bad_input_has_an_error_a_hint_and_a_code(
    pair: Path, arguments: list[str], environment: dict[str, str], code: int, words: str
) -> None:
    """Every refusal says what is wrong and what to type, and leaves no file."""
    ended = program(pair, "keys", *arguments, **environment)
    assert ended.returncode == code
    assert words in ended.stderr
    assert "error: " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert sorted(os.listdir(pair)) == ["release.key", "release.pub"]
