"""The manifests of both attachment layouts, as bytes (FORMATS §2, §3). Nothing is stored here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from secure_pipeline import shape
from secure_pipeline.attestations import bundle, dsse
from secure_pipeline.attestations.statement import parse_statement
from secure_pipeline.errors import Inconclusive
from secure_pipeline.files import canonical_json
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.form import Form, describe, layers_form, manifest_document
from secure_pipeline.oci.manifest import EMPTY_BYTES, EMPTY_TYPE, Descriptor, Manifest

ENVELOPE_TYPE = "application/vnd.dsse.envelope.v1+json"
CONTENT = "dev.sigstore.bundle.content"
PREDICATE = "dev.sigstore.bundle.predicateType"
CREATED = "org.opencontainers.image.created"
ATT_SIGNATURE = "dev.cosignproject.cosign/signature"
ATT_PREDICATE = "predicateType"

MAX_ATTACHMENTS = 1000
"""Per image and layout; cosign reads no more either."""


@dataclass(frozen=True)
class Attested:
    """An envelope that is to be attached, with the type of its statement."""

    envelope: dsse.Envelope
    predicate_type: str

    @classmethod
    def of(cls, envelope: dsse.Envelope, image: Digest) -> Attested:
        """Read the statement's type and check that it is about the image.

        Raises: VerificationFailed.
        """
        statement = parse_statement(envelope.payload)
        statement.require_subject(image)
        return cls(envelope, statement.predicate_type)


def att_tag(image: Digest) -> str:
    """Return the tag that holds an image's attestations in the older layout."""
    return f"sha256-{image.hex}.att"


def bundle_form(
    image: Descriptor, attested: Attested, public_key_der: bytes, created: datetime
) -> Form:
    """Return the referrer manifest of one bundle: the envelope's own, or one that a key proves.

    Raises: VerificationFailed if the envelope has not exactly one signature.
    """
    envelope = attested.envelope
    data = envelope.proof or bundle.make_bundle(envelope.raw, public_key_der)
    layer = describe(data, bundle.MEDIA_TYPE)
    document = manifest_document(describe(EMPTY_BYTES, EMPTY_TYPE), [layer]) | {
        "artifactType": bundle.MEDIA_TYPE,
        "subject": Descriptor(image.media_type, image.digest, image.size).to_json(),
        "annotations": {
            CREATED: shape.rfc3339(created),
            CONTENT: "dsse-envelope",
            PREDICATE: attested.predicate_type,
        },
    }
    blobs = ((EMPTY_BYTES, EMPTY_TYPE), (data, bundle.MEDIA_TYPE))
    return Form(canonical_json(document), blobs)


def att_form(present: Manifest | None, attested: Sequence[Attested]) -> Form | None:
    """Return the ``.att`` manifest with these envelopes added; None if all are there already.

    Layers that others wrote stay as they are. What a bundle alone proves is left out.
    Raises: Inconclusive if cosign would no longer read it all.
    """
    added = {Digest.of(item.envelope.raw): item for item in attested if not item.envelope.proof}
    layers = list(present.layers) if present else []
    for layer in layers:
        added.pop(layer.digest, None)
    if not added:
        return None
    layers += [
        replace(
            describe(item.envelope.raw, ENVELOPE_TYPE),
            annotations={ATT_SIGNATURE: "", ATT_PREDICATE: item.predicate_type},
        )
        for item in added.values()
    ]
    if len(layers) > MAX_ATTACHMENTS:
        raise Inconclusive(f"more than {MAX_ATTACHMENTS} attachments")
    form = layers_form(layers, present.annotations if present else {})
    envelopes = ((item.envelope.raw, ENVELOPE_TYPE) for item in added.values())
    return Form(form.manifest, (*form.blobs, *envelopes))
