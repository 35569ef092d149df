"""Where cosign is stricter than we are, one function a difference.

docs/reference/interop.md gives each its reason. tests/integration/test_differential.py holds
them against the real cosign: what we accept and no function here names, cosign accepts.

Sources (cosign 3.0.6 with sigstore-go 1.1.4): bundles and the statements in them are read with
protojson, which knows no unknown member (sigstore-go pkg/bundle/bundle.go, signature_content.go;
cosign pkg/cosign/attestation/attestation.go); key ids by go-securesystemslib dsse/verify.go;
digests by sigstore-go pkg/verify/signature.go.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import serialization

from secure_pipeline import strictjson

MAX_DIGESTS = 32
_MATERIAL = frozenset(
    (
        *("publicKey", "certificate", "x509CertificateChain"),
        *("tlogEntries", "timestampVerificationData"),
    )
)
_BUNDLE = frozenset(("mediaType", "verificationMaterial", "dsseEnvelope", "messageSignature"))
_ENVELOPE = frozenset(("payloadType", "payload", "signatures"))
_SIGNATURE = frozenset(("keyid", "sig"))
_STATEMENT = frozenset(("_type", "subject", "predicateType", "predicate"))
_TEXTS = ("uri", "downloadLocation", "mediaType", "content")
_SUBJECT = frozenset((*_TEXTS, "name", "digest", "annotations", "download_location", "media_type"))
"""protojson takes a field's own name as well."""

TRAPS: Mapping[str, str] = {
    "bundle-unknown-member": "the bundle has a member that its format does not define",
    "bundle-key-id": "the signature's key id is not the key's OpenSSH fingerprint",
    "bundle-other-material": "there is verification material beside the bare key",
    "bundle-other-digest": "a subject has a digest that is not hex, or more than 32 digests",
    "statement-unknown-member": "the statement has a member that in-toto v1 does not define",
    "subject-member-type": "a member of a subject has the wrong type",
}
"""Name to what it is, as part of a sentence."""
UNCERTAIN = frozenset({"bundle-other-material"})
"""cosign refuses these only if the material is malformed, which is not looked into here."""


def bundle_traps(data: bytes, public_key_der: bytes | None) -> tuple[str, ...]:
    """Names of what cosign refuses in a bundle that we accept; ``()`` if nothing.

    Without a key its fingerprint is not compared.
    """
    document = strictjson.loads(data)
    envelope = document["dsseEnvelope"]
    statement = strictjson.loads(base64.b64decode(envelope["payload"]))
    found = {
        "bundle-unknown-member": _unknown_in_bundle(document),
        "bundle-key-id": _foreign_key_id(envelope["signatures"], public_key_der),
        "bundle-other-material": _other_material(document["verificationMaterial"]),
        "bundle-other-digest": _other_digests(statement),
    }
    return (*(name for name, there in found.items() if there), *statement_traps(statement))


def envelope_traps(data: bytes) -> tuple[str, ...]:
    """Names of what cosign 3 refuses in an envelope of an ``.att``; ``()`` if nothing."""
    return statement_traps(strictjson.loads(base64.b64decode(strictjson.loads(data)["payload"])))


def statement_traps(statement: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of what protojson refuses in a statement."""
    subjects = statement["subject"]
    unknown = statement.keys() - _STATEMENT or any(item.keys() - _SUBJECT for item in subjects)
    found = {
        "statement-unknown-member": bool(unknown),
        "subject-member-type": not all(map(_typed, subjects)),
    }
    return tuple(name for name, there in found.items() if there)


def openssh_fingerprint(public_key_der: bytes) -> str:
    """Return ``SHA256:…``, the key id that go-securesystemslib computes for a key."""
    key = serialization.load_der_public_key(public_key_der)
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _unknown_in_bundle(document: Mapping[str, Any]) -> bool:
    material = document["verificationMaterial"]
    envelope = document["dsseEnvelope"]
    extra = document.keys() - _BUNDLE | material.keys() - _MATERIAL
    extra |= envelope.keys() - _ENVELOPE
    extra |= (material.get("publicKey") or {}).keys() - {"hint"}
    return bool(extra) or any(item.keys() - _SIGNATURE for item in envelope["signatures"])


def _foreign_key_id(signatures: list[Mapping[str, Any]], public_key_der: bytes | None) -> bool:
    ids = {item.get("keyid") for item in signatures} - {None, ""}
    if public_key_der is None or not ids:
        return False
    return ids != {openssh_fingerprint(public_key_der)}


def _other_material(material: Mapping[str, Any]) -> bool:
    return bool(material.keys() & _MATERIAL - {"publicKey"})


def _other_digests(statement: Mapping[str, Any]) -> bool:
    return any(
        len(found) > MAX_DIGESTS
        or not all(re.fullmatch("([0-9A-Fa-f]{2})*", value) for value in found.values())
        for found in (item["digest"] for item in statement["subject"])
    )


def _typed(subject: Mapping[str, Any]) -> bool:
    values = [subject.get(name) for name in _TEXTS]
    if any(value is not None and not isinstance(value, str) for value in values):
        return False
    if not re.fullmatch("[A-Za-z0-9+/_-]*={0,2}", subject.get("content") or ""):
        return False
    return isinstance(subject.get("annotations") or {}, dict)
