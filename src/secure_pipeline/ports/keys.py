"""Who signs, and who checks what was signed without a key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable


@runtime_checkable
class Signer(Protocol):
    """A private key that signs, and the public key that checks it."""

    @property
    def algorithm(self) -> str:
        """One of policy.document.Algorithm's values."""

    @property
    def public_key_der(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""

    def sign(self, message: bytes) -> bytes:
        """Sign ``message`` (hashed by the algorithm). ECDSA signatures are DER."""


@dataclass(frozen=True)
class Certified:
    """Whose a keyless signature is, once everything about it was checked."""

    identity: str
    """The certificate's e-mail address, URI or user name."""
    issuer: str
    """URL of the OpenID Connect issuer that vouched for it."""
    signed_at: datetime
    """The earliest time, UTC, at which a log or an authority saw the signature."""


class KeylessSigner(Protocol):
    """Signs statements under a certificate of minutes that names who runs. Threads may share it."""

    @property
    def identity(self) -> tuple[str, str]:
        """Identity and issuer that the certificate names, which is asked for if there is none.

        Raises: Unavailable (a service, the identity token), VerificationFailed, ConfigError.
        """

    def sign(self, payload: bytes) -> bytes:
        """Return a Sigstore bundle around an envelope of a statement, logged and dated.

        Raises: like ``identity``; a bundle that does not verify is never returned.
        """

    def signed(self, bundle: bytes, payload: bytes) -> bool:
        """Tell whether a bundle around this payload verifies and is of this identity."""


AnySigner = Signer | KeylessSigner


class IdentityVerifier(Protocol):
    """Checks keyless signatures against one trust root, offline."""

    def verify(self, bundle: bytes, payload: bytes) -> Certified:
        """Check certificate chain, log entry, time and signature of a Sigstore bundle.

        ``payload`` is what must have been signed: the payload of its envelope, or the message.
        Raises: VerificationFailed (proven wrong, or not proven), Inconclusive (of a kind that
        cannot be checked).
        """
