"""A web application that nobody here wrote, from its source distribution through the run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fakes.workplace import ROOT, Ended, Workplace, environment

ASSETS = ROOT / "tests/assets/real-application"
SHARED_DATABASE = ROOT.parent / "shared/trivy-db/db.tar.gz"

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Workplace:
    """The unpacked, committed source with a Dockerfile of ours and what init wrote."""
    directory = tmp_path_factory.mktemp("application")
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
         "--no-build-isolation", "--require-hashes", "-r", str(ASSETS / "requirements.txt"),
         "-d", str(directory)],
        check=True,
    )  # fmt: skip
    (archive,) = directory.glob("*.tar.gz")
    with tarfile.open(archive) as unpacked:
        unpacked.extractall(directory)
    root = next(path for path in directory.iterdir() if path.is_dir())
    (directory / "bases").symlink_to(shared / "bases")
    place = Workplace(root, environment(shared))
    ended = place.run("init", str(root))
    assert ended.code == 0, ended.text
    return place


def prepared(application: Workplace, directory: Path) -> Workplace:
    """A committed copy whose configuration was finished by hand, as its owner would."""
    root = directory / "application"
    shutil.copytree(application.root, root)
    (directory / "bases").symlink_to(application.root.parent / "bases")
    shutil.copy(ASSETS / "Dockerfile", root / "Dockerfile")
    path = root / "secure-pipeline.yaml"
    tests = "tests/test_core.py, tests/test_pkg_helpers.py, tests/test_backend.py"
    text = path.read_text().replace("junit.xml]", f"junit.xml, {tests}]")
    path.write_text(f"{text}  network: none\n  bases: {{debian-base: ../bases/debian-base}}\n")
    place = Workplace(root, application.environment)
    place.git("-c", "init.defaultBranch=main", "init", "-q")
    place.commit()
    return place


def operator_policy(shared: Path, directory: Path, baseline: Path | None = None) -> str:
    """A policy that asks for no coverage, which this application's tests do not measure."""
    policy = directory / "policy"
    shutil.copytree(shared / "policy", policy)
    path = policy / "release.yaml"
    text = path.read_text().replace("minimum-coverage: 95", "minimum-coverage: null")
    if baseline:
        shutil.copy(baseline, policy / "baseline.json")
        text = text.replace("  analyze:\n", "  analyze:\n    baseline: baseline.json\n", 1)
    path.write_text(text)
    return str(path)


def databases() -> list[str]:
    """The demonstration database always; the real one where it lies beside the checkout."""
    return ["demonstration", *([str(SHARED_DATABASE)] if SHARED_DATABASE.exists() else [])]


def stage(ended: Ended, name: str) -> dict[str, Any]:
    return next(s for s in ended.document["stages"] if s["stage"] == name)


def test_its_own_dockerfile_is_denied(application: Workplace) -> None:
    """The bases by tag in the application's own Dockerfile are named with their lines."""
    ended = application.run("build")
    assert ended.code == 12
    assert "Dockerfile:1" in ended.out


@pytest.mark.parametrize("database", databases())
def test_its_real_findings_appear(
    application: Workplace, tmp_path: Path, shared: Path, database: str
) -> None:
    """Tests and build pass; the findings of the code and of the packages stop the release."""
    place = prepared(application, tmp_path)
    policy = operator_policy(shared, tmp_path)
    ended = place.run(
        "run", "--json", SECURE_PIPELINE_DATABASE=database, SECURE_PIPELINE_POLICY=policy
    )
    assert ended.code == 10, ended.err
    assert stage(ended, "test")["verdict"] == "PASS", ended.err
    assert stage(ended, "test")["figures"]["tests"] > 100
    assert stage(ended, "build")["verdict"] == "PASS"
    analysed = stage(ended, "analyze")
    assert analysed["verdict"] == "FAIL"
    assert any(f["location"]["path"].startswith("pypiserver/") for f in analysed["findings"])
    scanned = stage(ended, "scan")
    assert scanned["figures"]["packages"] > 50
    assert any(f["kind"] == "vulnerability" and f["package"] for f in scanned["findings"])
    assert ended.document["notRun"] == ["sign", "verify"]


def test_it_is_released_when_the_operator_accepts_its_findings(
    application: Workplace, tmp_path: Path, shared: Path
) -> None:
    """With a baseline beside the operator's policy the same source ends verified."""
    place = prepared(application, tmp_path)
    written = tmp_path / "baseline.json"
    assert place.run("analyze", "--write-baseline", str(written)).code == 10
    policy = operator_policy(shared, tmp_path, baseline=written)
    ended = place.run("run", SECURE_PIPELINE_POLICY=policy)
    assert ended.code == 0, ended.text
    assert "not counted: baseline" in ended.out
    assert json.loads((place.state / "image/index.json").read_bytes())["manifests"]
