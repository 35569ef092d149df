"""The OCI layout: content by hash, one commit point, nothing outside the directory."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.evidence import LAYER_TYPE, make_image
from secure_pipeline.errors import Inconclusive, PipelineError, UsageError, VerificationFailed
from secure_pipeline.oci import manifest as oci
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import INDEX_TYPE, MANIFEST_TYPE, Descriptor, Platform
from secure_pipeline.oci.walk import ImageLimits, check_image

DATA = b"some content"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.create(tmp_path / "layout")


def blob(layout: Layout, digest: Digest) -> Path:
    return layout.path / "blobs" / "sha256" / digest.hex


def make_index(layout: Layout, *images: Descriptor) -> Descriptor:
    entries = [image.to_json() for image in images]
    document = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}
    index = layout.write_blob(json.dumps(document).encode(), INDEX_TYPE)
    layout.replace("index", index)
    return index


def test_a_new_layout_is_one_by_the_specification(layout: Layout) -> None:
    """The marker, the index and the blob directory are there, and opening it again works."""
    assert json.loads((layout.path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((layout.path / "index.json").read_bytes())["manifests"] == []
    assert Layout.open(layout.path).manifests() == ()
    assert Layout.create(layout.path).manifests() == ()


def test_a_directory_that_is_no_layout_is_a_usage_error(tmp_path: Path) -> None:
    """Opening something else says so and what to give instead."""
    with pytest.raises(UsageError, match="not an OCI layout"):
        Layout.open(tmp_path)


@given(data=st.binary(max_size=2000))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Any bytes come back from under their digest."""
    layout = Layout.create(tmp_path_factory.mktemp("l") / "layout")
    descriptor = layout.write_blob(data, LAYER_TYPE)
    assert layout.read_blob(descriptor.digest, 2000, len(data)) == data
    assert descriptor.digest == Digest.of(data)


def test_reg_02_an_altered_blob_names_expected_and_found(layout: Layout) -> None:
    """Bytes that do not hash to their name are refused, with both digests in the message."""
    descriptor = layout.write_blob(DATA, LAYER_TYPE)
    altered = b"s0me content"
    blob(layout, descriptor.digest).write_bytes(altered)
    with pytest.raises(VerificationFailed) as caught:
        layout.read_blob(descriptor.digest, 100)
    assert str(descriptor.digest) in str(caught.value)
    assert str(Digest.of(altered)) in str(caught.value)
    with pytest.raises(VerificationFailed):
        layout.check_blob(descriptor.digest, len(DATA))


@pytest.mark.parametrize("change", [DATA[:-1], DATA + b"x", b""])
def test_reg_02_a_blob_of_another_size_is_refused(layout: Layout, change: bytes) -> None:
    """A truncated or extended blob is refused by its size alone."""
    descriptor = layout.write_blob(DATA, LAYER_TYPE)
    blob(layout, descriptor.digest).write_bytes(change)
    with pytest.raises(VerificationFailed, match="bytes"):
        layout.check_blob(descriptor.digest, len(DATA))


def test_a_missing_blob_is_refused(layout: Layout) -> None:
    """What is not there is a refusal, not an empty answer."""
    with pytest.raises(VerificationFailed, match="missing"):
        layout.read_blob(Digest.of(b"nothing"), 100)


def test_writing_repairs_an_altered_blob(layout: Layout) -> None:
    """A blob is left alone only if it still hashes to its name."""
    descriptor = layout.write_blob(DATA, LAYER_TYPE)
    blob(layout, descriptor.digest).write_bytes(b"garbage")
    layout.write_blob(DATA, LAYER_TYPE)
    assert layout.read_blob(descriptor.digest, 100) == DATA


def test_sig_15_a_blob_over_the_limit_is_not_read(layout: Layout) -> None:
    """A blob larger than the caller's limit is refused before its bytes are taken in."""
    descriptor = layout.write_blob(DATA, LAYER_TYPE)
    with pytest.raises(Inconclusive, match="limit 4"):
        layout.read_blob(descriptor.digest, 4)


@pytest.mark.parametrize("target", ["outside", "missing"])
def test_reg_14_a_linked_blob_is_not_followed(layout: Layout, tmp_path: Path, target: str) -> None:
    """A symbolic link in place of a blob is neither read through nor written through."""
    outside = tmp_path / "outside"
    outside.write_bytes(DATA)
    digest = Digest.of(DATA)
    blob(layout, digest).symlink_to(tmp_path / target)
    with pytest.raises(VerificationFailed):
        layout.read_blob(digest, 100)
    layout.write_blob(DATA, LAYER_TYPE)
    assert not blob(layout, digest).is_symlink()
    assert outside.read_bytes() == DATA
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256"])
def test_reg_14_a_linked_directory_is_not_followed(
    layout: Layout, tmp_path: Path, name: str
) -> None:
    """A layout whose blob directory leads elsewhere is refused for reading and writing."""
    elsewhere = tmp_path / "elsewhere"
    (layout.path / name).rename(elsewhere)
    (layout.path / name).symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    with pytest.raises(VerificationFailed):
        layout.write_blob(DATA, LAYER_TYPE)
    with pytest.raises(VerificationFailed):
        Layout.open(layout.path)
    assert sorted(elsewhere.rglob("*")) == before


def test_reg_14_a_linked_index_is_not_followed(layout: Layout, tmp_path: Path) -> None:
    """An index.json that is a symbolic link is refused."""
    (layout.path / "index.json").rename(tmp_path / "elsewhere")
    (layout.path / "index.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(VerificationFailed):
        layout.manifests()


def test_reg_14_a_fifo_does_not_block(layout: Layout) -> None:
    """A FIFO in place of a blob is refused at once."""
    os.mkfifo(blob(layout, Digest.of(DATA)))
    with pytest.raises(VerificationFailed, match="regular file"):
        layout.read_blob(Digest.of(DATA), 100)


@pytest.mark.parametrize(
    "digest", ["sha256:../../../../etc/passwd", "sha256:" + "/" * 64, "sha256:..", "md5:00"]
)
def test_reg_14_a_digest_cannot_be_a_path(layout: Layout, digest: str) -> None:
    """An index that names a path as a digest is refused before any file is opened."""
    entry = {"mediaType": MANIFEST_TYPE, "digest": digest, "size": 1}
    document = {"schemaVersion": 2, "manifests": [entry]}
    (layout.path / "index.json").write_text(json.dumps(document))
    with pytest.raises(VerificationFailed, match="sha256"):
        layout.manifests()


def test_unknown_members_survive_a_change(layout: Layout) -> None:
    """Adding an entry keeps what other tools wrote into index.json."""
    image = make_image(layout.path)
    path = layout.path / "index.json"
    document = json.loads(path.read_bytes())
    document["annotations"] = {"by": "another tool"}
    document["manifests"][0]["platform"]["os.version"] = "12"
    document["manifests"][0]["urls"] = ["https://example.invalid"]
    path.write_text(json.dumps(document))
    layout.add_manifest(Descriptor(MANIFEST_TYPE, image.digest, image.size))
    after = json.loads(path.read_bytes())
    assert after["annotations"] == document["annotations"]
    assert after["manifests"][0] == document["manifests"][0]
    assert len(after["manifests"]) == 2


def test_adding_twice_changes_nothing(layout: Layout) -> None:
    """An entry that is listed already is not written again."""
    image = make_image(layout.path)
    layout.add_manifest(image)
    before = (layout.path / "index.json").stat()
    layout.add_manifest(image)
    assert (layout.path / "index.json").stat().st_ino == before.st_ino


def test_an_edit_that_raises_writes_nothing(layout: Layout) -> None:
    """A failed change leaves index.json as it was."""
    before = (layout.path / "index.json").read_bytes()

    def fail() -> None:
        with layout.edit() as edit:
            edit.add(Descriptor(MANIFEST_TYPE, Digest.of(b""), 0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (layout.path / "index.json").read_bytes() == before


def test_a_tag_listed_twice_is_refused(layout: Layout) -> None:
    """Two entries under one tag are ambiguous."""
    image = make_image(layout.path)
    other = Descriptor(MANIFEST_TYPE, Digest.of(b"x"), 1)
    layout.add_manifest(other.tagged("latest"))
    assert image
    with pytest.raises(VerificationFailed, match="2 times"):
        layout.tagged("latest")


def test_an_image_is_hashed_to_its_layers(layout: Layout) -> None:
    """check_image counts manifest, config and layer, and gives the manifest back."""
    image = make_image(layout.path)
    checked = check_image(layout, image.digest)
    (_, manifest) = checked.manifests[0]
    sizes = [image.size, manifest.config.size, *(layer.size for layer in manifest.layers)]
    assert checked.total == sum(sizes)


@pytest.mark.parametrize("part", ["manifest", "config", "layer"])
@pytest.mark.parametrize("index", [False, True])
def test_reg_02_one_altered_byte_anywhere_refuses(layout: Layout, part: str, index: bool) -> None:
    """Flipping a bit in any blob of an image, alone or in an index, is found."""
    image = make_image(layout.path)
    root = make_index(layout, image) if index else image
    manifest = layout.read_manifest(image)
    chosen = {"manifest": image, "config": manifest.config, "layer": manifest.layers[0]}[part]
    path = blob(layout, chosen.digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerificationFailed, match="expected sha256:"):
        check_image(layout, root.digest)


def test_an_index_leads_to_every_platform(layout: Layout) -> None:
    """All manifests of an index are walked, with the platforms it gives them."""
    one = make_image(layout.path, b"one")
    two = make_image(layout.path, b"two")
    arm = Descriptor(two.media_type, two.digest, two.size, platform=Platform("linux", "arm64"))
    checked = check_image(layout, make_index(layout, one, arm).digest)
    assert [item.digest for item, _ in checked.manifests] == [one.digest, two.digest]
    assert str(checked.manifests[1][0].platform) == "linux/arm64"


def test_an_empty_index_is_no_image(layout: Layout) -> None:
    """An index without manifests proves nothing."""
    with pytest.raises(VerificationFailed, match="no image"):
        check_image(layout, make_index(layout).digest)


def test_an_unlisted_image_is_refused(layout: Layout) -> None:
    """An image that index.json does not list is not there."""
    with pytest.raises(VerificationFailed, match="not in the layout"):
        check_image(layout, Digest.of(b"unknown"))


def test_reg_15_the_walk_has_limits(layout: Layout) -> None:
    """An image over the limit on blobs or bytes is inconclusive before its blobs are read."""
    image = make_image(layout.path)
    for limits in (ImageLimits(blobs=2), ImageLimits(total=1000)):
        with pytest.raises(Inconclusive, match="exceeds"):
            check_image(layout, image.digest, limits)


def test_sig_15_a_huge_index_is_not_read(layout: Layout) -> None:
    """An index.json over the limit on manifests is inconclusive."""
    with (layout.path / "index.json").open("wb") as stream:
        stream.truncate(oci.MAX_MANIFEST_BYTES + 1)
    with pytest.raises(Inconclusive, match="larger"):
        layout.manifests()


DESCRIPTOR = {"mediaType": "x/y", "digest": str(Digest.of(b"")), "size": 0}
MALFORMED: dict[str, tuple[Callable[[bytes, str], object], bytes]] = {
    "empty": (oci.parse_index, b""),
    "list": (oci.parse_index, b"[]"),
    "no entries": (oci.parse_index, b'{"schemaVersion":2}'),
    "version 1": (oci.parse_index, b'{"schemaVersion":1,"manifests":[]}'),
    "version true": (oci.parse_index, b'{"schemaVersion":true,"manifests":[]}'),
    "entries twice": (oci.parse_index, b'{"schemaVersion":2,"manifests":[],"manifests":[]}'),
    "trailing": (oci.parse_index, b'{"schemaVersion":2,"manifests":[]}{}'),
    "also a manifest": (oci.parse_index, b'{"schemaVersion":2,"manifests":[],"layers":[]}'),
    "other type": (oci.parse_index, b'{"schemaVersion":2,"manifests":[],"mediaType":"a/b"}'),
    "entry is text": (oci.parse_index, b'{"schemaVersion":2,"manifests":["x"]}'),
    "negative size": (
        oci.parse_index,
        json.dumps({"schemaVersion": 2, "manifests": [DESCRIPTOR | {"size": -1}]}).encode(),
    ),
    "size is a float": (
        oci.parse_index,
        json.dumps({"schemaVersion": 2, "manifests": [DESCRIPTOR | {"size": 1.0}]}).encode(),
    ),
    "annotation is a number": (
        oci.parse_index,
        json.dumps(
            {"schemaVersion": 2, "manifests": [DESCRIPTOR | {"annotations": {"a": 1}}]}
        ).encode(),
    ),
    "manifest without config": (oci.parse_manifest, b'{"schemaVersion":2,"layers":[]}'),
    "manifest also an index": (
        oci.parse_manifest,
        json.dumps({"schemaVersion": 2, "config": DESCRIPTOR, "manifests": []}).encode(),
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_sig_05_malformed_manifests_refuse(case: str) -> None:
    """Manifests and indexes that could be read in two ways are refused."""
    parse, data = MALFORMED[case]
    with pytest.raises(VerificationFailed):
        parse(data, case)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_an_index_or_a_refusal(data: bytes) -> None:
    """No bytes make the parser fail in another way."""
    for parse in (oci.parse_index, oci.parse_manifest):
        try:
            parse(data, "input")
        except PipelineError:
            continue
