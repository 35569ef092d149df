"""Other encodings of an ECDSA P-256 signature, and what is almost one."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of P-256's group (SEC 2, 2.4.2)."""


def ssh_fingerprint(der: bytes) -> str:
    """The key id that cosign's verifier of envelopes computes for a key: OpenSSH's fingerprint."""
    key = serialization.load_der_public_key(der)
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    blob = base64.b64decode(line.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _integer(value: int, *, spare: int = 0) -> bytes:
    size = max(1, (value.bit_length() + 8) // 8)
    body = b"\0" * spare + value.to_bytes(size, "big")
    return b"\x02" + bytes([len(body)]) + body


def _sequence(body: bytes, *, long: bool = False) -> bytes:
    length = bytes([0x81, len(body)]) if long else bytes([len(body)])
    return b"\x30" + length + body


def _low(signature: bytes) -> bytes:
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, min(s, ORDER - s))


def _high(signature: bytes) -> bytes:
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, max(s, ORDER - s))


def _over(signature: bytes) -> bytes:
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, s + ORDER)


def _padded(signature: bytes) -> bytes:
    r, s = decode_dss_signature(signature)
    return _sequence(_integer(r, spare=1) + _integer(s))


def _long_length(signature: bytes) -> bytes:
    r, s = decode_dss_signature(signature)
    return _sequence(_integer(r) + _integer(s), long=True)


def _extra_member(signature: bytes) -> bytes:
    r, s = decode_dss_signature(signature)
    return _sequence(_integer(r) + _integer(s) + _integer(1))


def _plain(signature: bytes) -> bytes:
    r, s = decode_dss_signature(signature)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _swapped(signature: bytes) -> bytes:
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(s, r)


def _unsigned(signature: bytes) -> bytes:
    """Integers without the zero byte that keeps them positive."""
    r, s = decode_dss_signature(signature)
    parts = [value.to_bytes(32, "big") for value in (r, s)]
    return _sequence(b"".join(b"\x02\x20" + part for part in parts))


FORMS: tuple[Callable[[bytes], bytes], ...] = (
    *(_low, _high, _over, _padded, _long_length, _extra_member, _plain, _swapped, _unsigned),
    lambda signature: signature + b"\0",
    lambda signature: signature + signature,
    lambda signature: signature[:-1],
    lambda signature: signature[:8] + bytes([signature[8] ^ 1]) + signature[9:],
    lambda signature: encode_dss_signature(0, 0),
    lambda signature: encode_dss_signature(decode_dss_signature(signature)[0], 0),
    lambda signature: b"",
)
"""Each makes one form of a signature."""
