"""``secure-pipeline verify file`` as people type it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.release import REQUIRE, flip, policy
from fakes.signedfile import IMAGE, WHEEL, SignedWheel


def program(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Nothing of this user but the path: no repository, no state, no network."""
    return subprocess.run(
        [sys.executable, "-m", "secure_pipeline", "verify", "file", *arguments],
        cwd=directory, env={"PATH": os.environ["PATH"], "HOME": str(directory)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A signed file and a policy, and nothing else."""
    SignedWheel.write(tmp_path).sign()
    policy(tmp_path, require=REQUIRE.replace(", max-age: 7d", ""))
    return tmp_path


TRUST = ("--policy", "policy.yaml")


def test_a_file_a_bundle_and_a_policy_are_enough(place: Path) -> None:
    """Each rule is printed; the document says the same."""
    ended = program(place, WHEEL, *TRUST)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.startswith(f"file {WHEEL}\n")
    assert "ALLOW" in ended.stdout
    assert "PASS: verified: all 11 rules allow, run run-1" in ended.stdout
    document = json.loads(program(place, WHEEL, *TRUST, "--json").stdout)
    assert (document["kind"], document["verdict"], document["exitCode"]) == (
        *("FileVerification", "PASS", 0),
    )
    assert (document["file"], document["signedName"], document["run"]) == (WHEEL, WHEEL, "run-1")
    assert document["image"] == str(IMAGE)
    assert document["digest"] == str(SignedWheel(place / WHEEL).digest)
    assert {rule["outcome"] for rule in document["decision"]} == {"allow"}


def test_refusals_have_the_codes_of_images(place: Path) -> None:
    """11 for what is proven wrong, 12 for the policy; the reason is on the last line."""
    denied = program(place, WHEEL)
    assert (denied.returncode, "trusts no key" in denied.stdout) == (12, True)
    flip(place / WHEEL, 5)
    ended = program(place, WHEEL, *TRUST, "--json")
    assert (ended.returncode, json.loads(ended.stdout)["exitCode"]) == (11, 11)
    assert "expected exactly the subject" in ended.stderr


def test_a_key_and_a_bundle_can_be_named(place: Path) -> None:
    """--bundle and --key stand for what lies beside, and beside the policy's keys."""
    (place / f"{WHEEL}.sigstore.json").rename(place / "proof.json")
    missing = program(place, WHEEL, *TRUST)
    assert (missing.returncode, "--bundle FILE" in missing.stdout) == (11, True)
    ended = program(place, WHEEL, *TRUST, "--bundle", "proof.json", "--key", "release.pub")
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("absent.whl",), "there is no such file"),
        (("link.whl",), "not a plain file"),
        (("dangling.whl",), "not a plain file"),
        ((".",), "not a plain file"),
        ((), "one file is named"),
        ((WHEEL, WHEEL), "one file is named"),
        ((WHEEL, "--layout", "."), "are about images"),
        ((WHEEL, "--layers"), "are about images"),
        ((WHEEL, "--run", "run-1"), "are about images"),
    ],
)
def test_what_is_no_file_is_a_usage_error(place: Path, words: tuple[str, ...], what: str) -> None:
    """Exit 2, one line what, one line what to type."""
    (place / "link.whl").symlink_to(WHEEL)
    (place / "dangling.whl").symlink_to("nowhere")
    ended = program(place, *words, *TRUST)
    assert (ended.returncode, ended.stdout) == (2, "")
    error, hint = ended.stderr.splitlines()
    assert error.startswith("error: ")
    assert what in error
    assert hint.startswith("hint: secure-pipeline verify file PATH")


def test_a_bundle_without_the_word_file_is_a_usage_error(place: Path) -> None:
    """--bundle says nothing about images."""
    ended = subprocess.run(
        [sys.executable, "-m", "secure_pipeline", "verify", "--bundle", "x", "layout", "."],
        cwd=place, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ended.returncode, "verify file PATH" in ended.stderr) == (2, True)


def test_verifying_leaves_nothing_behind(place: Path) -> None:
    """No state directory, no cache, no file."""
    before = sorted(path.name for path in place.iterdir())
    assert program(place, WHEEL, *TRUST).returncode == 0
    assert sorted(path.name for path in place.iterdir()) == before
