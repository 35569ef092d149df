"""Finding a pinned program, and refusing every other one (CLI-06, SCN-04)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from secure_pipeline.errors import Unavailable, UsageError
from secure_pipeline.ports import ToolIdentity
from secure_pipeline.tools.environments import check_environment, write_manifest
from secure_pipeline.tools.locate import (
    LocatedTool,
    ToolStore,
    check_version,
    default_store,
    from_store,
    locate,
    read_version,
)
from secure_pipeline.tools.pins import Pin, Pins, load_pins, this_platform
from secure_pipeline.tools.process import Processes

PINS = """
[format]
version = 1
[toolchain]
go = "go1.26.8"
bootstrap = "bootstrap.txt"
[refused.tool]
"9.9" = "it was malicious"
[tools.tool]
version = "1.2.3"
purpose = "tests"
version_arguments = ["--version"]
version_pattern = '^tool (\\S+)'
sources = ["release"]
[tools.tool.release."{platform}"]
url = "https://example.org/tool"
sha256 = "{digest}"
[tools.basic]
version = "1.10"
purpose = "tests"
version_arguments = ["--version"]
version_pattern = '^basic (\\S+)'
sources = ["system"]
system = {{ debian = "basic-package" }}
"""


def program(directory: Path, name: str, version: str, mark: Path | None = None) -> Path:
    """A real program that prints its version, and leaves ``mark`` behind when started."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    touch = f": > '{mark}'\n" if mark else ""
    path.write_text(f"#!/bin/sh\n{touch}echo '{name} {version}'\n")
    path.chmod(0o755)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def genuine(tmp_path: Path) -> Path:
    return program(tmp_path / "bin", "tool", "1.2.3")


@pytest.fixture
def pins(tmp_path: Path, genuine: Path) -> Pins:
    text = PINS.format(platform=this_platform(), digest=sha256(genuine))
    (tmp_path / "pins.toml").write_text(text)
    return load_pins(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> ToolStore:
    return ToolStore(tmp_path / "store")


def put(pin: Pin, store: ToolStore, content: bytes, **receipt: str) -> Path:
    """Write what an installation leaves."""
    directory = store.directory(pin)
    executable = directory / "bin" / pin.name
    executable.parent.mkdir(parents=True)
    executable.write_bytes(content)
    executable.chmod(0o755)
    entries = {
        "lock": pin.lock,
        "source": "release",
        "digest": hashlib.sha256(content).hexdigest(),
        "files": "",
    }
    (directory / "receipt.json").write_text(json.dumps(entries | receipt))
    return executable


def test_the_pinned_program_on_the_path_is_found(
    genuine: Path, pins: Pins, store: ToolStore
) -> None:
    """A program with the pinned digest is accepted, with an absolute path."""
    tool = locate("tool", store=store, path=str(genuine.parent), pins=pins)
    assert tool == LocatedTool("tool", genuine, "1.2.3", f"sha256:{sha256(genuine)}")
    assert tool.identity == ToolIdentity("tool", "1.2.3", f"sha256:{sha256(genuine)}")


def test_cli_06_a_replaced_program_is_refused_and_never_started(
    tmp_path: Path, genuine: Path, pins: Pins, store: ToolStore
) -> None:
    """A program earlier on PATH with another digest is refused with both digests, unstarted."""
    mark = tmp_path / "started"
    fake = program(tmp_path / "evil", "tool", "1.2.3", mark)
    path = f"{fake.parent}:{genuine.parent}"
    with pytest.raises(Unavailable) as caught:
        locate("tool", store=store, path=path, pins=pins)
    assert f"sha256:{sha256(fake)}" in str(caught.value)
    assert f"sha256:{sha256(genuine)}" in str(caught.value)
    assert str(fake) in str(caught.value)
    assert caught.value.hint == "secure-pipeline tools install tool"
    assert caught.value.exit_code == 4
    assert not mark.exists()


def test_cli_06_one_changed_byte_is_refused(genuine: Path, pins: Pins, store: ToolStore) -> None:
    """A program of the same size with one other byte is refused."""
    data = bytearray(genuine.read_bytes())
    data[-2] ^= 1
    genuine.write_bytes(data)
    with pytest.raises(Unavailable, match="has the digest"):
        locate("tool", store=store, path=str(genuine.parent), pins=pins)


def test_cli_06_a_missing_program_says_what_to_type(pins: Pins, store: ToolStore) -> None:
    """A missing tool is exit code 4 with the command that installs it."""
    for name, hint in (
        ("tool", "secure-pipeline tools install tool"),
        ("basic", "apt-get install basic-package"),
    ):
        with pytest.raises(Unavailable, match=f"{name} is not installed") as caught:
            locate(name, store=store, path="/nonexistent", pins=pins)
        assert caught.value.hint == hint


def test_cli_06_relative_directories_on_the_path_are_passed_over(
    tmp_path: Path, genuine: Path, pins: Pins, store: ToolStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'.' and an empty entry on PATH, the working directory, are never searched."""
    monkeypatch.chdir(genuine.parent)
    for path in (".", "", "bin", f".{os.pathsep}"):
        with pytest.raises(Unavailable, match="not installed"):
            locate("tool", store=store, path=path, pins=pins)


def test_files_that_cannot_run_are_passed_over(
    tmp_path: Path, genuine: Path, pins: Pins, store: ToolStore
) -> None:
    """A directory or a file without execute permission of that name is not the program."""
    (tmp_path / "a" / "tool").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "tool").write_text("")
    path = f"{tmp_path}/a:{tmp_path}/b:{genuine.parent}"
    assert locate("tool", store=store, path=path, pins=pins).path == genuine


def test_a_link_is_followed_before_hashing(
    tmp_path: Path, genuine: Path, pins: Pins, store: ToolStore
) -> None:
    """The path returned is the file that was hashed, not a link that can be turned elsewhere."""
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "tool").symlink_to(genuine)
    tool = locate("tool", store=store, path=str(tmp_path / "links"), pins=pins)
    assert tool.path == genuine


def test_without_a_digest_for_this_platform_the_path_is_not_trusted(
    genuine: Path, pins: Pins, store: ToolStore
) -> None:
    """Where no digest is pinned, only an installation of ours with its receipt counts."""
    unpinned = replace(pins, tools={"tool": replace(pins["tool"], releases={})})
    with pytest.raises(Unavailable, match="none on this platform"):
        locate("tool", store=store, path=str(genuine.parent), pins=unpinned)
    put(unpinned["tool"], store, genuine.read_bytes())
    found = locate("tool", store=store, path="", pins=unpinned)
    assert found.digest == f"sha256:{sha256(genuine)}"


def test_the_store_comes_before_the_path(
    tmp_path: Path, genuine: Path, pins: Pins, store: ToolStore
) -> None:
    """An installed tool is used whatever is first on PATH."""
    installed = put(pins["tool"], store, genuine.read_bytes())
    fake = program(tmp_path / "evil", "tool", "1.2.3")
    assert locate("tool", store=store, path=str(fake.parent), pins=pins).path == installed


def test_cli_06_a_changed_installed_program_is_refused(
    genuine: Path, pins: Pins, store: ToolStore
) -> None:
    """An installed tool is hashed at each use; PATH is no way around a bad one."""
    installed = put(pins["tool"], store, genuine.read_bytes())
    installed.write_bytes(genuine.read_bytes() + b"\n")
    with pytest.raises(Unavailable, match="has the digest"):
        locate("tool", store=store, path=str(genuine.parent), pins=pins)


def test_a_changed_receipt_does_not_make_a_changed_program_good(
    genuine: Path, pins: Pins, store: ToolStore
) -> None:
    """Where a digest is pinned, the receipt's digest counts for nothing."""
    put(pins["tool"], store, genuine.read_bytes() + b"\n")
    with pytest.raises(Unavailable, match="has the digest"):
        from_store(pins["tool"], store)


@pytest.mark.parametrize(
    "receipt", [b"", b"{", b"[]", b"null", b'{"lock": "x"}', b"\xff", b"9" * 100_000]
)
def test_a_broken_receipt_is_refused(
    genuine: Path, pins: Pins, store: ToolStore, receipt: bytes
) -> None:
    """A receipt that is damaged, foreign or huge means: not installed whole."""
    put(pins["tool"], store, genuine.read_bytes())
    (store.directory(pins["tool"]) / "receipt.json").write_bytes(receipt)
    with pytest.raises(Unavailable, match="not installed whole") as caught:
        from_store(pins["tool"], store)
    assert caught.value.hint == "secure-pipeline tools install tool"


def test_an_installation_that_everybody_may_change_is_refused(
    genuine: Path, pins: Pins, store: ToolStore
) -> None:
    """A receipt that others may replace proves nothing."""
    put(pins["tool"], store, genuine.read_bytes())
    store.directory(pins["tool"]).chmod(0o777)
    with pytest.raises(Unavailable, match="everybody may replace"):
        from_store(pins["tool"], store)


def test_a_directory_without_receipt_is_not_an_installation(
    genuine: Path, pins: Pins, store: ToolStore
) -> None:
    """What an interrupted installation leaves is not used."""
    put(pins["tool"], store, genuine.read_bytes())
    (store.directory(pins["tool"]) / "receipt.json").unlink()
    with pytest.raises(Unavailable, match="not installed"):
        locate("tool", store=store, path="", pins=pins)


@pytest.mark.parametrize("version", ["1.10", "1.10.1", "1.11~rc1", "2.0", "1.10+ds1"])
def test_a_system_program_new_enough_is_accepted(
    tmp_path: Path, pins: Pins, store: ToolStore, version: str
) -> None:
    """Versions are compared as numbers, so 1.10 is newer than 1.9, and the digest is recorded."""
    found = program(tmp_path / "sys", "basic", version)
    tool = locate("basic", store=store, path=str(found.parent), pins=pins)
    assert (tool.version, tool.digest) == (version, f"sha256:{sha256(found)}")


@pytest.mark.parametrize("version", ["1.9", "1.9.99", "1", "0.12", "unknown"])
def test_cli_06_a_system_program_too_old_is_refused(
    tmp_path: Path, pins: Pins, store: ToolStore, version: str
) -> None:
    """An older version, or one that is no number, is refused with what is needed."""
    found = program(tmp_path / "sys", "basic", version)
    with pytest.raises(Unavailable, match=r"older than 1\.10") as caught:
        locate("basic", store=store, path=str(found.parent), pins=pins)
    assert caught.value.hint == "apt-get install basic-package"


def test_a_system_program_that_everybody_may_replace_is_refused(
    tmp_path: Path, pins: Pins, store: ToolStore
) -> None:
    """Without a pinned digest, a world-writable program or directory is not trusted."""
    found = program(tmp_path / "sys", "basic", "2.0")
    for place in (found, found.parent):
        mode = place.stat().st_mode
        place.chmod(0o777)
        with pytest.raises(Unavailable, match="everybody may replace"):
            locate("basic", store=store, path=str(found.parent), pins=pins)
        place.chmod(mode)


@pytest.mark.parametrize("script", ["exit 1", "echo nothing", "kill -9 $$"])
def test_a_program_that_does_not_tell_its_version_is_refused(
    tmp_path: Path, pins: Pins, store: ToolStore, script: str
) -> None:
    """Failing, saying something else or being killed instead of telling a version is exit 4."""
    found = program(tmp_path / "sys", "basic", "2.0")
    found.write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(Unavailable, match="does not tell its version"):
        locate("basic", store=store, path=str(found.parent), pins=pins)


def test_a_program_that_cannot_be_asked_has_its_version_in_its_file(
    tmp_path: Path, pins: Pins
) -> None:
    """Without version arguments the program is read and never started; no version is exit 4."""
    mark = tmp_path / "started"
    found = program(tmp_path / "bin", "tool", "1.2.3", mark)
    pin = replace(
        pins["tool"], version_arguments=(), version_pattern=re.compile(r"'tool (\d+\.\d+\.\d+)'")
    )
    assert read_version(pin, found, Processes(threading.Event())) == "1.2.3"
    assert not mark.exists()
    found.write_bytes(b"\xff\x00 nothing")
    with pytest.raises(Unavailable, match="does not tell its version"):
        read_version(pin, found, Processes(threading.Event()))


def test_scn_04_a_refused_version_is_refused_with_its_reason(pins: Pins) -> None:
    """The version that must never be used is refused by name."""
    with pytest.raises(Unavailable, match=r"tool 9\.9 is never used: it was malicious"):
        check_version(pins["tool"], "9.9", Path("/usr/bin/tool"))
    trivy = load_pins()["trivy"]
    with pytest.raises(Unavailable, match="CVE-2026-33634"):
        check_version(trivy, "0.69.4", Path("/usr/bin/trivy"))


def test_another_version_than_the_pinned_one_is_refused(pins: Pins) -> None:
    """A newer version of a pinned tool is refused too."""
    with pytest.raises(Unavailable, match=r"is version 1\.2\.4, pinned is 1\.2\.3"):
        check_version(pins["tool"], "1.2.4", Path("/usr/bin/tool"))


def test_reading_a_version_sees_neither_environment_nor_home(
    tmp_path: Path, pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking for the version passes no variable on, and a home that is gone afterwards."""
    monkeypatch.setenv("SENTINEL_TOKEN", "hunter2")
    script = tmp_path / "tool"
    script.write_text(
        f"#!/bin/sh\nenv > '{tmp_path}/seen'; echo x > \"$HOME/left\"; echo 'tool 1.2.3'\n"
    )
    script.chmod(0o755)
    assert read_version(pins["tool"], script, Processes(threading.Event())) == "1.2.3"
    seen = (tmp_path / "seen").read_text()
    assert "hunter2" not in seen
    home = next(line[5:] for line in seen.splitlines() if line.startswith("HOME="))
    assert not Path(home).exists()


def test_an_unknown_name_is_a_usage_error(pins: Pins, store: ToolStore) -> None:
    """Only pinned programs can be located."""
    with pytest.raises(UsageError):
        locate("sh", store=store, path="/bin", pins=pins)


@pytest.mark.parametrize(
    ("environment", "directory"),
    [
        ({"SECURE_PIPELINE_TOOLS": "/srv/tools", "HOME": "/h"}, "/srv/tools"),
        ({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/secure-pipeline/tools"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/secure-pipeline/tools"),
        ({"HOME": "/h"}, "/h/.cache/secure-pipeline/tools"),
    ],
)
def test_where_the_store_is(environment: dict[str, str], directory: str) -> None:
    """The variable wins over XDG's, which wins over ~/.cache; relative XDG is ignored."""
    assert default_store(environment) == Path(directory)


@pytest.fixture
def environment_files(tmp_path: Path) -> tuple[Path, str]:
    root = tmp_path / "environment"
    (root / "lib").mkdir(parents=True)
    (root / "lib" / "module.py").write_text("one")
    (root / "lib" / "module.pyc").write_bytes(b"\0")
    (root / "python").symlink_to("/usr/bin/python3")
    (root / "lib64").symlink_to("lib")
    return root, write_manifest(root)


def test_an_untouched_environment_passes(environment_files: tuple[Path, str]) -> None:
    """An environment as it was installed is accepted."""
    root, digest = environment_files
    check_environment(root, digest, hint="again")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("lib/module.py", "was changed"),
        ("lib/module.pyc", "was changed"),
        ("lib/sitecustomize.py", "was added"),
        ("-lib/module.py", "is missing"),
        (">python", "was changed"),
        (">lib64", "was changed"),
        ("files.json", "list of files was changed"),
    ],
)
def test_cli_06_any_changed_file_of_an_environment_is_refused(
    environment_files: tuple[Path, str], change: str, says: str
) -> None:
    """A file that was changed, added, removed or turned elsewhere is refused by name."""
    root, digest = environment_files
    path = root / change.lstrip("->")
    if change.startswith(("-", ">")):
        path.unlink()
    if change.startswith(">"):
        path.symlink_to("/tmp/elsewhere")
    elif not change.startswith("-"):
        path.write_text("two")
    with pytest.raises(Unavailable, match=says) as caught:
        check_environment(root, digest, hint="again")
    assert str(path) in str(caught.value)
