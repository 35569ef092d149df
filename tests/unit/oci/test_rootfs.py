"""What can be executed, read from tar streams and compared by content."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.images import sparse_archive
from secure_pipeline.errors import Inconclusive
from secure_pipeline.oci.rootfs import (
    Budget,
    Counted,
    Files,
    Kind,
    changes,
    read_container,
    read_layer,
    stacked,
    with_directories,
)

SCRIPT = b"#!/bin/sh\n"
Item = tuple[str, bytes | str | None, int]
"""Path; content, link target or None for a directory; mode."""


def tar(items: Iterable[Item], **headers: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content, mode in items:
            member = tarfile.TarInfo(path)
            member.mode = mode
            member.pax_headers = dict(headers)
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size = len(content)
            data = io.BytesIO(content) if isinstance(content, bytes) else None
            archive.addfile(member, data)
    return stream.getvalue()


def files(*items: Item, **headers: str) -> Files:
    return read_container(io.BytesIO(tar(items, **headers)), Budget(), "test")


def layers(*each: Iterable[Item]) -> Files:
    found: Files = {}
    for items in each:
        counted = Counted(io.BytesIO(tar(items)), Budget())
        found = stacked(found, read_layer(counted, Budget(), "test"))
        counted.finish()
    return with_directories(found)


BASE: tuple[Item, ...] = (
    ("bin/tool", SCRIPT + b"one", 0o755),
    ("bin/link", "tool", 0o777),
    ("opt/app.py", b"print(1)", 0o644),
    ("etc/conf", b"a", 0o644),
    ("usr/lib/libx.so.1", b"\x7fELFx", 0o644),
    ("sbin", "bin", 0o777),
)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (("bin/tool", SCRIPT + b"two", 0o755), [("/bin/tool", "changed")]),
        (("bin/tool", SCRIPT + b"one", 0o644), [("/bin/tool", "changed")]),
        (("bin/tool", SCRIPT + b"one", 0o4755), [("/bin/tool", "changed")]),
        (("bin/tool", "../opt/app.py", 0o777), [("/bin/tool", "changed")]),
        (("bin/tool", None, 0o755), [("/bin/tool", "changed")]),
        (("opt/app.py", b"print(2)", 0o644), [("/opt/app.py", "changed")]),
        (("usr/lib/libx.so.1", b"\x7fELFy", 0o644), [("/usr/lib/libx.so.1", "changed")]),
        (("bin/link", "/opt/app.py", 0o777), [("/bin/link", "changed")]),
        (("bin/link", "/bin/tool", 0o777), []),
        (("bin/link", "/proc/self/exe", 0o777), [("/bin/link", "changed")]),
        (("etc/conf", b"b", 0o600), []),
        (("etc/conf", b"a", 0o755), [("/etc/conf", "changed")]),
        (("etc/conf", SCRIPT, 0o644), [("/etc/conf", "changed")]),
        (("new", b"data", 0o644), []),
        (("new", b"", 0o755), []),
        (("new", b"data", 0o755), [("/new", "added")]),
        (("new", b"\x7fELF", 0o644), [("/new", "added")]),
        (("opt/new.py", b"x = 1", 0o644), [("/opt/new.py", "added")]),
        (("opt/__pycache__/app.pyc", b"x", 0o644), []),
        (("opt/app.pyc", b"x", 0o644), [("/opt/app.pyc", "added")]),
        (("etc/ld.so.preload", b"/tmp/x", 0o644), [("/etc/ld.so.preload", "added")]),
        (("usr/bin/x", "../../bin/tool", 0o777), [("/usr/bin/x", "added")]),
        (("usr/bin/x", "/dev/shm/x", 0o777), [("/usr/bin/x", "added")]),
        (("var/lock", "host-17", 0o777), []),
        (("etc/mtab", "/proc/mounts", 0o777), []),
        (("sbin", "opt", 0o777), [("/sbin", "changed")]),
        (("var/cache", None, 0o755), []),
    ],
)
def test_one_difference(item: Item, expected: list[tuple[str, str]]) -> None:
    """What can be executed counts, by content, mode, powers and where links lead."""
    now = {each[0]: each for each in BASE} | {item[0]: item}
    found = [
        each for each in changes(files(*BASE), files(*now.values())) if "/sbin/" not in each[0]
    ]
    assert found == expected


def test_deleted_executables() -> None:
    """Only what could be executed is missed."""
    kept = [item for item in BASE if item[0] in ("sbin", "bin/link")]
    assert list(changes(files(*BASE), files(*kept))) == [
        ("/bin/tool", "deleted"),
        ("/opt/app.py", "deleted"),
        ("/usr/lib/libx.so.1", "deleted"),
    ]


def test_capabilities_count() -> None:
    """A program that was given a capability is another program."""
    given_power = files(*BASE, **{"SCHILY.xattr.security.capability": "\x01"})
    assert ("/bin/tool", "changed") in list(changes(files(*BASE), given_power))


def test_hard_links_are_what_they_link_to() -> None:
    """A second name of a program is an added program."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path, content, mode in BASE[:1]:
            assert isinstance(content, bytes)
            member = tarfile.TarInfo(path)
            member.mode, member.size = mode, len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("usr/copy")
        link.type, link.linkname = tarfile.LNKTYPE, "bin/tool"
        archive.addfile(link)
    now = read_container(io.BytesIO(stream.getvalue()), Budget(), "test")
    assert list(changes(files(*BASE[:1]), now)) == [("/usr/copy", "added")]


def test_links_that_go_in_circles_lead_nowhere() -> None:
    """Nothing is followed for ever."""
    now = files(*BASE, ("usr/bin/a", "b", 0o777), ("usr/bin/b", "a", 0o777))
    assert list(changes(files(*BASE), now)) == [("/usr/bin/a", "added"), ("/usr/bin/b", "added")]


def test_layers_hide_what_is_below() -> None:
    """Whiteouts, opaque directories, and files in place of directories (image-spec, layer.md)."""
    lower: list[Item] = [
        ("a/one", SCRIPT, 0o755),
        ("a/two", SCRIPT, 0o755),
        ("b/deep/x", SCRIPT, 0o755),
        ("c/x", SCRIPT, 0o755),
        ("d", "a", 0o777),
        ("e/x", SCRIPT, 0o755),
    ]
    upper: list[Item] = [
        ("a/.wh.one", b"", 0o644),
        ("b/.wh..wh..opq", b"", 0o644),
        ("b/y", SCRIPT, 0o755),
        ("c", b"a file now", 0o644),
        ("d/in", SCRIPT, 0o755),
        (".wh.e", b"", 0o644),
    ]
    found = layers(lower, upper)
    present = {path for path, entry in found.items() if entry.kind is not Kind.DIRECTORY}
    assert present == {"a/two", "b/y", "c", "d/in"}
    assert found["d"].kind is Kind.DIRECTORY
    assert layers(lower, upper, [("e/x", SCRIPT, 0o755)])["e/x"].code


def test_a_whiteout_in_a_container_is_a_file() -> None:
    """Only layers have whiteouts: in a container such a name hides nothing."""
    now = files(*BASE, ("bin/.wh.tool", SCRIPT, 0o755))
    assert list(changes(files(*BASE), now)) == [("/bin/.wh.tool", "added")]


@pytest.mark.parametrize("cut", [512, 700, 1024, 1536, 2048])
def test_an_export_that_ends_early_is_inconclusive(cut: int) -> None:
    """An engine that fails half-way says so only by leaving out the end."""
    with pytest.raises(Inconclusive):
        read_container(io.BytesIO(tar(BASE)[:cut]), Budget(), "test")
    whole_entries = tar(BASE).rstrip(b"\0")
    padded = whole_entries + b"\0" * (-len(whole_entries) % 512)
    with pytest.raises(Inconclusive, match="ended early"):
        read_container(io.BytesIO(padded), Budget(), "test")


def test_garbage_after_the_end_is_inconclusive() -> None:
    """What other readers might see must not be behind what is seen here."""
    with pytest.raises(Inconclusive):
        read_container(io.BytesIO(tar(BASE) + tar([("x", SCRIPT, 0o755)])), Budget(), "")


def test_limits() -> None:
    """Number of files and bytes are bounded."""
    for budget in (Budget(members=3), Budget(size=2000)):
        with pytest.raises(Inconclusive, match="limit"):
            read_container(io.BytesIO(tar(BASE)), budget, "")


def test_paths_that_lead_upwards_are_inconclusive() -> None:
    """No engine writes them."""
    with pytest.raises(Inconclusive, match="upwards"):
        files(("a/../../bin/tool", SCRIPT, 0o755))


@given(st.binary(max_size=3000), st.integers(0, 4000), st.integers(0, 255))
def test_any_bytes_are_read_or_inconclusive(noise: bytes, place: int, value: int) -> None:
    """Noise, and an archive with one byte changed, never end in another error."""
    altered = bytearray(tar(BASE))
    altered[place % len(altered)] = value
    for data in (noise, bytes(altered)):
        try:
            read_container(io.BytesIO(data), Budget(), "test")
        except Inconclusive:
            continue


@given(st.sets(st.sampled_from(BASE)), st.sets(st.sampled_from(BASE)))
def test_the_same_files_never_differ(one: set[Item], other: set[Item]) -> None:
    """Layers stacked in any way give no change against the flat tree of the same files."""
    flat = {item[0]: item for item in (*one, *other)}
    assert list(changes(layers(one, other), files(*flat.values()))) == []
    assert {path for path, _ in changes(files(*one), files(*flat.values()))}.isdisjoint(
        f"/{item[0]}" for item in one if item[0] != "bin/link"
    )


def test_a_sparse_file_costs_what_it_reads_as() -> None:
    """A few bytes of archive that read as 32 GiB are not hashed for minutes."""
    stream = io.BytesIO(sparse_archive("bin/tool"))
    with pytest.raises(Inconclusive, match="limit"):
        read_container(stream, Budget(size=1 << 30), "test")
