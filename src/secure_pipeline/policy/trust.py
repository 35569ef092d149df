"""Keys and identities a verification trusts: the policy's, and those that the operator names.

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
from secure_pipeline.policy.document import (
    Algorithm,
    LoadedPolicy,
    TrustedIdentity,
    TrustedKey,
)
from secure_pipeline.policy.names import OPERATOR

MAX_TRUST_ROOT_BYTES = 4 << 20


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


@dataclass(frozen=True)
class KnownIdentity:
    """An identity that signs without a key, under the name that rules use."""

    id: str
    entry: TrustedIdentity
    window: None = None
    """It has none: the log or a time-stamp authority dates each of its signatures."""

    def trusted_at(self, moment: datetime) -> bool:
        """An identity is trusted for as long as the policy names it."""
        return True


def trusted_identities(
    loaded: LoadedPolicy, operator: OperatorIdentity | None = None
) -> tuple[KnownIdentity, ...]:
    """Return the policy's identities, and the operator's with the id ``operator``.

    Where several fit one certificate the first counts, and the exact ones stand before patterns,
    so that nobody counts twice towards a quorum.
    Raises: ConfigError if the operator's is incomplete or matches everybody.
    """
    known = [KnownIdentity(entry.id, entry) for entry in loaded.policy.identities]
    if operator is not None:
        try:
            entry = TrustedIdentity("given", operator.issuer, identity=operator.identity)
        except ValueError as error:
            raise ConfigError(str(error), where="the identity on the command line") from None
        if all((k.entry.issuer, k.entry.identity) != (entry.issuer, entry.identity) for k in known):
            known.append(KnownIdentity(OPERATOR, entry))
    return tuple(sorted(known, key=lambda item: item.entry.identity is None))


@dataclass(frozen=True)
class OperatorIdentity:
    """An identity that the operator names on the command line; both are mandatory (CLI-07)."""

    identity: str
    issuer: str


def trust_root(loaded: LoadedPolicy) -> tuple[bytes, str] | None:
    """Return the policy's Sigstore trust root and where it is; None if it names none.

    Raises: ConfigError if it is not a readable file beside the policy (SIG-23).
    """
    text = loaded.policy.trust_root
    if text is None:
        return None
    path = _beside(loaded.source, text, "trust-root must be")
    return read_bounded(path, MAX_TRUST_ROOT_BYTES), str(path)


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
    what = f"key {entry.id!r}: public-key must be PEM text or"
    return read_bounded(_beside(policy, entry.public_key, what), MAX_PEM_BYTES)


def _beside(policy: Path, text: str, what: str) -> Path:
    name = PurePosixPath(text)
    if name.is_absolute() or ".." in name.parts:
        raise ConfigError(f"{what} a file beside the policy", where=str(policy))
    return policy.parent / name
