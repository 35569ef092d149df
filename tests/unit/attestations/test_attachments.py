"""Evidence beside an image, in both layouts."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fakes.evidence import NAME, NOON, evidence, make_image, public_key, run_context, signer
from secure_pipeline.attestations import bundle, dsse, forms, predicates
from secure_pipeline.attestations.attachments import Limits, attach, collect
from secure_pipeline.attestations.predicates import bind
from secure_pipeline.attestations.statement import make_statement
from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import EMPTY_TYPE, MANIFEST_TYPE, Descriptor

Site = tuple[Layout, Descriptor]
KINDS = sorted(evidence())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    image = make_image(tmp_path / "layout")
    return Layout.open(tmp_path / "layout"), image


def envelope(image: Descriptor, kind: str, name: str = NAME, run: str = "run-1") -> bytes:
    predicate = bind(evidence()[kind], run_context(run))
    return dsse.sign_envelope(make_statement(name, image.digest, kind, predicate), signer())


def put(site: Site, *envelopes: tuple[bytes, str], later: int = 0) -> None:
    layout, image = site
    created = NOON + timedelta(seconds=later)
    attach(layout, image, NAME, envelopes, signer().public_key_der, created)


def entries(layout: Layout) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((layout.path / "index.json").read_bytes())["manifests"]
    return found


def body(layout: Layout, digest: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(layout.read_blob(Digest.parse(digest), 1 << 20))
    return value


def rewrite(layout: Layout, change: Callable[[list[dict[str, Any]]], None]) -> None:
    path = layout.path / "index.json"
    document = json.loads(path.read_bytes())
    change(document["manifests"])
    path.write_text(json.dumps(document))


def test_the_bundle_referrer_has_the_published_fields(site: Site) -> None:
    """A bundle manifest has the media types, subject, config and annotations of cosign 3."""
    layout, image = site
    kind = predicates.PROVENANCE
    put(site, (envelope(image, kind), kind))
    listed = next(item for item in entries(layout) if item.get("artifactType"))
    manifest = body(layout, listed["digest"])
    annotations = {
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": kind,
        "org.opencontainers.image.created": "2026-03-01T12:00:00Z",
    }
    assert listed["artifactType"] == bundle.MEDIA_TYPE
    assert listed["annotations"] == annotations
    assert manifest.pop("annotations") == annotations
    (layer,) = manifest.pop("layers")
    assert layer["mediaType"] == bundle.MEDIA_TYPE
    assert manifest == {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": bundle.MEDIA_TYPE,
        "config": {
            "mediaType": EMPTY_TYPE,
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2,
        },
        "subject": {
            "mediaType": MANIFEST_TYPE,
            "digest": str(image.digest),
            "size": image.size,
        },
    }


def test_the_att_manifest_has_the_published_fields(site: Site) -> None:
    """The tag sha256-<hex>.att names one manifest with one annotated layer per statement."""
    layout, image = site
    put(site, *((envelope(image, kind), kind) for kind in KINDS))
    tagged = layout.tagged(f"sha256-{image.digest.hex}.att")
    assert tagged
    manifest = body(layout, str(tagged.digest))
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert [layer["mediaType"] for layer in manifest["layers"]] == [
        "application/vnd.dsse.envelope.v1+json"
    ] * len(KINDS)
    assert [layer["annotations"] for layer in manifest["layers"]] == [
        {"dev.cosignproject.cosign/signature": "", "predicateType": kind} for kind in KINDS
    ]


def test_what_is_attached_is_collected_once(site: Site) -> None:
    """Both layouts hold each envelope; the union names it once, authentic."""
    layout, image = site
    put(site, *((envelope(image, kind), kind) for kind in KINDS))
    found = collect(layout, image.digest)
    assert len(found) == len(KINDS)
    assert {item.source for item in found} == {"bundle"}
    assert all(public_key().signed(item.envelope) for item in found)


def test_attaching_again_adds_nothing(site: Site) -> None:
    """The same envelopes at another time leave index.json byte for byte as it was."""
    layout, image = site
    made = [(envelope(image, kind), kind) for kind in KINDS]
    put(site, *made)
    before = (layout.path / "index.json").read_bytes()
    put(site, *made, later=60)
    put(site, made[0], later=90)
    assert (layout.path / "index.json").read_bytes() == before


@pytest.mark.parametrize("lost", ["bundle", "att"])
def test_either_layout_alone_suffices_and_is_completed(site: Site, lost: str) -> None:
    """With one layout gone the other still answers, and attaching restores the first."""
    layout, image = site
    made = (envelope(image, predicates.VULNS), predicates.VULNS)
    put(site, made)
    before = entries(layout)

    def lose(items: list[dict[str, Any]]) -> None:
        items[:] = [item for item in items if ("artifactType" in item) != (lost == "bundle")]
        if lost == "att":
            items[:] = [i for i in before if not str(i.get("annotations")).count(".att")]

    rewrite(layout, lose)
    (found,) = collect(layout, image.digest)
    assert found.source != lost
    put(site, (found.envelope.raw, predicates.VULNS))
    assert sorted(map(str, entries(layout))) == sorted(map(str, before))


def test_attachments_of_another_image_stay_apart(tmp_path: Path) -> None:
    """Two images in one layout each have their own evidence."""
    one, two = (make_image(tmp_path / "l", content) for content in (b"one", b"two"))
    layout = Layout.open(tmp_path / "l")
    for image, kind in ((one, predicates.VULNS), (two, predicates.SPDX)):
        put((layout, image), (envelope(image, kind), kind))
    for image, kind in ((one, predicates.VULNS), (two, predicates.SPDX)):
        (found,) = collect(layout, image.digest)
        assert json.loads(found.envelope.payload)["predicateType"] == kind


def test_sig_04_evidence_about_another_image_is_not_attached(site: Site) -> None:
    """An envelope whose subject is another digest is refused before anything is written."""
    layout, image = site
    other = Descriptor(MANIFEST_TYPE, Digest.of(b"other"), 5)
    before = (layout.path / "index.json").read_bytes()
    for raw, kind in (
        (envelope(other, predicates.VULNS), predicates.VULNS),
        (envelope(image, predicates.VULNS, name="other"), predicates.VULNS),
        (envelope(image, predicates.VULNS), predicates.SPDX),
    ):
        with pytest.raises(VerificationFailed):
            put(site, (raw, kind))
    assert (layout.path / "index.json").read_bytes() == before


def test_sig_11_no_attachments_are_an_empty_answer(site: Site) -> None:
    """An image without evidence has an empty set, which no caller may take for verified."""
    layout, image = site
    assert collect(layout, image.digest) == ()


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        (Limits(count=3), "attachments; limit 3"),
        (Limits(each=500), "limit 500"),
        (Limits(total=3000), "together; limit 3000"),
    ],
)
def test_sig_15_limits_hold_before_reading(site: Site, limits: Limits, word: str) -> None:
    """Count, bytes of one and bytes of all are checked by descriptors: no blob is opened."""
    layout, image = site
    put(site, *((envelope(image, kind), kind) for kind in KINDS))
    for path in (layout.path / "blobs" / "sha256").iterdir():
        if b"payloadType" in path.read_bytes():
            path.unlink()
    with pytest.raises(Inconclusive, match=word):
        collect(layout, image.digest, limits)


def test_sig_15_a_set_of_a_hundred_thousand_is_refused(site: Site) -> None:
    """An att manifest with 10^5 layers is refused by the limits on manifests."""
    layout, image = site
    layer = {
        "mediaType": forms.ENVELOPE_TYPE,
        "digest": str(Digest.of(b"x")),
        "size": 1,
    }
    config = layout.write_blob(b"{}", EMPTY_TYPE).to_json()
    document = {"schemaVersion": 2, "config": config, "layers": [layer] * 100_000}
    manifest = layout.write_blob(json.dumps(document).encode(), MANIFEST_TYPE)
    layout.replace(forms.att_tag(image.digest), manifest)
    with pytest.raises((Inconclusive, VerificationFailed), match=r"limit|larger"):
        collect(layout, image.digest)


def test_sig_15_no_writer_makes_a_set_that_readers_refuse(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attaching beyond the readers' limit is refused and leaves the set as it was."""
    layout, image = site
    put(site, *((envelope(image, kind), kind) for kind in KINDS[:2]))
    before = (layout.path / "index.json").read_bytes()
    monkeypatch.setattr(forms, "MAX_ATTACHMENTS", 2)
    with pytest.raises(Inconclusive, match="more than 2"):
        put(site, (envelope(image, KINDS[2]), KINDS[2]))
    assert (layout.path / "index.json").read_bytes() == before


def blob_of(site: Site, source: str) -> Path:
    layout, image = site
    place = next(iter(collect(layout, image.digest)))
    tagged = layout.tagged(forms.att_tag(image.digest))
    assert tagged
    digest = str(place.manifest_digest if source == "bundle" else tagged.digest)
    layer = body(layout, digest)["layers"][0]["digest"]
    return layout.path / "blobs" / "sha256" / str(layer).removeprefix("sha256:")


@pytest.mark.parametrize("source", ["bundle", "att"])
def test_reg_02_an_altered_attachment_is_refused(site: Site, source: str) -> None:
    """One changed byte in an attachment is found by its hash, in either layout."""
    layout, image = site
    put(site, (envelope(image, predicates.VULNS), predicates.VULNS))
    path = blob_of(site, source)
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerificationFailed, match="expected sha256:"):
        collect(layout, image.digest)


@pytest.mark.parametrize("written", [None, EMPTY_TYPE])
def test_a_writer_that_leaves_the_type_out_is_understood(site: Site, written: str | None) -> None:
    """A listed referrer with an empty artifact type is found by looking into its manifest."""
    layout, image = site
    put(site, (envelope(image, predicates.VULNS), predicates.VULNS))

    def blank(items: list[dict[str, Any]]) -> None:
        for item in items:
            if item.pop("artifactType", None) and written:
                item["artifactType"] = written
        items[:] = [item for item in items if ".att" not in str(item.get("annotations"))]

    rewrite(layout, blank)
    (found,) = collect(layout, image.digest)
    assert found.source == "bundle"


def test_a_bundle_whose_manifest_names_no_type_is_found(site: Site) -> None:
    """Its one layer tells what it is, as for cosign; the manifest's own type may be missing."""
    layout, image = site
    data = envelope(image, predicates.VULNS)
    attested = forms.Attested.of(dsse.parse_envelope(data), image.digest)
    form = forms.bundle_form(image, attested, signer().public_key_der, NOON)
    document = json.loads(form.manifest)
    del document["artifactType"]
    for content, kind in form.blobs:
        layout.write_blob(content, kind)
    layout.write_manifest(json.dumps(document).encode(), MANIFEST_TYPE)
    (found,) = collect(layout, image.digest)
    assert found.envelope.payload == attested.envelope.payload


def test_sig_03_annotations_do_not_decide(site: Site) -> None:
    """A lying predicate annotation changes nothing: the type is in what was signed."""
    layout, image = site
    put(site, (envelope(image, predicates.VULNS), predicates.VULNS))

    def lie(items: list[dict[str, Any]]) -> None:
        for item in items:
            if "artifactType" in item:
                item["annotations"]["dev.sigstore.bundle.predicateType"] = predicates.PROVENANCE

    rewrite(layout, lie)
    (found,) = collect(layout, image.digest)
    assert json.loads(found.envelope.payload)["predicateType"] == predicates.VULNS
