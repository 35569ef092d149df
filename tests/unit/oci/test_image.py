"""Images written and read: blobs by hash, diff ids, platforms, Docker's archives."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.bases import tiny_base
from secure_pipeline.errors import ConfigError, Inconclusive, VerificationFailed
from secure_pipeline.oci.archive import read_archive, write_archive
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.image import (
    LAYER_TYPE,
    LayerWriter,
    choose,
    read_image,
    store_file,
    unpacked_digest,
    write_image,
)
from secure_pipeline.oci.layout import Layout

EPOCH = 1_700_000_000


def test_a_file_is_stored_under_what_was_hashed(tmp_path: Path) -> None:
    """Content that is not what it should be leaves nothing in the layout."""
    layout = Layout.create(tmp_path / "layout")
    source = tmp_path / "source"
    source.write_bytes(b"content")
    stored = store_file(layout, source, LAYER_TYPE, Digest.of(b"content"))
    assert layout.has_blob(stored.digest, stored.size)
    before = sorted((tmp_path / "layout").rglob("*"))
    with pytest.raises(VerificationFailed, match="expected"):
        store_file(layout, source, LAYER_TYPE, Digest.of(b"other"))
    assert sorted((tmp_path / "layout").rglob("*")) == before


def test_the_same_tar_is_packed_to_the_same_bytes(tmp_path: Path) -> None:
    """No name, time or chunk size of the writer is in the compressed layer."""
    digests = []
    for size in (1, 7, 1000):
        writer = LayerWriter(tmp_path)
        data = b"0123456789" * 100
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
        assert writer.close() == Digest.of(data) == unpacked_digest(writer.path)
        digests.append(hashlib.sha256(writer.path.read_bytes()).hexdigest())
    assert len(set(digests)) == 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda data: data[:-3], VerificationFailed),
        (lambda data: b"no gzip", VerificationFailed),
        (lambda data: b"", VerificationFailed),
        (lambda data: gzip.compress(bytes(5000)), Inconclusive),
    ],
)
def test_a_layer_that_does_not_unpack_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], error: type[Exception]
) -> None:
    """Cut, foreign and oversized compressed data are errors, never a digest."""
    path = tmp_path / "layer"
    path.write_bytes(change(gzip.compress(b"abc" * 100)))
    with pytest.raises(error):
        unpacked_digest(path, limit=4000)


def test_several_gzip_members_are_one_layer(tmp_path: Path) -> None:
    """Concatenated members, as parallel compressors write them, are read to the end."""
    path = tmp_path / "layer"
    path.write_bytes(gzip.compress(b"one") + gzip.compress(b"two"))
    assert unpacked_digest(path) == Digest.of(b"onetwo")


def test_an_image_needs_its_layers_in_place(tmp_path: Path) -> None:
    """A manifest is never written over a missing or altered layer."""
    layout = Layout.open(tiny_base(tmp_path / "a"))
    image = choose(layout, "linux/amd64")
    config = layout.read_blob(image.manifest.config.digest, 1 << 20)
    path = tmp_path / "a" / "blobs" / "sha256" / image.manifest.layers[0].digest.hex
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with pytest.raises(VerificationFailed):
        write_image(layout, config, image.manifest.layers)


def test_the_platform_chooses_one_image_or_none(tmp_path: Path) -> None:
    """No image and two images for a platform are both refused."""
    path = tiny_base(tmp_path / "a")
    tiny_base(path, architecture="arm64")
    assert str(choose(Layout.open(path), "linux/arm64").platform) == "linux/arm64"
    with pytest.raises(ConfigError, match="0 images"):
        choose(Layout.open(path), "linux/s390x")


def archive(tmp_path: Path, change: Callable[[dict[str, Any]], None] = lambda parts: None) -> Path:
    """An archive as docker writes it, with the parts changed."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("file")
        info.mtime, info.size = EPOCH + 5000.25, 3
        info.pax_headers = {"SCHILY.xattr.user.x": "kept"}
        tar.addfile(info, io.BytesIO(b"abc"))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00.123Z",
        "docker_version": "20.10",
        "config": {"User": "1", "Hostname": "daemon", "OnBuild": None},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "x"}],
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer.getvalue()))]},
    }
    parts: dict[str, Any] = {
        "a/layer.tar": layer.getvalue(),
        "config": config,
        "manifest": [{"Config": "c.json", "RepoTags": ["x"], "Layers": ["a/layer.tar"]}],
        "links": {},
    }
    change(parts)
    path = tmp_path / "image.tar"
    with tarfile.open(path, "w") as tar:
        members = {"c.json": json.dumps(parts["config"]).encode()}
        members["manifest.json"] = json.dumps(parts["manifest"]).encode()
        members["a/layer.tar"] = parts["a/layer.tar"]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in parts["links"].items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return path


def convert(tmp_path: Path, path: Path) -> tuple[Layout, dict[str, Any], bytes]:
    layout = Layout.create(tmp_path / "layout")
    image = read_image(layout, read_archive(path, layout, {}, EPOCH, {}))
    config = json.loads(layout.read_blob(image.manifest.config.digest, 1 << 20))
    return (
        layout,
        config,
        gzip.decompress(layout.read_blob(image.manifest.layers[0].digest, 1 << 20)),
    )


def test_an_archive_becomes_an_image_without_the_daemons_times(tmp_path: Path) -> None:
    """Times are cut to the epoch, attributes are kept, the daemon's own members are gone."""
    _, config, layer = convert(tmp_path, archive(tmp_path))
    assert config["created"] == config["history"][0]["created"] == "2023-11-14T22:13:20Z"
    assert config["config"] == {"User": "1"}
    assert "docker_version" not in config
    assert config["rootfs"]["diff_ids"] == [str(Digest.of(layer))]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        member = tar.getmember("file")
    assert member.mtime == EPOCH
    assert member.pax_headers == {"SCHILY.xattr.user.x": "kept"}


def test_a_link_to_an_equal_layer_is_followed_within_the_archive(tmp_path: Path) -> None:
    """Docker links a layer that occurs twice; the link's target is a member."""

    def change(parts: dict[str, Any]) -> None:
        parts["links"] = {"b/layer.tar": "../a/layer.tar"}
        parts["manifest"][0]["Layers"] = ["b/layer.tar"]

    assert convert(tmp_path, archive(tmp_path, change))[2]


def two_images(parts: dict[str, Any]) -> None:
    parts["manifest"] *= 2


def no_image(parts: dict[str, Any]) -> None:
    parts["manifest"] = []


def another_layer(parts: dict[str, Any]) -> None:
    parts["a/layer.tar"] = parts["a/layer.tar"][:-512] + b"x" * 512


def a_layer_too_few(parts: dict[str, Any]) -> None:
    parts["manifest"][0]["Layers"] = []


def link_outside(parts: dict[str, Any]) -> None:
    parts["links"] = {"b": "../../etc/hostname"}
    parts["manifest"][0]["Layers"] = ["b"]


def path_outside(parts: dict[str, Any]) -> None:
    parts["manifest"][0]["Config"] = "/etc/hostname"


@pytest.mark.parametrize(
    "change", [two_images, no_image, another_layer, a_layer_too_few, link_outside, path_outside]
)
def test_an_archive_that_is_not_what_it_says_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    """Altered layers, links and paths out of the archive, none or several images: exit 11."""
    layout = Layout.create(tmp_path / "layout")
    with pytest.raises(VerificationFailed):
        read_archive(archive(tmp_path, change), layout, {}, EPOCH, {})
    assert layout.manifests() == ()


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    """A file that docker did not write is an error, not a traceback."""
    path = tmp_path / "image.tar"
    path.write_bytes(data)
    with pytest.raises(VerificationFailed):
        read_archive(path, Layout.create(tmp_path / "layout"), {}, EPOCH, {})


def test_an_image_goes_into_an_archive_and_back(tmp_path: Path) -> None:
    """What docker is given has the layers and the config of the layout."""
    layout = Layout.open(tiny_base(tmp_path / "a"))
    image = choose(layout, "linux/amd64")
    write_archive(layout, image, "localhost/x:1", tmp_path / "out.tar")
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert tar.getnames() == ["config.json", "0.tar", "manifest.json"]
        stream = tar.extractfile("config.json")
        assert stream is not None
        assert Digest.of(stream.read()) == image.manifest.config.digest
