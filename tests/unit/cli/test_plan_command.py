"""``plan``, ``summary`` and ``state`` as people type them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from secure_pipeline.run import GRAPH


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "secure_pipeline", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_the_plan_is_shown(tmp_path: Path) -> None:
    """Anywhere, without a repository: stages, rights, secrets, tools, and the same as JSON."""
    ended = run("plan", cwd=tmp_path)
    assert ended.returncode == 0
    assert "sign     analyze, test, build, scan" in ended.stdout
    document = json.loads(run("plan", "--json", cwd=tmp_path).stdout)
    assert document["kind"] == "Plan"
    assert [s["name"] for s in document["stages"]] == [*GRAPH, "promote"]


@pytest.mark.parametrize("engine", ["github", "tekton"])
def test_what_was_written_is_what_is_rendered(tmp_path: Path, engine: str) -> None:
    """Written files compare as equal; one that was changed is named, with exit 10."""
    assert run("plan", "--render", engine, "--check", cwd=tmp_path).returncode == 10
    written = run("plan", "--render", engine, "--output", "there", cwd=tmp_path)
    assert written.returncode == 0
    names = [line.removeprefix("wrote ") for line in written.stdout.splitlines()]
    check = ("plan", "--render", engine, "--output", "there", "--check")
    assert run(*check, cwd=tmp_path).returncode == 0
    (tmp_path / "there" / names[0]).write_text("changed")
    (tmp_path / "there" / names[1]).unlink()
    ended = run(*check, cwd=tmp_path)
    assert ended.returncode == 10
    assert ended.stdout.splitlines() == [f"{n} is not what the plan renders" for n in names[:2]]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--render", "jenkins"),
        ("--render", ""),
        ("--check",),
        ("--toolkit", f"a/b@{'a' * 40}"),
        ("--render", "tekton", "--toolkit", f"a/b@{'a' * 40}"),
        ("--render", "github", "--toolkit", "a/b@main"),
        ("--image", f"r.example/a@sha256:{'a' * 64}"),
        ("--render", "github", "--image", f"r.example/a@sha256:{'a' * 64}"),
        ("--render", "tekton", "--image", "r.example/a:1.0"),
        ("--render", "tekton", "--image", f"r.example/a:1.0@sha256:{'a' * 64}"),
        ("--render", "tekton", "--image", f"a@sha256:{'a' * 64}"),
        ("--render", "tekton", "--image", ""),
    ],
)
def test_what_cannot_be_rendered_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """An engine that is not known, or words that mean nothing: exit 2, and no file."""
    ended = run("plan", *arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert "hint: " in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_run_there_is_nothing_to_show_or_pack(tmp_path: Path) -> None:
    """No run, no stage of that name, no digest: exit 2, and nothing is written."""
    (tmp_path / "secure-pipeline.yaml").write_text(
        "version: 1\nname: x\ntest: {command: [true], junit: j.xml}\n"
    )
    assert run("summary", "--file", "s.md", cwd=tmp_path).returncode == 2
    assert run("summary", "sing", cwd=tmp_path).returncode == 2
    assert run("state", "pack", "x.tar", "--outputs", "o", cwd=tmp_path).returncode == 2
    assert run("state", "unpack", "x.tar", "--digest", "", cwd=tmp_path).returncode == 2
    assert [p.name for p in tmp_path.iterdir()] == ["secure-pipeline.yaml"]
