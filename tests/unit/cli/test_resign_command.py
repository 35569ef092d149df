"""``secure-pipeline resign`` as people start it, with keys in files and a layout."""

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


def program(directory: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "secure_pipeline", *arguments],
        cwd=directory, env=kept | {"SECURE_PIPELINE_STATE": str(directory / "state"), **more},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A signed release, a new key, and a policy that trusts both."""
    Release(tmp_path / "image").run()
    local.generate(tmp_path / "new.key", PASSWORD)
    trusted = policy(tmp_path, require=REQUIRE.replace(", max-age: 7d", ""))
    text = trusted.source.read_text()
    entry = "keys: [{id: new, public-key: new.pub, algorithm: ecdsa-p256-sha256}, "
    (tmp_path / "both.yaml").write_text(text.replace("keys: [", entry))
    (tmp_path / "new.yaml").write_text(
        text.replace("id: release, public-key: release.pub", "id: new, public-key: new.pub")
    )
    return tmp_path


def digest(place: Path) -> str:
    """The image among what the layout lists."""
    listed = json.loads((place / "image/index.json").read_bytes())["manifests"]
    (found,) = {
        item["digest"]
        for item in listed
        if "artifactType" not in item and "sha256-" not in json.dumps(item.get("annotations", {}))
    }
    return str(found)


def test_evidence_is_signed_again_and_recorded(place: Path) -> None:
    """After it a policy with the new key alone passes; the ledger has intent and conclusion."""
    name = f"{NAME}@{digest(place)}"
    options = ("--layout", "image", "--policy")
    assert program(place, "verify", name, *options, "new.yaml").returncode != 0
    ended = program(
        place, "resign", name, "--key", "file:new.key", *options, "both.yaml", "--json",
        SECURE_PIPELINE_KEY_PASSWORD=PASSWORD,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["kind"], found["old"], found["new"]) == ("Resigned", "release", "new")
    assert (found["signed"], found["withoutOld"]["exitCode"]) == (8, 0)
    assert program(place, "verify", name, *options, "new.yaml").returncode == 0
    entries = [stored.entry for stored in reader.entries(place / "state/ledger.jsonl")]
    intent, conclusion = [item for item in entries if item.stage == "resign"]
    assert (intent.subject, intent.details["key"]) == (name, "file:new.key")
    assert conclusion.details["signed"] == 8
    assert conclusion.details["old"] == "release"
    assert PASSWORD not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("changes", "environment", "code", "words"),
    [
        ({"--policy": ""}, {}, 2, "no policy is named"),
        ({"--key": "file:release.pub"}, {"SECURE_PIPELINE_KEY_PASSWORD": "x"}, 3, "release.pub"),
        ({"--key": "pkcs11:x"}, {}, 2, "not a key URI"),
        ({}, {}, 2, "password is not set"),
        ({}, {"SECURE_PIPELINE_KEY_PASSWORD": "wrong"}, 2, "password"),
        ({"--policy": "policy.yaml"}, {"SECURE_PIPELINE_KEY_PASSWORD": PASSWORD}, 12,
         "none of the policy's keys"),
        ({"--old": "nobody"}, {"SECURE_PIPELINE_KEY_PASSWORD": PASSWORD}, 2, "'nobody'"),
        ({"--layout": "elsewhere"}, {"SECURE_PIPELINE_KEY_PASSWORD": PASSWORD}, 2, "elsewhere"),
    ],
)  # fmt: skip
def test_what_goes_wrong_signs_nothing(
    place: Path, changes: dict[str, str], environment: dict[str, str], code: int, words: str
) -> None:
    """Each mistake is told in one line, with a hint, and the layout stays as it was."""
    before = (place / "image/index.json").read_bytes()
    options = {"--key": "file:new.key", "--layout": "image", "--policy": "both.yaml"} | changes
    given = [word for name, value in options.items() if value for word in (name, value)]
    ended = program(place, "resign", f"{NAME}@{digest(place)}", *given, **environment)
    assert ended.returncode == code, ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (place / "image/index.json").read_bytes() == before


def test_a_tag_is_not_an_image(place: Path) -> None:
    """Only a digest names what is signed."""
    ended = program(place, "resign", f"{NAME}:v1", "--key", "file:new.key", "--layout", "image",
                    "--policy", "both.yaml")  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert "hint: " in ended.stderr


def test_what_does_not_verify_is_refused(place: Path) -> None:
    """Altered evidence: the verification's own exit code, every rule, and nothing is signed."""
    release = digest(place)
    blob = place / "image/blobs/sha256" / release.removeprefix("sha256:")
    document = json.loads(blob.read_bytes())
    layer = document["layers"][0]["digest"].removeprefix("sha256:")
    (place / "image/blobs/sha256" / layer).write_bytes(b"other")
    before = (place / "image/index.json").read_bytes()
    ended = program(
        place, "resign", f"{NAME}@{release}", "--key", "file:new.key", "--layout", "image",
        "--policy", "both.yaml", SECURE_PIPELINE_KEY_PASSWORD=PASSWORD,
    )  # fmt: skip
    assert ended.returncode == 11, ended.stderr
    assert "nothing was signed" in ended.stdout
    assert (place / "image/index.json").read_bytes() == before
