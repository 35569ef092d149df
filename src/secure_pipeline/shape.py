"""Typed access to members of parsed JSON that comes from outside.

Every function names the place in its error. Null counts as absent, unknown members are
ignored (in-toto parsing rules).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from secure_pipeline import strictjson
from secure_pipeline.errors import VerificationFailed


def parse_object(data: bytes, where: str, *, limit: int) -> dict[str, Any]:
    """Parse one strict JSON object of at most ``limit`` bytes.

    Raises: VerificationFailed.
    """
    try:
        value = strictjson.loads(data, limit=limit)
    except strictjson.InvalidJson as error:
        raise VerificationFailed(str(error), where=where) from None
    if not isinstance(value, dict):
        raise VerificationFailed("not a JSON object", where=where)
    return value


def member(parent: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """Return a member that must be there with this type (``bool`` is no ``int``).

    Raises: VerificationFailed.
    """
    value = optional(parent, name, kind, where)
    if value is None:
        raise VerificationFailed(f"{name} is missing", where=where)
    return value


def optional(parent: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """Return a member of this type, or None when absent or null.

    Raises: VerificationFailed for another type.
    """
    value = parent.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise VerificationFailed(
            f"{name} is {type(value).__name__}, not {kind.__name__}", where=where
        )
    return value


def texts(parent: Mapping[str, Any], name: str, where: str) -> dict[str, str]:
    """Return a map of strings, empty when absent.

    Raises: VerificationFailed.
    """
    value = optional(parent, name, dict, where) or {}
    for key, item in value.items():
        if not isinstance(item, str):
            raise VerificationFailed(f"{name}[{key!r}] is not a string", where=where)
    return dict(value)


def objects(parent: Mapping[str, Any], name: str, where: str, *, limit: int) -> list[Any]:
    """Return a list of objects, empty when absent.

    Raises: VerificationFailed, also for more than ``limit`` items.
    """
    value = optional(parent, name, list, where) or []
    if len(value) > limit:
        raise VerificationFailed(f"{name} has {len(value)} items; limit {limit}", where=where)
    if any(not isinstance(item, dict) for item in value):
        raise VerificationFailed(f"{name} holds something that is not an object", where=where)
    return list(value)


def timestamp(text: str, where: str) -> datetime:
    """Parse an RFC 3339 time that states its offset, as UTC.

    Raises: VerificationFailed.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise VerificationFailed(f"{text[:40]!r} is not an RFC 3339 time", where=where) from None
    if time.tzinfo is None:
        raise VerificationFailed(f"time {text[:40]!r} has no offset", where=where)
    return time.astimezone(UTC)


def rfc3339(time: datetime) -> str:
    """Write a time as RFC 3339 in UTC, whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
