"""A Sigstore of our own: authorities, logs and time-stamps for any payload, identity and time.

Everything is made with plain primitives, so that each part can be wrong on purpose. That the
good ones are good is not ours to say: cosign judges the same bundles (tests/integration).
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fakes.fulcio import Chain, Holder, Key, der, new_key, pem, sign, spki
from fakes.timestamps import response
from secure_pipeline.attestations import dsse

ISSUER = "https://issuer.invalid"
IDENTITY = "https://ci.invalid/team/service/.pipeline@main"
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
_P256 = "PKIX_ECDSA_P256_SHA_256"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class Faults:
    """What goes wrong on purpose; the empty one is right."""

    entry_of: bytes | None = None
    """The log entry is about this payload instead (SIG-16)."""
    entry_key: bool = False
    """The log entry names another certificate."""
    entry_signature: bool = False
    """The log entry holds another signature."""
    proof: bool = True
    hash: bool = False
    """The log's root hash is not the tree's."""
    checkpoint: str | None = None
    """The checkpoint instead of the right one."""
    checkpoint_key: bool = False
    """The checkpoint is signed by another log."""
    promise: bool = True
    promise_key: bool = False
    stamp: VirtualSigstore | None = None
    """Whose authority stamps."""
    stamped: bool = False
    """There is an RFC 3161 time-stamp."""
    stamp_of: bytes | None = None
    """The time-stamp is about these bytes instead."""
    signed_after: timedelta = SECOND
    """When it is signed after the certificate begins; it ends after 10 minutes."""
    signature: bool = False
    """The signature is another message's."""
    sct: bool = True
    sct_key: bool = False


RIGHT = Faults()


@dataclass
class Signed:
    """What a signer holds in the end."""

    certificate: x509.Certificate
    signature: bytes
    entry: dict[str, Any]
    stamps: list[dict[str, str]] = field(default_factory=list)


class VirtualSigstore:
    """One instance, with a trust root of its own."""

    def __init__(self, now: datetime, *, valid: tuple[timedelta, timedelta] | None = None) -> None:
        before, after = valid or (-30 * DAY, 30 * DAY)
        self.now = now
        self.start, self.end = now + before, now + after
        window = (self.start, self.end)
        self.fulcio = Chain("fulcio", ExtendedKeyUsageOID.CODE_SIGNING, *window)
        self.tsa = Chain("tsa", ExtendedKeyUsageOID.TIME_STAMPING, *window)
        self.tsa_key = new_key()
        self.tsa_leaf = self.tsa.stamping(self.tsa_key)
        self.log_key, self.ct_key = new_key(), new_key()

    def trusted_root(self, **changes: Any) -> bytes:
        """trusted_root.json of this instance."""
        document = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [self._log("https://rekor.invalid", self.log_key)],
            "certificateAuthorities": [
                self._ca("https://fulcio.invalid", [self.fulcio.issuer, self.fulcio.root])
            ],
            "ctlogs": [self._log("https://ct.invalid", self.ct_key)],
            "timestampAuthorities": [
                self._ca("https://tsa.invalid", [self.tsa_leaf, self.tsa.issuer, self.tsa.root])
            ],
        }
        return json.dumps(document | changes).encode()

    def bundle(
        self,
        payload: bytes,
        identity: str = IDENTITY,
        issuer: str = ISSUER,
        faults: Faults = RIGHT,
        version: str = ".v0.3+json",
    ) -> bytes:
        """A Sigstore bundle around a DSSE envelope of ``payload``."""
        signed = self.sign(dsse.pae(dsse.PAYLOAD_TYPE, payload), payload, identity, issuer, faults)
        certificate: dict[str, Any] = {"certificate": {"rawBytes": b64(der(signed.certificate))}}
        if version != ".v0.3+json":
            certificate = {"x509CertificateChain": {"certificates": [certificate["certificate"]]}}
        material = {**certificate, "tlogEntries": [signed.entry]}
        if signed.stamps:
            material["timestampVerificationData"] = {"rfc3161Timestamps": signed.stamps}
        envelope = _envelope(payload, signed.signature)
        document = {
            "mediaType": f"application/vnd.dev.sigstore.bundle{version}",
            "verificationMaterial": material,
            "dsseEnvelope": json.loads(envelope),
        }
        return json.dumps(document).encode()

    def attested(
        self,
        payload: bytes,
        identity: str = IDENTITY,
        issuer: str = ISSUER,
        faults: Faults = RIGHT,
    ) -> tuple[bytes, dict[str, str]]:
        """An envelope and the annotations that cosign 2 puts beside it."""
        signed = self.sign(dsse.pae(dsse.PAYLOAD_TYPE, payload), payload, identity, issuer, faults)
        envelope = _envelope(payload, signed.signature)
        return envelope, self._annotations(signed, "")

    def signed_message(
        self,
        payload: bytes,
        identity: str = IDENTITY,
        issuer: str = ISSUER,
        faults: Faults = RIGHT,
    ) -> dict[str, str]:
        """The annotations that cosign 2 puts beside simple-signing JSON."""
        signed = self.sign(payload, payload, identity, issuer, faults, envelope=False)
        return self._annotations(signed, b64(signed.signature))

    def sign(
        self,
        message: bytes,
        payload: bytes,
        identity: str,
        issuer: str,
        faults: Faults,
        *,
        envelope: bool = True,
    ) -> Signed:
        """Do what a signer does: key, certificate, signature, time-stamp, log entry."""
        key, begins = new_key(), self.now - timedelta(minutes=1)
        holder = Holder(key, identity, issuer, begins)
        ct_key = new_key() if faults.sct_key else self.ct_key
        certificate = self.fulcio.leaf(holder, self.ct_key, ct_key if faults.sct else None)
        signature = sign(key, b"another" if faults.signature else message)
        moment = begins + faults.signed_after
        logged = faults.entry_of if faults.entry_of is not None else payload
        noted = self.fulcio.leaf(holder, self.ct_key, self.ct_key)
        proof = sign(key, b"x") if faults.entry_signature else signature
        body = body_of(
            logged,
            proof,
            pem(noted if faults.entry_key else certificate),
            _envelope(logged, proof) if envelope else None,
        )
        stamps = []
        if faults.stamped or not faults.promise:
            by = faults.stamp or self
            stamp = by.timestamp(faults.stamp_of or signature, moment)
            stamps = [{"signedTimestamp": b64(stamp)}]
        return Signed(certificate, signature, self.entry(body, moment, faults), stamps)

    def timestamp(self, data: bytes, moment: datetime) -> bytes:
        """An RFC 3161 response over ``data``."""
        return response(data, moment, self.tsa_leaf, self.tsa.issuer, self.tsa_key)

    def entry(self, body: bytes, moment: datetime, faults: Faults) -> dict[str, Any]:
        """A log entry with this body, as bundles hold it."""
        log = hashlib.sha256(spki(self.log_key)).digest()
        kind = json.loads(body)
        entry: dict[str, Any] = {
            "logIndex": "7",
            "logId": {"keyId": b64(log)},
            "kindVersion": {"kind": kind["kind"], "version": kind["apiVersion"]},
            "canonicalizedBody": b64(body),
        }
        if faults.promise:
            promised = {
                "body": b64(body),
                "integratedTime": int(moment.timestamp()),
                "logID": log.hex(),
                "logIndex": 7,
            }
            text = json.dumps(promised, separators=(",", ":"), sort_keys=True).encode()
            by = new_key() if faults.promise_key else self.log_key
            entry["integratedTime"] = str(promised["integratedTime"])
            entry["inclusionPromise"] = {"signedEntryTimestamp": b64(sign(by, text))}
        if faults.proof:
            entry["inclusionProof"] = self._proof(body, faults)
        return entry

    def _proof(self, body: bytes, faults: Faults) -> dict[str, Any]:
        """A tree of two leaves, of which the entry is the second."""
        leaf = hashlib.sha256(b"\x00" + body).digest()
        other = hashlib.sha256(b"\x00other").digest()
        root = hashlib.sha256(b"\x01" + other + leaf).digest()
        note = f"rekor.invalid - 1\n2\n{b64(root)}\n"
        key = new_key() if faults.checkpoint_key else self.log_key
        mark = hashlib.sha256(spki(self.log_key)).digest()[:4]
        signature = b64(mark + sign(key, note.encode()))
        text = f"{note}\n— rekor.invalid {signature}\n"
        return {
            "logIndex": "1",
            "treeSize": "2",
            "rootHash": b64(hashlib.sha256(b"wrong").digest() if faults.hash else root),
            "hashes": [b64(other)],
            "checkpoint": {"envelope": text if faults.checkpoint is None else faults.checkpoint},
        }

    def _annotations(self, signed: Signed, signature: str) -> dict[str, str]:
        entry = signed.entry
        annotations = {
            "dev.cosignproject.cosign/signature": signature,
            "dev.sigstore.cosign/certificate": pem(signed.certificate).decode(),
            "dev.sigstore.cosign/chain": (pem(self.fulcio.issuer) + pem(self.fulcio.root)).decode(),
        }
        if "inclusionPromise" in entry:
            payload = {
                "body": entry["canonicalizedBody"],
                "integratedTime": int(entry["integratedTime"]),
                "logIndex": int(entry["logIndex"]),
                "logID": base64.b64decode(entry["logId"]["keyId"]).hex(),
            }
            promise = entry["inclusionPromise"]["signedEntryTimestamp"]
            annotations["dev.sigstore.cosign/bundle"] = json.dumps(
                {"SignedEntryTimestamp": promise, "Payload": payload}
            )
        if signed.stamps:
            stamp = {"SignedRFC3161Timestamp": signed.stamps[0]["signedTimestamp"]}
            annotations["dev.sigstore.cosign/rfc3161timestamp"] = json.dumps(stamp)
        return annotations

    def _log(self, url: str, key: Key) -> dict[str, Any]:
        return {
            "baseUrl": url,
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": b64(spki(key)),
                "keyDetails": _P256,
                "validFor": self._window(),
            },
            "logId": {"keyId": b64(hashlib.sha256(spki(key)).digest())},
        }

    def _ca(self, uri: str, chain: list[x509.Certificate]) -> dict[str, Any]:
        return {
            "subject": {"organization": "virtual", "commonName": "virtual"},
            "uri": uri,
            "certChain": {"certificates": [{"rawBytes": b64(der(item))} for item in chain]},
            "validFor": self._window(),
        }

    def _window(self) -> dict[str, str]:
        return {
            "start": self.start.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "end": self.end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


def _envelope(payload: bytes, signature: bytes) -> bytes:
    return dsse.serialise(dsse.PAYLOAD_TYPE, payload, (dsse.EnvelopeSignature("", signature),))


def body_of(payload: bytes, signature: bytes, certificate: bytes, envelope: bytes | None) -> bytes:
    """What Rekor logs: dsse 0.0.1 for an envelope, hashedrekord 0.0.1 for a message."""
    digest = {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()}
    if envelope is not None:
        kind = "dsse"
        spec: dict[str, Any] = {
            "envelopeHash": {"algorithm": "sha256", "value": hashlib.sha256(envelope).hexdigest()},
            "payloadHash": digest,
            "signatures": [{"signature": b64(signature), "verifier": b64(certificate)}],
        }
    else:
        kind = "hashedrekord"
        key = {"content": b64(certificate)}
        spec = {
            "data": {"hash": digest},
            "signature": {"content": b64(signature), "publicKey": key},
        }
    document = {"apiVersion": "0.0.1", "kind": kind, "spec": spec}
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
