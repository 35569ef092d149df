"""The parts of an evidence graph: steps from the source to production, and what ties them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Generic, TypeVar

from secure_pipeline.attestations import predicates
from secure_pipeline.policy.decision import Rule
from secure_pipeline.stages.evidence_facts import Fact

T = TypeVar("T")
APPROVAL = f"{predicates.NAMESPACE}/attestation/approval/v1"


class State(Enum):
    """How a node stands."""

    HOLDS = "holds"
    """Its statements are authentic, and every rule about it allows."""
    REFUSED = "refused"
    UNSURE = "cannot tell"
    MISSING = "missing"
    """The policy requires it, and it is not there."""
    NONE = "not yet"
    """It is not there, and nothing requires it."""


@dataclass(frozen=True)
class Listed(Generic[T]):
    """The first of several things, and how many there are."""

    items: tuple[T, ...]
    total: int

    @property
    def left_out(self) -> int:
        """How many are not among the items."""
        return self.total - len(self.items)


def first(items: Sequence[T], limit: int) -> Listed[T]:
    """Keep the first ``limit``."""
    return Listed(tuple(items[:limit]), len(items))


@dataclass(frozen=True)
class StatementView:
    """One authentic statement."""

    node: str
    """Id of the node that it is about."""
    type: str
    name: str | None
    """For a test result: which one."""
    digest: str
    """``sha256:…`` of the signed payload."""
    signers: tuple[str, ...]
    """Ids of the trusted keys and identities that signed it, as the policy names them."""
    lapsed: bool
    """None of them is inside its window."""
    places: tuple[str, ...]
    """``bundle sha256:…`` or ``att sha256:…``: the form, and the manifest that holds it."""
    run: str | None
    time: datetime | None
    """When it was made, as it says itself."""
    logged: datetime | None
    """When a log or a time-stamp authority first saw its signature."""


@dataclass(frozen=True)
class Node:
    """One step from the source to production."""

    id: str
    title: str
    state: State
    summary: str
    """One line; empty if nothing is known."""
    facts: tuple[Fact, ...] = ()
    statements: Listed[StatementView] = Listed((), 0)
    rules: tuple[Rule, ...] = ()
    """The rules about it, objections first."""


@dataclass(frozen=True)
class Edge:
    """What ties two nodes together."""

    start: str
    end: str
    proof: str
    """By what one is known to belong to the other."""
    holds: bool


TITLES: Mapping[str, str] = {
    "source": "Source",
    "analyze": "Analysis",
    "test": "Tests",
    "build": "Build",
    "image": "Image",
    "scan": "Scan",
    "sbom": "Bills of materials",
    "other": "Other evidence",
    "seal": "Seal",
    "ledger": "Ledger's head",
    "summary": "Verification summary",
    "approvals": "Approvals",
    "canary": "Canary",
}
"""Nodes by id, in the order of a release."""
_TYPES: Mapping[str, str] = {
    predicates.PROVENANCE: "build",
    predicates.PROVENANCE_V02: "build",
    predicates.VULNS: "scan",
    predicates.COSIGN_VULN: "scan",
    predicates.CYCLONEDX: "sbom",
    predicates.SPDX: "sbom",
    predicates.SEAL: "seal",
    predicates.LEDGER_HEAD: "ledger",
    predicates.VSA: "summary",
    APPROVAL: "approvals",
    predicates.PROMOTION: "canary",
    predicates.QUARANTINE: "canary",
    predicates.RELEASE: "canary",
}


def node_of(predicate_type: str, name: str | None) -> str:
    """The node that a statement, or a requirement, is about."""
    if predicate_type == predicates.TEST_RESULT:
        return "analyze" if name == "analyze" else "test"
    return _TYPES.get(predicate_type, "other")


@dataclass(frozen=True)
class Graph:
    """Nodes in the order of a release, and what ties them together."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    statements: Listed[StatementView]
    """Those of the run that is judged, in the order of the nodes."""
    beside: Listed[StatementView]
    """Authentic ones that belong to another run, or to none."""
    missing: tuple[str, ...]
    """What the policy requires and nothing answers."""
