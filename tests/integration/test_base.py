"""Real base images with mmdebstrap."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from secure_pipeline.errors import Unavailable, UsageError
from secure_pipeline.events import ignore
from secure_pipeline.oci.layout import Layout
from secure_pipeline.tools.locate import locate
from secure_pipeline.tools.mmdebstrap import BaseRequest, Mmdebstrap
from secure_pipeline.tools.process import Processes

pytestmark = pytest.mark.integration


def maker(sources: Path = Path("/etc/apt")) -> Mmdebstrap:
    return Mmdebstrap(locate("mmdebstrap"), Processes(threading.Event()), sources=sources)


def base(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "secure_pipeline", "base", "debian", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))


def test_two_runs_give_the_same_base_and_a_third_does_nothing(tmp_path: Path) -> None:
    """Same parameters, same digest; what is there is found, and what was altered is remade."""
    one, two = tmp_path / "one", tmp_path / "two"
    first = maker().make(BaseRequest("bookworm"), one, ignore)
    ended = base("--output", str(two), "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["digest"] == first.digest
    again = json.loads(base("--output", str(two), "--json").stdout)
    assert again == {**json.loads(ended.stdout), "reused": True}
    layout = Layout.open(one)
    layer = layout.read_manifest(layout.manifests()[0]).layers[0]
    with tarfile.open(one / "blobs" / "sha256" / layer.digest.hex) as archive:
        members = {member.name: member for member in archive}
    assert members["./etc/machine-id"].size == 0
    assert "./etc/resolv.conf" not in members
    for place in (
        "./var/log/",
        "./var/lib/apt/lists/",
        "./etc/apt/sources.list.d/",
        "./var/cache/",
    ):
        assert not [n for n in members if n.startswith(place) and members[n].isreg()], place
    assert not [name for name, member in members.items() if member.isdev()]
    assert max(member.mtime for member in members.values()) == 0


def test_a_mirror_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    """Exit 4, and nothing is left in the output directory."""
    apt = tmp_path / "apt"
    (apt / "sources.list.d").mkdir(parents=True)
    (apt / "sources.list").write_text("deb http://127.0.0.1:9/debian bookworm main\n")
    with pytest.raises(Unavailable) as caught:
        maker(apt).make(BaseRequest("bookworm"), tmp_path / "out", ignore)
    assert "mmdebstrap exited with" in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["apt"]


def test_a_directory_with_something_else_is_not_touched(tmp_path: Path) -> None:
    """Only an empty directory or a layout becomes a base."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        maker().make(BaseRequest("bookworm"), tmp_path, ignore)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_bad_parameters_exit_with_2(tmp_path: Path) -> None:
    """The command names what is wrong and changes nothing."""
    ended = base("--suite", "no suite", "--output", str(tmp_path / "out"))
    assert ended.returncode == 2
    assert "is no suite" in ended.stderr
    assert not (tmp_path / "out").exists()
