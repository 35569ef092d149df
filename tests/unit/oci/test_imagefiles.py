"""Files out of images: what every engine sees there, or a refusal."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.images import GZIP, Layer, build_image, build_index, sparse_archive
from secure_pipeline.errors import Inconclusive, PipelineError, VerificationFailed
from secure_pipeline.oci import imagefiles
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.image import write_image, write_index
from secure_pipeline.oci.imagefiles import FilesRefused, ImageFile, take_files
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import Descriptor

WHEEL = "opt/wheel/app-1.0-py3-none-any.whl"
PATTERNS = ("/opt/wheel/*.whl",)
Member = tuple[str, bytes | str | None]
"""Path; content, or '>target' of a symbolic link, '=target' of a hard link, None: a directory."""


def tar(members: Iterable[Member]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type = tarfile.SYMTYPE if content[0] == ">" else tarfile.LNKTYPE
                info.linkname = content[1:]
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return stream.getvalue()


def raw_image(path: Path, layers: Sequence[bytes]) -> tuple[Layout, Digest]:
    """An image of these tar streams."""
    layout = Layout.create(path)
    packed = [layout.write_blob(gzip.compress(data, mtime=0), GZIP) for data in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(data)) for data in layers]},
    }
    image = write_image(layout, json.dumps(config).encode(), packed)
    layout.add_manifest(image)
    return layout, image.digest


def taken(
    path: Path, *layers: Iterable[Member], patterns: Sequence[str] = PATTERNS
) -> dict[str, bytes]:
    """Content by path in the image."""
    layout, image = raw_image(path / "image", [tar(layer) for layer in layers])
    into = path / "files"
    into.mkdir()
    found = take_files(layout, image, patterns, into)
    assert take_files(layout, image, patterns) == found
    contents = {file.path: (into / file.name).read_bytes() for file in found}
    assert {path.name for path in into.iterdir()} == {file.name for file in found}
    assert {file.path: (file.digest, file.size) for file in found} == {
        path: (Digest.of(data), len(data)) for path, data in contents.items()
    }
    return contents


def test_files_are_taken_out_with_their_bytes(tmp_path: Path) -> None:
    """What matches is found under its name, digest and size; nothing else is written."""
    other = "opt/wheel/app.tar.gz"
    base = [(WHEEL, b"wheel"), (other, b"source"), ("etc/x.whl", b"no"), ("opt/wheel/a.txt", b"n")]
    patterns = ("/opt/wheel/*.whl", "/opt/**/*.tar.gz")
    assert taken(tmp_path, base, patterns=patterns) == {
        f"/{WHEEL}": b"wheel",
        f"/{other}": b"source",
    }


def test_the_last_layer_decides(tmp_path: Path) -> None:
    """A replaced file has its new bytes; one that was deleted, or whose directory was, is out."""
    gone, below = "opt/wheel/old.whl", "opt/wheel/new/x.whl"
    layers: tuple[list[Member], ...] = (
        [(WHEEL, b"first"), (gone, b"gone"), (below, b"gone too")],
        [("./opt//wheel/app-1.0-py3-none-any.whl", b"second"), ("opt/wheel/.wh.old.whl", b"")],
        [("opt/wheel/.wh.new", b"")],
    )
    assert taken(tmp_path, *layers, patterns=("/opt/**/*.whl",)) == {f"/{WHEEL}": b"second"}


def test_an_opaque_directory_hides_what_was_there(tmp_path: Path) -> None:
    """Only what its own layer puts there stays."""
    layers: tuple[list[Member], ...] = (
        [("opt/wheel/old.whl", b"old")],
        [("opt/wheel/.wh..wh..opq", b""), (WHEEL, b"new")],
    )
    assert taken(tmp_path, *layers) == {f"/{WHEEL}": b"new"}


REFUSED: list[tuple[str, tuple[list[Member], ...]]] = [
    ("no file of the image matches", ([("opt/other", b"x")],)),
    ("no file of the image matches", ([(WHEEL, b"x")], [("opt/.wh.wheel", b"")])),
    ("no file of the image matches", ([(WHEEL, None)],)),
    ("no file of the image matches", ([("srv/a.whl", b"x"), ("opt/wheel", ">../srv")],)),
    ("no plain file: symbolic link", ([(WHEEL, ">/etc/shadow")],)),
    ("no plain file: symbolic link", ([(WHEEL, b"x")], [(WHEEL, ">/etc/shadow")])),
    ("no plain file", ([("etc/x", b"x"), (WHEEL, "=etc/x")],)),
    ("twice", ([(WHEEL, b"one"), (WHEEL, b"two")],)),
    ("twice", ([(WHEEL, b"one"), (f"./{WHEEL}", b"two")],)),
    ("twice", ([(WHEEL, ">/etc/shadow"), (WHEEL, b"two")],)),
    ("both adds and removes", ([(WHEEL, b"x"), (f"opt/wheel/.wh.{WHEEL[10:]}", b"")],)),
    ("both adds and removes", ([("opt/.wh.wheel", b""), (WHEEL, b"x")],)),
    ("below something that is no directory", ([("opt/wheel", ">/srv"), (WHEEL, b"x")],)),
    ("below something that is no directory", ([(WHEEL, b"x"), ("opt/wheel", ">/srv")],)),
    (
        "below something that is no directory",
        ([("opt/wheel", ">/srv"), (WHEEL, b"x"), ("opt/wheel", None)],),
    ),
    ("which is no directory", ([("opt/wheel", ">/srv")], [(WHEEL, b"x")])),
    ("which is no directory", ([("opt", b"a file")], [(WHEEL, b"x")])),
    ("no name for a file to sign", ([("opt/wheel/a b.whl", b"x")],)),
    ("no name for a file to sign", ([("opt/wheel/.hidden.whl", b"x")],)),
    ("no name for a file to sign", ([("opt/wheel/a\nb.whl", b"x")],)),
    ("no name for a file to sign", ([("opt/wheel/\udcff.whl", b"x")],)),
]


@pytest.mark.parametrize(("words", "layers"), REFUSED)
def test_what_engines_could_see_differently_is_refused(
    tmp_path: Path, words: str, layers: tuple[list[Member], ...]
) -> None:
    """Links, duplicates, contradictions inside a layer, odd names, and nothing at all."""
    with pytest.raises(FilesRefused, match=words):
        taken(tmp_path, *layers)


def test_each_pattern_needs_a_file_and_each_name_is_one_file(tmp_path: Path) -> None:
    """One file does not stand in for another pattern; two of one name would overwrite."""
    with pytest.raises(FilesRefused, match=r"matches /opt/\*\.zip"):
        taken(tmp_path / "a", [(WHEEL, b"x")], patterns=(*PATTERNS, "/opt/*.zip"))
    two: list[Member] = [("a/x.whl", b"1"), ("b/x.whl", b"2")]
    with pytest.raises(FilesRefused, match="one name"):
        taken(tmp_path / "b", two, patterns=("/*/x.whl",))
    bundle: list[Member] = [("opt/x.sigstore.json", b"[]")]
    with pytest.raises(FilesRefused, match="taken for a signature"):
        taken(tmp_path / "c", bundle, patterns=("/opt/*",))


def test_a_path_that_leads_upwards_is_no_answer(tmp_path: Path) -> None:
    """Whatever a member's name is normalised to elsewhere."""
    with pytest.raises(Inconclusive, match="leads upwards"):
        taken(tmp_path, [(f"x/../{WHEEL}", b"x")])


@pytest.mark.parametrize(
    "content",
    [
        b'{"schemaVersion": 2, "config": {}, "layers": []}',
        b' \n{"Config": 1, "LAYERS": [], "x": ' + b"9" * 5000 + b"}",
        b'{"manifests": [], "\xff": 1}',
        b'{"fsLayers": []}',
        b'{"config": 1, "layers": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        '{"manife\u017ft\u017f": []}'.encode(),
    ],
)
def test_a_manifest_is_not_signed_as_a_file(tmp_path: Path, content: bytes) -> None:
    """Its digest, once signed, would name an image that no gate has looked at."""
    with pytest.raises(FilesRefused, match="manifest"):
        taken(tmp_path, [(WHEEL, content)])


def test_other_json_is_a_file_like_any(tmp_path: Path) -> None:
    """A bill of materials or a list is no manifest."""
    for number, content in enumerate((b'{"bomFormat": "CycloneDX"}', b"[]", b"{", b'{"layers":1}')):
        assert taken(tmp_path / str(number), [(WHEEL, content)]) == {f"/{WHEEL}": content}


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        ("MAX_FILE_BYTES", 3, "at most 3 bytes"),
        ("MAX_TOTAL_BYTES", 7, "all 7"),
        ("MAX_FILES", 1, "limit is 1"),
    ],
)
def test_limits_end_undecided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, words: str
) -> None:
    """Size of one, of all, and number; what a later layer replaces counts too."""
    monkeypatch.setattr(imagefiles, limit, value)
    with pytest.raises(Inconclusive, match=words):
        taken(tmp_path, [(WHEEL, b"1234"), ("opt/wheel/b.whl", b"5678")])


def test_a_sparse_file_is_no_plain_file(tmp_path: Path) -> None:
    """A few bytes of archive that read as gigabytes are not read."""
    layout, image = raw_image(tmp_path / "image", [sparse_archive(WHEEL)])
    with pytest.raises(FilesRefused, match="no plain file"):
        take_files(layout, image, PATTERNS)


def test_altered_layers_are_not_read_to_the_end(tmp_path: Path) -> None:
    """One changed byte of a layer, or a layer under another's diff id, is proven wrong."""
    layout, image = raw_image(tmp_path / "image", [tar([(WHEEL, b"x" * 1000)])])
    manifest = layout.read_manifest(layout.find(image))
    (layer,) = manifest.layers
    config = layout.read_blob(manifest.config.digest, 1 << 20)
    other = config.replace(
        str(Digest.of(tar([(WHEEL, b"x" * 1000)]))).encode(), b"sha256:" + b"0" * 64
    )
    swapped = write_image(layout, other, [layer])
    layout.add_manifest(swapped)
    with pytest.raises(VerificationFailed, match="the configuration says"):
        take_files(layout, swapped.digest, PATTERNS)
    blob = layout.path / "blobs/sha256" / layer.digest.hex
    data = bytearray(blob.read_bytes())
    data[-9] ^= 1
    blob.write_bytes(data)
    with pytest.raises(VerificationFailed):
        take_files(layout, image, PATTERNS)


def test_a_layer_that_cannot_be_unpacked_is_no_answer(tmp_path: Path) -> None:
    """Zstandard is not read here; plain tar is."""
    plain = Layer({WHEEL: b"x"}, media_type="application/vnd.oci.image.layer.v1.tar")
    image = build_image(tmp_path / "plain", [plain])
    found = take_files(Layout.open(tmp_path / "plain"), image.digest, PATTERNS)
    assert [file.name for file in found] == [WHEEL[10:]]
    odd = Layer({WHEEL: b"x"}, media_type="application/vnd.oci.image.layer.v1.tar+zstd")
    image = build_image(tmp_path / "odd", [odd])
    with pytest.raises(Inconclusive, match="cannot be read"):
        take_files(Layout.open(tmp_path / "odd"), image.digest, PATTERNS)


def index(path: Path, *contents: bytes) -> tuple[Layout, Descriptor]:
    layout = Layout.create(path)
    images = []
    for number, content in enumerate(contents):
        entries = [Layer({WHEEL: content, "arch": str(number).encode()})]
        item = build_image(path, entries, platform=f"linux/arch{number}", tag=None)
        images.append(imagefiles.read_image(layout, item))
    made = write_index(layout, images)
    layout.add_manifest(made)
    return layout, made


def test_the_images_of_an_index_agree(tmp_path: Path) -> None:
    """The same file in each platform is one file; two different ones are refused."""
    layout, made = index(tmp_path / "same", b"x", b"x")
    (file,) = take_files(layout, made.digest, PATTERNS)
    assert file == ImageFile(f"/{WHEEL}", Digest.of(b"x"), 1)
    layout, made = index(tmp_path / "other", b"x", b"y")
    with pytest.raises(FilesRefused, match="differ between the platforms"):
        take_files(layout, made.digest, PATTERNS)
    foreign = build_index(tmp_path / "foreign", {"linux/amd64": [Layer({WHEEL: b"x"})]})
    with pytest.raises(FilesRefused):
        take_files(Layout.open(tmp_path / "foreign"), foreign.digest, PATTERNS)


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from(
                    [WHEEL, "opt/wheel", "opt", f"opt/wheel/.wh.{WHEEL[10:]}", "opt/.wh.wheel"]
                ),
                st.sampled_from([b"one", b"two", ">/srv", "=opt/x", None]),
            ),
            max_size=4,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_whatever_the_layers_hold_it_is_plain_or_refused(
    tmp_path_factory: pytest.TempPathFactory, layers: list[list[Member]]
) -> None:
    """Only the plain file of the last layer that names it is ever returned."""
    try:
        found = taken(tmp_path_factory.mktemp("any"), *layers)
    except PipelineError:
        return
    (content,) = found.values()
    last = [item for layer in layers for item in layer if item[0] == WHEEL][-1]
    assert content == last[1]


@pytest.mark.parametrize("damage", [lambda d: d[:-20], lambda d: d + b"junk", lambda d: b""])
def test_a_layer_whose_packing_is_broken_is_proven_wrong(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """Cut, continued with something else, or empty: never a file, whatever was read before."""
    data = tar([(WHEEL, b"x" * 5000)])
    layout, image = raw_image(tmp_path / "image", [data])
    manifest = layout.read_manifest(layout.find(image))
    broken = layout.write_blob(damage(gzip.compress(data, mtime=0)), GZIP)
    config = layout.read_blob(manifest.config.digest, 1 << 20)
    made = write_image(layout, config, [broken])
    layout.add_manifest(made)
    with pytest.raises((VerificationFailed, Inconclusive)):
        take_files(layout, made.digest, PATTERNS)
