"""Evidence beside an image, in both forms that the field reads (FORMATS §2, §3).

``bundle``: one referrer manifest per statement. ``att``: one manifest under the tag
``sha256-<hex>.att`` with one layer per statement. ``publishing`` writes them to registries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from secure_pipeline.attestations import bundle, dsse, legacy
from secure_pipeline.attestations.forms import (
    ENVELOPE_TYPE,
    MAX_ATTACHMENTS,
    Attested,
    att_form,
    att_tag,
    bundle_form,
)
from secure_pipeline.attestations.statement import parse_statement
from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.form import Form
from secure_pipeline.oci.indexedit import IndexEdit
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import (
    EMPTY_TYPE,
    MANIFEST_TYPE,
    MAX_MANIFEST_BYTES,
    Descriptor,
    Manifest,
)
from secure_pipeline.oci.store import Source

READERS = 8
"""Attachments read at the same time."""

Place = Literal["bundle", "att", "sig"]


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

    source: Place
    """Where it was found first."""
    envelope: dsse.Envelope
    manifest_digest: Digest
    certificate: bytes | None = None
    """DER of the certificate that claims to have signed it; None for a bare key."""
    bundle: bytes | None = None
    """The Sigstore bundle that has to prove the certificate's signature; None for a bare key."""


@dataclass(frozen=True)
class _Spot:
    """A layer that holds an attachment."""

    place: Place
    manifest: Digest
    layer: Descriptor


def attach(
    layout: Layout,
    image: Descriptor,
    subject_name: str,
    envelopes: Sequence[tuple[bytes | dsse.Envelope, str]],
    public_key_der: bytes,
    created: datetime,
) -> None:
    """Attach envelopes with their predicate types, in both layouts, in one step.

    Those that a bundle alone proves are attached as that bundle only.
    What is attached already, by payload and signature, is not attached again. Another
    writer's attachments stay (SIG-29).
    Raises: VerificationFailed if an envelope is malformed, about another image, or not there
    afterwards; Inconclusive if the limits of readers would be exceeded; Unavailable.
    """
    attested = [_attested(data, kind, image.digest, subject_name) for data, kind in envelopes]
    with layout.edit() as edit:
        _attach_bundles(layout, edit, image, attested, public_key_der, created)
        _attach_att(layout, edit, image, attested)
    for place in ("bundle", "att"):
        present = {_identity(item.envelope) for item in _read(layout, image.digest, {place})}
        wanted = [a.envelope for a in attested if place == "bundle" or not a.envelope.proof]
        if any(_identity(envelope) not in present for envelope in wanted):
            raise VerificationFailed(f"an attachment is not in the {place} layout afterwards")


def collect(
    source: Source, image_digest: Digest, limits: Limits | None = None
) -> tuple[Attachment, ...]:
    """Return all envelopes beside an image: both layouts, each payload and signature once.

    Raises: VerificationFailed if one is malformed or altered, Inconclusive over a limit,
    Unavailable.
    """
    found: dict[object, Attachment] = {}
    for item in _read(source, image_digest, {"bundle", "att"}, limits):
        found.setdefault((_identity(item.envelope), item.certificate), item)
    return tuple(found.values())


def bundle_spots(
    source: Source, listed: Iterable[Descriptor], image: Digest
) -> Iterator[tuple[Digest, Descriptor]]:
    """Yield (manifest digest, layer) of each bundle among an image's referrers.

    Raises: VerificationFailed for a bundle manifest that is malformed or altered; Unavailable.
    """
    candidates = [item for item in listed if _may_be_bundle(item)]
    with ThreadPoolExecutor(READERS) as readers:
        read = list(readers.map(lambda item: _bundle_manifest(source, item, image), candidates))
    manifests = [manifest for manifest in read if manifest is not None]
    for config in {manifest.config.digest: manifest.config for manifest in manifests}.values():
        _check_config(source, config)
    for descriptor, manifest in zip(candidates, read, strict=True):
        if manifest is not None:
            yield descriptor.digest, manifest.layers[0]


def _attested(data: bytes | dsse.Envelope, kind: str, image: Digest, subject_name: str) -> Attested:
    envelope = dsse.parse_envelope(data) if isinstance(data, bytes) else data
    statement = parse_statement(envelope.payload)
    statement.require_type(kind)
    if [item.name for item in statement.subjects] != [subject_name]:
        raise VerificationFailed(f"subject is not named {subject_name!r}", where=kind)
    return Attested.of(envelope, image)


def _identity(envelope: dsse.Envelope) -> tuple[Digest, tuple[bytes, ...]]:
    return Digest.of(envelope.payload), tuple(sorted(item.sig for item in envelope.signatures))


def _read(
    source: Source, image: Digest, places: set[str], limits: Limits | None = None
) -> Iterator[Attachment]:
    """Yield what the chosen layouts hold; sizes and counts are checked first."""
    limits = limits or Limits()
    spots: list[_Spot] = []
    if "bundle" in places:
        listed = source.referrers(image)
        _check_count(sum(map(_may_be_bundle, listed)), limits, image)
        spots += [_Spot("bundle", *spot) for spot in bundle_spots(source, listed, image)]
    tagged = source.tagged(att_tag(image)) if "att" in places else None
    if tagged:
        manifest = source.read_manifest(tagged)
        _check_config(source, manifest.config)
        layers = (item for item in manifest.layers if item.media_type == ENVELOPE_TYPE)
        spots += [_Spot("att", tagged.digest, layer) for layer in layers]
    check_spots([spot.layer for spot in spots], limits, image)
    known: set[Digest] = set()
    with ThreadPoolExecutor(READERS) as readers:
        for place in ("bundle", "att"):
            # A layer that is byte for byte an envelope out of a bundle says nothing new.
            chosen = [s for s in spots if s.place == place and s.layer.digest not in known]
            found = readers.map(lambda spot: _open(source, spot, limits), chosen)
            for attachment in filter(None, found):
                if source.remote and not attachment.certificate:
                    known.add(Digest.of(attachment.envelope.raw))
                yield attachment


def _open(source: Source, spot: _Spot, limits: Limits) -> Attachment | None:
    """Read and parse one attachment; None for a bundle that signs no statement."""
    data = source.read_blob(spot.layer.digest, limits.each, spot.layer.size)
    where = str(spot.layer.digest)
    if spot.place == "bundle":
        try:
            read = bundle.read_bundle(data, where)
        except bundle.NotAnAttestation:
            return None
        proof = data if read.certificate else None
        return Attachment(spot.place, read.envelope, spot.manifest, read.certificate, proof)
    envelope = dsse.parse_envelope(data, where)
    keyless = legacy.of_envelope(spot.layer.annotations, envelope, where)
    if keyless is None:
        return Attachment(spot.place, envelope, spot.manifest)
    return Attachment(spot.place, envelope, spot.manifest, keyless.certificate, keyless.proof)


def check_spots(layers: Sequence[Descriptor], limits: Limits, image: Digest) -> None:
    """Compare attachments with the limits before they are read (SIG-15). Raises: Inconclusive."""
    _check_count(len(layers), limits, image)
    largest = max((layer.size for layer in layers), default=0)
    if largest > limits.each:
        raise Inconclusive(f"attachment of {largest} bytes; limit {limits.each}", where=str(image))
    total = sum(layer.size for layer in layers)
    if total > limits.total:
        raise Inconclusive(
            f"attachments of {total} bytes together; limit {limits.total}", where=str(image)
        )


def _check_count(count: int, limits: Limits, image: Digest) -> None:
    if count > limits.count:
        raise Inconclusive(f"{count} attachments; limit {limits.count}", where=str(image))


def _may_be_bundle(descriptor: Descriptor) -> bool:
    """Some writers leave the descriptor's type empty: then its manifest has to tell."""
    if descriptor.media_type != MANIFEST_TYPE:
        return False
    return descriptor.artifact_type in {None, EMPTY_TYPE, *bundle.MEDIA_TYPES}


def _bundle_manifest(source: Source, descriptor: Descriptor, image: Digest) -> Manifest | None:
    """Read a referrer; None if it is no bundle, or about another image."""
    manifest = source.read_manifest(descriptor)
    holds_one = any(layer.media_type in bundle.MEDIA_TYPES for layer in manifest.layers)
    if manifest.kind not in bundle.MEDIA_TYPES and not holds_one:
        return None
    if manifest.subject is None or manifest.subject.digest != image:
        return None
    if len(manifest.layers) != 1 or manifest.layers[0].media_type not in bundle.MEDIA_TYPES:
        raise VerificationFailed("not one bundle layer", where=str(descriptor.digest))
    return manifest


def _check_config(source: Source, config: Descriptor) -> None:
    """No reader needs these bytes; an altered one is tampering all the same."""
    source.read_blob(config.digest, MAX_MANIFEST_BYTES, config.size)


def _attach_bundles(
    layout: Layout,
    edit: IndexEdit,
    image: Descriptor,
    attested: Sequence[Attested],
    public_key_der: bytes,
    created: datetime,
) -> None:
    listed = layout.referrers_among(edit.entries, image.digest)
    present = {layer.digest for _, layer in bundle_spots(layout, listed, image.digest)}
    for item in attested:
        form = bundle_form(image, item, public_key_der, created)
        if not present & {Digest.of(data) for data, kind in form.blobs if kind != EMPTY_TYPE}:
            edit.add(layout.listed(_store(layout, form), form.manifest))


def _attach_att(
    layout: Layout, edit: IndexEdit, image: Descriptor, attested: Sequence[Attested]
) -> None:
    tag = att_tag(image.digest)
    tagged = edit.tagged(tag)
    form = att_form(layout.read_manifest(tagged) if tagged else None, attested)
    if form:
        edit.replace(tag, _store(layout, form))


def _store(layout: Layout, form: Form) -> Descriptor:
    for data, media_type in form.blobs:
        layout.write_blob(data, media_type)
    return layout.write_blob(form.manifest, MANIFEST_TYPE)
