"""The program's own image: what is in it, and that it works read-only and without a network."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.container import Unpacked
from fakes.ownimage import own_image
from fakes.workplace import Workplace
from secure_pipeline.files import sha256_file
from secure_pipeline.oci.layout import Layout
from secure_pipeline.tools.locate import ToolStore, from_store
from secure_pipeline.tools.pins import load_pins, this_platform

pytestmark = pytest.mark.integration
USER = 65532
STORE = "/opt/secure-pipeline/tools"
UNWANTED = (
    *("as", "c++", "cc", "clang", "cpp", "g++", "gcc", "go", "ld", "make", "tcc"),
    *("pip", "pip3", "easy_install", "uv", "npm"),
)


@dataclass(frozen=True)
class Built:
    """The image of this checkout, unpacked, and the wheel that packaging/wheel makes of it."""

    image: Unpacked
    wheel: Path

    def inside(self, path: str) -> Path:
        return self.image.root / path.lstrip("/")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    base = tmp_path_factory.mktemp("own-image")
    image = own_image(base / "layout", "own", wheel=base / "wheel")
    unpacked = Unpacked.of(Layout.open(base / "layout"), image, base / "root")
    shutil.rmtree(base / "layout")
    (wheel,) = (base / "wheel").iterdir()
    yield Built(unpacked, wheel)
    shutil.rmtree(base)


def files(root: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(root):
        yield from (Path(directory, name) for name in names)


def test_its_program_is_started_by_a_plain_user(built: Built) -> None:
    """User, entrypoint and path; the user has a name and subordinate ids, as the builder needs."""
    settings = built.image.settings
    assert settings["User"] == f"{USER}:{USER}"
    assert settings["Entrypoint"] == ["secure-pipeline"]
    assert settings["WorkingDir"] == "/workspace"
    assert not {"Cmd", "ExposedPorts", "Volumes"} & {key for key in settings if settings[key]}
    (path,) = (v for v in settings["Env"] if v.startswith("PATH="))
    assert "/usr/local/bin" in path.removeprefix("PATH=").split(":")
    program = os.readlink(built.inside("/usr/local/bin/secure-pipeline"))
    assert built.inside(program).stat().st_mode & 0o111
    for name, entry in (
        ("passwd", f"secure-pipeline:x:{USER}:{USER}:"),
        ("subuid", "secure-pipeline:100000:65536"),
        ("subgid", "secure-pipeline:100000:65536"),
    ):
        assert entry in built.inside(f"/etc/{name}").read_text()


def test_nothing_in_it_makes_another_user(built: Built) -> None:
    """No program is setuid, setgid or has capabilities, but the two that give subordinate ids."""
    privileged = set()
    for path in files(built.image.root):
        mode = path.lstat().st_mode
        attributes = os.listxattr(path, follow_symlinks=False)
        if (stat.S_ISREG(mode) and mode & 0o6000) or "security.capability" in attributes:
            privileged.add(path.name)
    assert privileged == {"newuidmap", "newgidmap"}


def test_its_user_can_write_where_it_works_alone(built: Built) -> None:
    """Even with a root that is not read-only: program and tools cannot be changed."""
    writable = set()
    for directory, names, _ in os.walk(built.image.root):
        for path in (Path(directory, name) for name in names):
            info = path.lstat()
            others = info.st_mode & 0o002 and not info.st_mode & stat.S_ISVTX
            if stat.S_ISDIR(info.st_mode) and (info.st_uid == USER or others):
                writable.add(f"/{path.relative_to(built.image.root)}")
    assert writable == {"/workspace", "/opt/secure-pipeline/databases"}
    owned = [path for path in files(built.image.root) if path.lstat().st_uid == USER]
    assert owned == []


def test_no_compiler_and_no_installer(built: Built) -> None:
    """What is not needed is not there, and no lower layer hides what an upper one removed."""
    found = {path.name for path in files(built.image.root)}
    assert not found & set(UNWANTED)
    assert not {name for name in found if name.startswith(".wh.")}
    packages = {path.parent.name for path in built.image.root.rglob("*.dist-info/METADATA")}
    assert packages
    assert not {name for name in packages if name.startswith(("pip-", "setuptools-", "hatchling"))}


def test_its_tools_are_the_pinned_ones(built: Built) -> None:
    """Executables have the digests of pins.toml, and Semgrep's environment is as it was made."""
    pins, store = load_pins(), ToolStore(built.inside(STORE))
    for name in ("trivy", "demodb"):
        accepted = pins[name].executables(this_platform())
        assert sha256_file(from_store(pins[name], store).path) in accepted
    semgrep = from_store(pins["semgrep"], store)
    assert semgrep.path.read_text().startswith(f"#!{STORE}/{pins['semgrep'].directory_name}/bin/")
    assert sorted(path.name for path in store.root.iterdir()) == sorted(
        pins[name].directory_name for name in ("trivy", "demodb", "semgrep")
    )


def test_the_wheel_in_it_is_the_one_of_the_commit(built: Built) -> None:
    """The image's signature covers the very file that packaging/wheel makes."""
    (found,) = built.inside("/opt/wheel").iterdir()
    assert found.name == built.wheel.name
    assert found.read_bytes() == built.wheel.read_bytes()


def test_it_says_its_version(built: Built) -> None:
    """With a read-only root, no capability and no network, and no place to write in but /tmp."""
    said = built.image.run("--version")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("secure-pipeline ")


def test_every_needed_tool_is_right_inside(built: Built) -> None:
    """The program in the image finds each tool that a run needs, with its digest, and starts it."""
    verified = built.image.run("tools", "verify", "--json")
    assert verified.code == 0, verified.text
    assert {tool["name"] for tool in verified.document["tools"]} == {
        pin.name for pin in load_pins().tools.values() if not pin.optional
    }


def test_without_a_volume_for_databases_it_says_so(built: Built) -> None:
    """Where the root is read-only a database can be kept nowhere: no traceback, and what to do."""
    said = built.image.run("doctor")
    assert said.code == 4, said.text
    assert "vulnerability databases cannot be kept there" in said.text
    lines = {line.split()[1]: line.split()[0] for line in said.out.splitlines() if line[0] != " "}
    assert {lines[part] for part in ("python", "git", "builder", "trivy", "semgrep")} == {"ok"}


def test_it_analyses_and_scans(built: Built, workplace: Workplace, shared: Path) -> None:
    """Two stages of the sample in it, as an engine runs them: the tools work with what is there."""
    made = workplace.run("build")
    assert made.code == 0, made.text
    for path in (workplace.root, *workplace.root.rglob("*")):
        os.chown(path, USER, USER, follow_symlinks=False)
    binds = {"/workspace": workplace.root, "/policy": shared / "policy"}
    variables = {
        "SECURE_PIPELINE_POLICY": "/policy/quick.yaml",
        "SECURE_PIPELINE_DATABASE": "demonstration",
    }
    for words in (["analyze"], ["scan", f"inference-service@{workplace.image()}"]):
        ended = built.image.run(
            *words, binds=binds, variables=variables,
            writable=("/tmp", "/opt/secure-pipeline/databases"),
        )  # fmt: skip
        assert ended.code == 0, ended.text
