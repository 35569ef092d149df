"""The program as people start it, on the sample, with the real tools."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        "XDG_STATE_HOME": str(shared / "state"),
    }


SMALL = """\
FROM debian-base AS runtime
COPY src /opt/inference-service
WORKDIR /
USER 65532:65532
ENTRYPOINT ["/bin/sh"]
"""
"""A Dockerfile of the sample for the small base: it is built, and never run."""


def make_workplace(
    directory: Path, shared: Path, *, whole: bool = False, small: bool = False
) -> Workplace:
    """Copy the sample to ``directory``/service, committed, with a link to a shared base.

    Unless ``whole``, without its tests over HTTP, which take most of the time, and with a
    policy that asks for the coverage that is left. ``small``: with a base of one program, which
    is pulled and scanned in a moment.
    """
    root = directory / "service"
    left_out = () if whole else ("test_http.py", "test_main.py")
    shutil.copytree(
        ROOT / "examples/inference-service",
        root,
        ignore=shutil.ignore_patterns(".secure-pipeline", "reports", "__pycache__", *left_out),
    )
    (directory / "bases").symlink_to(shared / ("small-bases" if small else "bases"))
    if small:
        (root / "Dockerfile").write_text(SMALL)
    variables = environment(shared)
    if not whole:
        path = root / "secure-pipeline.yaml"
        path.write_text(path.read_text().replace("minimum: 95", "minimum: 50"))
        variables["SECURE_PIPELINE_POLICY"] = str(shared / "policy" / "quick.yaml")
    workplace = Workplace(root, variables)
    workplace.git("-c", "init.defaultBranch=main", "init", "-q")
    workplace.commit()
    return workplace
