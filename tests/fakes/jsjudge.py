"""The second judge: Sigstore's own JavaScript over our bundles.

Its packages are pinned by the integrity members of tools/npm/second-judge/package-lock.json and
installed by npm beside the other tools, in a directory that carries the lock's digest.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.data import data_path
from secure_pipeline.files import locked, sha256_bytes
from secure_pipeline.tools.environments import check_environment, write_manifest
from secure_pipeline.tools.steps import build_environment
from secure_pipeline.wiring import search_path, tool_store

SOURCE = data_path("tools") / "npm" / "second-judge"
FILES = ("package.json", "package-lock.json", "judge.cjs")
_SECONDS = 300


@dataclass(frozen=True)
class JsJudge:
    """The installed judge."""

    node: str
    directory: Path

    def payloads(self, key: Path, bundles: Iterable[bytes]) -> list[bytes | None]:
        """For each bundle the payload it accepts as signed by the key (PEM), or None."""
        texts = [data.decode("utf-8", "replace") for data in bundles]
        ended = subprocess.run(
            [self.node, str(self.directory / "judge.cjs"), str(key)],
            input="".join(f"{json.dumps(text)}\n" for text in texts).encode(),
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            timeout=_SECONDS,
        )
        assert ended.returncode == 0, ended.stderr.decode()
        verdicts = [json.loads(line) for line in ended.stdout.splitlines()]
        assert len(verdicts) == len(texts)
        return [_payload(verdict) for verdict in verdicts]


def _payload(verdict: dict[str, str]) -> bytes | None:
    return base64.b64decode(verdict["payload"]) if "payload" in verdict else None


def install_judge() -> JsJudge:
    """Install the judge unless it is there; whatever changed in it afterwards is refused."""
    node, npm = _program("node"), _program("npm")
    lock = sha256_bytes(b"".join((SOURCE / name).read_bytes() for name in FILES))
    root = tool_store().root
    directory = root / f"npm-second-judge-{lock[:16]}"
    receipt = directory / "receipt.json"
    with locked(root / "locks" / "npm-second-judge"):
        if not receipt.exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            for name in FILES:
                shutil.copy(SOURCE / name, directory)
            _install(npm, directory)
            receipt.write_text(json.dumps({"files": write_manifest(directory)}))
    files = json.loads(receipt.read_text())["files"]
    check_environment(directory, files, hint=f"remove {directory}")
    return JsJudge(node, directory)


def _install(npm: str, directory: Path) -> None:
    """Npm compares each package with its integrity member; no package's own code is run."""
    ended = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=directory,
        env={"PATH": search_path(), **build_environment(os.environ)},
        capture_output=True,
        timeout=_SECONDS,
    )
    assert ended.returncode == 0, ended.stderr.decode()


def _program(name: str) -> str:
    found = shutil.which(name, path=search_path())
    assert found, f"{name} is not installed: apt-get install nodejs npm"
    return found
