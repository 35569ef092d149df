"""Evidence beside an image in a layout, in both forms that the field reads (FORMATS §2, §3).

``bundle``: one referrer manifest per statement. ``att``: one manifest under the tag
``sha256-<hex>.att`` with one layer per statement.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from secure_pipeline import shape
from secure_pipeline.attestations import bundle, dsse
from secure_pipeline.attestations.statement import parse_statement
from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.files import canonical_json
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import IndexEdit, Layout
from secure_pipeline.oci.manifest import (
    CONFIG_TYPE,
    EMPTY_BYTES,
    EMPTY_TYPE,
    MANIFEST_TYPE,
    MAX_MANIFEST_BYTES,
    Descriptor,
    Manifest,
)

ENVELOPE_TYPE = "application/vnd.dsse.envelope.v1+json"
CONTENT = "dev.sigstore.bundle.content"
PREDICATE = "dev.sigstore.bundle.predicateType"
CREATED = "org.opencontainers.image.created"
ATT_SIGNATURE = "dev.cosignproject.cosign/signature"
ATT_PREDICATE = "predicateType"

MAX_ATTACHMENTS = 1000
"""Per image and layout; cosign reads no more either."""

Source = Literal["bundle", "att"]


@dataclass(frozen=True)
class Limits:
    """What may be read about one image, checked before reading (SIG-15)."""

    count: int = 2 * MAX_ATTACHMENTS
    """Attachments in both layouts together."""
    each: int = bundle.MAX_BUNDLE_BYTES
    """Bytes of one."""
    total: int = 512 << 20
    """Bytes of all."""


@dataclass(frozen=True)
class Attachment:
    """An envelope found beside an image; its signature is not checked yet."""

    source: Source
    """Where it was found first."""
    envelope: dsse.Envelope
    manifest_digest: Digest


def att_tag(image: Digest) -> str:
    """Return the tag that holds an image's attestations in the older layout."""
    return f"sha256-{image.hex}.att"


def attach(
    layout: Layout,
    image: Descriptor,
    subject_name: str,
    envelopes: Sequence[tuple[bytes, str]],
    public_key_der: bytes,
    created: datetime,
) -> None:
    """Attach envelopes with their predicate types, in both layouts, in one step.

    What is attached already, by payload and signature, is not attached again. Another
    writer's attachments stay (SIG-29).
    Raises: VerificationFailed if an envelope is malformed, about another image, or not there
    afterwards; Inconclusive if the limits of readers would be exceeded; Unavailable.
    """
    parsed = [(dsse.parse_envelope(data), kind) for data, kind in envelopes]
    for envelope, kind in parsed:
        statement = parse_statement(envelope.payload)
        statement.require_type(kind)
        statement.require_subject(image.digest)
        if [item.name for item in statement.subjects] != [subject_name]:
            raise VerificationFailed(f"subject is not named {subject_name!r}", where=kind)
    with layout.edit() as edit:
        _attach_bundles(layout, edit, image, parsed, public_key_der, created)
        _attach_att(layout, edit, image, parsed)
    for source in ("bundle", "att"):
        present = {_identity(item.envelope) for item in _read(layout, image.digest, {source})}
        if any(_identity(envelope) not in present for envelope, _ in parsed):
            raise VerificationFailed(f"an attachment is not in the {source} layout afterwards")


def collect(
    layout: Layout, image_digest: Digest, limits: Limits | None = None
) -> tuple[Attachment, ...]:
    """Return all envelopes beside an image: both layouts, each payload and signature once.

    Raises: VerificationFailed if one is malformed or altered, Inconclusive over a limit.
    """
    found: dict[object, Attachment] = {}
    for item in _read(layout, image_digest, {"bundle", "att"}, limits):
        found.setdefault(_identity(item.envelope), item)
    return tuple(found.values())


def _identity(envelope: dsse.Envelope) -> tuple[Digest, tuple[bytes, ...]]:
    return Digest.of(envelope.payload), tuple(sorted(item.sig for item in envelope.signatures))


def _read(
    layout: Layout, image: Digest, sources: set[str], limits: Limits | None = None
) -> Iterator[Attachment]:
    """Yield what the chosen layouts hold; sizes and counts are checked first."""
    places = []
    limits = limits or Limits()
    listed = layout.manifests()
    if "bundle" in sources:
        places += [("bundle", *place) for place in _bundle_layers(layout, listed, image)]
    tagged = layout.tagged(att_tag(image)) if "att" in sources else None
    if tagged:
        manifest = layout.read_manifest(tagged)
        _check_config(layout, manifest)
        layers = [item for item in manifest.layers if item.media_type == ENVELOPE_TYPE]
        places += [("att", tagged.digest, layer) for layer in layers]
    _check_limits([layer for *_, layer in places], limits, image)
    for source, manifest_digest, layer in places:
        data = layout.read_blob(layer.digest, limits.each, layer.size)
        try:
            parse = bundle.parse_bundle if source == "bundle" else dsse.parse_envelope
            envelope = parse(data, str(layer.digest))
        except bundle.NotAnAttestation:
            continue
        yield Attachment("bundle" if source == "bundle" else "att", envelope, manifest_digest)


def _check_limits(layers: Sequence[Descriptor], limits: Limits, image: Digest) -> None:
    if len(layers) > limits.count:
        raise Inconclusive(f"{len(layers)} attachments; limit {limits.count}", where=str(image))
    largest = max((layer.size for layer in layers), default=0)
    if largest > limits.each:
        raise Inconclusive(f"attachment of {largest} bytes; limit {limits.each}", where=str(image))
    total = sum(layer.size for layer in layers)
    if total > limits.total:
        raise Inconclusive(
            f"attachments of {total} bytes together; limit {limits.total}", where=str(image)
        )


def _bundle_layers(
    layout: Layout, listed: Sequence[Descriptor], image: Digest
) -> Iterator[tuple[Digest, Descriptor]]:
    """Yield (manifest digest, layer) of each bundle whose subject is the image."""
    for descriptor in dict.fromkeys(item.digest for item in listed if _may_be_bundle(item, image)):
        entry = next(item for item in listed if item.digest == descriptor)
        manifest = layout.read_manifest(entry)
        if manifest.kind != bundle.MEDIA_TYPE:
            continue
        if manifest.subject is None or manifest.subject.digest != image:
            continue
        if len(manifest.layers) != 1 or manifest.layers[0].media_type != bundle.MEDIA_TYPE:
            raise VerificationFailed("not one bundle layer", where=str(descriptor))
        _check_config(layout, manifest)
        yield descriptor, manifest.layers[0]


def _check_config(layout: Layout, manifest: Manifest) -> None:
    """No reader needs these bytes; an altered one is tampering all the same."""
    layout.read_blob(manifest.config.digest, MAX_MANIFEST_BYTES, manifest.config.size)


def _may_be_bundle(descriptor: Descriptor, image: Digest) -> bool:
    """Some writers leave the descriptor's type empty: then its manifest has to tell."""
    if descriptor.media_type != MANIFEST_TYPE or descriptor.digest == image:
        return False
    return descriptor.artifact_type in (None, EMPTY_TYPE, bundle.MEDIA_TYPE)


def _attach_bundles(
    layout: Layout,
    edit: IndexEdit,
    image: Descriptor,
    envelopes: Sequence[tuple[dsse.Envelope, str]],
    public_key_der: bytes,
    created: datetime,
) -> None:
    present = {layer.digest for _, layer in _bundle_layers(layout, edit.entries, image.digest)}
    config = layout.write_blob(EMPTY_BYTES, EMPTY_TYPE)
    subject = Descriptor(image.media_type, image.digest, image.size)
    for envelope, kind in envelopes:
        data = bundle.make_bundle(envelope.raw, public_key_der)
        layer = layout.write_blob(data, bundle.MEDIA_TYPE)
        if layer.digest in present:
            continue
        annotations = {
            CREATED: shape.rfc3339(created),
            CONTENT: "dsse-envelope",
            PREDICATE: kind,
        }
        document = _manifest(config, [layer]) | {
            "artifactType": bundle.MEDIA_TYPE,
            "subject": subject.to_json(),
            "annotations": annotations,
        }
        manifest = layout.write_blob(canonical_json(document), MANIFEST_TYPE)
        edit.add(replace(manifest, artifact_type=bundle.MEDIA_TYPE, annotations=annotations))


def _attach_att(
    layout: Layout,
    edit: IndexEdit,
    image: Descriptor,
    envelopes: Sequence[tuple[dsse.Envelope, str]],
) -> None:
    tag = att_tag(image.digest)
    tagged = edit.tagged(tag)
    layers = list(layout.read_manifest(tagged).layers) if tagged else []
    present = {layer.digest for layer in layers}
    for envelope, kind in envelopes:
        layer = layout.write_blob(envelope.raw, ENVELOPE_TYPE)
        if layer.digest not in present:
            layers.append(replace(layer, annotations={ATT_SIGNATURE: "", ATT_PREDICATE: kind}))
            present.add(layer.digest)
    if len(layers) > MAX_ATTACHMENTS:
        raise Inconclusive(f"more than {MAX_ATTACHMENTS} attachments", where=str(image.digest))
    config = {
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(layer.digest) for layer in layers]},
    }
    described = layout.write_blob(canonical_json(config), CONFIG_TYPE)
    document = canonical_json(_manifest(described, layers))
    edit.replace(tag, layout.write_blob(document, MANIFEST_TYPE))


def _manifest(config: Descriptor, layers: Sequence[Descriptor]) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
