"""Keyless signatures of cosign 1 and 2, whose proof is spread over a layer's annotations.

They are put together as a Sigstore bundle v0.1, so that one verifier judges old and new alike.
Nothing is checked here but the form; the chain annotation is left out, because only the trust
root may say who issues certificates (SIG-23).
Source: cosign specs/SIGNATURE_SPEC.md.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secure_pipeline import shape
from secure_pipeline.attestations import bundle, dsse
from secure_pipeline.errors import VerificationFailed

CERTIFICATE = "dev.sigstore.cosign/certificate"
LOG_ENTRY = "dev.sigstore.cosign/bundle"
TIMESTAMP = "dev.sigstore.cosign/rfc3161timestamp"

MAX_ANNOTATION = 4 << 20
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*")
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Keyless:
    """A certificate and the bundle that carries it."""

    certificate: bytes
    """DER."""
    proof: bytes
    """A bundle v0.1 that holds everything there is to check."""


def of_envelope(
    annotations: Mapping[str, str], envelope: dsse.Envelope, where: str
) -> Keyless | None:
    """Put together what proves an attestation; None if a bare key signed it.

    Raises: VerificationFailed for annotations that are malformed, or several signatures.
    """
    if CERTIFICATE not in annotations:
        return None
    if len(envelope.signatures) != 1:
        raise VerificationFailed("a certificate and several signatures", where=where)
    plain = dsse.serialise(
        envelope.payload_type,
        envelope.payload,
        (dsse.EnvelopeSignature("", envelope.signatures[0].sig),),
    )
    return _keyless(annotations, {"dsseEnvelope": json.loads(plain)}, where)


def of_message(
    annotations: Mapping[str, str], message: bytes, signature: bytes, where: str
) -> Keyless | None:
    """Do what ``of_envelope`` does, for a signature over plain bytes."""
    if CERTIFICATE not in annotations:
        return None
    digest = hashlib.sha256(message).digest()
    content = {
        "messageDigest": {"algorithm": "SHA2_256", "digest": _base64(digest)},
        "signature": _base64(signature),
    }
    return _keyless(annotations, {"messageSignature": content}, where)


def _keyless(annotations: Mapping[str, str], content: dict[str, Any], where: str) -> Keyless:
    certificate = _certificate(annotations[CERTIFICATE], where)
    material: dict[str, Any] = {
        "x509CertificateChain": {"certificates": [{"rawBytes": _base64(certificate)}]},
        "tlogEntries": [],
    }
    if LOG_ENTRY in annotations:
        material["tlogEntries"].append(_log_entry(annotations[LOG_ENTRY], where))
    if TIMESTAMP in annotations:
        stamp = _timestamp(annotations[TIMESTAMP], where)
        material["timestampVerificationData"] = {"rfc3161Timestamps": [stamp]}
    document = {"mediaType": bundle.PROMISED_TYPE, "verificationMaterial": material, **content}
    return Keyless(certificate, json.dumps(document, separators=(",", ":")).encode())


def _certificate(pem: str, where: str) -> bytes:
    """The one certificate of PEM text, as DER."""
    match = _PEM.fullmatch(pem) if len(pem) <= MAX_ANNOTATION else None
    if match is None:
        raise VerificationFailed("annotation holds not one PEM certificate", where=where)
    return dsse.strict_base64("".join(match[1].split()), "certificate", where)


def _log_entry(text: str, where: str) -> dict[str, Any]:
    """Rekor's entry with its promise, the signed entry time-stamp; there is no proof in it."""
    value = shape.parse_object(text.encode(), where, limit=MAX_ANNOTATION)
    payload = shape.member(value, "Payload", dict, where)
    body = shape.member(payload, "body", str, where)
    entry = shape.parse_object(dsse.strict_base64(body, "body", where), where, limit=MAX_ANNOTATION)
    log = shape.member(payload, "logID", str, where)
    if not _HEX.fullmatch(log):
        raise VerificationFailed("logID is not 64 hex digits", where=where)
    promise = shape.member(value, "SignedEntryTimestamp", str, where)
    dsse.strict_base64(promise, "SignedEntryTimestamp", where)
    return {
        "logIndex": str(_count(payload, "logIndex", where)),
        "logId": {"keyId": _base64(bytes.fromhex(log))},
        "kindVersion": {
            "kind": shape.member(entry, "kind", str, where),
            "version": shape.member(entry, "apiVersion", str, where),
        },
        "integratedTime": str(_count(payload, "integratedTime", where)),
        "inclusionPromise": {"signedEntryTimestamp": promise},
        "canonicalizedBody": body,
    }


def _timestamp(text: str, where: str) -> dict[str, str]:
    value = shape.parse_object(text.encode(), where, limit=MAX_ANNOTATION)
    stamp = shape.member(value, "SignedRFC3161Timestamp", str, where)
    dsse.strict_base64(stamp, "SignedRFC3161Timestamp", where)
    return {"signedTimestamp": stamp}


def _count(value: Mapping[str, Any], name: str, where: str) -> int:
    number: int = shape.member(value, name, int, where)
    if number < 0:
        raise VerificationFailed(f"{name} is {number}", where=where)
    return number


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
