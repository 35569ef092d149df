"""A digest in quarantine, and its release: the verdicts that outlive a promotion.

A release names the very statements that it answers, so an old one never covers a new quarantine.
docs/reference/predicates/ has a page and a schema for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from secure_pipeline import shape
from secure_pipeline.attestations.predicates import QUARANTINE, RELEASE
from secure_pipeline.audit.entry import instant
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.oci.digest import Digest

MAX_TEXT = 2000
"""Characters of a reason; who it was by and what caused it are shorter."""
MAX_NAME = 200
MAX_STATEMENTS = 1000
ASKED = "asked"
"""Cause of a quarantine that a person asked for."""


@dataclass(frozen=True)
class Quarantine:
    """Why an image must not serve, as a quarantine statement says it."""

    reason: str
    cause: str
    """What decided: a rule's name, or another cause of ``canary.story.Ending``."""
    target: str | None
    """Name of the promotion target where it showed; None if it was no promotion."""
    promotion: Digest | None
    """Payload of the statement about that promotion."""
    by: str
    time: datetime


@dataclass(frozen=True)
class Release:
    """Why an image may serve again."""

    statements: tuple[Digest, ...]
    """Payloads of the quarantine statements that end with this."""
    reason: str
    by: str
    time: datetime


def one_line(text: str, limit: int = MAX_TEXT) -> str:
    """Make any text one that a quarantine or a release can hold: printable, short, not empty."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    words = " ".join(printable.split()) or "nothing said"
    return words if len(words) <= limit else f"{words[: limit - 1]}…"


def quarantine_predicate(
    reason: str, cause: str, target: str | None, promotion: Digest | None, by: str, time: datetime
) -> dict[str, Any]:
    """Return the predicate of a quarantine; ``read_quarantine`` gives back what was put in.

    Raises: VerificationFailed for a text that is not one printable line, as the reader would.
    """
    predicate: dict[str, Any] = {"reason": reason, "cause": cause}
    if target is not None:
        predicate["target"] = target
    if promotion is not None:
        predicate["promotion"] = _digest(promotion)
    predicate |= {"by": by, "quarantinedAt": instant(time)}
    read_quarantine(predicate)
    return predicate


def release_predicate(
    statements: Sequence[Digest], reason: str, by: str, time: datetime
) -> dict[str, Any]:
    """Return the predicate of a release of these quarantine statements, named by their payloads.

    Raises: VerificationFailed for a text that is not one printable line, or no statement.
    """
    predicate = {
        "statements": [_digest(item) for item in sorted(set(statements))],
        "reason": reason,
        "by": by,
        "releasedAt": instant(time),
    }
    read_release(predicate)
    return predicate


def read_quarantine(predicate: Mapping[str, Any]) -> Quarantine:
    """Read the predicate of a quarantine.

    Raises: VerificationFailed if it is malformed.
    """
    promotion = shape.optional(predicate, "promotion", dict, QUARANTINE)
    target = shape.optional(predicate, "target", str, QUARANTINE)
    return Quarantine(
        reason=_text(predicate, "reason", QUARANTINE, MAX_TEXT),
        cause=_text(predicate, "cause", QUARANTINE),
        target=None if target is None else _text(predicate, "target", QUARANTINE),
        promotion=None if promotion is None else _read_digest(promotion, QUARANTINE),
        by=_text(predicate, "by", QUARANTINE),
        time=_time(predicate, "quarantinedAt", QUARANTINE),
    )


def read_release(predicate: Mapping[str, Any]) -> Release:
    """Read the predicate of a release.

    Raises: VerificationFailed if it is malformed; also if it names no statement, or one twice.
    """
    listed = shape.objects(predicate, "statements", RELEASE, limit=MAX_STATEMENTS)
    statements = tuple(_read_digest(item, RELEASE) for item in listed)
    if not statements or list(statements) != sorted(set(statements)):
        raise VerificationFailed("statements are empty, or not sorted and unique", where=RELEASE)
    return Release(
        statements=statements,
        reason=_text(predicate, "reason", RELEASE, MAX_TEXT),
        by=_text(predicate, "by", RELEASE),
        time=_time(predicate, "releasedAt", RELEASE),
    )


def _digest(digest: Digest) -> dict[str, Any]:
    return {"digest": {"sha256": digest.hex}}


def _read_digest(value: Mapping[str, Any], where: str) -> Digest:
    return Digest(shape.texts(value, "digest", where).get("sha256", ""))


def _text(value: Mapping[str, Any], name: str, where: str, limit: int = MAX_NAME) -> str:
    text: str = shape.member(value, name, str, where)
    if not text.strip() or len(text) > limit or not text.isprintable():
        raise VerificationFailed(f"{name} is not a line of 1 to {limit} characters", where=where)
    return text


def _time(value: Mapping[str, Any], name: str, where: str) -> datetime:
    return shape.timestamp(shape.member(value, name, str, where), where)
