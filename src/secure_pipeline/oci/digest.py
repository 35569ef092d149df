"""Content digests: SHA-256 only, in the one spelling that OCI allows."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from secure_pipeline.errors import VerificationFailed

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, order=True)
class Digest:
    """A SHA-256 digest; ``str()`` gives ``sha256:<64 lower-case hex>``."""

    hex: str

    def __post_init__(self) -> None:
        if not _HEX.fullmatch(self.hex):
            raise VerificationFailed(f"{self.hex[:80]!r} is not 64 lower-case hex digits")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse ``sha256:<64 lower-case hex>``; no other algorithm or spelling.

        Raises: VerificationFailed.
        """
        algorithm, colon, encoded = text.partition(":")
        if algorithm != "sha256" or not colon or not _HEX.fullmatch(encoded):
            raise VerificationFailed(f"{text[:80]!r} is not sha256:<64 lower-case hex digits>")
        return cls(encoded)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Digest ``data``."""
        return cls(hashlib.sha256(data).hexdigest())

    def __str__(self) -> str:
        return f"sha256:{self.hex}"
