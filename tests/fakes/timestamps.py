"""RFC 3161 time-stamp responses (CMS signed data, RFC 5652), as an authority gives them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fakes.der import algorithm, attribute, integer, oid, sequence, set_of, tlv


def response(
    data: bytes,
    moment: datetime,
    leaf_certificate: x509.Certificate,
    issuer: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
) -> bytes:
    """A granted response over ``data``, by an authority's certificate and its issuer's."""
    return answer(hashlib.sha256(data).digest(), moment, leaf_certificate, issuer, key)


def answer(
    digest: bytes,
    moment: datetime,
    leaf_certificate: x509.Certificate,
    issuer: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
) -> bytes:
    """A granted response over a SHA-256."""
    info = sequence(
        integer(1),
        oid("1.3.6.1.4.1.57264.2"),
        sequence(algorithm("2.16.840.1.101.3.4.2.1"), tlv(0x04, digest)),
        integer(1),
        tlv(0x18, moment.astimezone(UTC).strftime("%Y%m%d%H%M%SZ").encode()),
    )
    content = "1.2.840.113549.1.9.16.1.4"
    leaf = leaf_certificate.public_bytes(serialization.Encoding.DER)
    attributes = set_of(
        attribute("1.2.840.113549.1.9.3", oid(content)),
        attribute("1.2.840.113549.1.9.4", tlv(0x04, hashlib.sha256(info).digest())),
        attribute(
            "1.2.840.113549.1.9.16.2.47",
            sequence(sequence(sequence(tlv(0x04, hashlib.sha256(leaf).digest())))),
        ),
    )
    signer = sequence(
        integer(1),
        sequence(issuer.subject.public_bytes(), integer(leaf_certificate.serial_number)),
        algorithm("2.16.840.1.101.3.4.2.1"),
        b"\xa0" + attributes[1:],
        sequence(oid("1.2.840.10045.4.3.2")),
        tlv(0x04, key.sign(attributes, ec.ECDSA(hashes.SHA256()))),
    )
    signed = sequence(
        integer(3),
        set_of(algorithm("2.16.840.1.101.3.4.2.1")),
        sequence(oid(content), tlv(0xA0, tlv(0x04, info))),
        tlv(0xA0, leaf),
        set_of(signer),
    )
    token = sequence(oid("1.2.840.113549.1.7.2"), tlv(0xA0, signed))
    return sequence(sequence(integer(0)), token)
