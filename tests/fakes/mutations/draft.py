"""A document in the making: what mutations change before and after it is signed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fakes.jsontext import Members, write
from secure_pipeline.attestations import dsse
from secure_pipeline.oci.digest import Digest

Random = random.Random


@dataclass(frozen=True)
class FixedSigner:
    """A P-256 key made from a number, whose signatures are always the same (RFC 6979)."""

    number: int

    @property
    def public_key_der(self) -> bytes:
        """SubjectPublicKeyInfo."""
        return self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, message: bytes) -> bytes:
        """A DER signature."""
        return self._key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))

    @property
    def _key(self) -> ec.EllipticCurvePrivateKey:
        return ec.derive_private_key(self.number, ec.SECP256R1())


@dataclass(frozen=True)
class Origin:
    """What all cases start from."""

    signer: FixedSigner
    other: FixedSigner
    """A key that nobody trusts."""
    image: Digest
    predicates: dict[str, dict[str, Any]]


@dataclass
class Draft:
    """A document in the making."""

    statement: Members
    image: Digest
    kind: str
    payload_type: str = dsse.PAYLOAD_TYPE
    text: bytes | None = None
    """The payload, once it is no longer the statement's text."""
    separators: tuple[str, str] = (",", ":")
    envelope: list[Change] = field(default_factory=list)
    outer: list[Change] = field(default_factory=list)
    raw: list[Callable[[Random, bytes], bytes]] = field(default_factory=list)

    @property
    def payload(self) -> bytes:
        """The bytes that are signed."""
        return self.text or write(self.statement, *self.separators).encode("utf-8", "surrogatepass")


Change = Callable[[Random, Members, Draft, Origin], None]
Mutation = Callable[[Random, Draft, Origin], None]
