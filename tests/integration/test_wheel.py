"""The wheel: the same bytes from any checkout, and a program that works without this repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from fakes.evidence import NAME
from fakes.release import REQUIRE, Release, policy
from fakes.workplace import ROOT

pytestmark = pytest.mark.integration

PARTS = ("src", "policies", "tools", "packaging", "README.md", "CHANGELOG.md", "pyproject.toml")


def commit(place: Path, date: str) -> None:
    """A repository of its own with the source as it is here, of a time of its own."""
    place.mkdir(parents=True)
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, place / name)
    git = ["git", "-c", "user.name=tests", "-c", "user.email=tests@example.com"]
    dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date, "GIT_CONFIG_GLOBAL": "/dev/null"}
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "source"]):
        subprocess.run([*git, *words], cwd=place, check=True, env={**os.environ, **dates})


def build(place: Path, output: Path, **environment: str) -> Path:
    """Build the wheel as the door does."""
    subprocess.run(
        [sys.executable, place / "packaging/wheel", "HEAD", output],
        cwd=output.parent, check=True, stdout=subprocess.DEVNULL, timeout=120,
        env={"PATH": os.environ["PATH"], **environment},
    )  # fmt: skip
    (wheel,) = output.iterdir()
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("wheel")
    commit(base / "source", "2026-01-01T00:00:00Z")
    return build(base / "source", base / "dist")


def test_two_checkouts_give_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    """Another path, commit time, umask, time zone and variable; files that git does not have."""
    place = tmp_path / "some where/else"
    old = os.umask(0o077)
    try:
        commit(place, "2027-07-07T07:07:07+0700")
    finally:
        os.umask(old)
    (place / "src/secure_pipeline/left_over.py").write_text("0/0\n")
    (place / "tools/README.md").write_text("changed, not committed\n")
    more = {"TZ": "Pacific/Auckland", "SOURCE_DATE_EPOCH": "1", "LC_ALL": "C"}
    again = build(place, tmp_path / "dist", **more)
    assert again.read_bytes() == wheel.read_bytes()


def test_nothing_of_this_machine_is_in_it(wheel: Path) -> None:
    """No path of the checkout or the interpreter, no compiled file, one date for all files."""
    with zipfile.ZipFile(wheel) as archive:
        assert len({entry.date_time for entry in archive.infolist()}) == 1
        for entry in archive.infolist():
            assert not entry.filename.endswith(".pyc")
            data = archive.read(entry)
            assert str(wheel.parent.parent).encode() not in data
            assert sys.prefix.encode() not in data


def test_the_installed_program_verifies(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own: it has its data, accepts a release and refuses an altered one.

    Its requirements are those of these tests; the program itself is the wheel's.
    """
    home = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", home], check=True, timeout=120)
    python = home / "bin/python"
    install = [python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", wheel]
    subprocess.run(install, check=True, timeout=120, cwd=tmp_path)
    (packages,) = (home / "lib").glob("python3.*/site-packages")
    libraries = sysconfig.get_path("purelib")
    (packages / "requirements.pth").write_text(f"{libraries}\n")
    release = Release(tmp_path / "image")
    release.run()
    policy(tmp_path, require=REQUIRE.replace(", max-age: 7d", ""))

    def program(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [home / "bin/secure-pipeline", *words],
            cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    where = [python, "-I", "-c", "import secure_pipeline; print(secure_pipeline.__file__)"]
    found = subprocess.run(where, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert found.startswith(str(home))
    listed = program("tools", "list")
    assert listed.returncode == 0, listed.stderr
    words = (
        "verify", f"{NAME}@{release.image.digest}", "--layout", "image", "--policy", "policy.yaml",
    )  # fmt: skip
    verified = program(*words)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    blob = max((tmp_path / "image/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    assert program(*words).returncode == 11
