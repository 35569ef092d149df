"""Public keys, each with the one algorithm it is used with (SIG-22)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from secure_pipeline.attestations.dsse import Envelope, key_id, parse_envelope, sign_envelope
from secure_pipeline.errors import ConfigError, VerificationFailed
from secure_pipeline.files import read_bounded
from secure_pipeline.policy.document import Algorithm
from secure_pipeline.ports import Signer

_CURVES: dict[Algorithm, tuple[type[ec.EllipticCurve], type[hashes.HashAlgorithm]]] = {
    Algorithm.ECDSA_P256_SHA256: (ec.SECP256R1, hashes.SHA256),
    Algorithm.ECDSA_P384_SHA384: (ec.SECP384R1, hashes.SHA384),
}
MAX_PEM_BYTES = 64 << 10


@dataclass(frozen=True)
class PublicKey:
    """A public key bound to its algorithm; constructed means the two fit."""

    id: str
    """Name for people: the policy's id of the key."""
    algorithm: Algorithm
    der: bytes
    """SubjectPublicKeyInfo."""

    def __post_init__(self) -> None:
        found = algorithm_of(self._load())
        if found is not self.algorithm:
            raise ConfigError(
                f"is {found.value if found else 'of a kind that is not accepted'},"
                f" not {self.algorithm.value}"
            )

    @property
    def hint(self) -> str:
        """base64(SHA-256(DER)): the keyid and bundle hint that cosign expects."""
        return key_id(self.der)

    @property
    def pem(self) -> bytes:
        """The key as PEM."""
        return self._load().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Tell whether a signature is this key's, by its own algorithm whatever the message says.

        Any malformed signature is simply not this key's.
        """
        key = self._load()
        try:
            if isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(signature, message)
            else:
                assert isinstance(key, ec.EllipticCurvePublicKey)
                key.verify(signature, message, ec.ECDSA(hash_of(self.algorithm)))
        except InvalidSignature:
            return False
        return True

    def signed(self, envelope: Envelope) -> bool:
        """Tell whether one of the envelope's signatures is this key's; key ids do not count."""
        return any(self.verify(envelope.message, item.sig) for item in envelope.signatures)

    def sign(self, payload: bytes, signer: Signer, where: str | None = None) -> Envelope:
        """Let this key's signer sign a payload, and return no envelope that does not verify.

        Raises: VerificationFailed if the signature is not this key's; what the signer raises.
        """
        envelope = parse_envelope(sign_envelope(payload, signer))
        if not self.signed(envelope):
            raise VerificationFailed(
                "the signer's signature does not verify with its own public key", where=where
            )
        return envelope

    def _load(self) -> PublicKeyTypes:
        try:
            return serialization.load_der_public_key(self.der)
        except (ValueError, UnsupportedAlgorithm):
            raise ConfigError("is not a public key") from None


def load_public_key(key_id: str, pem: bytes, algorithm: Algorithm) -> PublicKey:
    """Read one PEM public key and bind it to its algorithm.

    Raises: ConfigError if it is no public key or does not fit the algorithm (SIG-22).
    """
    return PublicKey(key_id, algorithm, to_der(_load_pem(pem)))


def load_any_public_key(key_id: str, pem: bytes) -> PublicKey:
    """Read a key that its owner names, where no policy says the algorithm: only to show it.

    Raises: ConfigError if it is no public key of an accepted kind.
    """
    key = _load_pem(pem)
    algorithm = algorithm_of(key)
    if algorithm is None:
        raise ConfigError("is of a kind that is not accepted", where=key_id)
    return PublicKey(key_id, algorithm, to_der(key))


def read_public_key(path: Path) -> PublicKey:
    """Read a PEM file as ``load_any_public_key`` does.

    Raises: ConfigError naming the file.
    """
    pem = read_bounded(path, MAX_PEM_BYTES)
    try:
        return load_any_public_key(path.name, pem)
    except ConfigError as error:
        raise ConfigError(error.message, where=str(path)) from None


def _load_pem(pem: bytes) -> PublicKeyTypes:
    if len(pem) > MAX_PEM_BYTES or pem.count(b"-----BEGIN ") != 1:
        raise ConfigError("is not one PEM public key")
    try:
        return serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError("is not one PEM public key") from None


def algorithm_of(key: object) -> Algorithm | None:
    """Return the algorithm that a key (public or private) is used with; None if refused."""
    if isinstance(key, ed25519.Ed25519PublicKey | ed25519.Ed25519PrivateKey):
        return Algorithm.ED25519
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        for algorithm, (curve, _) in _CURVES.items():
            if isinstance(key.curve, curve):
                return algorithm
    return None


def hash_of(algorithm: Algorithm) -> hashes.HashAlgorithm:
    """Return the hash of an ECDSA algorithm."""
    return _CURVES[algorithm][1]()


def to_der(key: PublicKeyTypes) -> bytes:
    """Return a public key's SubjectPublicKeyInfo."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
