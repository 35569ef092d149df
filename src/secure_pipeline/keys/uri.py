"""Key references: which store holds the key, and where in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.errors import UsageError

TRANSIT = "vault-transit"
KV = "vault-kv"
VAULT_SCHEMES = (TRANSIT, KV)
KEYLESS = "keyless"
_ALIAS = "hashivault"
"""How cosign names a key of the mount ``transit``."""
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_PATH = rf"{_NAME}(?:/{_NAME}){{0,12}}"
_TRANSIT_PARTS = re.compile(rf"({_PATH})/({_NAME})(?:@([0-9]{{1,9}}))?")
_KV_PARTS = re.compile(rf"({_NAME})/({_PATH})(?:@([0-9]{{1,9}}))?#({_NAME})")
_HASHIVAULT = re.compile(rf"({_NAME})(?:@([0-9]{{1,9}}))?")
_HINT = (
    "write file:PATH, vault-transit://MOUNT/KEY[@VERSION], hashivault://KEY,"
    " vault-kv://MOUNT/PATH[@VERSION]#FIELD or keyless[:TRUST-CONFIG]"
)


@dataclass(frozen=True)
class VaultKey:
    """A key in Vault: of a transit mount, or a field of a secret of a KV mount (version 2)."""

    mount: str
    path: str
    """Name of the transit key, or path of the secret."""
    version: int | None = None
    """The one version to use; None for the newest when the session begins."""
    field: str | None = None
    """Of a secret, the member that holds the key."""


@dataclass(frozen=True)
class KeyRef:
    """A key's place, such as ``file:release.key``, or ``keyless`` for no key at all."""

    scheme: str
    value: str
    vault: VaultKey | None = None
    """Of a key in Vault, its parts."""

    @classmethod
    def parse(cls, text: str) -> KeyRef:
        """Parse ``scheme:value``; ``hashivault://KEY`` becomes ``vault-transit://transit/KEY``.

        ``keyless`` alone means the public Sigstore instance, ``keyless:FILE`` the one of a file.
        Raises: UsageError for a scheme that is not known, or nothing after it.
        """
        scheme, colon, value = text.partition(":")
        if colon and scheme in (*VAULT_SCHEMES, _ALIAS):
            return _in_vault(scheme, value, text)
        if text == KEYLESS:
            return cls(KEYLESS, "")
        if not colon or scheme not in ("file", KEYLESS):
            raise UsageError(f"{text[:80]!r} is not a key URI of a known kind", hint=_HINT)
        if not value or "\0" in value:
            raise UsageError("the key URI names no file", hint=_HINT)
        return cls(scheme, value)

    @property
    def path(self) -> Path:
        """The file of a ``file:`` reference. Raises: UsageError for another."""
        if self.scheme != "file":
            raise UsageError(f"{self} is not a file", hint="write file:PATH")
        return Path(self.value)

    @property
    def keyless(self) -> bool:
        """Whether an identity signs, and no key."""
        return self.scheme == KEYLESS

    def __str__(self) -> str:
        return f"{self.scheme}:{self.value}" if self.value else self.scheme


def _in_vault(scheme: str, value: str, text: str) -> KeyRef:
    key = _vault_key(scheme, value.removeprefix("//")) if value.startswith("//") else None
    if key is None or key.version == 0:
        raise UsageError(f"{text[:80]!r} does not name a key in Vault", hint=_HINT)
    version = f"@{key.version}" if key.version else ""
    if key.field is not None:
        return KeyRef(KV, f"//{key.mount}/{key.path}{version}#{key.field}", key)
    return KeyRef(TRANSIT, f"//{key.mount}/{key.path}{version}", key)


def _vault_key(scheme: str, rest: str) -> VaultKey | None:
    if scheme == _ALIAS:
        match = _HASHIVAULT.fullmatch(rest)
        return VaultKey("transit", match[1], _number(match[2])) if match else None
    if scheme == TRANSIT:
        match = _TRANSIT_PARTS.fullmatch(rest)
        return VaultKey(match[1], match[2], _number(match[3])) if match else None
    match = _KV_PARTS.fullmatch(rest)
    return VaultKey(match[1], match[2], _number(match[3]), match[4]) if match else None


def _number(text: str | None) -> int | None:
    return int(text) if text else None
