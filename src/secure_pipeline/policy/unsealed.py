"""Evidence that no seal closes: what other pipelines sign, when the policy takes it.

Nothing shows then that the set is complete, so whoever may delete may hide. What is there is
judged in full all the same, every statement of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secure_pipeline import shape
from secure_pipeline.attestations.predicates import PROVENANCE, PROVENANCE_V02
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.policy.decision import Rule, allow, forbid, unsure, wrong
from secure_pipeline.policy.document import Policy
from secure_pipeline.policy.evidence import Item
from secure_pipeline.policy.evidence_gates import Bench, gate_rules

PROVENANCES = (PROVENANCE, PROVENANCE_V02)


def unsealed_rules(items: Sequence[Item], bench: Bench) -> tuple[Rule, ...]:
    """Where the statements come from, and every gate on every one of them (SIG-10)."""
    gates = tuple(rule for item in items for rule in gate_rules(item, bench))
    return (*builder_rules(bench.policy, items), *coverage_rules(bench.policy, items), *gates)


def builder_rules(policy: Policy, items: Sequence[Item]) -> tuple[Rule, ...]:
    """Only builders that the policy lists, in every provenance statement.

    A policy without builders, which may not require provenance, asks nothing here.
    """
    if not policy.builders:
        return ()
    built = [item for item in items if item.type in PROVENANCES]
    if not built:
        why = "no provenance says who built the image"
        return (unsure("builder", why, hint="require provenance, or leave 'builders' empty"),)
    return tuple(_builder(policy, item) for item in built)


def _builder(policy: Policy, item: Item) -> Rule:
    digests = (item.digest,)
    try:
        builder = _builder_id(item)
    except VerificationFailed as error:
        return wrong("builder", f"{item.title}: {error.message}", digests)
    if builder not in policy.builders:
        accepted = ", ".join(policy.builders)
        return forbid("builder", f"{builder[:200]!r} is not among {accepted}", digests)
    return allow("builder", builder, digests)


def _builder_id(item: Item) -> str:
    predicate: Any = item.statement.predicate
    if item.type == PROVENANCE:
        predicate = shape.member(predicate, "runDetails", dict, item.type)
    builder = shape.member(predicate, "builder", dict, item.type)
    identifier: str = shape.member(builder, "id", str, item.type)
    return identifier


def coverage_rules(policy: Policy, items: Sequence[Item]) -> tuple[Rule, ...]:
    """A minimum that no statement speaks about is not met by silence."""
    minimum = policy.gates.test.minimum_coverage
    if minimum is None or any(item.name == "test" for item in items):
        return ()
    why = f"no test result 'test' says its coverage; the policy asks for {minimum:g} %"
    return (unsure("coverage", why),)
