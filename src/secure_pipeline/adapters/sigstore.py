"""Keyless signatures, judged by the ``sigstore`` library against one pinned trust root, offline.

The library does the cryptography: chain, certificate transparency, log entry, times, signature,
and that the entry is about this very signature (SIG-16). What it leaves open is closed here: a
part of the trust root counts only at times inside its window, every time-stamp has to be good,
and whatever the library raises is a refusal (SIG-17, SIG-26).
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sigstore._internal.timestamp import TimestampSource, TimestampVerificationResult
from sigstore._internal.trust import RekorKeyring
from sigstore.errors import Error, VerificationError
from sigstore.models import Bundle, TransparencyLogEntry, TrustedRoot
from sigstore.verify.policy import UnsafeNoOp
from sigstore.verify.verifier import Verifier
from sigstore_models.bundle.v1 import Bundle as RawBundle
from sigstore_models.trustroot.v1 import (
    CertificateAuthority,
    TransparencyLogInstance,
)
from sigstore_models.trustroot.v1 import (
    TrustedRoot as RawRoot,
)

from secure_pipeline import shape
from secure_pipeline.attestations import bundle as bundles
from secure_pipeline.attestations.dsse import PAYLOAD_TYPE
from secure_pipeline.errors import ConfigError, Inconclusive, PipelineError, VerificationFailed
from secure_pipeline.keys.certificate import read_claim
from secure_pipeline.ports import Certified

PRODUCTION = "the trust root of the public Sigstore instance"
PRODUCTION_STORE = "_store/https%3A%2F%2Ftuf-repo-cdn.sigstore.dev"
"""The library's own copy of what the public instance publishes."""
_ENTRIES = {("dsse", "0.0.1"), ("hashedrekord", "0.0.1"), ("hashedrekord", "0.0.2")}
"""Kinds of log entries that bind payload, key and signature in a way that is checked."""
_HINT = "name a current trusted_root.json as 'trust-root' of the policy"
_NO_PROOF = {
    "logIndex": "0",
    "treeSize": "1",
    "rootHash": "",
    "hashes": [],
    "checkpoint": {"envelope": ""},
}
"""The library's model has to have one; what fills it here is never looked at, nor would it hold."""
T = TypeVar("T")


class SigstoreVerifier:
    """An ``IdentityVerifier``."""

    def __init__(self, root: bytes | None, where: str, now: datetime) -> None:
        """Read a trusted_root.json; None takes the one that came with the library.

        Raises: ConfigError if it is no trust root, lacks a part, or is expired (SIG-24).
        """
        logging.getLogger("sigstore").addHandler(logging.NullHandler())
        data = _production() if root is None else root
        self._root = _read_root(data, PRODUCTION if root is None else where, now)
        self._verifiers: dict[tuple[bytes, ...], _Verifier] = {}
        self._lock = threading.Lock()

    @property
    def root(self) -> TrustedRoot:
        """The whole trust root."""
        return TrustedRoot(self._root)

    def verify(self, bundle: bytes, payload: bytes) -> Certified:
        """Implement ``IdentityVerifier.verify``; threads may share it."""
        try:
            with self._lock:
                return self._verify(bundle, payload)
        except PipelineError:
            raise
        except Exception as error:  # no bug of a parser may pass or stop a verification
            text = " ".join(str(error).split()).partition(" [type=")[0][:300]
            raise VerificationFailed(text or type(error).__name__) from error

    def _verify(self, data: bytes, payload: bytes) -> Certified:
        bundle = _read_bundle(data)
        # (1) everything, under the whole root
        times = self._check(self._root, bundle, payload)
        # (2) again, under the parts of the root whose windows hold those times
        valid = _valid_at(self._root, times)
        if valid != self._root:
            times = self._check(valid, bundle, payload)
        # (3) only now is the certificate believed
        claim = read_claim(bundle.signing_certificate.public_bytes(Encoding.DER))
        return Certified(claim.identity, claim.issuer, min(times))

    def _check(self, root: RawRoot, bundle: Bundle, payload: bytes) -> list[datetime]:
        """Verify under a root; return the trusted times of the signature, never none."""
        verifier = self._verifier(root)
        verifier.times = []
        if bundle._dsse_envelope is None:
            verifier.verify_artifact(payload, bundle, UnsafeNoOp())
        elif verifier.verify_dsse(bundle, UnsafeNoOp()) != (PAYLOAD_TYPE, payload):
            raise VerificationFailed("the bundle signs another payload")
        if not verifier.times:
            raise VerificationFailed("nothing trusted dates the signature")
        return verifier.times

    def _verifier(self, root: RawRoot) -> _Verifier:
        key = tuple(part.to_json().encode() for part in _parts(root))
        if key not in self._verifiers:
            self._verifiers[key] = _Verifier(trusted_root=TrustedRoot(root))
        return self._verifiers[key]


class _Verifier(Verifier):
    """The library's, which keeps the times it trusted and takes no time-stamp on faith."""

    times: Sequence[datetime] = ()

    def _establish_time(self, bundle: Bundle) -> list[TimestampVerificationResult]:
        found = super()._establish_time(bundle)
        stamps = bundle.verification_material.timestamp_verification_data
        claimed = len(stamps.rfc3161_timestamps) if stamps else 0
        good = sum(item.source is TimestampSource.TIMESTAMP_AUTHORITY for item in found)
        if good != claimed:  # SIG-20
            raise VerificationError(
                f"{claimed - good} of {claimed} time-stamps are not of a trusted authority"
            )
        self.times = [item.time.astimezone(UTC) for item in found]
        return found


class _PromisedEntry(TransparencyLogEntry):
    """A log entry of cosign 1 and 2: the log's signed promise, without a proof of inclusion."""

    def _validate(self) -> None:
        if not self._inner.inclusion_promise or not self._inner.integrated_time:
            raise VerificationError("log entry has neither proof nor promise of inclusion")

    def _verify(self, keyring: RekorKeyring) -> None:
        self._verify_set(keyring)


class _PromisedBundle(Bundle):
    """A bundle v0.1 around such an entry."""

    def _verify(self) -> None:
        material = self._inner.verification_material
        chain = material.x509_certificate_chain
        if not chain or not chain.certificates or len(material.tlog_entries) != 1:
            raise VerificationError("expected a certificate and exactly one log entry in bundle")
        self._signing_certificate = x509.load_der_x509_certificate(chain.certificates[0].raw_bytes)
        self._log_entry = _PromisedEntry(material.tlog_entries[0])


def _read_bundle(data: bytes) -> Bundle:
    """Parse; strictly first, so that two parsers cannot see two things (SIG-05).

    Raises: VerificationFailed, Inconclusive, what the library raises.
    """
    where = "bundle"
    value = shape.parse_object(data, where, limit=bundles.MAX_BUNDLE_BYTES)
    material = shape.member(value, "verificationMaterial", dict, where)
    entries = shape.objects(material, "tlogEntries", where, limit=10)
    if len(entries) != 1:
        raise VerificationFailed(f"{len(entries)} log entries, where one has to be")
    for entry in entries:
        kind = shape.texts(entry, "kindVersion", where)
        found = (kind.get("kind", ""), kind.get("version", ""))
        if found not in _ENTRIES:
            raise Inconclusive(
                f"its log entry is of kind {' '.join(found)[:80]!r}, not checked here"
            )
    if value.get("mediaType") == bundles.PROMISED_TYPE and not any(map(_has_proof, entries)):
        for entry in entries:
            entry["inclusionProof"] = _NO_PROOF
        return _PromisedBundle(RawBundle.from_json(json.dumps(value)))
    return Bundle.from_json(data)


def _has_proof(entry: dict[str, Any]) -> bool:
    proof = entry.get("inclusionProof")
    return isinstance(proof, dict) and bool(proof.get("checkpoint"))


def _production() -> bytes:
    """The library's own copy: no cache of this machine, no network."""
    return (resources.files("sigstore") / PRODUCTION_STORE / "trusted_root.json").read_bytes()


def _read_root(data: bytes, where: str, now: datetime) -> RawRoot:
    try:
        shape.parse_object(data, where, limit=len(data))
        root = RawRoot.from_json(data)
        Verifier(trusted_root=TrustedRoot(root))
    except (VerificationFailed, Error, ValueError, TypeError) as error:
        text = " ".join(getattr(error, "message", str(error)).split())
        raise ConfigError(
            f"not a Sigstore trust root: {text[:200]}", where=where, hint=_HINT
        ) from None
    for name, parts in (
        ("certificate authority", root.certificate_authorities),
        ("transparency log", root.tlogs),
        ("certificate log", root.ctlogs),
    ):
        if not parts:
            raise ConfigError(f"the trust root names no {name}", where=where, hint=_HINT)
        if not any(_holds(part, now) for part in parts):
            why = f"the trust root is expired: no {name} of it is valid today"
            raise ConfigError(why, where=where, hint=_HINT)
    return root


def _valid_at(root: RawRoot, times: Sequence[datetime]) -> RawRoot:
    """The parts of a root whose windows hold all times.

    Raises: VerificationFailed if nothing is left of a part that is needed.
    """
    valid = root.model_copy(
        update={
            "certificate_authorities": _holding(root.certificate_authorities, times),
            "tlogs": _holding(root.tlogs, times),
            "ctlogs": _holding(root.ctlogs, times),
            "timestamp_authorities": _holding(root.timestamp_authorities, times),
        }
    )
    if not (valid.certificate_authorities and valid.tlogs and valid.ctlogs):
        moment = shape.rfc3339(min(times))
        raise VerificationFailed(f"no part of the trust root was valid at {moment}")
    return valid


def _holding(parts: Iterable[T], times: Sequence[datetime]) -> list[T]:
    return [part for part in parts if all(_holds(part, time) for time in times)]


def _holds(part: object, time: datetime) -> bool:
    window = (
        part.valid_for
        if isinstance(part, CertificateAuthority)
        else part.public_key.valid_for
        if isinstance(part, TransparencyLogInstance)
        else None
    )
    if window is None:
        return isinstance(part, TransparencyLogInstance)
    return (window.start is None or window.start <= time) and (
        window.end is None or time <= window.end
    )


def _parts(root: RawRoot) -> list[CertificateAuthority | TransparencyLogInstance]:
    authorities = [*root.certificate_authorities, *root.timestamp_authorities]
    return [*authorities, *root.tlogs, *root.ctlogs]
