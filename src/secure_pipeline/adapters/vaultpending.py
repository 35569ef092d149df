"""Tokens that may still live: noted by accessor when they are made, forgotten when they are gone.

An accessor can end a token and look at it, but not use it. A note is written before the token
is used, so that after a kill -9 ``vault revoke-pending`` knows what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.errors import ConfigError, VerificationFailed
from secure_pipeline.files import canonical_json, read_bounded, sha256_bytes, write_atomic
from secure_pipeline.ports import Clock
from secure_pipeline.shape import member, optional, parse_object, rfc3339

_MAX_NOTE_BYTES = 16 << 10
MAX_NOTES = 1000


@dataclass(frozen=True)
class PendingToken:
    """A token to revoke."""

    address: str
    accessor: str
    made: str
    """RFC 3339."""
    seconds: int
    """Time to live when it was made."""
    namespace: str | None = None


@dataclass(frozen=True)
class PendingTokens:
    """The notes in one directory, each a file of mode 0600."""

    directory: Path

    def note(self, token: PendingToken) -> Path:
        """Write one down, durably. Raises: Unavailable."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.directory / f"{sha256_bytes(token.accessor.encode())[:32]}.json"
        document = {
            "apiVersion": "secure-pipeline/v1",
            "kind": "PendingToken",
            "address": token.address,
            "namespace": token.namespace,
            "accessor": token.accessor,
            "made": token.made,
            "seconds": token.seconds,
        }
        write_atomic(path, canonical_json(document), mode=0o600)
        return path

    def forget(self, token: PendingToken) -> None:
        """Remove a note."""
        name = f"{sha256_bytes(token.accessor.encode())[:32]}.json"
        (self.directory / name).unlink(missing_ok=True)

    def all(self) -> tuple[PendingToken, ...]:
        """All notes. Raises: ConfigError for one that cannot be read, or too many."""
        paths = sorted(self.directory.glob("*.json")) if self.directory.is_dir() else []
        if len(paths) > MAX_NOTES:
            raise ConfigError(f"more than {MAX_NOTES} notes", where=str(self.directory))
        return tuple(_read(path) for path in paths)


def pending_token(
    address: str, namespace: str | None, accessor: str, seconds: int, clock: Clock
) -> PendingToken:
    """A note of a token that was made just now."""
    return PendingToken(address, accessor, rfc3339(clock.now()), seconds, namespace)


def _read(path: Path) -> PendingToken:
    where = str(path)
    try:
        document = parse_object(read_bounded(path, _MAX_NOTE_BYTES), where, limit=_MAX_NOTE_BYTES)
        return PendingToken(
            address=member(document, "address", str, where),
            accessor=member(document, "accessor", str, where),
            made=member(document, "made", str, where),
            seconds=member(document, "seconds", int, where),
            namespace=optional(document, "namespace", str, where),
        )
    except VerificationFailed as error:
        raise ConfigError(f"is no note of a token: {error.message}", where=where) from None
