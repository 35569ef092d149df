"""What a policy decides about an image: every rule's outcome and why.

Empty means refuse, and "no" differs from "cannot tell": a decision allows only when there
are rules and all of them allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from secure_pipeline.errors import ExitCode


class Outcome(Enum):
    """The three answers of a rule."""

    ALLOW = "allow"
    DENY = "deny"
    UNDETERMINED = "undetermined"


class Fault(Enum):
    """Whose fault a denial is; it chooses the exit code."""

    EVIDENCE = "evidence"
    """Missing, removed, added, mixed or altered content or evidence: proven wrong."""
    POLICY = "policy"
    """The evidence is what it says; a gate or a rule of the policy is not met."""


@dataclass(frozen=True)
class Rule:
    """One rule as it was evaluated."""

    id: str
    """Stable: docs/stages/verify.md lists them. Several results may carry one id."""
    outcome: Outcome
    why: str
    """One line for people; a denial names the culprit."""
    evidence: tuple[str, ...] = ()
    """``sha256:…`` of the statements that were used."""
    fault: Fault | None = None
    """Set exactly for a denial."""
    hint: str | None = None

    def __post_init__(self) -> None:
        if (self.outcome is Outcome.DENY) != (self.fault is not None):
            raise ValueError(f"{self.id}: a denial, and nothing else, has a fault")

    def to_json(self) -> dict[str, Any]:
        """The rule as decision.json shows it."""
        return {
            "rule": self.id,
            "outcome": self.outcome.value,
            "why": self.why,
            "fault": self.fault.value if self.fault else None,
            "hint": self.hint,
            "evidence": list(self.evidence),
        }


@dataclass(frozen=True)
class Decision:
    """All rules of one verification."""

    rules: tuple[Rule, ...]

    @property
    def outcome(self) -> Outcome:
        """DENY over UNDETERMINED over ALLOW; no rules at all deny."""
        outcomes = {rule.outcome for rule in self.rules}
        if not outcomes or Outcome.DENY in outcomes:
            return Outcome.DENY
        return Outcome.ALLOW if outcomes == {Outcome.ALLOW} else Outcome.UNDETERMINED

    @property
    def code(self) -> ExitCode:
        """11 if anything is proven wrong, else 12 if the policy forbids, else 14, else 0."""
        if self.outcome is Outcome.ALLOW:
            return ExitCode.PASS
        if self.outcome is Outcome.UNDETERMINED:
            return ExitCode.INCONCLUSIVE
        faults = {rule.fault for rule in self.rules}
        return ExitCode.VERIFICATION if Fault.EVIDENCE in faults else ExitCode.DENIED

    @property
    def objections(self) -> tuple[Rule, ...]:
        """The rules that did not allow, denials first."""
        denied = tuple(rule for rule in self.rules if rule.outcome is Outcome.DENY)
        return denied + tuple(r for r in self.rules if r.outcome is Outcome.UNDETERMINED)

    def to_json(self) -> dict[str, Any]:
        """The decision as decision.json shows it."""
        return {
            "outcome": self.outcome.value,
            "exitCode": int(self.code),
            "rules": [rule.to_json() for rule in self.rules],
        }


def allow(rule: str, why: str, evidence: tuple[str, ...] = ()) -> Rule:
    """A rule that is met."""
    return Rule(rule, Outcome.ALLOW, why, evidence)


def wrong(rule: str, why: str, evidence: tuple[str, ...] = (), hint: str | None = None) -> Rule:
    """A denial because content or evidence is proven wrong (exit 11)."""
    return Rule(rule, Outcome.DENY, why, evidence, Fault.EVIDENCE, hint)


def forbid(rule: str, why: str, evidence: tuple[str, ...] = (), hint: str | None = None) -> Rule:
    """A denial because the policy is not met (exit 12)."""
    return Rule(rule, Outcome.DENY, why, evidence, Fault.POLICY, hint)


def unsure(rule: str, why: str, evidence: tuple[str, ...] = (), hint: str | None = None) -> Rule:
    """A rule that can be neither met nor broken for certain (exit 14)."""
    return Rule(rule, Outcome.UNDETERMINED, why, evidence, None, hint)
