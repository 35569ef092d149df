"""The keys a verification trusts: the policy's, and one that the operator names.

Nothing else is ever a root of trust: no key from a registry, a bundle or a message (SIG-23).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from secure_pipeline.errors import ConfigError
from secure_pipeline.files import read_bounded
from secure_pipeline.keys.verify import MAX_PEM_BYTES, PublicKey, load_public_key
from secure_pipeline.policy.document import OPERATOR, Algorithm, LoadedPolicy, TrustedKey


@dataclass(frozen=True)
class TrustedSigner:
    """A key with its one algorithm, and the window in which the policy trusts it."""

    key: PublicKey
    window: TrustedKey | None
    """None for the operator's key: it is trusted for as long as it is named."""

    @property
    def id(self) -> str:
        """The name that rules use."""
        return self.key.id

    def trusted_at(self, moment: datetime) -> bool:
        """Tell whether the key's window holds a moment."""
        return self.window is None or self.window.trusted_at(moment)


def trusted_signers(
    loaded: LoadedPolicy, operator_keys: Sequence[tuple[bytes, Algorithm]] = ()
) -> tuple[TrustedSigner, ...]:
    """Load every key of the policy, and the operator's, whose id is ``operator``.

    Further ones are ``operator-2`` and so on. An operator's key that is in the policy already
    adds nothing: the policy's window holds.
    Raises: ConfigError for a PEM that is missing, broken or of another algorithm than the
    policy binds to it (SIG-22), and for one key under two ids, which would count twice.
    """
    signers: dict[bytes, TrustedSigner] = {}
    for entry in loaded.policy.keys:
        key = _load(entry.id, _pem(entry, loaded.source), entry.algorithm, str(loaded.source))
        if key.der in signers:
            raise ConfigError(
                f"keys {signers[key.der].id!r} and {entry.id!r} are one and the same key",
                where=str(loaded.source),
            )
        signers[key.der] = TrustedSigner(key, entry)
    for number, (pem, algorithm) in enumerate(operator_keys, start=1):
        name = OPERATOR if number == 1 else f"{OPERATOR}-{number}"
        key = _load(name, pem, algorithm, "the key given with --key")
        signers.setdefault(key.der, TrustedSigner(key, None))
    return tuple(signers.values())


def _load(name: str, pem: bytes, algorithm: Algorithm, where: str) -> PublicKey:
    try:
        return load_public_key(name, pem, algorithm)
    except ConfigError as error:
        raise ConfigError(f"key {name!r} {error.message}", where=where) from None


def _pem(entry: TrustedKey, policy: Path) -> bytes:
    """PEM text as it stands, or the file beside the policy; nothing above or elsewhere."""
    if "-----BEGIN" in entry.public_key:
        return entry.public_key.encode()
    name = PurePosixPath(entry.public_key)
    if name.is_absolute() or ".." in name.parts:
        raise ConfigError(
            f"key {entry.id!r}: public-key must be PEM text or a file beside the policy",
            where=str(policy),
        )
    return read_bounded(policy.parent / name, MAX_PEM_BYTES)
