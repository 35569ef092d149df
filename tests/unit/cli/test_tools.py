"""``secure-pipeline tools`` and ``doctor`` as a user types them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


class Shell:
    """Runs the program with an empty tool store and a PATH that a test fills."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.store = directory / "store"

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": str(self.bin),
            "HOME": str(self.directory),
            "SECURE_PIPELINE_TOOLS": str(self.store),
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "GOPROXY": "off",
        }
        return subprocess.run(
            [sys.executable, "-m", "secure_pipeline", *words],
            cwd=self.directory,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def document(self, *words: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.run(*words, "--json").stdout)
        return content

    def program(self, name: str, says: str) -> Path:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\necho '{says}'\n")
        path.chmod(0o755)
        return path


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_list_names_every_tool_and_what_to_type(shell: Shell) -> None:
    """Without any tool, the list still succeeds and says how to get each."""
    result = shell.run("tools", "list")
    assert result.returncode == 0
    assert "secure-pipeline tools install trivy" in result.stdout
    assert "apt-get install buildah" in result.stdout


def test_list_as_json_is_a_versioned_document(shell: Shell) -> None:
    """--json writes one document to stdout with found and missing tools."""
    git = shell.program("git", "git version 2.39.5")
    document = shell.document("tools", "list")
    assert (document["apiVersion"], document["kind"]) == ("secure-pipeline/v1", "ToolList")
    tools = {tool["name"]: tool for tool in document["tools"]}
    assert tools["git"]["found"] == "2.39.5"
    assert tools["git"]["path"] == str(git)
    assert tools["git"]["digest"] == f"sha256:{hashlib.sha256(git.read_bytes()).hexdigest()}"
    assert tools["trivy"]["found"] is None
    assert tools["trivy"]["error"] == "trivy is not installed"


def test_cli_06_verify_refuses_a_replaced_tool(shell: Shell) -> None:
    """A trivy that only says the right version is refused with exit 4 and the digests."""
    shell.program("trivy", "Version: 0.72.0")
    result = shell.run("tools", "verify", "trivy")
    assert result.returncode == 4
    assert "trivy has the digest sha256:" in result.stderr
    assert "pinned is sha256:" in result.stderr
    assert "hint: secure-pipeline tools install trivy" in result.stderr


def test_verify_refuses_what_is_missing(shell: Shell) -> None:
    """Nothing installed is not verified: exit 4, in the document too."""
    assert shell.run("tools", "verify").returncode == 4
    document = shell.document("tools", "verify")
    assert document["verified"] is False
    assert "trivy" in {tool["name"] for tool in document["tools"]}


def test_verify_accepts_a_good_system_program(shell: Shell) -> None:
    """A system program of a sufficient version is verified: exit 0."""
    shell.program("git", "git version 2.39.5")
    assert shell.run("tools", "verify", "git").returncode == 0
    assert shell.document("tools", "verify", "git")["verified"] is True


def test_verify_refuses_an_old_system_program(shell: Shell) -> None:
    """A system program below the minimum is refused with exit 4."""
    shell.program("buildah", "buildah version 1.19.6 (image-spec 1.0.1)")
    result = shell.run("tools", "verify", "buildah")
    assert result.returncode == 4
    assert "buildah 1.19.6 is older than 1.28" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("install",),
        ("install", "nope"),
        ("install", "buildah"),
        ("install", "trivy", "--from", "python"),
        ("install", "trivy", "--all"),
        ("verify", "nope"),
        ("verify", "--nope"),
    ],
)
def test_wrong_words_are_a_usage_error(shell: Shell, words: tuple[str, ...]) -> None:
    """What makes no sense is exit 2 with a hint, and changes nothing."""
    result = shell.run("tools", *words)
    assert result.returncode == 2
    assert "hint:" in result.stderr
    assert "Traceback" not in result.stderr
    assert not shell.store.exists()


def test_without_network_an_installation_fails_clean(shell: Shell) -> None:
    """When no source answers, exit 4 names the reasons and leaves no tool behind."""
    result = shell.run("tools", "install", "trivy", "--from", "release")
    assert result.returncode == 4
    assert "no source of trivy" in result.stderr
    assert "hint: check the network" in result.stderr
    assert not [name for name in os.listdir(shell.store) if name.startswith("trivy")]


def test_a_store_that_cannot_be_made_is_told(shell: Shell) -> None:
    """A file in place of the store is exit 4 with the variable that moves the store."""
    shell.store.write_text("")
    result = shell.run("tools", "install", "crane")
    assert result.returncode == 4
    assert "SECURE_PIPELINE_TOOLS" in result.stderr
    assert "Traceback" not in result.stderr


def test_doctor_says_what_is_missing_and_what_to_type(shell: Shell) -> None:
    """On a machine with nothing, each part is named, every gap has a hint, and exit is 4."""
    result = shell.run("doctor")
    assert result.returncode == 4
    for part in ("python", "git", "builder", "trivy", "database", "semgrep", "config", "key"):
        assert part in result.stdout
    document = shell.document("doctor")
    assert document["ready"] is False
    checks = {check["part"]: check for check in document["checks"]}
    assert checks["python"]["ok"] is True
    for part in ("git", "builder", "trivy", "semgrep", "config", "signing key"):
        assert checks[part]["ok"] is False
        assert checks[part]["hint"]


def test_doctor_reads_the_configuration(shell: Shell) -> None:
    """A configuration that is there is named; a broken one is shown with its line."""
    path = shell.directory / "secure-pipeline.yaml"
    path.write_text("version: 1\nname: team/service\n")
    checks = {check["part"]: check for check in shell.document("doctor")["checks"]}
    assert "team/service" in checks["config"]["found"]
    path.write_text("version: 1\nname: team/service\nsacn: {}\n")
    checks = {check["part"]: check for check in shell.document("doctor")["checks"]}
    assert "secure-pipeline.yaml:3" in checks["config"]["problem"]


def test_doctor_asks_for_the_password_of_a_key(shell: Shell) -> None:
    """A key file whose password is not set is not ready."""
    (shell.directory / "release.key").write_text("x")
    result = shell.run("doctor", "--key", "file:release.key")
    assert "password is not set" in result.stdout
    result = shell.run("doctor", "--key", "file:release.key", SECURE_PIPELINE_KEY_PASSWORD="p")
    assert "password is not set" not in result.stdout
