"""The evidence of an image as a graph: what was made of what, who signed it, which rules it met.

Built from the verifier's own answer: only statements that a trusted key signed about exactly
this image are in it, and a node is no better than the rules about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from secure_pipeline.attestations import predicates
from secure_pipeline.attestations.predicates import RunContext
from secure_pipeline.attestations.seal import parse_seal
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.policy.decision import Decision, Outcome, Rule
from secure_pipeline.policy.document import Policy, Requirement
from secure_pipeline.policy.evidence import Item
from secure_pipeline.policy.rules import Answer, Sealed, members_of
from secure_pipeline.stages.evidence_facts import (
    MAX_LISTED,
    Fact,
    cut,
    plural,
    said,
    verdict_of,
)
from secure_pipeline.stages.evidence_nodes import (
    TITLES,
    Edge,
    Graph,
    Node,
    State,
    StatementView,
    first,
    node_of,
)

MAX_STATEMENTS = 200
"""Statements that are shown; all are counted."""
MAX_FACTS = 60
MAX_SAID = 3
"""Statements of one node whose words make its summary."""
_AFTER = ("summary", "approvals", "canary")
_RULED = (predicates.QUARANTINE, predicates.RELEASE)
"""Verdicts that a rule weighs against each other; alone they say nothing."""
_OWN_RULES: Mapping[str, tuple[str, ...]] = {
    "source": ("source",),
    "build": ("builder",),
    "image": ("content",),
    "seal": ("seal", "run"),
}
"""Rules that belong to a node whatever evidence they name."""
_ABOUT_ALL = ("signature", "run", "time", "seal")
"""Rules over many statements; an objection of one still names its culprit."""
MADE_OF = (
    ("source", "analyze", "the same run, commit and tree"),
    ("source", "test", "the same run, commit and tree"),
    ("source", "build", "the same run, commit and tree"),
    ("analyze", "image", "its subject is the image's digest"),
    ("test", "image", "its subject is the image's digest"),
    ("build", "image", "its subject is the image's digest"),
    ("image", "scan", "its subject is the image's digest"),
    ("image", "sbom", "its subject is the image's digest"),
    ("image", "other", "its subject is the image's digest"),
    *((name, "seal", "the seal lists its digest") for name in ("analyze", "test", "build")),
    *((name, "seal", "the seal lists its digest") for name in ("scan", "sbom", "other")),
    *(("seal", name, "made after the seal, of the same image") for name in ("ledger", *_AFTER)),
)


def build_graph(
    policy: Policy, decision: Decision, answer: Answer, image: tuple[str, tuple[Fact, ...]]
) -> Graph:
    """Arrange an answer as a graph; ``image`` is summary and facts of the image itself."""
    counted, beside = _split(answer)
    groups = {name: [item for item in counted if _node(item) == name] for name in TITLES}
    lacking = _lacking(policy, decision, counted)
    sealed = answer.run is not None or decision.outcome is Outcome.ALLOW
    nodes = []
    for name in TITLES:
        if name in ("other", "ledger") and not groups[name] and name not in lacking:
            continue
        node = _describe(name, groups[name], decision, lacking.get(name, ()), sealed)
        if name == "seal" and node.state is State.NONE and policy.seal.required:
            node = replace(node, state=State.MISSING, summary=_NOTHING[State.MISSING])
        if name == "source":
            node = _source(node, answer.run, counted)
        if name == "image":
            node = replace(node, summary=image[0], facts=image[1])
        nodes.append(node)
    views = [_view(item) for name in TITLES for item in groups[name]]
    titles = tuple(r.title for rules in lacking.values() for r, _ in rules)
    return Graph(
        tuple(nodes),
        _edges({node.id: node for node in nodes}, answer, decision),
        first(views, MAX_STATEMENTS),
        first([_view(item) for item in beside], MAX_STATEMENTS),
        titles,
    )


def _split(answer: Answer) -> tuple[list[Item], list[Item]]:
    """The statements of the run that is judged with the verdicts after it, and all others."""
    run = answer.run
    if run is None:
        return list(answer.used), []
    members = {item.digest for item in answer.used if item.run == run}
    for item in answer.used:
        if item.type == predicates.SEAL and item.run == run:
            try:
                sealed = Sealed(item, parse_seal(item.statement.predicate))
            except VerificationFailed:
                continue
            members |= {member.digest for member in members_of(sealed, answer.used)}
    own = [i for i in answer.used if i.digest in members or (_node(i) in _AFTER and not i.run)]
    chosen = {item.digest for item in own}
    return own, [item for item in answer.used if item.digest not in chosen]


def _node(item: Item) -> str:
    return node_of(item.type, item.name)


Lacking = Mapping[str, tuple[tuple[Requirement, Rule | None], ...]]


def _lacking(policy: Policy, decision: Decision, counted: Sequence[Item]) -> Lacking:
    """Requirements that nothing answers, by node, with the rule that says so.

    The verifier leaves one rule a requirement, in the policy's order.
    """
    rules: list[Rule | None] = [rule for rule in decision.rules if rule.id == "required"]
    if len(rules) != len(policy.require):
        rules = [None] * len(policy.require)
    found: dict[str, tuple[tuple[Requirement, Rule | None], ...]] = {}
    for requirement, rule in zip(policy.require, rules, strict=True):
        node = node_of(requirement.predicate, requirement.name)
        if not any(_answers(requirement, item) for item in counted):
            found[node] = (*found.get(node, ()), (requirement, rule))
    return found


def _answers(requirement: Requirement, item: Item) -> bool:
    return item.type == requirement.predicate and requirement.name in (None, item.name)


def _describe(
    name: str,
    items: Sequence[Item],
    decision: Decision,
    lacking: Iterable[tuple[Requirement, Rule | None]],
    sealed: bool,
) -> Node:
    lacking = tuple(lacking)
    rules = _rules_about(name, items, decision)
    rules += tuple(rule for _, rule in lacking if rule)
    told = [said(item) for item in items[:MAX_LISTED]]
    lines = list(dict.fromkeys(one.summary for one in told if one.summary))
    facts = tuple(dict.fromkeys(fact for one in told for fact in one.facts))[:MAX_FACTS]
    state = _state(name, items, rules, missing=bool(lacking))
    if state is State.HOLDS and not sealed and name != "image":
        state = State.UNSURE
    return Node(
        id=name,
        title=TITLES[name],
        state=state,
        summary=_summary(lines, items) or _NOTHING.get(state, ""),
        facts=facts,
        statements=first([_view(item) for item in items], MAX_LISTED),
        rules=tuple(Decision(rules).objections)
        + tuple(rule for rule in rules if rule.outcome is Outcome.ALLOW),
    )


_NOTHING: Mapping[State, str] = {
    State.MISSING: "required, and not there",
    State.NONE: State.NONE.value,
}


def _summary(lines: Sequence[str], items: Sequence[Item]) -> str:
    """What the statements say, and how many there are where not each could say it."""
    counted = bool(items) and (len(items) > MAX_SAID or not lines)
    count = plural(len(items), "statement") if counted else ""
    return cut(" · ".join(filter(None, (count, "; ".join(lines[:MAX_SAID])))), 200)


def _rules_about(name: str, items: Sequence[Item], decision: Decision) -> tuple[Rule, ...]:
    digests = {item.digest for item in items}
    lapsed = {rule for item in items for rule in item.lapsed}
    found = []
    for rule in decision.rules:
        own = rule.id in _OWN_RULES.get(name, ())
        names = bool(rule.evidence) and digests.issuperset(rule.evidence)
        general = rule.id in _ABOUT_ALL and rule.outcome is Outcome.ALLOW
        if own or rule in lapsed or (names and not general):
            found.append(rule)
    return tuple(found)


def _state(name: str, items: Sequence[Item], rules: Sequence[Rule], *, missing: bool) -> State:
    """No better than the worst rule; without statement and rule nothing is known."""
    outcome = Decision(tuple(rules)).outcome if rules else None
    if missing or (name == "seal" and not items and outcome is Outcome.DENY):
        return State.MISSING
    if outcome is Outcome.DENY:
        return State.REFUSED
    if outcome is Outcome.UNDETERMINED or any(item.lapsed for item in items):
        return State.UNSURE
    verdicts = {verdict_of(item) for item in items if item.type not in _RULED}
    if name in _AFTER and verdicts:
        return State.UNSURE if None in verdicts else _STATES[verdicts == {True}]
    return State.HOLDS if items or outcome is Outcome.ALLOW else State.NONE


_STATES = {True: State.HOLDS, False: State.REFUSED}


def _source(node: Node, run: RunContext | None, items: Sequence[Item]) -> Node:
    """What the statements say about where the image comes from."""
    runs = {run} if run else {item.run for item in items if item.run}
    if len(runs) != 1:
        words = f"statements of {len(runs)} runs disagree" if runs else "nothing says where from"
        state = State.UNSURE if runs else node.state
        return replace(node, state=state, summary=words)
    (known,) = runs
    changes = "uncommitted changes" if known.uncommitted else "nothing uncommitted"
    commit = f"commit {known.commit[:12]}" if known.commit else "no commit"
    built = [said(item) for item in items if _node(item) == "build"][:MAX_LISTED]
    remotes = [fact.value for one in built for fact in one.facts if fact.label == "source"]
    facts = [
        Fact("commit", known.commit or "none"),
        Fact("tree", known.tree),
        Fact("uncommitted changes", "yes" if known.uncommitted else "no"),
        *(Fact("repository", remote) for remote in dict.fromkeys(remotes)),
        Fact("run", cut(known.run_id)),
        Fact("builder", cut(known.builder_id)),
    ]
    state = State.UNSURE if run is None and node.state is State.NONE else node.state
    return replace(node, state=state, summary=f"{commit} · {changes}", facts=tuple(facts))


def _view(item: Item) -> StatementView:
    return StatementView(
        node=_node(item),
        type=cut(item.type, 200),
        name=cut(item.name, 100) if item.name else None,
        digest=item.digest,
        signers=tuple(sorted(item.signers)),
        lapsed=bool(item.lapsed),
        places=item.sources[:MAX_LISTED],
        run=cut(item.run.run_id, 100) if item.run else None,
        time=item.time,
        logged=item.signed_at,
    )


def _edges(nodes: Mapping[str, Node], answer: Answer, decision: Decision) -> tuple[Edge, ...]:
    """An edge holds where both ends are there and the rule that ties them allows."""
    one_run = _allows(decision, "run")
    sealed = _allows(decision, "seal")
    edges = []
    for start, end, proof in MADE_OF:
        if start not in nodes or end not in nodes:
            continue
        there = all(nodes[name].statements.total for name in {start, end} - {"source", "image"})
        tied = {"source": one_run, "seal": there}.get(start, sealed if end == "seal" else True)
        edges.append(Edge(start, end, proof, there and tied))
    return tuple(edges)


def _allows(decision: Decision, rule: str) -> bool:
    found = [one for one in decision.rules if one.id == rule]
    return bool(found) and all(one.outcome is Outcome.ALLOW for one in found)
