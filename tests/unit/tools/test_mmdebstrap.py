"""Parameters of a base, the machine's apt sources, and what is left out of the image."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from secure_pipeline.errors import ConfigError, UsageError
from secure_pipeline.tools.mmdebstrap import BaseRequest, machine_sources, without_devices

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://other.example/disabled
Suites: bookworm
Components: main
Enabled: no
"""


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def test_only_entries_that_serve_the_suite_are_used(apt: Path) -> None:
    """The suite, its updates and its security; no sources, no other suite, nothing disabled."""
    (apt / "sources.list.d" / "debian.sources").write_text(DEB822)
    text = machine_sources(apt, "bookworm").decode()
    assert text.count("Types: deb\n") == 2
    assert "Suites: bookworm bookworm-updates\n" in text
    assert "Suites: bookworm-security\n" in text
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" in text
    assert "disabled" not in text
    assert "deb-src" not in text


def test_one_line_entries_are_understood(apt: Path) -> None:
    """The older form gives the same kind of stanza."""
    (apt / "sources.list").write_text(
        "# deb http://no.example x main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian trixie main contrib # c\n"
        "deb-src http://mirror.example/debian trixie main\n"
        "deb http://mirror.example/debian bookworm main\n"
    )
    assert machine_sources(apt, "trixie").decode() == (
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie\n"
        "Components: main contrib\nSigned-By: /k.gpg\n"
    )


def test_a_suite_without_sources_is_a_configuration_error(apt: Path) -> None:
    """No mirror is guessed."""
    with pytest.raises(ConfigError, match="no entry for sid"):
        machine_sources(apt, "sid")


@pytest.mark.parametrize(
    ("suite", "include", "epoch"),
    [
        ("../x", (), 0),
        ("", (), 0),
        ("bookworm", ("-o",), 0),
        ("bookworm", ("a b",), 0),
        ("bookworm", ("python3 || x",), 0),
        ("bookworm", (), -1),
        ("bookworm", (), 1 << 40),
    ],
)
def test_parameters_that_could_mean_something_else_are_refused(
    suite: str, include: tuple[str, ...], epoch: int
) -> None:
    """Neither a suite nor a package can be an option or a path."""
    with pytest.raises(UsageError):
        BaseRequest(suite, include, epoch)


def test_device_nodes_are_left_out() -> None:
    """The directory /dev stays, with its links; devices, which never end when read, do not."""
    buffer = io.BytesIO()
    kinds = {"./dev/": tarfile.DIRTYPE, "./dev/zero": tarfile.CHRTYPE, "./dev/fd": tarfile.SYMTYPE,
             "./dev/loop0": tarfile.BLKTYPE, "./etc/": tarfile.DIRTYPE}  # fmt: skip
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = "/proc/self/fd" if kind == tarfile.SYMTYPE else ""
            archive.addfile(info)
    buffer.seek(0)
    data = b"".join(without_devices(buffer))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["./dev", "./dev/fd", "./etc"]
