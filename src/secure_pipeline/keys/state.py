"""What Vault tells about a key's versions, without using or fetching the key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from secure_pipeline.adapters.vault import VaultSession
from secure_pipeline.errors import ConfigError, UsageError
from secure_pipeline.keys.uri import KV, KeyRef, VaultKey
from secure_pipeline.keys.vault_transit import choose, created_of, public_of
from secure_pipeline.keys.verify import PublicKey
from secure_pipeline.policy.rotation import Issued, read_moment
from secure_pipeline.shape import member


@dataclass(frozen=True)
class KeyState:
    """A key in Vault as it is now; versions are numbers."""

    ref: KeyRef
    version: int
    """The one that would sign: the one named, or the newest."""
    latest: int
    issued: Issued
    """That version and when it was made."""
    public: PublicKey | None
    """Of a transit key; one that is fetched shows none without being fetched."""


def in_vault(text: str) -> KeyRef:
    """Parse a key's URI. Raises: UsageError for one that is not in Vault."""
    ref = KeyRef.parse(text)
    if ref.vault is None:
        raise UsageError(
            f"{text[:80]!r} is not in Vault: nobody vouches for the age of a file",
            hint="vault-transit://MOUNT/KEY or vault-kv://MOUNT/PATH#FIELD",
        )
    return ref


def located(ref: KeyRef) -> VaultKey:
    """The key's parts. Raises: UsageError for one that is not in Vault."""
    key = in_vault(str(ref)).vault
    assert key is not None
    return key


def without_version(ref: KeyRef) -> KeyRef:
    """The key itself, whatever version was named."""
    key = located(ref)
    if key.version is None:
        return ref
    value = ref.value.replace(f"@{key.version}", "", 1)
    return KeyRef(ref.scheme, value, replace(key, version=None))


def state_of(session: VaultSession, ref: KeyRef) -> KeyState:
    """Ask Vault.

    Raises: Refused, ConfigError (cannot sign, no such version), VerificationFailed.
    """
    key = located(ref)
    if ref.scheme == KV:
        return _fetched(session.kv_metadata(key.mount, key.path), ref, key)
    data = session.transit_key(key.mount, key.path)
    version = choose(data, key.version, str(ref))
    latest = member(data, "latest_version", int, str(ref))
    public = public_of(data, version, str(ref))
    return KeyState(ref, version, latest, _issued(ref, version, created_of(data, version)), public)


def _fetched(metadata: Mapping[str, Any], ref: KeyRef, key: VaultKey) -> KeyState:
    where = str(ref)
    latest = member(metadata, "current_version", int, where)
    version = latest if key.version is None else key.version
    entry = member(metadata, "versions", dict, where).get(str(version))
    if not isinstance(entry, dict) or entry.get("destroyed") or entry.get("deletion_time"):
        raise ConfigError(f"version {version} is not there, or was deleted", where=where)
    created = read_moment(entry.get("created_time"))
    return KeyState(ref, version, latest, _issued(ref, version, created), None)


def _issued(ref: KeyRef, version: int, created: Any) -> Issued:
    return Issued("key", f"version {version} of {without_version(ref)}", created)
