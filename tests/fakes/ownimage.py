"""The program's own image, built from this checkout by the program's own ``build`` stage.

It is kept in the user's cache with the bases and the builder's layers, and built again when
anything that goes into it was changed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from fakes.workplace import ROOT, Workplace
from secure_pipeline.events import ignore
from secure_pipeline.files import digest_of, locked, sha256_file, write_atomic
from secure_pipeline.oci.copy import copy_image
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import Descriptor
from secure_pipeline.tools.locate import default_store
from secure_pipeline.wiring import tool_installer

CACHE = default_store(os.environ).parent / "own-image"
SOURCE = CACHE / "source"
_BUILDS = 8
"""Builds after which the builder's layers are thrown away: each leaves some 200 MB."""
_DATE = "2026-01-01T00:00:00Z"
_DESCRIPTION = ("Dockerfile", ".dockerignore", "secure-pipeline.yaml", "packaging")


def own_image(target: Path, tag: str, wheel: Path | None = None) -> Descriptor:
    """Put the image into the layout at ``target`` under ``tag``.

    ``wheel``: a directory for the wheel that packaging/wheel makes of the same source.
    """
    with locked(CACHE / "lock"):
        digest = _kept() or _build()
        layout, copy = Layout.open(CACHE / "state/image"), Layout.create(target)
        copy_image(layout, digest, copy, tag=tag, on_progress=lambda text: None)
        if wheel:
            command = [sys.executable, SOURCE / "packaging/wheel", "HEAD", wheel]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
    return copy.find(digest)


def _kept() -> Digest | None:
    """The image of the last build, if it is of this source."""
    last = (_builds() or [{}])[-1]
    there = (CACHE / "state/image/index.json").exists()
    same = there and last.get("source") == _source_digest(ROOT)
    return Digest.parse(last["image"]) if same else None


def _build() -> Digest:
    builds = _builds()
    if len(builds) >= _BUILDS:
        builds = []
        shutil.rmtree(CACHE / "state/builder", ignore_errors=True)
    for tool in ("trivy", "demodb"):
        tool_installer(ignore).install(tool)
    kept = ("HOME", "SECURE_PIPELINE_TOOLS", "XDG_CACHE_HOME", "LANG", "TMPDIR")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment["PATH"] = (
        f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    )
    subprocess.run(
        [ROOT / "packaging/bases", CACHE / "bases"],
        env=environment, check=True, stdout=subprocess.DEVNULL, timeout=600,
    )  # fmt: skip
    place = _source(environment)
    ended = place.run("build", "--state", str(CACHE / "state"), "--json")
    assert ended.code == 0, ended.text
    digest = Digest.parse(ended.document["stages"][0]["figures"]["digest"])
    _keep_only(digest)
    builds.append({"source": _source_digest(place.root), "image": str(digest)})
    write_atomic(CACHE / "builds.json", json.dumps(builds).encode())
    return digest


def _source(environment: dict[str, str]) -> Workplace:
    """A repository with what goes into the image, always of the same commit."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    for path in _files(ROOT):
        target = SOURCE / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    git = ["git", "-c", "user.name=tests", "-c", "user.email=tests@example.com"]
    dated = {**environment, "GIT_AUTHOR_DATE": _DATE, "GIT_COMMITTER_DATE": _DATE}
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "source"]):
        subprocess.run([*git, *words], cwd=SOURCE, env=dated, check=True, timeout=60)
    (SOURCE / "dist").mkdir()
    (SOURCE / "dist/bases").symlink_to(CACHE / "bases")
    return Workplace(SOURCE, environment)


def _files(root: Path) -> list[Path]:
    """What .dockerignore lets through, and what says how the image is built."""
    lines = (root / ".dockerignore").read_text().splitlines()
    found: set[Path] = set()
    for name in (*_DESCRIPTION, *(line[1:] for line in lines if line.startswith("!"))):
        path = root / name
        inside = path.rglob("*") if path.is_dir() else [path]
        found.update(p for p in inside if p.is_file() and "__pycache__" not in p.parts)
    return sorted(found)


def _source_digest(root: Path) -> str:
    return digest_of({str(path.relative_to(root)): sha256_file(path) for path in _files(root)})


def _builds() -> list[dict[str, str]]:
    """Source and image of each build whose layers are still there."""
    path = CACHE / "builds.json"
    return json.loads(path.read_bytes()) if path.exists() else []


def _keep_only(digest: Digest) -> None:
    """Drop the images of earlier builds."""
    state, fresh = CACHE / "state", CACHE / "state/fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    layout = Layout.open(state / "image")
    copy_image(layout, digest, Layout.create(fresh), tag=None, on_progress=lambda text: None)
    shutil.rmtree(state / "image")
    fresh.rename(state / "image")
    shutil.rmtree(state / "runs")
