"""Evidence written into real registries, by one writer and by many at once; images copied."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fakes.evidence import NAME, NOON, StepClock, evidence, make_image, sign_inputs, signer
from fakes.registry import (
    build_referrers_registry,
    debian_program,
    debian_registry,
    referrers_registry,
)
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.dockerconfig import NoCredentials
from secure_pipeline.adapters.registry import Repository, open_repository
from secure_pipeline.attestations import dsse, predicates
from secure_pipeline.attestations.attachments import collect
from secure_pipeline.attestations.forms import att_tag
from secure_pipeline.attestations.publishing import Published, publish
from secure_pipeline.attestations.statement import make_statement
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.events import ignore
from secure_pipeline.oci.copy import copy_image
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.form import layers_form
from secure_pipeline.oci.image import read_image, write_index
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import MANIFEST_TYPE, Descriptor
from secure_pipeline.oci.walk import check_image
from secure_pipeline.stages.result import Verdict
from secure_pipeline.stages.sign import sign

pytestmark = pytest.mark.integration

KEY = signer().public_key("release")
KINDS = [*evidence(), predicates.SEAL]


@pytest.fixture(scope="module", params=["api", "plain"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with the referrers API, and Debian's without."""
    directory = tmp_path_factory.mktemp("registry")
    if request.param == "api":
        with referrers_registry(build_referrers_registry(directory)) as found:
            yield found
    else:
        with debian_registry(debian_program(), directory) as found:
            yield found


@pytest.fixture
def repository(host: str, request: pytest.FixtureRequest) -> Callable[[], Repository]:
    """Opens this test's own repository; each call is another client."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:60].strip("-")
    return lambda: open_repository(
        f"{host}/tests/{name}", credentials=NoCredentials(), clock=SystemClock()
    )


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Layout, Descriptor]:
    """A layout with an image, signed and sealed."""
    image = make_image(tmp_path / "layout")
    result = sign(sign_inputs(tmp_path / "layout", image), signer(), StepClock(), ignore)
    assert result.verdict is Verdict.PASS
    return Layout.open(tmp_path / "layout"), image


def statement(image: Descriptor, number: int) -> dsse.Envelope:
    payload = make_statement(NAME, image.digest, predicates.TEST_RESULT, {"number": number})
    return dsse.parse_envelope(dsse.sign_envelope(payload, signer()))


def payloads(repository: Repository, image: Digest) -> dict[str, set[bytes]]:
    """The payloads in each layout, read apart from the writer's own idea of them."""
    layers = {"att": [], "bundle": []}  # type: dict[str, list[Descriptor]]
    tagged = repository.tagged(att_tag(image))
    if tagged:
        layers["att"] += repository.read_manifest(tagged).layers
    for listed in repository.referrers(image):
        layers["bundle"] += repository.read_manifest(listed).layers
    found: dict[str, set[bytes]] = {}
    for place, items in layers.items():
        documents = [json.loads(repository.read_blob(i.digest, 1 << 20)) for i in items]
        envelopes = [document.get("dsseEnvelope", document) for document in documents]
        found[place] = {dsse.strict_base64(e["payload"], "payload", place) for e in envelopes}
        assert len(found[place]) == len(items), f"{place}: something is there twice"
    return found


def test_both_layouts_hold_the_same_set(
    repository: Callable[[], Repository], signed: tuple[Layout, Descriptor]
) -> None:
    """What is published is in both layouts, once; publishing again adds nothing."""
    layout, image = signed
    store = repository()
    copy_image(layout, image.digest, store, tag=None, on_progress=str)
    before = payloads(store, image.digest)
    envelopes = [statement(image, number) for number in range(3)]
    assert publish(store, image, envelopes, KEY, NOON) == Published(3, 3)
    expected = {item.payload for item in envelopes}
    after = payloads(repository(), image.digest)
    assert after == {place: found | expected for place, found in before.items()}
    assert publish(repository(), image, envelopes, KEY, NOON) == Published(0, 0)
    assert payloads(store, image.digest) == after


def test_what_one_layout_lacks_comes_from_the_other(
    repository: Callable[[], Repository], signed: tuple[Layout, Descriptor]
) -> None:
    """An .att tag that lost half of its layers is whole after the next publication."""
    layout, image = signed
    store = repository()
    copy_image(layout, image.digest, store, tag=None, on_progress=str)
    whole = payloads(store, image.digest)
    tagged = store.tagged(att_tag(image.digest))
    assert tagged
    form = layers_form(store.read_manifest(tagged).layers[:3], {})
    for data, kind in form.blobs:
        store.write_blob(data, kind)
    store.write_manifest(form.manifest, MANIFEST_TYPE, tag=att_tag(image.digest))
    assert len(payloads(store, image.digest)["att"]) == 3
    extra = statement(image, 1)
    publish(store, image, [extra], KEY, NOON)
    assert payloads(store, image.digest)["att"] == whole["att"] | {extra.payload}


@pytest.mark.parametrize("writers", [2, 8])
def test_sig_29_many_writers_at_once_lose_nothing(
    repository: Callable[[], Repository], signed: tuple[Layout, Descriptor], writers: int
) -> None:
    """Every writer's statements are in both layouts afterwards, whoever came last."""
    layout, image = signed
    copy_image(layout, image.digest, repository(), tag=None, on_progress=str)
    before = payloads(repository(), image.digest)
    start = threading.Barrier(writers)

    def write(number: int) -> set[bytes]:
        envelopes = [statement(image, 100 * number + part) for part in range(2)]
        start.wait(30)
        publish(repository(), image, envelopes, KEY, NOON)
        return {item.payload for item in envelopes}

    with ThreadPoolExecutor(writers) as pool:
        expected = set().union(*pool.map(write, range(writers)))
    after = payloads(repository(), image.digest)
    assert after == {place: found | expected for place, found in before.items()}


def test_only_what_the_key_signed_about_the_image_is_published(
    repository: Callable[[], Repository], signed: tuple[Layout, Descriptor]
) -> None:
    """Another key's envelope, and one about another image, are refused before anything is sent."""
    layout, image = signed
    store = repository()
    copy_image(layout, image.digest, store, tag=None, on_progress=str)
    before = payloads(store, image.digest)
    payload = make_statement(NAME, image.digest, predicates.TEST_RESULT, {})
    strange = dsse.parse_envelope(dsse.sign_envelope(payload, signer(1)))
    with pytest.raises(VerificationFailed, match="not signed by key 'release'"):
        publish(store, image, [strange], KEY, NOON)
    other = Descriptor(image.media_type, Digest.of(b"other"), image.size)
    with pytest.raises(VerificationFailed, match="expected exactly the subject"):
        publish(store, image, [statement(other, 1)], KEY, NOON)
    assert payloads(store, image.digest) == before


def test_a_copy_and_its_way_back_keep_every_byte(
    repository: Callable[[], Repository], signed: tuple[Layout, Descriptor], tmp_path: Path
) -> None:
    """Layout to registry to another layout: image, referrers and tags are the same bytes."""
    layout, image = signed
    store = repository()
    first = copy_image(layout, image.digest, store, tag="v1", on_progress=str)
    assert first.referrers == len(KINDS) + 1
    assert [tag for tag in first.tags if tag.endswith(".att")] == [att_tag(image.digest)]
    tagged = store.tagged("v1")
    assert tagged
    assert tagged.digest == image.digest
    back = Layout.create(tmp_path / "back")
    copy_image(store, image.digest, back, tag=None, on_progress=str)
    check_image(back, image.digest)
    assert {item.digest for item in back.referrers(image.digest)} == {
        item.digest for item in layout.referrers(image.digest)
    }
    assert back.tagged(att_tag(image.digest)) == layout.tagged(att_tag(image.digest))
    assert {i.envelope.raw for i in collect(back, image.digest)} == {
        i.envelope.raw for i in collect(layout, image.digest)
    }


def test_a_second_copy_sends_nothing(
    repository: Callable[[], Repository], signed: tuple[Layout, Descriptor]
) -> None:
    """Everything is there already: no blob is sent and the tags stay what they are."""
    layout, image = signed
    copy_image(layout, image.digest, repository(), tag="v1", on_progress=str)
    before = repository().tagged(att_tag(image.digest))
    again = copy_image(layout, image.digest, repository(), tag="v1", on_progress=str)
    assert (again.blobs, again.sent) == (0, 0)
    assert repository().tagged(att_tag(image.digest)) == before


def test_a_copy_keeps_what_others_added_at_the_destination(
    repository: Callable[[], Repository], signed: tuple[Layout, Descriptor]
) -> None:
    """Attestations that only the destination has are still there after another copy."""
    layout, image = signed
    store = repository()
    copy_image(layout, image.digest, store, tag=None, on_progress=str)
    extra = statement(image, 7)
    publish(store, image, [extra], KEY, NOON)
    copy_image(layout, image.digest, repository(), tag=None, on_progress=str)
    assert all(extra.payload in found for found in payloads(store, image.digest).values())


def test_an_index_is_copied_with_the_evidence_of_every_part(
    repository: Callable[[], Repository], tmp_path: Path
) -> None:
    """An index of two images takes along its own evidence and that of each image."""
    path = tmp_path / "layout"
    layout = Layout.create(path)
    images = [read_image(layout, make_image(path, content)) for content in (b"one\n", b"two\n")]
    index = write_index(layout, images)
    layout.add_manifest(index)
    store = repository()
    for subject in (index, *(image.descriptor for image in images)):
        publish(layout, subject, [statement(subject, 1)], KEY, NOON)
    copied = copy_image(layout, index.digest, store, tag="all", on_progress=str)
    assert copied.referrers == 3
    check_image(store, index.digest)
    for subject in (index, *(image.descriptor for image in images)):
        assert len(collect(store, subject.digest)) == 1


def test_an_altered_layer_is_never_copied(
    repository: Callable[[], Repository], tmp_path: Path
) -> None:
    """One flipped byte in the source ends the copy; the destination gets no manifest and no tag."""
    layout, image = Layout.create(tmp_path), make_image(tmp_path, b"found nowhere else\n")
    layer = read_image(layout, image).manifest.layers[0]
    blob = layout.path / "blobs/sha256" / layer.digest.hex
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    with pytest.raises(VerificationFailed, match=layer.digest.hex):
        copy_image(layout, image.digest, repository(), tag="v1", on_progress=str)
    assert repository().tagged("v1") is None
    with pytest.raises(VerificationFailed):
        repository().find(image.digest)
