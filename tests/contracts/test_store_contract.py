"""What every oci.store.Target promises: a layout on disk and repositories of real registries.

The registries: Debian's, which leaves referrers to its clients; one with the referrers API,
OCI-Subject and conditional requests; and the same without the last two.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from fakes.registry import (
    build_referrers_registry,
    debian_program,
    debian_registry,
    push_referrers,
    referrers_registry,
)
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.dockerconfig import NoCredentials
from secure_pipeline.adapters.registry import open_repository
from secure_pipeline.errors import Inconclusive, PipelineError, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import (
    EMPTY_BYTES,
    EMPTY_TYPE,
    INDEX_TYPE,
    MANIFEST_TYPE,
    MAX_MANIFEST_BYTES,
    Descriptor,
)
from secure_pipeline.oci.store import Target

ARTIFACT = "application/vnd.example.note.v1+json"
WRITERS = 16
BIG = 40 << 20


@dataclass
class Registries:
    """Registries that are started when first asked for."""

    directory: Path
    stack: ExitStack
    hosts: dict[str, str] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)

    def host(self, kind: str) -> str:
        if kind not in self.hosts:
            self.hosts[kind] = self.stack.enter_context(self._start(kind))
        return self.hosts[kind]

    def _start(self, kind: str) -> object:
        place = self.directory / kind
        place.mkdir()
        if kind == "debian":
            return debian_registry(debian_program(), place)
        return referrers_registry(build_referrers_registry(place), bare=kind == "bare")


@pytest.fixture(scope="module")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    with ExitStack() as stack:
        yield Registries(tmp_path_factory.mktemp("registries"), stack)


@dataclass(frozen=True)
class Store:
    """A new, empty store; every ``open`` is another client of it."""

    kind: str
    open: Callable[[], Target]
    host: str = ""
    path: str = ""


real = pytest.mark.integration


@pytest.fixture(
    params=[
        "layout",
        pytest.param("debian", marks=real),
        pytest.param("referrers", marks=real),
        pytest.param("bare", marks=real),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path, registries: Registries) -> Store:
    if request.param == "layout":
        Layout.create(tmp_path / "layout")
        return Store("layout", lambda: Layout.open(tmp_path / "layout"))
    host = registries.host(request.param)
    path = f"team/app-{next(registries.numbers)}"
    return Store(
        request.param,
        lambda: open_repository(f"{host}/{path}", credentials=NoCredentials(), clock=SystemClock()),
        host,
        path,
    )


def manifest(
    target: Target, *, subject: Descriptor | None = None, note: str = "", artifact: bool = True
) -> bytes:
    """A manifest whose blobs are stored already."""
    config = target.write_blob(EMPTY_BYTES, EMPTY_TYPE)
    layer = target.write_blob(b"content", "text/plain")
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.to_json(),
        "layers": [layer.to_json()],
        "annotations": {"note": note, "another": "ü"},
    }
    if artifact:
        document["artifactType"] = ARTIFACT
    if subject:
        document["subject"] = subject.to_json()
    return json.dumps(document).encode()


def image(target: Target) -> Descriptor:
    return target.write_manifest(
        manifest(target, artifact=False, note="image"), MANIFEST_TYPE, tag="latest"
    )


def attach(target: Target, subject: Descriptor, note: str) -> Descriptor:
    return target.write_manifest(manifest(target, subject=subject, note=note), MANIFEST_TYPE)


def at_once(work: Callable[[int], object], number: int = WRITERS) -> list[object]:
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(work, range(number)))


def test_blobs_come_back_as_they_went(store: Store) -> None:
    """A blob is found under its digest, whole, and only then."""
    data = os.urandom(1 << 17)
    digest = Digest.of(data)
    target = store.open()
    assert not target.has_blob(digest, len(data))
    assert target.write_blob(data, "text/plain") == Descriptor("text/plain", digest, len(data))
    other = store.open()
    assert other.has_blob(digest, len(data))
    assert other.read_blob(digest, len(data)) == data
    assert other.read_blob(digest, 1 << 20, len(data)) == data
    assert b"".join(other.stream_blob(digest, len(data))) == data
    other.check_blob(digest, len(data))


def test_an_empty_blob_is_a_blob(store: Store) -> None:
    """No bytes have a digest too."""
    target = store.open()
    blob = target.write_blob(b"", "text/plain")
    assert target.read_blob(blob.digest, 10, 0) == b""
    assert list(target.stream_blob(blob.digest, 0)) == []


def test_writing_a_blob_twice_changes_nothing(store: Store) -> None:
    """The same bytes have the same descriptor, however often and by whomever written."""
    written = at_once(lambda _: store.open().write_blob(b"the same", "text/plain"))
    assert len({str(item) for item in written}) == 1
    assert store.open().read_blob(Digest.of(b"the same"), 100) == b"the same"


def test_a_missing_blob_fails(store: Store) -> None:
    """What is not there is proven to be missing, not unavailable."""
    gone = Digest.of(b"never written")
    target = store.open()
    for read in (
        lambda: target.read_blob(gone, 100),
        lambda: target.read_blob(gone, 100, 13),
        lambda: list(target.stream_blob(gone, 13)),
        lambda: target.check_blob(gone, 13),
        lambda: target.find(gone),
        lambda: target.read_manifest(Descriptor(MANIFEST_TYPE, gone, 13)),
        lambda: target.read_index(Descriptor(INDEX_TYPE, gone, 13)),
    ):
        with pytest.raises(VerificationFailed):
            read()


def test_a_blob_of_another_size_fails(store: Store) -> None:
    """A size that a descriptor says wrongly is an error before the last byte is given."""
    target = store.open()
    blob = target.write_blob(b"x" * 1000, "text/plain")
    for size in (0, 1, 999, 1001):
        with pytest.raises(VerificationFailed):
            target.read_blob(blob.digest, 5000, size)
        with pytest.raises(VerificationFailed):
            list(target.stream_blob(blob.digest, size))


def test_sig_15_a_blob_over_the_limit_is_inconclusive(store: Store) -> None:
    """A limit refuses; it never truncates."""
    target = store.open()
    blob = target.write_blob(b"x" * 1000, "text/plain")
    for size in (None, 1000):
        with pytest.raises(Inconclusive):
            target.read_blob(blob.digest, 999, size)


def test_a_big_blob_is_received_in_pieces(store: Store) -> None:
    """A stream of any size is stored under its digest."""
    piece = os.urandom(1 << 20)
    data = piece * (BIG // len(piece)) + b"end"
    digest = Digest.of(data)
    view = memoryview(data)
    chunks = (bytes(view[start : start + 300_007]) for start in range(0, len(data), 300_007))
    store.open().receive(digest, len(data), chunks)
    store.open().check_blob(digest, len(data))
    assert b"".join(store.open().stream_blob(digest, len(data))) == data


@pytest.mark.parametrize("size", [100, 20 << 20], ids=["small", "big"])
@pytest.mark.parametrize("wrong", ["bytes", "short", "long"])
def test_reg_02_a_stream_of_other_bytes_is_not_kept(store: Store, size: int, wrong: str) -> None:
    """A stream whose digest or size is another fails, and nothing is there afterwards."""
    data = os.urandom(size)
    sent = {"bytes": data[:-1] + bytes([data[-1] ^ 1]), "short": data[:-1], "long": data + b"x"}
    with pytest.raises(VerificationFailed):
        store.open().receive(Digest.of(data), size, iter([sent[wrong]]))
    assert not store.open().has_blob(Digest.of(data), size)
    assert not store.open().has_blob(Digest.of(sent[wrong]), len(sent[wrong]))


@pytest.mark.parametrize("size", [100, 20 << 20], ids=["small", "big"])
def test_what_a_stream_raises_comes_through(store: Store, size: int) -> None:
    """An error of the stream's source ends the writing and is not replaced by another."""
    data = os.urandom(size)

    def chunks() -> Iterator[bytes]:
        yield data[: size // 2]
        raise Inconclusive("the source ended")

    with pytest.raises(Inconclusive, match="the source ended"):
        store.open().receive(Digest.of(data), size, chunks())
    assert not store.open().has_blob(Digest.of(data), size)


def test_manifests_by_digest_and_tag(store: Store) -> None:
    """A manifest is found by its digest and by its tag; an unknown tag names nothing."""
    target = store.open()
    written = image(target)
    other = store.open()
    found = other.find(written.digest)
    assert (found.media_type, found.size) == (MANIFEST_TYPE, written.size)
    tagged = other.tagged("latest")
    assert tagged is not None
    assert tagged.digest == written.digest
    assert other.tagged("unknown") is None
    read = other.read_manifest(written)
    assert Digest.of(read.raw) == written.digest
    assert read.annotations["another"] == "ü"


def test_an_index_and_its_parts(store: Store) -> None:
    """An index comes after its parts, and is read as one."""
    target = store.open()
    part = target.write_manifest(manifest(target, note="part"), MANIFEST_TYPE, listed=False)
    document = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [part.to_json()]}
    written = target.write_manifest(json.dumps(document).encode(), INDEX_TYPE, tag="multi")
    other = store.open()
    assert other.find(written.digest).media_type == INDEX_TYPE
    assert [item.digest for item in other.read_index(written).manifests] == [part.digest]
    assert other.read_manifest(part).kind == ARTIFACT


def test_a_manifest_read_through_a_wrong_descriptor_fails(store: Store) -> None:
    """Size and media type of a descriptor are checked like the digest."""
    target = store.open()
    written = image(target)
    for media_type, size in (
        (MANIFEST_TYPE, written.size + 1),
        ("application/vnd.docker.distribution.manifest.v2+json", written.size),
    ):
        with pytest.raises(VerificationFailed):
            target.read_manifest(Descriptor(media_type, written.digest, size))
    with pytest.raises(VerificationFailed):
        target.read_index(written)
    huge = Descriptor(MANIFEST_TYPE, written.digest, MAX_MANIFEST_BYTES + 1)
    with pytest.raises(Inconclusive):
        target.read_manifest(huge)


def test_a_malformed_manifest_is_not_written(store: Store) -> None:
    """What could not be read again is refused before it is stored under a tag."""
    with pytest.raises(PipelineError):
        store.open().write_manifest(b'{"schemaVersion":2}', MANIFEST_TYPE, tag="bad")
    assert store.open().tagged("bad") is None


def test_a_tag_moves(store: Store) -> None:
    """The last one written under a tag is what it names."""
    target = store.open()
    for note in ("first", "second"):
        written = target.write_manifest(manifest(target, note=note), MANIFEST_TYPE, tag="moving")
        tagged = store.open().tagged("moving")
        assert tagged is not None
        assert tagged.digest == written.digest


def test_referrers_of_nothing(store: Store) -> None:
    """An image to which nothing refers, and one that is unknown, have no referrers."""
    written = image(store.open())
    assert store.open().referrers(written.digest) == ()
    assert store.open().referrers(Digest.of(b"unknown")) == ()


def test_reg_09_referrers_are_listed_once(store: Store) -> None:
    """What refers to an image is listed, once, also when it was written twice."""
    target = store.open()
    subject = image(target)
    written = {attach(target, subject, note).digest for note in ("a", "b", "a")}
    other = image(target)
    found = store.open().referrers(subject.digest)
    assert sorted(item.digest for item in found) == sorted(written)
    assert other.digest == subject.digest
    for item in found:
        read = store.open().read_manifest(item)
        assert read.subject is not None
        assert read.subject.digest == subject.digest


def test_sig_29_writers_of_referrers_at_once_lose_nothing(store: Store) -> None:
    """Sixteen writers, each with a client of its own: every referrer is listed in the end."""
    subject = image(store.open())
    manifest(store.open(), subject=subject)  # its blobs are there

    def work(number: int) -> Digest:
        target = store.open()
        written = attach(target, subject, f"note {number}")
        assert written.digest in {item.digest for item in target.referrers(subject.digest)}
        return written.digest

    written = at_once(work)
    found = [item.digest for item in store.open().referrers(subject.digest)]
    assert sorted(found) == sorted(written)  # type: ignore[type-var]


def appended(target: Target, text: str) -> Callable[[bytes | None], bytes | None]:
    """A change that adds a layer with this annotation, unless it is there."""

    def change(present: bytes | None) -> bytes | None:
        document = json.loads(present if present is not None else manifest(target))
        notes = [layer.get("annotations", {}).get("text") for layer in document["layers"]]
        if text in notes:
            return None
        layer = {**document["layers"][0], "annotations": {"text": text}}
        document["layers"].append(layer)
        return json.dumps(document).encode()

    return change


def texts(target: Target, tag: str) -> list[str]:
    tagged = target.tagged(tag)
    assert tagged is not None
    layers = target.read_manifest(tagged).layers
    return [item.annotations["text"] for item in layers if "text" in item.annotations]


def test_a_change_of_a_tag_holds(store: Store) -> None:
    """A tag is made, changed, and left alone when there is nothing to change."""
    target = store.open()
    assert target.change_tag("notes", MANIFEST_TYPE, lambda present: None) is None
    for text in ("one", "two", "one"):
        changed = target.change_tag("notes", MANIFEST_TYPE, appended(target, text))
        assert changed is not None
        assert changed.digest == getattr(store.open().tagged("notes"), "digest", None)
    assert texts(store.open(), "notes") == ["one", "two"]


def test_what_a_change_raises_leaves_the_tag_alone(store: Store) -> None:
    """An error while changing comes through, and the tag names what it named."""
    target = store.open()
    target.change_tag("notes", MANIFEST_TYPE, appended(target, "one"))

    def change(present: bytes | None) -> bytes | None:
        raise VerificationFailed("not ours")

    with pytest.raises(VerificationFailed, match="not ours"):
        target.change_tag("notes", MANIFEST_TYPE, change)
    assert texts(store.open(), "notes") == ["one"]


def test_sig_29_changes_of_a_tag_at_once_lose_nothing(store: Store) -> None:
    """Sixteen writers change one tag: every change is in what it names in the end, once."""
    manifest(store.open())  # its blobs are there

    def work(number: int) -> None:
        target = store.open()
        target.change_tag("notes", MANIFEST_TYPE, appended(target, f"text {number}"))

    at_once(work)
    assert sorted(texts(store.open(), "notes")) == sorted(f"text {n}" for n in range(WRITERS))


def test_a_thousand_referrers(store: Store) -> None:
    """All of a thousand referrers are listed."""
    target = store.open()
    subject = image(target)
    base = json.loads(manifest(target, subject=subject))
    wanted = [
        json.dumps({**base, "annotations": {"note": f"note {number}"}}).encode()
        for number in range(1000)
    ]
    if store.kind in ("layout", "referrers"):
        for data in wanted:
            target.write_manifest(data, MANIFEST_TYPE)
    else:  # the tag once: each of a thousand writers would read it again after a pause
        push_referrers(store.host, store.path, wanted, subject.digest)
    found = store.open().referrers(subject.digest)
    assert len(found) == 1000
    assert {item.digest for item in found} == {Digest.of(data) for data in wanted}
