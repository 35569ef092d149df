"""A key of Vault's transit engine: it never leaves Vault, which signs digests that we send.

The version is chosen once, when the session begins, and named in each request, so that a
rotation in the middle of a run cannot mix versions; every signature is checked with that
version's public key before anybody sees it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from secure_pipeline.adapters.vault import VaultSession
from secure_pipeline.audit.entry import Value
from secure_pipeline.errors import ConfigError, PolicyDenied, VerificationFailed
from secure_pipeline.files import canonical_json, sha256_bytes
from secure_pipeline.keys.uri import KeyRef, VaultKey
from secure_pipeline.keys.verify import PublicKey, load_any_public_key
from secure_pipeline.policy.document import Algorithm
from secure_pipeline.policy.rotation import Issued, read_moment
from secure_pipeline.shape import member

_SIGNATURE = re.compile(r"vault:v([1-9][0-9]{0,8}):([A-Za-z0-9+/]{1,2000}={0,2})")
_KINDS = {
    "ecdsa-p256": Algorithm.ECDSA_P256_SHA256,
    "ecdsa-p384": Algorithm.ECDSA_P384_SHA384,
    "ed25519": Algorithm.ED25519,
}
_HASHES = {
    Algorithm.ECDSA_P256_SHA256: ("sha2-256", hashlib.sha256),
    Algorithm.ECDSA_P384_SHA384: ("sha2-384", hashlib.sha384),
}
_ED25519_DER = bytes.fromhex("302a300506032b6570032100")
"""SubjectPublicKeyInfo of Ed25519 up to the key's 32 bytes (RFC 8410)."""
_MAX_VERSIONS = 100_000
_MAX_TEXT = 1 << 20
"""Characters of one text in a request; Vault's own default (max_json_string_value_length)."""


class VaultTransitSigner:
    """Signs in Vault; implements ports.Signer."""

    def __init__(
        self, session: VaultSession, ref: KeyRef, pinned: tuple[bytes, ...] | None = None
    ) -> None:
        """Read the key's public half. ``pinned``: DER of the keys that may sign, if any are named.

        Raises: UsageError, Refused (no such key), VerificationFailed, PolicyDenied (not pinned).
        """
        assert ref.vault is not None
        self.ref = ref
        self._session = session
        self._key: VaultKey = ref.vault
        where = str(ref)
        data = session.transit_key(self._key.mount, self._key.path)
        self.version = choose(data, self._key.version, where)
        self.created = created_of(data, self.version)
        self._public = public_of(data, self.version, where)
        if pinned is not None and self._public.der not in pinned:
            raise PolicyDenied(
                f"version {self.version} of the key is none of the policy's keys",
                where=where,
                hint=f"secure-pipeline keys show {where}@{self.version}, and put it into the policy"
                if self._key.version is None
                else "name a version whose public key the policy has",
            )

    def __repr__(self) -> str:
        return f"VaultTransitSigner({self.ref}, version {self.version})"

    @property
    def algorithm(self) -> str:
        """The algorithm's value in policies."""
        return self._public.algorithm.value

    @property
    def public_key_der(self) -> bytes:
        """SubjectPublicKeyInfo, DER, of the chosen version."""
        return self._public.der

    def public_key(self, name: str) -> PublicKey:
        """Return the public half, bound to the algorithm."""
        return PublicKey(name, self._public.algorithm, self._public.der)

    @property
    def figures(self) -> dict[str, str | int]:
        """Which key and version, for the result of a stage."""
        return {"keyUri": str(self.ref), "keyVersion": self.version}

    @property
    def issued(self) -> Issued:
        """The version that signs, and when it was made."""
        return Issued("key", f"version {self.version} of {self.ref}", self.created)

    def sign(self, message: bytes) -> bytes:
        """Sign ``message``; ECDSA signatures are DER.

        Raises: VerificationFailed (the answer is not this version's signature), Refused,
        Unavailable.
        """
        parameters = self._parameters(message)
        request = {
            "method": "POST",
            "path": f"{self._key.mount}/sign/{self._key.path}",
            **parameters,
        }
        details: dict[str, Value] = {
            "version": self.version,
            "requestHash": f"sha256:{sha256_bytes(canonical_json(request))}",
        }
        session = self._session
        session.require()
        with session.recorded(session.use("sign", str(self.ref), details)) as done:
            text, done["requestId"] = session.transit_sign(
                self._key.mount, self._key.path, parameters
            )
            return self._checked(text, message)

    def _parameters(self, message: bytes) -> dict[str, Any]:
        if self._public.algorithm is Algorithm.ED25519:
            return {"hash_input": _whole(message, str(self.ref)), "key_version": self.version}
        name, algorithm = _HASHES[self._public.algorithm]
        return {
            "hash_input": _base64(algorithm(message).digest()),
            "key_version": self.version,
            "hash_algorithm": name,
            "prehashed": True,
            "marshaling_algorithm": "asn1",
        }

    def _checked(self, text: str, message: bytes) -> bytes:
        where = str(self.ref)
        # (1) the answer has exactly Vault's form
        match = _SIGNATURE.fullmatch(text)
        if match is None:
            raise VerificationFailed("Vault's answer is no signature of its form", where=where)
        # (2) it is of the version that was asked for, compared as numbers
        if int(match[1]) != self.version:
            raise VerificationFailed(
                f"Vault signed with version {int(match[1])} instead of {self.version}", where=where
            )
        # (3) it verifies with the public key that was exported at the beginning
        try:
            signature = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            raise VerificationFailed("Vault's signature is no base64", where=where) from None
        if not self._public.verify(message, signature):
            raise VerificationFailed(
                f"Vault's signature does not verify with version {self.version} of the public key",
                where=where,
                hint="nothing was published; something between here and Vault alters answers",
            )
        return signature


def _whole(message: bytes, where: str) -> str:
    """The message itself, which Ed25519 has no digest of. Raises: ConfigError if it is too long."""
    text = _base64(message)
    if len(text) > _MAX_TEXT:
        raise ConfigError(
            f"a statement of {len(message)} bytes is too long for an Ed25519 key in Vault,"
            f" which is sent all of it and takes {_MAX_TEXT * 3 // 4}",
            where=where,
            hint="use a key of type ecdsa-p256, which is sent a digest",
        )
    return text


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def choose(data: Mapping[str, Any], wanted: int | None, where: str) -> int:
    """The version to sign with: the one named, or the newest, compared as numbers.

    Raises: ConfigError if the key cannot sign, or this version may not; VerificationFailed.
    """
    if not member(data, "supports_signing", bool, where):
        raise ConfigError("is a key that cannot sign", where=where, hint="type=ecdsa-p256")
    latest = member(data, "latest_version", int, where)
    least = max(
        member(data, "min_available_version", int, where),
        member(data, "min_decryption_version", int, where),
        member(data, "min_encryption_version", int, where),
        1,
    )
    version = latest if wanted is None else wanted
    if not least <= version <= latest:
        raise ConfigError(
            f"version {version} may not sign; versions {least} to {latest} may", where=where
        )
    return version


def created_of(data: Mapping[str, Any], version: int) -> datetime | None:
    """When a version of a transit key was made; None if Vault does not tell it."""
    versions = data.get("keys")
    entry = versions.get(str(version)) if isinstance(versions, dict) else None
    return read_moment(entry.get("creation_time")) if isinstance(entry, dict) else None


def public_of(data: Mapping[str, Any], version: int, where: str) -> PublicKey:
    """The public key of one version. Raises: ConfigError, VerificationFailed (none is shown)."""
    kind = member(data, "type", str, where)
    versions = member(data, "keys", dict, where)
    if kind not in _KINDS or len(versions) > _MAX_VERSIONS:
        raise ConfigError(
            f"is a {kind[:40]!r} key", where=where, hint="use ecdsa-p256, ecdsa-p384 or ed25519"
        )
    text = member(member(versions, str(version), dict, where), "public_key", str, where)
    pem = text.encode() if text.startswith("-----") else _ed25519_pem(text, where)
    key = load_any_public_key(where, pem)
    if key.algorithm is not _KINDS[kind]:
        raise VerificationFailed(f"says {kind} and shows {key.algorithm.value}", where=where)
    return key


def _ed25519_pem(text: str, where: str) -> bytes:
    """Vault gives Ed25519 keys as the base64 of 32 bytes."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != 32:
        raise VerificationFailed("shows no public key", where=where)
    body = _base64(_ED25519_DER + raw)
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n".encode()
