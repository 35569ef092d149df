"""Who signs statements: a key, or an identity whose certificate lives for minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

from secure_pipeline.attestations import bundle, dsse
from secure_pipeline.attestations.statement import Statement
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.files import sha256_bytes
from secure_pipeline.keys.verify import PublicKey
from secure_pipeline.policy.document import Algorithm
from secure_pipeline.ports import AnySigner, KeylessSigner, Signer

WORKERS = 8
"""Statements on their way to the log at the same time: it answers once a second or so."""

Figures = Mapping[str, str | int]


class Maker(Protocol):
    """Whose envelopes are told apart from others'."""

    @property
    def id(self) -> str:
        """Name for people."""

    @property
    def der(self) -> bytes:
        """SubjectPublicKeyInfo of a key; empty for an identity."""

    def signed(self, envelope: dsse.Envelope) -> bool:
        """Tell whether one of the envelope's signatures is its own."""


class Author(Maker, Protocol):
    """A maker that signs."""

    def sign(self, statements: Sequence[Statement]) -> list[dsse.Envelope]:
        """Return an envelope of each, checked.

        Raises: what the signer raises; VerificationFailed if a signature is not its own.
        """

    def figures(self, envelopes: Sequence[dsse.Envelope]) -> Figures:
        """Who signed these, for the result of a stage and for the ledger."""


@runtime_checkable
class StoredKey(Protocol):
    """A signer whose key lies in a store that numbers its versions."""

    @property
    def figures(self) -> Figures:
        """``keyUri`` and ``keyVersion``."""


def author(signer: AnySigner) -> Author:
    """Who signs with it. Raises: like ``KeylessSigner.identity``."""
    return _KeyAuthor(signer) if isinstance(signer, Signer) else _KeylessAuthor(signer)


class _KeyAuthor:
    """A key. Figures: ``key``, its hint; of one in a store ``keyUri`` and ``keyVersion`` too."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._key = PublicKey("signer", Algorithm(signer.algorithm), signer.public_key_der)
        self.id, self.der = self._key.id, self._key.der

    def signed(self, envelope: dsse.Envelope) -> bool:
        return self._key.signed(envelope)

    def sign(self, statements: Sequence[Statement]) -> list[dsse.Envelope]:
        return [
            self._key.sign(item.payload, self._signer, item.predicate_type) for item in statements
        ]

    def figures(self, envelopes: Sequence[dsse.Envelope]) -> Figures:
        stored = self._signer.figures if isinstance(self._signer, StoredKey) else {}
        return {"key": self._key.hint, **stored}


class _KeylessAuthor:
    """An identity. Figures: ``identity``, ``issuer``, ``certificate``, ``logIndex``.

    The last two are lists with commas: SHA-256 of the certificates, positions in the log.
    """

    der = b""

    def __init__(self, signer: KeylessSigner) -> None:
        self._signer = signer
        self.id, self._issuer = signer.identity

    def signed(self, envelope: dsse.Envelope) -> bool:
        return envelope.proof is not None and self._signer.signed(envelope.proof, envelope.payload)

    def sign(self, statements: Sequence[Statement]) -> list[dsse.Envelope]:
        pool = ThreadPoolExecutor(WORKERS)
        try:
            return list(pool.map(self._sign, statements))
        finally:
            pool.shutdown(cancel_futures=True)

    def figures(self, envelopes: Sequence[dsse.Envelope]) -> Figures:
        entries = [bundle.read_entry(item.proof or b"") for item in envelopes]
        certificates = dict.fromkeys(f"sha256:{sha256_bytes(item.certificate)}" for item in entries)
        indexes = ",".join(str(index) for index in sorted(item.index for item in entries))
        return {
            "identity": self.id,
            "issuer": self._issuer,
            "certificate": ",".join(certificates),
            "logIndex": indexes,
        }

    def _sign(self, statement: Statement) -> dsse.Envelope:
        envelope = bundle.proven(self._signer.sign(statement.payload), statement.predicate_type)
        if envelope.payload != statement.payload:
            raise VerificationFailed("another payload was signed", where=statement.predicate_type)
        return envelope
