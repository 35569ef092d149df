"""Key references: which store holds the key, and where in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.errors import UsageError

_SCHEMES = ("file",)
_HINT = "write file:PATH, such as file:release.key"


@dataclass(frozen=True)
class KeyRef:
    """A key's place, such as ``file:release.key``."""

    scheme: str
    value: str

    @classmethod
    def parse(cls, text: str) -> KeyRef:
        """Parse ``scheme:value``.

        Raises: UsageError for a scheme that is not known, or nothing after it.
        """
        scheme, colon, value = text.partition(":")
        if not colon or scheme not in _SCHEMES:
            raise UsageError(f"{text[:80]!r} is not a key URI of a known kind", hint=_HINT)
        if not value or "\0" in value:
            raise UsageError("the key URI names no file", hint=_HINT)
        return cls(scheme, value)

    @property
    def path(self) -> Path:
        """The file of a ``file:`` reference."""
        return Path(self.value)

    def __str__(self) -> str:
        return f"{self.scheme}:{self.value}"
