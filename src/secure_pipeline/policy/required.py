"""What the policy requires: which statements have to be there, by whom and how young."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from secure_pipeline.attestations.predicates import SEAL
from secure_pipeline.policy.decision import Rule, allow, forbid, unsure, wrong
from secure_pipeline.policy.document import Policy, Requirement
from secure_pipeline.policy.evidence import EvidenceSet, Item
from secure_pipeline.shape import rfc3339


def required_rules(
    policy: Policy, now: datetime, members: Sequence[Item], found: EvidenceSet
) -> tuple[Rule, ...]:
    """One rule for each requirement; types and names match exactly (SIG-03).

    Every statement of a sealed run that answers a requirement has to meet it. Without a seal
    anybody may add others' later or earlier ones, so there one that meets it is enough: the
    gates ask all of them (SIG-10).
    """
    return tuple(
        _required(requirement, policy, now, members, found) for requirement in policy.require
    )


def may_sign(item: Item, keys: tuple[str, ...] | None) -> bool:
    """Tell whether one of an item's signers is in a list; None is everybody trusted."""
    return keys is None or bool(item.signers & {*keys})


def _required(
    requirement: Requirement,
    policy: Policy,
    now: datetime,
    members: Sequence[Item],
    found: EvidenceSet,
) -> Rule:
    matches = [item for item in members if answers(requirement, item)]
    if not matches:
        return wrong("required", f"{requirement.title} is missing{_elsewhere(requirement, found)}")
    objections = [(item, _objection(requirement, item, now)) for item in matches]
    met = tuple(item.digest for item, objection in objections if objection is None)
    refused = [objection for _, objection in objections if objection is not None]
    sealed = any(item.type == SEAL for item in found.items)
    if refused and (policy.seal.required or sealed or not met):
        return refused[0]
    return allow("required", f"{requirement.title} is there", met)


def _objection(requirement: Requirement, item: Item, now: datetime) -> Rule | None:
    """Why one statement does not meet a requirement, or None."""
    signers = item.signers if requirement.keys is None else item.signers & {*requirement.keys}
    if len(signers) < requirement.quorum:
        why = (
            f"{item.title} is signed by {', '.join(sorted(item.signers))}: {len(signers)} of "
            f"{requirement.quorum} keys that may sign it"
        )
        return forbid("required", why, (item.digest,))
    return _age_rule(requirement, item, now)


def _age_rule(requirement: Requirement, item: Item, now: datetime) -> Rule | None:
    if requirement.max_age is None:
        return None
    if item.time is None:
        return unsure(
            "required", f"{item.title} has no time, so its age is unknown", (item.digest,)
        )
    if now - item.time > requirement.max_age:
        why = (
            f"{item.title} is of {rfc3339(item.time)}: older than the policy's "
            f"{requirement.max_age}"
        )
        return forbid("required", why, (item.digest,), "run the pipeline again")
    return None


def answers(requirement: Requirement, item: Item) -> bool:
    """Tell whether a statement is of the type, and the name, that a requirement names."""
    return item.type == requirement.predicate and requirement.name in (None, item.name)


def _elsewhere(requirement: Requirement, found: EvidenceSet) -> str:
    """Say where a missing statement is, when it is somewhere that does not count."""
    runs = {
        item.run.run_id[:64] if item.run else "no run"
        for item in found.items
        if answers(requirement, item)
    }
    if runs:
        return f" in this run (there is one of {', '.join(sorted(runs))})"
    if found.untrusted:
        return f" ({len(found.untrusted)} attachments are signed by unknown keys)"
    return ""
