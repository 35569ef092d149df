"""``secure-pipeline quarantine`` as people start it, with keys in files and a layout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.evidence import NAME
from fakes.release import REQUIRE, Release, policy
from secure_pipeline.audit import reader
from secure_pipeline.keys import local

PASSWORD = "only for tests"
REASON = "the answers are cut off"


def program(directory: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    variables = {
        "SECURE_PIPELINE_STATE": str(directory / "state"),
        "SECURE_PIPELINE_KEY_PASSWORD": PASSWORD,
    }
    return subprocess.run(
        [sys.executable, "-m", "secure_pipeline", *arguments],
        cwd=directory, env={**kept, **variables, **more},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def image(tmp_path: Path) -> str:
    """A signed release; a policy where the canary quarantines and the key on duty releases."""
    release = Release(tmp_path / "image")
    release.run()
    for name in ("canary", "duty", "stranger"):
        local.generate(tmp_path / f"{name}.key", PASSWORD)
    trusted = policy(tmp_path, require=REQUIRE.replace(", max-age: 7d", ""))
    entries = "".join(
        f"{{id: {name}, public-key: {name}.pub, algorithm: ecdsa-p256-sha256}}, "
        for name in ("canary", "duty")
    )
    text = trusted.source.read_text().replace("keys: [", f"keys: [{entries}")
    text += "quarantine: {keys: [canary, duty], release-keys: [duty]}\n"
    trusted.source.write_text(text)
    return f"{NAME}@{release.image.digest}"


def words(command: str, image: str, *more: str) -> tuple[str, ...]:
    return ("quarantine", command, image, "--layout", "image", "--policy", "policy.yaml", *more)


def test_in_and_out_again(tmp_path: Path, image: str) -> None:
    """Add, list, verify, release, verify: the codes, the documents and the ledger agree."""
    nothing = program(tmp_path, *words("list", image, "--json"))
    assert nothing.returncode == 0, nothing.stderr
    assert json.loads(nothing.stdout)["images"][0]["open"] == []
    put = program(
        tmp_path, *words("add", image, "--reason", REASON, "--key", "file:canary.key", "--json")
    )
    assert put.returncode == 0, put.stderr
    document = json.loads(put.stdout)
    assert (document["kind"], document["key"]) == ("Quarantined", "canary")
    assert document["added"] == {"bundle": 1, "att": 1}
    verified = program(
        tmp_path, "verify", image, "--layout", "image", "--policy", "policy.yaml", "--json"
    )
    assert verified.returncode == 12, verified.stderr
    assert REASON in json.loads(verified.stdout)["reasons"][0]
    assert document["statement"] in json.loads(verified.stdout)["reasons"][0]
    listed = program(tmp_path, *words("list", image))
    assert listed.returncode == 12, listed.stderr
    assert REASON in listed.stdout
    assert "1 of 1 quarantines are open" in listed.stdout
    freed = program(
        tmp_path,
        *words("release", image, "--reason", "repaired", "--key", "file:duty.key", "--json"),
    )
    assert freed.returncode == 0, freed.stderr
    assert json.loads(freed.stdout)["ended"] == [document["statement"]]
    again = program(tmp_path, "verify", image, "--layout", "image", "--policy", "policy.yaml")
    assert again.returncode == 0, again.stdout
    assert "1 quarantines of this image, 1 released" in again.stdout
    last = program(tmp_path, *words("list", image))
    assert (last.returncode, "released: repaired" in last.stdout) == (0, True)
    entries = [stored.entry for stored in reader.entries(tmp_path / "state/ledger.jsonl")]
    made = [entry for entry in entries if entry.stage == "quarantine"]
    assert [(e.action, e.subject, e.intent is None) for e in made] == [
        ("sign", image, True), ("sign", image, False),
        ("sign", image, True), ("sign", image, False),
    ]  # fmt: skip
    assert made[0].details["reason"] == REASON
    assert made[1].details["statement"] == document["statement"]
    assert PASSWORD not in put.stdout + put.stderr + freed.stdout + freed.stderr


@pytest.mark.parametrize(
    ("command", "changes", "code", "said"),
    [
        ("release", {}, 2, "no quarantine of this image is open"),
        ("add", {"--policy": ""}, 2, "no policy is named"),
        ("add", {"--key": "pkcs11:x"}, 2, "not a key URI"),
        ("add", {"--key": "file:nowhere.key"}, 3, "nowhere.key"),
        ("add", {"--key": "file:stranger.key"}, 12, "none of the policy's keys"),
        ("add", {"--reason": "two\nlines"}, 2, "reason is not a line"),
        ("add", {"--layout": "elsewhere"}, 2, "elsewhere"),
        ("add", {"IMAGE": f"{NAME}:latest"}, 2, "tag"),
        ("add", {"IMAGE": f"{NAME}@sha256:{'0' * 64}"}, 11, "0000"),
    ],
)
def test_what_goes_wrong_signs_nothing(
    tmp_path: Path, image: str, command: str, changes: dict[str, str], code: int, said: str
) -> None:
    """Each mistake is told in one line, and the layout stays as it was."""
    before = (tmp_path / "image/index.json").read_bytes()
    given = {
        "--layout": "image", "--policy": "policy.yaml", "--key": "file:canary.key",
        "--reason": REASON, **changes,
    }  # fmt: skip
    about = given.pop("IMAGE", image)
    ended = program(
        tmp_path, "quarantine", command, about,
        *(word for name, value in given.items() if value for word in (name, value)),
    )  # fmt: skip
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (tmp_path / "image/index.json").read_bytes() == before


def test_a_key_that_may_not_release_is_refused_and_recorded(tmp_path: Path, image: str) -> None:
    """12, nothing is attached, and the ledger says that it was refused."""
    put = program(tmp_path, *words("add", image, "--reason", REASON, "--key", "file:canary.key"))
    assert put.returncode == 0, put.stderr
    before = (tmp_path / "image/index.json").read_bytes()
    ended = program(
        tmp_path, *words("release", image, "--reason", "please", "--key", "file:canary.key")
    )
    assert ended.returncode == 12, ended.stderr
    assert "'canary' is not among quarantine.release-keys: duty" in ended.stderr
    assert (tmp_path / "image/index.json").read_bytes() == before
    last = list(reader.entries(tmp_path / "state/ledger.jsonl"))[-1].entry
    assert (last.stage, last.outcome.value if last.outcome else "") == ("quarantine", "refused")


def test_several_images_get_the_worst_code(tmp_path: Path, image: str) -> None:
    """One open quarantine is 12; an image whose evidence cannot be found is no pass."""
    missing = f"{NAME}@sha256:{'0' * 64}"
    ended = program(tmp_path, *words("list", image, missing, "--json"))
    assert ended.returncode == 11, ended.stderr
    assert [item["standing"] for item in json.loads(ended.stdout)["images"]] == [0, 11]
    program(tmp_path, *words("add", image, "--reason", REASON, "--key", "file:canary.key"))
    assert program(tmp_path, *words("list", missing, image)).returncode == 12
