"""What ``interop`` answers: one finding a reader and predicate type."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Answer(Enum):
    """No and "cannot tell" are different answers."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "cannot tell"

    @classmethod
    def of(cls, value: bool) -> Answer:
        """YES or NO."""
        return cls.YES if value else cls.NO


def every(answers: Iterable[Answer]) -> Answer:
    """NO if one is NO or there is none at all, UNKNOWN if one is, YES otherwise."""
    found = set(answers)
    if not found or Answer.NO in found:
        return Answer.NO
    return Answer.UNKNOWN if Answer.UNKNOWN in found else Answer.YES


def some(answers: Iterable[Answer]) -> Answer:
    """YES if one is YES, UNKNOWN if one is, NO otherwise."""
    found = set(answers)
    if Answer.YES in found:
        return Answer.YES
    return Answer.UNKNOWN if Answer.UNKNOWN in found else Answer.NO


@dataclass(frozen=True)
class Finding:
    """Whether one reader finds and accepts the evidence of one type."""

    predicate_type: str
    found: Answer
    accepted: Answer
    why: str
    """One line: where it was found and what was checked, or what stands against it."""
    hint: str | None = None
    """What to do if it is not accepted."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON members."""
        return {
            "predicateType": self.predicate_type,
            "found": self.found.value,
            "accepted": self.accepted.value,
            "why": self.why,
            "hint": self.hint,
        }


@dataclass(frozen=True)
class Verdict:
    """All findings of one reader."""

    reader: str
    title: str
    """Program and version whose rules were applied."""
    findings: tuple[Finding, ...]
    needs: tuple[str, ...] = ()
    """Options and settings that the reader has to be given for this."""

    @property
    def accepted(self) -> Answer:
        """Whether it accepts every type; an image without evidence is accepted by nobody."""
        return every(finding.accepted for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON members."""
        return {
            "reader": self.reader,
            "rules": self.title,
            "accepted": self.accepted.value,
            "needs": list(self.needs),
            "findings": [finding.to_json() for finding in self.findings],
        }
