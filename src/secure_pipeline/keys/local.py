"""A key in a file, in cosign's encrypted format, so that both programs use the same file.

PEM around JSON: scrypt makes the key of a NaCl secretbox that holds the PKCS #8 DER.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from nacl.utils import random

from secure_pipeline import files, shape
from secure_pipeline.errors import ConfigError, Unavailable, UsageError, VerificationFailed
from secure_pipeline.keys.verify import (
    PublicKey,
    algorithm_of,
    hash_of,
    read_public_key,
    to_der,
)
from secure_pipeline.policy.document import Algorithm

PASSWORD_VARIABLES = ("SECURE_PIPELINE_KEY_PASSWORD", "COSIGN_PASSWORD")
MAX_KEY_BYTES = 64 << 10
_LABEL = "ENCRYPTED SIGSTORE PRIVATE KEY"
_PEM = re.compile(
    rb"\s*-----BEGIN (ENCRYPTED (?:SIGSTORE|COSIGN) PRIVATE KEY)-----\n"
    rb"([A-Za-z0-9+/=\r\n]+)-----END \1-----\s*"
)
_SCRYPT = {"N": 65536, "r": 8, "p": 1}
_MAX_SCRYPT_MEMORY = 256 << 20

_PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class _Box:
    """The parts of an encrypted key file."""

    n: int
    r: int
    p: int
    salt: bytes
    nonce: bytes
    ciphertext: bytes

    def key(self, password: str) -> bytes:
        return hashlib.scrypt(
            password.encode(),
            salt=self.salt,
            n=self.n,
            r=self.r,
            p=self.p,
            maxmem=_MAX_SCRYPT_MEMORY + (32 << 20),
            dklen=SecretBox.KEY_SIZE,
        )


class LocalSigner:
    """Signs with a private key held in memory; implements ports.Signer."""

    def __init__(self, key: _PrivateKey, algorithm: Algorithm) -> None:
        self._key = key
        self._algorithm = algorithm
        self._der = to_der(key.public_key())

    def __repr__(self) -> str:
        return f"LocalSigner({self._algorithm.value})"

    @property
    def algorithm(self) -> str:
        """The algorithm's value in policies."""
        return self._algorithm.value

    @property
    def kind(self) -> Algorithm:
        """The algorithm."""
        return self._algorithm

    @property
    def private_key(self) -> _PrivateKey:
        """The key itself, which stays in this process."""
        return self._key

    @property
    def public_key_der(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        return self._der

    def public_key(self, name: str) -> PublicKey:
        """Return the public half, bound to the algorithm."""
        return PublicKey(name, self._algorithm, self._der)

    def sign(self, message: bytes) -> bytes:
        """Sign ``message``; ECDSA signatures are DER."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(message)
        return self._key.sign(message, ec.ECDSA(hash_of(self._algorithm)))


def password_from(environ: Mapping[str, str]) -> str | None:
    """Return the key's password from the environment that wiring gives, or None if unset."""
    return next((environ[name] for name in PASSWORD_VARIABLES if name in environ), None)


def load(path: Path, password: str) -> LocalSigner:
    """Read an encrypted private key: cosign's format, with its present or older label.

    Raises: ConfigError (missing, malformed, kind not accepted), UsageError (password).
    """
    return _open(files.read_bounded(path, MAX_KEY_BYTES), password, str(path))


def decode(data: bytes, password: Callable[[], str], where: str) -> LocalSigner:
    """Read a private key that did not come from a file: cosign's format, or plain PEM.

    ``password`` is asked only for the former. Raises: like ``load``; never quoting the data.
    """
    if b"-----BEGIN ENCRYPTED " in data:
        return _open(data, password(), where)
    if data.count(b"-----BEGIN ") != 1:
        raise ConfigError("holds no private key", where=where)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError("holds no private key that can be read", where=where) from None
    return _signer(key, where)


def _open(data: bytes, password: str, where: str) -> LocalSigner:
    box = _parse(data, where)
    try:
        der = SecretBox(box.key(password)).decrypt(box.ciphertext, box.nonce)
    except CryptoError:
        raise UsageError(
            "the password does not open the key", where=where, hint=f"set {PASSWORD_VARIABLES[0]}"
        ) from None
    try:
        key = serialization.load_der_private_key(der, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError("holds no PKCS #8 private key", where=where) from None
    return _signer(key, where)


def _signer(key: object, where: str) -> LocalSigner:
    algorithm = algorithm_of(key)
    if algorithm is None or not isinstance(key, _PrivateKey):
        raise ConfigError(
            "is neither ECDSA P-256, P-384 nor Ed25519", where=where, hint="generate a new key"
        )
    return LocalSigner(key, algorithm)


def generate(path: Path, password: str) -> PublicKey:
    """Make an ECDSA P-256 key pair: ``path`` (mode 0600) and its public key beside it, .pub.

    Raises: UsageError if a file is there already or the password is empty; Unavailable.
    """
    if not password:
        raise UsageError(
            "an empty password would leave the key unprotected",
            hint=f"set {PASSWORD_VARIABLES[0]}",
        )
    public_path = public_path_of(path)
    key = ec.generate_private_key(ec.SECP256R1())
    public = PublicKey(path.name, Algorithm.ECDSA_P256_SHA256, to_der(key.public_key()))
    der = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    require_absent(path)
    _write_new(path, _encrypt(der, password), 0o600)
    try:
        _write_new(public_path, public.pem, 0o644)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return public


def public_path_of(path: Path) -> Path:
    """Return where the public key of a key file lies."""
    return path.with_suffix(".pub") if path.suffix == ".key" else path.with_name(path.name + ".pub")


def require_absent(path: Path) -> None:
    """Check that neither half of a pair is there already.

    Raises: UsageError.
    """
    for half in (path, public_path_of(path)):
        if os.path.lexists(half):
            raise _exists(half)


def read_public(path: Path) -> PublicKey | None:
    """Read a public PEM file; None if it holds a private key instead.

    Raises: ConfigError.
    """
    data = files.read_bounded(path, MAX_KEY_BYTES)
    if b"PRIVATE KEY" in data:
        return None
    return read_public_key(path)


def _exists(path: Path) -> UsageError:
    return UsageError("exists already", where=str(path), hint="choose another --output")


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not exist, whole or not at all; link() never overwrites."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    files.write_atomic(temporary, data, mode=mode)
    try:
        os.link(temporary, path)
        files.fsync_directory(path.parent)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise Unavailable(f"cannot write: {error.strerror}", where=str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _encrypt(der: bytes, password: str) -> bytes:
    """Return the PEM file around an encrypted key."""
    salt, nonce = random(32), random(SecretBox.NONCE_SIZE)
    box = _Box(_SCRYPT["N"], _SCRYPT["r"], _SCRYPT["p"], salt, nonce, b"")
    ciphertext = SecretBox(box.key(password)).encrypt(der, nonce).ciphertext
    document = {
        "kdf": {"name": "scrypt", "params": _SCRYPT, "salt": _encode(salt)},
        "cipher": {"name": "nacl/secretbox", "nonce": _encode(nonce)},
        "ciphertext": _encode(ciphertext),
    }
    body = _encode(json.dumps(document, separators=(",", ":")).encode())
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return "\n".join([f"-----BEGIN {_LABEL}-----", *lines, f"-----END {_LABEL}-----", ""]).encode()


def _parse(data: bytes, where: str) -> _Box:
    match = _PEM.fullmatch(data.replace(b"\r\n", b"\n"))
    if not match:
        raise ConfigError(
            "not an encrypted private key in cosign's format",
            where=where,
            hint="make one with 'secure-pipeline keys generate'",
        )
    try:
        body = base64.b64decode(match[2].replace(b"\n", b""), validate=True)
        return _box(shape.parse_object(body, where, limit=MAX_KEY_BYTES), where)
    except (binascii.Error, VerificationFailed) as error:
        raise ConfigError(f"malformed key file: {error}") from None


def _box(value: dict[str, object], where: str) -> _Box:
    kdf = shape.member(value, "kdf", dict, where)
    cipher = shape.member(value, "cipher", dict, where)
    if (kdf.get("name"), cipher.get("name")) != ("scrypt", "nacl/secretbox"):
        raise VerificationFailed("not scrypt with nacl/secretbox", where=where)
    params = shape.member(kdf, "params", dict, where)
    n, r, p = (shape.member(params, name, int, where) for name in ("N", "r", "p"))
    if not (n >= 2 and not n & (n - 1) and 1 <= r <= 64 and 1 <= p <= 16):
        raise VerificationFailed("scrypt parameters out of range", where=where)
    if 128 * n * r > _MAX_SCRYPT_MEMORY or n * r * p > 1 << 23:
        raise VerificationFailed("scrypt parameters ask for too much memory or time", where=where)
    nonce = _decode(cipher, "nonce", where)
    if len(nonce) != SecretBox.NONCE_SIZE:
        raise VerificationFailed(f"nonce of {len(nonce)} bytes", where=where)
    return _Box(n, r, p, _decode(kdf, "salt", where), nonce, _decode(value, "ciphertext", where))


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(value: Mapping[str, object], name: str, where: str) -> bytes:
    return base64.b64decode(shape.member(value, name, str, where), validate=True)
