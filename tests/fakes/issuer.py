"""Identity tokens, as an OpenID Connect issuer makes them."""

from __future__ import annotations

import base64
import json
import time

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

ISSUER = "https://token.actions.githubusercontent.com"
SUBJECT = "repo:team/service:ref:refs/heads/main"


class Issuer:
    """Makes tokens as an OpenID Connect issuer does."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def public(self) -> str:
        return self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()  # fmt: skip

    @property
    def jwk(self) -> dict[str, str]:
        """The public key as an issuer publishes it (RFC 7517)."""
        numbers = self._key.public_key().public_numbers()
        parts = {"n": numbers.n.to_bytes(256, "big"), "e": numbers.e.to_bytes(3, "big")}
        known = {"kty": "RSA", "use": "sig", "alg": "RS256"}
        return {**known, **{name: _encode(value) for name, value in parts.items()}}

    def token(self, **claims: object) -> str:
        """A signed token that is valid for a minute."""
        now = int(time.time())
        body = {"iss": ISSUER, "sub": SUBJECT, "aud": "vault", "iat": now, "exp": now + 60}
        parts = [{"alg": "RS256", "typ": "JWT"}, {**body, **claims}]
        message = ".".join(_encode(json.dumps(part).encode()) for part in parts)
        signature = self._key.sign(message.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{message}.{_encode(signature)}"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
