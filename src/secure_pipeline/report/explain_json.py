"""One image's evidence and decision as the versioned JSON document ``Explanation``.

A form of its own, not the program's types: readers of it must not break when those change.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from secure_pipeline.policy.decision import Rule
from secure_pipeline.report.explain_text import sentence
from secure_pipeline.shape import rfc3339
from secure_pipeline.stages.evidence_nodes import Node, StatementView
from secure_pipeline.stages.explain import Claim, Explanation


def explanation_document(explanation: Explanation) -> dict[str, Any]:
    """The members of the versioned JSON document ``Explanation``."""
    graph = explanation.graph
    return {
        "image": explanation.image,
        "policy": {"name": explanation.policy, "digest": explanation.policy_digest},
        "run": explanation.run,
        "judgedAt": rfc3339(explanation.judged),
        "outcome": explanation.outcome.value,
        "exitCode": int(explanation.code),
        "sentence": sentence(explanation),
        "hint": explanation.hint,
        "nodes": [_node(node) for node in graph.nodes],
        "edges": [
            {"from": edge.start, "to": edge.end, "proof": edge.proof, "holds": edge.holds}
            for edge in graph.edges
        ],
        "missing": list(graph.missing),
        "statements": _listed(graph.statements.total, map(_view, graph.statements.items)),
        "otherStatements": _listed(graph.beside.total, map(_view, graph.beside.items)),
        "signers": [{"id": signer.id, "what": signer.what} for signer in explanation.signers],
        "untrusted": explanation.untrusted,
        "claimsNotProven": _listed(explanation.claims.total, map(_claim, explanation.claims.items)),
        "ruleCounts": {outcome.value: count for outcome, count in explanation.tally.items()},
        "rules": _listed(explanation.rules.total, map(Rule.to_json, explanation.rules.items)),
    }


def _listed(total: int, items: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {"total": total, "items": list(items)}


def _node(node: Node) -> dict[str, Any]:
    return {
        "id": node.id,
        "state": node.state.value,
        "summary": node.summary,
        "facts": [{"label": fact.label, "value": fact.value} for fact in node.facts],
        "statements": {
            "total": node.statements.total,
            "digests": [view.digest for view in node.statements.items],
        },
        "rules": [{"rule": rule.id, "outcome": rule.outcome.value} for rule in node.rules],
    }


def _view(view: StatementView) -> dict[str, Any]:
    return {
        "node": view.node,
        "predicateType": view.type,
        "name": view.name,
        "digest": view.digest,
        "signedBy": list(view.signers),
        "outsideKeyWindow": view.lapsed,
        "attachedAs": list(view.places),
        "run": view.run,
        "made": _time(view.time),
        "logged": _time(view.logged),
    }


def _claim(claim: Claim) -> dict[str, Any]:
    return {
        "claimedType": claim.type,
        "claimedKeys": list(claim.keys),
        "digest": claim.digest,
        "bytes": claim.size,
        "attachedAs": claim.place,
    }


def _time(time: datetime | None) -> str | None:
    return rfc3339(time) if time else None
