"""DSSE v1.0 envelopes: what is signed is the type and the payload, never JSON around them.

Order for a verifier: parse the envelope, check a signature over ``Envelope.message``,
and only then parse the payload (FORMATS §1).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass

from secure_pipeline import shape
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.ports import Signer

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_ENVELOPE_BYTES = 64 << 20
MAX_SIGNATURES = 32


@dataclass(frozen=True)
class EnvelopeSignature:
    """One signature; the key id is a hint that nothing may trust."""

    keyid: str
    sig: bytes


@dataclass(frozen=True)
class Envelope:
    """A parsed envelope; at least one signature, an allowed payload type."""

    payload_type: str
    payload: bytes
    signatures: tuple[EnvelopeSignature, ...]
    raw: bytes
    """The JSON it came as; for one out of a bundle, its members written anew."""
    proof: bytes | None = None
    """The Sigstore bundle that carries it, where a certificate signed; nothing else proves it."""

    @property
    def message(self) -> bytes:
        """The bytes that a signature covers."""
        return pae(self.payload_type, self.payload)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding; lengths count bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def key_id(public_key_der: bytes) -> str:
    """Return base64(SHA-256(SubjectPublicKeyInfo)), cosign's bundle hint for a bare key."""
    return base64.b64encode(hashlib.sha256(public_key_der).digest()).decode()


def sign_envelope(payload: bytes, signer: Signer) -> bytes:
    """Sign a payload and return the envelope as one line of JSON.

    The key id stays empty, as in what cosign writes: its verifier of bundles skips a signature
    whose key id is not the one that it computes by a scheme of its own.
    Raises: what the signer raises.
    """
    signature = signer.sign(pae(PAYLOAD_TYPE, payload))
    return serialise(PAYLOAD_TYPE, payload, (EnvelopeSignature("", signature),))


def serialise(
    payload_type: str, payload: bytes, signatures: tuple[EnvelopeSignature, ...]
) -> bytes:
    """Write an envelope in one stable form."""
    document = {
        "payloadType": payload_type,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {"keyid": item.keyid, "sig": base64.b64encode(item.sig).decode()} for item in signatures
        ],
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def parse_envelope(data: bytes, where: str = "envelope") -> Envelope:
    """Parse an envelope; nothing in it is authentic before a signature was checked.

    Raises: VerificationFailed for another payload type (SIG-01), no signature (SIG-11),
    loose base64, or JSON that two parsers could read differently (SIG-05, SIG-07).
    """
    return from_json(shape.parse_object(data, where, limit=MAX_ENVELOPE_BYTES), where, raw=data)


def from_json(value: dict[str, object], where: str, *, raw: bytes | None = None) -> Envelope:
    """Check an envelope that is part of another document.

    Raises: VerificationFailed.
    """
    payload_type = shape.member(value, "payloadType", str, where)
    if payload_type != PAYLOAD_TYPE:
        raise VerificationFailed(f"payloadType is {payload_type[:80]!r}", where=where)
    payload = strict_base64(shape.member(value, "payload", str, where), "payload", where)
    items = shape.objects(value, "signatures", where, limit=MAX_SIGNATURES)
    if not items:
        raise VerificationFailed("no signatures", where=where)
    signatures = tuple(
        EnvelopeSignature(
            shape.optional(item, "keyid", str, where) or "",
            strict_base64(shape.member(item, "sig", str, where), "sig", where),
        )
        for item in items
    )
    return Envelope(
        payload_type, payload, signatures, raw or serialise(payload_type, payload, signatures)
    )


def strict_base64(text: str, name: str, where: str) -> bytes:
    """Decode standard base64 in its one canonical, non-empty spelling.

    Raises: VerificationFailed.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data or base64.b64encode(data).decode() != text:
        raise VerificationFailed(f"{name} is not canonical base64", where=where)
    return data
