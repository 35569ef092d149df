"""``secure-pipeline policy export`` for admission controllers, Kubernetes and GitHub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

GOLDEN = Path(__file__).resolve().parents[2] / "golden/export"
IMAGES = {"policy-controller": "registry.example/team/**", "kyverno": "registry.example/team/*"}


def export(
    directory: Path, *arguments: str, policy: Path | None = GOLDEN / "policy.yaml"
) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    named = {"SECURE_PIPELINE_POLICY": str(policy)} if policy else {}
    return subprocess.run(
        [sys.executable, "-m", "secure_pipeline", "policy", "export", *arguments],
        cwd=directory, env={**kept, **named}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("platform", IMAGES)
def test_files_and_print_say_the_same(tmp_path: Path, platform: str) -> None:
    """A file in a directory, the same text on stdout, and in the document; nothing else is made."""
    words = (platform, "--image", IMAGES[platform], "--prefix", "release")
    written = export(tmp_path, *words, "--json")
    assert written.returncode == 0, written.stderr
    document = json.loads(written.stdout)
    assert document["directory"] == platform
    (name,) = document["files"]
    text = (tmp_path / platform / name).read_text()
    assert text == (GOLDEN / platform / name).read_text()
    assert any(line.startswith("quarantine:") for line in document["notEnforced"])
    empty = tmp_path / "empty"
    empty.mkdir()
    printed = export(empty, *words, "--print")
    assert printed.stdout == text
    assert json.loads(export(empty, *words, "--print", "--json").stdout)["files"] == {name: text}
    assert not list(empty.iterdir())


def test_the_built_in_policy_is_not_enforced(tmp_path: Path) -> None:
    """It trusts nobody, so there is nothing to tell a controller: exit code 3 and no file."""
    for platform, image in IMAGES.items():
        refused = export(tmp_path, platform, "--image", image, policy=None)
        assert (refused.returncode, "keys is empty" in refused.stderr) == (3, True)
    assert not list(tmp_path.iterdir())


def test_images_have_to_be_named(tmp_path: Path) -> None:
    """A policy for all images of a cluster is nobody's default."""
    for platform in IMAGES:
        refused = export(tmp_path, platform)
        assert refused.returncode == 2
        assert "hint: --image" in refused.stderr


def test_kubernetes_and_github(tmp_path: Path) -> None:
    """Defaults are enough for a first file; people and routes are named by options."""
    words = ("--namespace", "shop", "--route", "web", "--operator", "user:kim", "--print")
    roles = export(tmp_path, "kubernetes", *words)
    assert roles.returncode == 0, roles.stderr
    bound = {
        document["metadata"]["name"]: document["subjects"][0]["name"]
        for document in yaml.safe_load_all(roles.stdout)
        if document["kind"] == "RoleBinding"
    }
    assert bound == {
        "secure-pipeline-engineer": "secure-pipeline-engineers",
        "secure-pipeline-reviewer": "secure-pipeline-reviewers",
        "secure-pipeline-operator": "kim",
    }
    rules = export(tmp_path, "github", "--owner", "@team/reviewers", "--reviewer", "team:17")
    assert rules.returncode == 0, rules.stderr
    made = tmp_path / "github-rules/ruleset-branch.json"
    checks = json.loads(made.read_text())["rules"][-1]["parameters"]["required_status_checks"]
    assert [item["context"] for item in checks] == ["analyze", "test"]
    assert export(tmp_path, "github").returncode == 2
