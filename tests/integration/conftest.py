"""The program as people start it, on the sample, with the real tools."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from secure_pipeline.files import locked
from secure_pipeline.tools.locate import default_store

ROOT = Path(__file__).resolve().parent.parent.parent
BASE = default_store(os.environ).parent / "bases" / "inference-service"
"""Kept between test runs, like the tools: making it takes most of a minute."""
PASSWORD = "only for tests"


@dataclass(frozen=True)
class Ended:
    """How the program ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """What --json printed."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass(frozen=True)
class Workplace:
    """A copy of the sample in its own git repository, with key, policy, base and database."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.root / ".secure-pipeline"

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "secure_pipeline", *arguments],
            cwd=self.root,
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, timeout: float = 600, **more: str) -> Ended:
        process = self.start(*arguments, **more)
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            raise
        assert "Traceback" not in err, err
        return Ended(process.returncode, out, err)

    def image(self) -> str:
        """Digest of the image that the last build made."""
        results = sorted(
            self.state.glob("runs/*/stages/build.json"), key=lambda p: p.stat().st_mtime
        )
        return str(json.loads(results[-1].read_bytes())["result"]["figures"]["digest"])

    def git(self, *arguments: str) -> None:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments]
        subprocess.run(command, cwd=self.root, check=True, capture_output=True)

    def commit(self) -> None:
        """Commit whatever the test changed."""
        self.git("add", "-A")
        self.git("commit", "-qm", "change")


def environment(shared: Path) -> dict[str, str]:
    """The operator's variables: key, policy, database; the tests' own interpreter first."""
    kept = ("HOME", "SECURE_PIPELINE_TOOLS", "XDG_CACHE_HOME", "LANG", "TMPDIR")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "SECURE_PIPELINE_KEY": f"file:{shared / 'release.key'}",
        "SECURE_PIPELINE_KEY_PASSWORD": PASSWORD,
        "SECURE_PIPELINE_POLICY": str(shared / "policy" / "release.yaml"),
        "SECURE_PIPELINE_DATABASE": "demonstration",
    }


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """What takes long and every workplace can use: made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    directory = (base if worker_id == "master" else base.parent) / "shared-workplace"
    with locked(directory.with_suffix(".lock")):
        if not (directory / "ready").exists():
            directory.mkdir(exist_ok=True)
            workplace = Workplace(directory, environment(directory))
            for arguments in (
                ("keys", "generate", "--output", str(directory / "release")),
                (
                    *("base", "debian", "--suite", "bookworm"),
                    *("--include", "python3,python3-prometheus-client", "--output", str(BASE)),
                ),
            ):
                ended = workplace.run(*arguments)
                assert ended.code == 0, ended.text
            (directory / "bases").mkdir(exist_ok=True)
            (directory / "bases/debian-base").symlink_to(BASE)
            (directory / "policy").mkdir(exist_ok=True)
            shutil.copy(ROOT / "examples/demo-policy.yaml", directory / "policy/release.yaml")
            shutil.copy(directory / "release.pub", directory / "policy/release.pub")
            (directory / "ready").touch()
    return directory


def make_workplace(directory: Path, shared: Path) -> Workplace:
    """Copy the sample to ``directory``/service, committed, with a link to the shared base."""
    root = directory / "service"
    shutil.copytree(
        ROOT / "examples/inference-service",
        root,
        ignore=shutil.ignore_patterns(".secure-pipeline", "reports", "__pycache__"),
    )
    (directory / "bases").symlink_to(shared / "bases")
    workplace = Workplace(root, environment(shared))
    workplace.git("-c", "init.defaultBranch=main", "init", "-q")
    workplace.commit()
    return workplace


@pytest.fixture
def workplace(tmp_path: Path, shared: Path) -> Workplace:
    """A workplace of its own for a test that changes it."""
    return make_workplace(tmp_path, shared)


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Workplace]:
    """A workplace whose run has passed; tests copy it and never change it."""
    place = make_workplace(tmp_path_factory.mktemp("released"), shared)
    ended = place.run("run")
    assert ended.code == 0, ended.text
    yield place


@pytest.fixture
def copy_of_released(released: Workplace, tmp_path: Path) -> Workplace:
    """A copy of the released workplace that a test may alter."""
    root = tmp_path / "service"
    shutil.copytree(released.root, root, symlinks=True)
    (tmp_path / "bases").symlink_to((released.root.parent / "bases").resolve())
    return Workplace(root, released.environment)
