"""A key that lies in Vault's KV engine: fetched, kept in memory only, and used here.

It leaves Vault, so whoever reads this process's memory has it; a transit key is better, and a
policy allows this only by ``signing.allow-fetched-keys`` (VLT-14).
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from datetime import datetime
from typing import Any

from secure_pipeline.adapters.vault import VaultSession
from secure_pipeline.audit.entry import Value
from secure_pipeline.errors import ConfigError, PolicyDenied, VerificationFailed
from secure_pipeline.files import canonical_json, sha256_bytes
from secure_pipeline.keys import local
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.policy.rotation import Issued, read_moment
from secure_pipeline.shape import member


class VaultKvSigner(local.LocalSigner):
    """Signs with a fetched key; implements ports.Signer."""

    def __init__(
        self, signer: local.LocalSigner, ref: KeyRef, version: int, created: datetime | None
    ) -> None:
        super().__init__(signer.private_key, signer.kind)
        self.ref = ref
        self.version = version
        self.created = created

    def __repr__(self) -> str:
        return f"VaultKvSigner({self.ref}, version {self.version})"

    @property
    def figures(self) -> dict[str, str | int]:
        """Which secret and version, for the result of a stage."""
        return {"keyUri": str(self.ref), "keyVersion": self.version}

    @property
    def issued(self) -> Issued:
        """The version that signs, and when it was written."""
        return Issued("key", f"version {self.version} of {self.ref}", self.created)


def fetch(
    session: VaultSession,
    ref: KeyRef,
    password: Callable[[], str],
    pinned: tuple[bytes, ...] | None = None,
) -> VaultKvSigner:
    """Fetch a key: cosign's encrypted format, or PEM of PKCS #8 or SEC 1.

    ``password`` is asked only for an encrypted one. ``pinned``: DER of the keys that may sign.
    Raises: ConfigError (no key there), UsageError (password), Refused, VerificationFailed,
    PolicyDenied (not pinned).
    """
    forbid_core_dumps()
    key = ref.vault
    assert key is not None
    assert key.field is not None
    request = {"method": "GET", "path": f"{key.mount}/data/{key.path}", "version": key.version}
    details: dict[str, Value] = {
        "path": key.path,
        "field": key.field,
        "requestHash": f"sha256:{sha256_bytes(canonical_json(request))}",
    }
    with session.recorded(session.use("fetch", str(ref), details)) as done:
        data = session.kv_read(key.mount, key.path, key.version)
        metadata = member(data, "metadata", dict, str(ref))
        version = member(metadata, "version", int, str(ref))
        done["version"] = version
        text = _field(data, key.field, str(ref))
    if key.version is not None and version != key.version:
        raise VerificationFailed(f"Vault gave version {version}", where=str(ref))
    signer = local.decode(text.encode(), password, f"{ref} version {version}")
    if pinned is not None and signer.public_key_der not in pinned:
        raise PolicyDenied(
            f"version {version} of the secret holds none of the policy's keys", where=str(ref)
        )
    # Of this version; the secret's updated_time would also change without a new key.
    return VaultKvSigner(signer, ref, version, read_moment(metadata.get("created_time")))


def forbid_core_dumps() -> None:
    """No crash writes this process's memory to a disk, nor that of what it starts."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _field(data: dict[str, Any], name: str, where: str) -> str:
    value = member(data, "data", dict, where).get(name)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"the secret has no text in the field {name!r}", where=where)
    if len(value) > local.MAX_KEY_BYTES:
        raise ConfigError(f"the field {name!r} is too long to be a key", where=where)
    return value
