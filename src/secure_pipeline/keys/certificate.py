"""What a Sigstore certificate says about its holder: one identity, and who vouched for it.

Reading is not verifying: a claim is believed only once an ``IdentityVerifier`` has checked the
certificate it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1

from secure_pipeline.errors import VerificationFailed

MAX_CERTIFICATE_BYTES = 64 << 10
MAX_IDENTITY = 2000
_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_ISSUER_V1 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_USER_NAME = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7")
_UNREADABLE = (
    ValueError,
    TypeError,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)


@dataclass(frozen=True)
class Claim:
    """An identity and its issuer; neither is empty."""

    identity: str
    """E-mail address, URI or user name: the only subject alternative name."""
    issuer: str
    """URL of the OpenID Connect issuer."""


def read_claim(der: bytes) -> Claim:
    """Read a certificate by Fulcio's profile (fulcio docs/oid-info.md).

    Raises: VerificationFailed for no certificate, several names, or no issuer.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise VerificationFailed(f"certificate of {len(der)} bytes")
    try:
        extensions = x509.load_der_x509_certificate(der).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        identities = [_name(name) for name in names]
        issuers = {_issuer(extension) for extension in extensions} - {None}
    except _UNREADABLE as error:
        raise VerificationFailed(f"not a Sigstore certificate: {str(error)[:200]}") from None
    if len(identities) != 1 or len(issuers) != 1:
        raise VerificationFailed(
            f"certificate names {len(identities)} identities and {len(issuers)} issuers, not one"
        )
    identity, issuer = identities[0], issuers.pop()
    if not identity or not issuer or len(identity) > MAX_IDENTITY:
        raise VerificationFailed("certificate names no identity or no issuer")
    return Claim(identity, issuer)


def _name(name: x509.GeneralName) -> str:
    if isinstance(name, x509.RFC822Name | x509.UniformResourceIdentifier):
        return name.value
    if isinstance(name, x509.OtherName) and name.type_id == _USER_NAME:
        return asn1.decode_der(str, name.value)
    raise ValueError(f"a name of kind {type(name).__name__}")


def _issuer(extension: x509.Extension[x509.ExtensionType]) -> str | None:
    """The issuer that an extension names, in its present or its first form."""
    if not isinstance(extension.value, x509.UnrecognizedExtension):
        return None
    if extension.oid == _ISSUER:
        return asn1.decode_der(str, extension.value.value)
    return extension.value.value.decode() if extension.oid == _ISSUER_V1 else None
