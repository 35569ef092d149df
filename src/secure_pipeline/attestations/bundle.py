"""Sigstore bundles around a DSSE envelope: v0.3 with a bare key is written, all are read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from secure_pipeline import shape
from secure_pipeline.attestations import dsse
from secure_pipeline.errors import VerificationFailed

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_OLDER = "application/vnd.dev.sigstore.bundle+json;version="
MEDIA_TYPES = frozenset({MEDIA_TYPE, *(f"{_OLDER}0.{minor}" for minor in (1, 2, 3))})
"""Every version that is read (sigstore protobuf-specs); cosign, GitHub and npm write them."""
PROMISED_TYPE = f"{_OLDER}0.1"
"""The one version in which a log entry may hold a promise instead of a proof."""
MAX_BUNDLE_BYTES = dsse.MAX_ENVELOPE_BYTES + (1 << 20)
MAX_CHAIN = 10


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


@dataclass(frozen=True)
class Bundle:
    """An envelope, and the certificate that its signer claims, if it was signed without a key."""

    envelope: dsse.Envelope
    certificate: bytes | None
    """DER; nothing in it is believed before the whole bundle was verified."""


@dataclass(frozen=True)
class Entry:
    """Where a keyless signature is noted."""

    certificate: bytes
    """DER."""
    index: int
    """In the log."""


def proven(data: bytes, where: str = "bundle") -> dsse.Envelope:
    """Return the envelope of a bundle of a certificate, which goes with it as its proof.

    Raises: like ``read_bundle``; VerificationFailed for the bundle of a key.
    """
    found = read_bundle(data, where)
    if found.certificate is None:
        raise VerificationFailed("no certificate signed it", where=where)
    return replace(found.envelope, proof=data)


def read_entry(data: bytes, where: str = "bundle") -> Entry:
    """Return certificate and log index of a bundle that was verified.

    Raises: VerificationFailed.
    """
    value = shape.parse_object(data, where, limit=MAX_BUNDLE_BYTES)
    material = shape.member(value, "verificationMaterial", dict, where)
    certificate = _certificate(material, where)
    entries = shape.objects(material, "tlogEntries", where, limit=MAX_CHAIN)
    if certificate is None or not entries:
        raise VerificationFailed("no certificate, or no log entry", where=where)
    index = shape.member(entries[0], "logIndex", str, where)
    if not re.fullmatch(r"[0-9]{1,18}", index):
        raise VerificationFailed("logIndex is no number", where=where)
    return Entry(certificate, int(index))


def parse_bundle(data: bytes, where: str = "bundle") -> dsse.Envelope:
    """Return the envelope of a bundle. Raises: like ``read_bundle``."""
    return read_bundle(data, where).envelope


def read_bundle(data: bytes, where: str = "bundle") -> Bundle:
    """Return envelope and certificate of a bundle of any version.

    The verification material is a hint only: keys come from the policy (SIG-22, SIG-23). The
    hint of a bare key stands in for a key id that is empty.
    Raises: VerificationFailed; NotAnAttestation for a bundle of a message signature.
    """
    value = shape.parse_object(data, where, limit=MAX_BUNDLE_BYTES)
    media_type = shape.member(value, "mediaType", str, where)
    if media_type not in MEDIA_TYPES:
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
    if not signature.keyid and hint:
        parsed = replace(parsed, signatures=(replace(signature, keyid=hint),))
    return Bundle(parsed, _certificate(material, where))


def _certificate(material: Mapping[str, Any], where: str) -> bytes | None:
    """The signer's own certificate: the only one, or the first of a chain (versions below 0.3)."""
    leaf = shape.optional(material, "certificate", dict, where)
    if leaf is None:
        chain = shape.optional(material, "x509CertificateChain", dict, where) or {}
        leaf = next(iter(shape.objects(chain, "certificates", where, limit=MAX_CHAIN)), None)
    if leaf is None:
        return None
    return dsse.strict_base64(shape.member(leaf, "rawBytes", str, where), "rawBytes", where)


def _single(envelope: dsse.Envelope, where: str) -> dsse.Envelope:
    if len(envelope.signatures) != 1:
        raise VerificationFailed(
            f"{len(envelope.signatures)} signatures; a bundle holds exactly one", where=where
        )
    return envelope
