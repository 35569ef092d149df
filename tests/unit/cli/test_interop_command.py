"""``secure-pipeline interop`` as people start it, on a layout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.beside import Beside
from fakes.evidence import public_key, signer
from fakes.scenes import SCENES


def program(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "secure_pipeline", "interop", *arguments],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "HOME": str(directory)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Beside:
    directory = tmp_path_factory.mktemp("interop")
    (directory / "release.pub").write_bytes(public_key().pem)
    made = Beside.make(directory / "layout", signer())
    SCENES["both"].build(made)
    made.finish()
    return made


def test_a_layout_is_reported(site: Beside) -> None:
    """Readers that were chosen are shown, no other; a report is exit code 0 whatever it says."""
    image = f"service@{site.image}"
    ended = program(
        site.layout.path.parent,
        *(image, "--layout", "layout", "--key", "release.pub"),
        *("--reader", "gh", "--reader", "cosign-3"),
    )
    assert ended.returncode == 0, ended.stderr
    assert "cosign-3: accepts" in ended.stdout
    assert "gh: rejects" in ended.stdout
    assert "kyverno" not in ended.stdout


def test_a_required_reader_decides(site: Beside) -> None:
    """The document has the code that the program exits with, and text goes to stderr."""
    image = f"service@{site.image}"
    where = (site.layout.path.parent, image, "--layout", "layout")
    for options, code in (
        (("--key", "release.pub", "--require", "kyverno"), 0),
        (("--key", "release.pub", "--require", "gh"), 11),
        (("--require", "kyverno"), 14),
    ):
        ended = program(*where, *options, "--json")
        assert ended.returncode == code, ended.stderr
        document = json.loads(ended.stdout)
        assert document["kind"] == "Interop"
        assert document["exitCode"] == code
        assert document["required"] == [options[-1]]
        assert "required: " in ended.stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--reader", "cosign-9"), 2, "no reader 'cosign-9' is known"),
        (("--require", "nobody"), 2, "no reader 'nobody' is known"),
        (("--key", "missing.pub"), 3, "missing.pub"),
        (("--layout", "nowhere"), 2, "nowhere"),
    ],
)
def test_bad_input_is_said_in_two_lines(
    site: Beside, options: tuple[str, ...], code: int, said: str
) -> None:
    """A wrong reader, key or layout is one line saying what, and never a traceback."""
    image = f"service@{site.image}"
    where = (site.layout.path.parent, image, "--layout", "layout")
    ended = program(*where, *options)
    assert ended.returncode == code
    assert ended.stdout == ""
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
