"""tools/pins.toml: what is pinned, and what a broken file says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.data import data_path
from secure_pipeline.errors import ConfigError, UsageError
from secure_pipeline.tools.pins import Pins, load_pins, this_platform

DIGEST = "a" * 64
HEAD = """
[format]
version = 1
[toolchain]
go = "go1.26.8"
bootstrap = "bootstrap.txt"
[refused.tool]
"9.9" = "it was malicious (CVE-0000-1)"
"""
TOOL = f"""
[tools.tool]
version = "1.2.3"
purpose = "tests"
version_arguments = ["--version"]
version_pattern = '^(\\S+)'
sources = ["release"]
[tools.tool.release."linux/amd64"]
url = "https://example.org/tool"
sha256 = "{DIGEST}"
"""


def pins_of(directory: Path, text: str) -> Pins:
    (directory / "pins.toml").write_text(text)
    return load_pins(directory)


def test_every_pin_of_this_project_is_exact() -> None:
    """Each tool that is installed has a source whose bytes are proven by a hash."""
    for pin in load_pins().tools.values():
        if pin.system:
            assert pin.debian
            continue
        assert re.fullmatch(r"\d+\.\d+\.\d+", pin.version)
        for release in pin.releases.values():
            assert pin.version in release.url
            assert release.signature is None or pin.version in release.signature.url
        if pin.go:
            assert (pin.go.directory / "go.sum").is_file()
        if pin.python:
            lock = pin.python.requirements.read_text()
            assert f"{pin.name}=={pin.version} \\\n" in lock


def test_scn_04_every_go_module_pins_the_version_that_the_pin_names() -> None:
    """The version in pins.toml is the one that go.mod requires, so neither can drift."""
    modules = {
        "trivy": "aquasecurity/trivy",
        "cosign": "cosign/v3",
        "cosign2": "cosign/v2",
        "policy-tester": "policy-controller",
        "crane": "go-containerregistry",
    }
    for name, module in modules.items():
        pin = load_pins()[name]
        assert pin.go is not None
        required = re.search(
            rf"/{re.escape(module)} v(\S+)", (pin.go.directory / "go.mod").read_text()
        )
        assert required is not None
        assert required[1] == pin.version
        assert pin.version in pin.go.ldflags


@pytest.mark.parametrize("lock", ["semgrep/requirements.txt", "go/bootstrap.txt"])
def test_every_locked_package_has_hashes_and_no_address(lock: str) -> None:
    """A lock file names exact versions with hashes and no place to get them from."""
    text = (data_path("tools") / lock).read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+", entry)
        assert "--hash=sha256:" in entry
    assert "://" not in text


def test_scn_04_the_malicious_trivy_release_is_refused_by_name() -> None:
    """Trivy 0.69.4 is on the list of versions that are never used, with its CVE."""
    assert "CVE-2026-33634" in load_pins()["trivy"].refused["0.69.4"]


def test_a_pin_may_not_name_a_refused_version(tmp_path: Path) -> None:
    """Pinning a refused version is an error of the file."""
    with pytest.raises(ConfigError, match=r"never used: it was malicious \(CVE-0000-1\)"):
        pins_of(tmp_path, HEAD + TOOL.replace("1.2.3", "9.9"))


def test_an_unknown_tool_names_the_known_ones() -> None:
    """Asking for a tool that is not pinned is a usage error that lists the names."""
    with pytest.raises(UsageError, match="'nope'") as caught:
        load_pins()["nope"]
    assert "trivy" in str(caught.value.hint)


def test_this_platform_has_gos_names() -> None:
    """Platforms are written as operating system and Go architecture."""
    assert re.fullmatch(r"[a-z]+/[a-z0-9_]+", this_platform())
    assert "x86_64" not in this_platform()


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("", "'format' is missing"),
        ("[format]\nversion = 2\n", "format version 1"),
        ("[format\n", "not valid TOML"),
        ("[format]\nversion = 1\n[format]\n", "not valid TOML"),
        (HEAD, "'tools' is missing"),
        (HEAD + "[tools]\n", "no tool is pinned"),
        (HEAD + TOOL + "sha512 = 'x'\n", "unknown key 'sha512'"),
        (HEAD + TOOL.replace(DIGEST, "A" * 64), "64 hex digits"),
        (HEAD + TOOL.replace(DIGEST, "a" * 63), "64 hex digits"),
        (HEAD + TOOL.replace("https:", "http:"), "https"),
        (HEAD + TOOL.replace('"release"', '"curl"'), "unknown source 'curl'"),
        (HEAD + TOOL.replace('["release"]', "[]"), "'sources' must be a list"),
        (HEAD + TOOL.replace("(\\S+)", "(\\S+"), "version_pattern"),
        (HEAD + TOOL.replace("(\\S+)", "\\S+"), "one group"),
        (HEAD + TOOL.replace("[tools.tool", "[tools.'../tool'"), "not a tool name"),
        (HEAD + TOOL.replace('"1.2.3"', "1"), "must be of type str"),
        (HEAD + TOOL.replace("purpose", "porpoise"), "'purpose' is missing"),
        (HEAD + TOOL + 'member = "tool"\n', "'executable' is missing"),
        (HEAD.replace("bootstrap.txt", "../x") + TOOL, "stay inside"),
        (HEAD.replace("bootstrap.txt", "/etc/passwd") + TOOL, "stay inside"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(tmp_path: Path, broken: str, says: str) -> None:
    """Each fault of pins.toml is a ConfigError (exit 3) that names the file and the key."""
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        pins_of(tmp_path, broken)
    assert str(tmp_path / "pins.toml") in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    """A huge pins.toml is refused before it is parsed."""
    with pytest.raises(ConfigError, match="limit"):
        pins_of(tmp_path, HEAD + TOOL + "#" * (1 << 20))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_without_a_traceback(tmp_path: Path, data: bytes) -> None:
    """Whatever stands in the file, only a ConfigError comes out."""
    (tmp_path / "pins.toml").write_bytes(data)
    with pytest.raises(ConfigError):
        load_pins(tmp_path)


@given(st.data())
def test_any_changed_line_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Replacing any line of a good file gives pins or a ConfigError, never another error."""
    lines = (HEAD + TOOL).splitlines()
    index = data.draw(st.integers(0, len(lines) - 1))
    lines[index] = data.draw(st.text(max_size=40))
    try:
        pins = pins_of(tmp_path, "\n".join(lines))
    except ConfigError:
        return
    assert all(pin.version not in pin.refused for pin in pins.tools.values())


def test_the_store_directory_changes_with_what_is_installed(tmp_path: Path) -> None:
    """Another digest gives another directory in the store; another purpose does not."""
    first = pins_of(tmp_path, HEAD + TOOL)["tool"].directory_name
    other = pins_of(tmp_path, HEAD + TOOL.replace(DIGEST, "b" * 64))["tool"].directory_name
    same = pins_of(tmp_path, HEAD + TOOL.replace('"tests"', '"other"'))["tool"].directory_name
    assert first == same != other
    assert re.fullmatch(r"tool-1\.2\.3-[0-9a-f]{16}", first)


def test_the_store_directory_changes_with_the_lock_file(tmp_path: Path) -> None:
    """Another requirements file gives another directory in the store."""
    text = HEAD + TOOL[: TOOL.index("[tools.tool.release")].replace("release", "python")
    text += '[tools.tool.python]\nrequirements = "lock.txt"\nexecutable = "bin/tool"\n'
    names = set()
    for content in ("one", "two"):
        (tmp_path / "lock.txt").write_text(content)
        names.add(pins_of(tmp_path, text)["tool"].directory_name)
    assert len(names) == 2
    (tmp_path / "lock.txt").unlink()
    with pytest.raises(ConfigError, match="cannot read"):
        pins_of(tmp_path, text)
