"""Certificate authorities by Sigstore's profiles: chains, Fulcio's leaves, stamping leaves."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fakes.der import tlv

Key = ec.EllipticCurvePrivateKey
_SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_ISSUER_V1 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_SHA256 = hashes.SHA256()


@dataclass(frozen=True)
class Holder:
    """Who a certificate is for, from when."""

    key: Key
    identity: str
    issuer: str
    begins: datetime


class Chain:
    """A root and an intermediate for one purpose, both valid in one window."""

    def __init__(
        self, name: str, purpose: x509.ObjectIdentifier, start: datetime, end: datetime
    ) -> None:
        self.start, self.end = start, end
        root_key, self.key = new_key(), new_key()
        self.root = self._authority(f"{name} root", root_key, None, root_key, [])
        self.issuer = self._authority(f"{name} issuer", self.key, self.root, root_key, [purpose])

    def _authority(
        self,
        name: str,
        key: Key,
        issuer: x509.Certificate | None,
        issuer_key: Key,
        purposes: list[x509.ObjectIdentifier],
    ) -> x509.Certificate:
        builder = (
            _builder(key, issuer.subject if issuer else _name(name), self.start, self.end)
            .subject_name(_name(name))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        )
        if issuer:
            builder = builder.add_extension(_authority_id(issuer), critical=False)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        return builder.sign(issuer_key, _SHA256)

    def stamping(self, key: Key) -> x509.Certificate:
        """The certificate of a time-stamp authority (RFC 3161, 2.3)."""
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        return (
            _builder(key, self.issuer.subject, self.start, self.end)
            .subject_name(_name("stamping"))
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(purpose, critical=True)
            .add_extension(_authority_id(self.issuer), critical=False)
            .sign(self.key, _SHA256)
        )

    def leaf(self, holder: Holder, log: Key, by: Key | None) -> x509.Certificate:
        """A certificate of ten minutes by Fulcio's profile.

        ``log`` is the CT log's key, ``by`` the key that signs its promise; None for no promise.
        """
        kind = x509.UniformResourceIdentifier if "://" in holder.identity else x509.RFC822Name
        issuer = holder.issuer.encode()
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
        ends = holder.begins + timedelta(minutes=10)
        builder = (
            _builder(holder.key, self.issuer.subject, holder.begins, ends)
            .subject_name(x509.Name([]))
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(purpose, critical=False)
            .add_extension(_authority_id(self.issuer), critical=False)
            .add_extension(x509.SubjectAlternativeName([kind(holder.identity)]), critical=True)
            .add_extension(x509.UnrecognizedExtension(_ISSUER_V1, issuer), critical=False)
            .add_extension(
                x509.UnrecognizedExtension(_ISSUER_V2, tlv(0x0C, issuer)), critical=False
            )
        )
        if by is not None:
            plain = builder.sign(self.key, _SHA256).tbs_certificate_bytes
            promise = self._promise(plain, holder.begins, log, by)
            builder = builder.add_extension(
                x509.UnrecognizedExtension(_SCT_LIST, promise), critical=False
            )
        return builder.sign(self.key, _SHA256)

    def _promise(self, tbs: bytes, moment: datetime, log: Key, by: Key) -> bytes:
        """The extension with one signed certificate time-stamp (RFC 6962, 3.2 and 3.3)."""
        milliseconds = int(moment.timestamp() * 1000)
        signed = struct.pack("!BBQH", 0, 0, milliseconds, 1)
        signed += hashlib.sha256(spki(self.key)).digest()
        signed += struct.pack("!I", len(tbs))[1:] + tbs + struct.pack("!H", 0)
        signature = sign(by, signed)
        sct = struct.pack("!B", 0) + hashlib.sha256(spki(log)).digest()
        sct += struct.pack("!QHBBH", milliseconds, 0, 4, 3, len(signature)) + signature
        return tlv(0x04, struct.pack("!HH", len(sct) + 2, len(sct)) + sct)


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def spki(key: Key) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sign(key: Key, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(_SHA256))


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _builder(
    key: Key, issuer: x509.Name, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _authority_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    found = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found.value)


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "virtual"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _usage(**chosen: bool) -> x509.KeyUsage:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
        " key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: chosen.get(name, False) for name in names.split()})
