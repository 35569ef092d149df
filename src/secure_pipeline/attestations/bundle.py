"""Sigstore bundles v0.3 around a DSSE envelope, made with a bare key."""

from __future__ import annotations

import json
from dataclasses import replace

from secure_pipeline import shape
from secure_pipeline.attestations import dsse
from secure_pipeline.errors import VerificationFailed

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
MAX_BUNDLE_BYTES = dsse.MAX_ENVELOPE_BYTES + (1 << 20)


class NotAnAttestation(VerificationFailed):
    """A well-formed bundle that signs a bare message, not a statement."""


def make_bundle(envelope: bytes, public_key_der: bytes) -> bytes:
    """Wrap an envelope of one signature; equal inputs give equal bytes.

    Raises: VerificationFailed if the envelope is malformed or has several signatures.
    """
    parsed = _single(dsse.parse_envelope(envelope), "envelope")
    signature = parsed.signatures[0]
    document = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": dsse.key_id(public_key_der)}},
        "dsseEnvelope": json.loads(
            dsse.serialise(parsed.payload_type, parsed.payload, (signature,))
        ),
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def parse_bundle(data: bytes, where: str = "bundle") -> dsse.Envelope:
    """Return the envelope of a bundle.

    The verification material is a hint only: keys come from the policy (SIG-22, SIG-23). The
    hint of a bare key stands in for a key id that is empty.
    Raises: VerificationFailed; NotAnAttestation for a bundle of a message signature.
    """
    value = shape.parse_object(data, where, limit=MAX_BUNDLE_BYTES)
    media_type = shape.member(value, "mediaType", str, where)
    if media_type != MEDIA_TYPE:
        raise VerificationFailed(f"mediaType is {media_type[:80]!r}", where=where)
    material = shape.member(value, "verificationMaterial", dict, where)
    if not {"publicKey", "certificate", "x509CertificateChain"} & material.keys():
        raise VerificationFailed("verificationMaterial names no key", where=where)
    if "messageSignature" in value:
        if "dsseEnvelope" in value:
            raise VerificationFailed("two kinds of content", where=where)
        raise NotAnAttestation("signs a message, not a statement", where=where)
    envelope = shape.member(value, "dsseEnvelope", dict, where)
    parsed = _single(dsse.from_json(envelope, where), where)
    key = shape.optional(material, "publicKey", dict, where) or {}
    hint = shape.optional(key, "hint", str, where) or ""
    signature = parsed.signatures[0]
    if signature.keyid or not hint:
        return parsed
    return replace(parsed, signatures=(replace(signature, keyid=hint),))


def _single(envelope: dsse.Envelope, where: str) -> dsse.Envelope:
    if len(envelope.signatures) != 1:
        raise VerificationFailed(
            f"{len(envelope.signatures)} signatures; a bundle holds exactly one", where=where
        )
    return envelope
