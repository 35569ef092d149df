"""Images out of what engines save, by digests only."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.errors import Inconclusive
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.manifest import CONFIG_TYPE, MANIFEST_TYPE
from secure_pipeline.oci.rootfs import Budget
from secure_pipeline.oci.saved import read_image


def tar(files: Mapping[str, bytes], mode: int = 0o755) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


LOWER, UPPER = tar({"bin/a": b"1", "bin/b": b"2"}), tar({"bin/.wh.a": b"", "bin/c": b"3"})
EMPTY = tar({})
CONFIG = json.dumps(
    {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"diff_ids": [str(Digest.of(data)) for data in (LOWER, EMPTY, UPPER)]},
    }
).encode()
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": CONFIG_TYPE,
            "digest": str(Digest.of(CONFIG)),
            "size": len(CONFIG),
        },
        "layers": [],
    }
).encode()


def saved(**changes: bytes) -> io.BytesIO:
    """An archive as docker 20.10 arranges it, in an order that helps nobody."""
    members = {
        "y/layer.tar": UPPER,
        "manifest.json": b"[]",
        "x/layer.tar": LOWER,
        "z/layer.tar": EMPTY,
        "config.json": CONFIG,
    }
    return io.BytesIO(tar(members | changes))


def names(stream: io.BytesIO, image: bytes) -> set[str]:
    found = read_image(stream, Digest.of(image), Budget())
    return {path for path, entry in found.items() if entry.code}


def test_layers_in_the_order_of_the_config() -> None:
    """Names and order in the archive do not matter; an empty layer is one too."""
    assert names(saved(), CONFIG) == {"bin/b", "bin/c"}


def test_an_image_by_its_manifest_with_packed_layers() -> None:
    """Engines with containerd's store save blobs; the manifest leads to the config."""
    stream = io.BytesIO(
        tar(
            {
                "blobs/sha256/1": gzip.compress(LOWER),
                "blobs/sha256/2": gzip.compress(UPPER),
                "blobs/sha256/3": gzip.compress(EMPTY),
                "blobs/sha256/4": MANIFEST,
                "blobs/sha256/5": CONFIG,
            }
        )
    )
    assert names(stream, MANIFEST) == {"bin/b", "bin/c"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config.json": CONFIG + b" "}, "has the image's digest"),
        ({"x/layer.tar": tar({"bin/a": b"1", "bin/b": b"9"})}, "lacks layer"),
        ({"x/layer.tar": b"\x1f\x8bnot gzip"}, "malformed"),
        ({"x/layer.tar": LOWER[:700]}, "tar"),
    ],
)
def test_other_bytes_are_inconclusive(changes: dict[str, bytes], words: str) -> None:
    """What does not have its digest is not the image."""
    with pytest.raises(Inconclusive, match=words):
        names(saved(**changes), CONFIG)


def test_limits_hold_inside_packed_layers() -> None:
    """A layer that unpacks to more than the limit ends (REG-15)."""
    bomb = gzip.compress(tar({"x": b"\0" * (1 << 22)}))
    with pytest.raises(Inconclusive, match="limit"):
        read_image(saved(**{"b": bomb}), Digest.of(CONFIG), Budget(size=1 << 20))
    with pytest.raises(Inconclusive, match="limit"):
        read_image(saved(), Digest.of(CONFIG), Budget(members=4))


@given(st.integers(0, 40_000), st.integers(0, 255))
def test_one_changed_byte_never_changes_the_files(place: int, value: int) -> None:
    """The files are those of the digest, or nothing is said."""
    data = bytearray(saved().getvalue())
    data[place % len(data)] = value
    try:
        assert names(io.BytesIO(bytes(data)), CONFIG) == {"bin/b", "bin/c"}
    except Inconclusive:
        return
