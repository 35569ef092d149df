"""The private copy of an image that the scanner gets to see."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from fakes.images import PLAIN, Layer, blob, build_image, debian
from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.tools.scanview import View, open_view

ENTRIES = [debian(), 'CMD ["bash"]', Layer({"app/main.py": b"print()\n"}, media_type=PLAIN)]


def view_of(tmp_path: Path, digest: Digest, limit: int = 1 << 30) -> View:
    return open_view(tmp_path / "image", str(digest), tmp_path / "view", limit)


def test_scn_11_only_the_image_asked_for_is_in_the_view(tmp_path: Path) -> None:
    """Another image of the layout cannot be scanned by mistake: it is not there."""
    image = build_image(tmp_path / "image", ENTRIES)
    other = build_image(tmp_path / "image", [Layer({"other": b"x"})], tag="other")
    view = view_of(tmp_path, image.digest)
    assert not blob(view.path, other.digest).exists()
    listed = {item.digest for item in Layout.open(view.path).manifests()}
    assert listed == {image.digest, view.twin}


def test_layers_are_links_and_every_byte_is_checked(tmp_path: Path) -> None:
    """The layers are not copied, and their unpacked size is known."""
    image = build_image(tmp_path / "image", ENTRIES)
    view = view_of(tmp_path, image.digest)
    for layer in view.layers:
        digest = layer.descriptor.digest
        assert blob(view.path, digest).samefile(blob(tmp_path / "image", digest))
    assert view.unpacked == 2 * 10240


def test_bld_01_the_twin_has_no_empty_layer(tmp_path: Path) -> None:
    """No old CMD is left in the twin's history that Trivy could take for a base image's end."""
    image = build_image(tmp_path / "image", ENTRIES)
    view = view_of(tmp_path, image.digest)
    manifest = json.loads(blob(view.path, view.twin).read_bytes())
    config = json.loads(blob(view.path, Digest.parse(manifest["config"]["digest"])).read_bytes())
    assert len(config["history"]) == 3
    assert not any("empty_layer" in entry for entry in config["history"])
    assert config["config"] == {"User": "app"}


def test_reg_02_an_altered_layer_is_refused(tmp_path: Path) -> None:
    """A layer whose bytes are not those of its digest is never scanned."""
    image = build_image(tmp_path / "image", ENTRIES)
    manifest = json.loads(blob(tmp_path / "image", image.digest).read_bytes())
    path = blob(tmp_path / "image", Digest.parse(manifest["layers"][0]["digest"]))
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    with pytest.raises(VerificationFailed):
        view_of(tmp_path, image.digest)


def test_an_unpacked_layer_must_have_its_diff_id(tmp_path: Path) -> None:
    """A configuration that names another diff id is refused: Trivy would believe it."""
    image = build_image(tmp_path / "image", ENTRIES)
    layout = Layout.open(tmp_path / "image")
    manifest = json.loads(blob(layout.path, image.digest).read_bytes())
    config = json.loads(blob(layout.path, Digest.parse(manifest["config"]["digest"])).read_bytes())
    config["rootfs"]["diff_ids"][0] = "sha256:" + "0" * 64
    written = layout.write_blob(json.dumps(config).encode(), manifest["config"]["mediaType"])
    manifest["config"] = written.to_json()
    changed = layout.write_blob(json.dumps(manifest).encode(), image.media_type)
    layout.add_manifest(changed)
    with pytest.raises(VerificationFailed, match="the configuration says"):
        view_of(tmp_path, changed.digest)


def test_reg_15_a_bomb_is_inconclusive(tmp_path: Path) -> None:
    """A layer that unpacks to more than the limit is refused while it is unpacked."""
    image = build_image(tmp_path / "image", [Layer({"zeros": b"\0" * (4 << 20)})])
    with pytest.raises(Inconclusive, match="unpacks to more than"):
        view_of(tmp_path, image.digest, limit=1 << 20)


def test_reg_15_the_limit_is_for_all_layers_together(tmp_path: Path) -> None:
    """Many small layers count as one image."""
    layers = [Layer({f"file{number}": b"x"}) for number in range(3)]
    image = build_image(tmp_path / "image", layers)
    with pytest.raises(Inconclusive, match="the image unpacks"):
        view_of(tmp_path, image.digest, limit=2 * 10240)


def test_reg_14_a_link_in_place_of_a_layer_is_refused(tmp_path: Path) -> None:
    """A symbolic link in the layout is not followed to what it names."""
    image = build_image(tmp_path / "image", ENTRIES)
    manifest = json.loads(blob(tmp_path / "image", image.digest).read_bytes())
    path = blob(tmp_path / "image", Digest.parse(manifest["layers"][0]["digest"]))
    moved = tmp_path / "elsewhere"
    os.rename(path, moved)
    path.symlink_to(moved)
    with pytest.raises(VerificationFailed):
        view_of(tmp_path, image.digest)


def test_an_unknown_compression_is_inconclusive(tmp_path: Path) -> None:
    """What cannot be unpacked here is not left to the scanner unchecked."""
    layer = Layer({"a": b"b"}, media_type="application/vnd.oci.image.layer.v1.tar+zstd")
    image = build_image(tmp_path / "image", [layer])
    with pytest.raises(Inconclusive, match="cannot be read"):
        view_of(tmp_path, image.digest)


def test_half_a_gzip_layer_is_refused(tmp_path: Path) -> None:
    """A compressed layer that ends early is no layer, even when its digest fits."""
    layout = Layout.create(tmp_path / "image")
    half = gzip.compress(b"x" * 100_000)[:-20]
    layer = layout.write_blob(half, "application/vnd.oci.image.layer.v1.tar+gzip")
    image = build_image(tmp_path / "image", ENTRIES)
    manifest = json.loads(blob(layout.path, image.digest).read_bytes())
    manifest["layers"][0] = layer.to_json()
    changed = layout.write_blob(json.dumps(manifest).encode(), image.media_type)
    with pytest.raises(VerificationFailed, match="unpacked"):
        view_of(tmp_path, changed.digest)
