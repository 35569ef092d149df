"""One image's evidence and decision as a page: the verdict, the chain, why, and what lies beside.

Every text goes through ``to_html``; what is no evidence stands apart and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from secure_pipeline.policy.decision import Outcome, Rule
from secure_pipeline.report import to_html
from secure_pipeline.report.explain_styles import STYLES
from secure_pipeline.report.foreign import visible
from secure_pipeline.report.to_html import (
    Child,
    Markup,
    badge,
    code,
    disclosure,
    element,
    isolated,
    join,
    moment,
)
from secure_pipeline.stages.evidence_nodes import Listed, Node, State, StatementView
from secure_pipeline.stages.explain import Claim, Explanation, SignerView

KINDS: Mapping[State, str] = {
    State.HOLDS: "good",
    State.REFUSED: "bad",
    State.MISSING: "bad",
    State.UNSURE: "unsure",
    State.NONE: "none",
}
SYMBOLS: Mapping[State, str] = {
    State.HOLDS: "✓",
    State.REFUSED: "✗",
    State.MISSING: "✗",
    State.UNSURE: "?",
    State.NONE: "·",
}
_VERDICTS = {
    Outcome.ALLOW: ("Allowed", "good", "✓", "by"),
    Outcome.DENY: ("Denied", "bad", "✗", "by"),
    Outcome.UNDETERMINED: ("Cannot tell", "unsure", "?", "under"),
}
_RULES = {Outcome.ALLOW: "good", Outcome.DENY: "bad", Outcome.UNDETERMINED: "unsure"}
COLUMNS = (
    ("source",),
    ("analyze", "test", "build"),
    ("image",),
    ("scan", "sbom", "other"),
    ("seal",),
    ("ledger", "summary", "approvals", "canary"),
)
"""The chain from left to right."""
_ARROWS = {
    1: "same run, commit, tree",
    2: "about this digest",
    3: "about this digest",
    4: "listed by digest",
    5: "after the seal",
}


def explanation_page(explanation: Explanation) -> bytes:
    """Return the page; equal explanations give equal bytes."""
    word = _VERDICTS[explanation.outcome][0]
    name = explanation.image.partition("@")[0]
    nodes = explanation.graph.nodes
    return to_html.page(
        f"{word}: {name}",
        element("header", element("p", "Evidence of an image", class_="dim"), class_="top"),
        element(
            "main",
            _verdict(explanation),
            _chain(explanation),
            _objections(explanation),
            element("h2", "Step by step"),
            *(_node(node) for node in nodes),
            _rules(explanation),
            _statements(explanation),
            _beside(explanation.graph.beside),
            _claims(explanation),
        ),
        element("footer", *_footer(explanation)),
        styles=STYLES,
    )


def _verdict(explanation: Explanation) -> Markup:
    word, kind, symbol, by = _VERDICTS[explanation.outcome]
    because = visible(explanation.because, 600)
    parts: list[Child] = [
        element(
            "h1",
            element("span", symbol, class_="symbol", aria_hidden="true"),
            f" {word}",
        ),
        element(
            "p",
            f"{by} policy ",
            element("strong", isolated(explanation.policy)),
            " because ",
            isolated(because),
            class_="because",
        ),
    ]
    if explanation.hint:
        parts.append(element("p", "To do: ", isolated(explanation.hint), class_="dim"))
    pairs: list[tuple[str, Child]] = [
        ("image", code(explanation.image)),
        ("policy", join((isolated(explanation.policy), " ", code(explanation.policy_digest)))),
        ("run", code(explanation.run) if explanation.run else "no sealed run"),
        ("judged at", moment(explanation.judged)),
        ("signed by", _signers(explanation.signers)),
        ("missing", isolated(explanation.missing)),
        ("beside it", isolated(explanation.extra)),
    ]
    return element("section", *parts, to_html.facts(pairs), class_=f"verdict {kind}")


def _signers(signers: Iterable[SignerView]) -> Markup:
    lines = [
        element(
            "div", element("strong", isolated(s.id)), " ", element("span", s.what, class_="dim")
        )
        for s in signers
    ]
    return join(lines) if lines else element("span", "nobody the policy trusts")


def _chain(explanation: Explanation) -> Markup:
    nodes = {node.id: node for node in explanation.graph.nodes}
    broken = {
        end for edge in explanation.graph.edges if not edge.holds for end in (edge.start, edge.end)
    }
    columns = []
    for number, names in enumerate(COLUMNS):
        present = [nodes[name] for name in names if name in nodes]
        cards = [element("li", _card(node, loose=node.id in broken)) for node in present]
        caption = element("span", _ARROWS.get(number, ""), class_="caption")
        columns.append(element("li", caption, element("ul", *cards), class_="step"))
    return join(
        (
            element("h2", "From source to production"),
            element("ol", *columns, class_="chain", aria_label="The chain of evidence"),
        )
    )


def _card(node: Node, *, loose: bool) -> Markup:
    kind = KINDS[node.state]
    signers = sorted({name for view in node.statements.items for name in view.signers})
    by = element("span", "by ", isolated(visible(", ".join(signers), 60)), class_="by")
    edge = " loose" if loose and node.statements.total == 0 else ""
    return element(
        "a",
        element(
            "span",
            element("b", node.title),
            element("span", SYMBOLS[node.state], class_="symbol", title=node.state.value),
            class_="head",
        ),
        *(element("span", isolated(part)) for part in _pieces(node)),
        by if signers else None,
        href=f"#{node.id}",
        class_=f"card {kind}{edge}",
    )


def _pieces(node: Node) -> list[str]:
    """The summary's parts, a line each, few and short enough for a card."""
    return [visible(part, 60) for part in node.summary.split(" · ")[:4]]


def _objections(explanation: Explanation) -> Markup | None:
    found = [rule for rule in explanation.rules.items if rule.outcome is not Outcome.ALLOW]
    if not found:
        return None
    shown = [
        element(
            "li",
            badge(rule.outcome.value, _RULES[rule.outcome]),
            " ",
            element("strong", rule.id),
            " ",
            isolated(rule.why),
            element("div", "→ ", isolated(rule.hint), class_="dim") if rule.hint else None,
        )
        for rule in found[:20]
    ]
    more = f"and {len(found) - 20} more below" if len(found) > 20 else None
    return join(
        (
            element("h2", "What stands against it"),
            element("ul", *shown, element("li", more) if more else None, class_="plain"),
        )
    )


def _node(node: Node) -> Markup:
    kind = KINDS[node.state]
    known = node.summary != node.state.value
    summary = join(
        (
            element("strong", node.title),
            " ",
            badge(node.state.value, kind),
            " ",
            element("span", isolated(node.summary), class_="dim") if known else None,
        )
    )
    parts: list[Child] = []
    if node.facts:
        parts.append(to_html.facts((fact.label, fact.value) for fact in node.facts))
    if node.rules:
        parts.append(element("ul", *map(_rule_line, node.rules[:50]), class_="plain"))
        parts += [_left_out(len(node.rules) - 50, "rules")]
    if node.statements.items:
        parts.append(_statement_table(node.statements))
    if not parts:
        parts.append(element("p", node.summary or "nothing is known", class_="dim"))
    objected = any(rule.outcome is not Outcome.ALLOW for rule in node.rules)
    opened = objected or node.state is State.MISSING
    return disclosure(summary, *parts, open_=opened, id_=node.id)


def _rule_line(rule: Rule) -> Markup:
    return element(
        "li",
        badge(rule.outcome.value, _RULES[rule.outcome]),
        " ",
        element("strong", rule.id),
        " ",
        isolated(rule.why),
    )


def _rules(explanation: Explanation) -> Markup:
    rows = [
        (
            badge(rule.outcome.value, _RULES[rule.outcome]),
            element("strong", rule.id),
            join(
                (
                    isolated(rule.why),
                    element("div", "→ ", isolated(rule.hint), class_="dim") if rule.hint else None,
                )
            ),
            _used(rule.evidence),
        )
        for rule in explanation.rules.items
    ]
    return join(
        (
            element("h2", f"Every rule of the policy ({explanation.rules.total})", id="rules"),
            to_html.table(("outcome", "rule", "why", "evidence"), rows, class_="rules"),
            _left_out(explanation.rules.left_out, "rules"),
        )
    )


def _used(digests: tuple[str, ...]) -> Markup:
    if len(digests) > 1:
        return element("span", f"{len(digests)} statements", class_="dim")
    return join(code(digest[:19] + "…") for digest in digests)


def _statements(explanation: Explanation) -> Markup | None:
    listed = explanation.graph.statements
    if not listed.total:
        return None
    title = f"Signed statements of this run ({listed.total})"
    return join((element("h2", title, id="statements"), _statement_table(listed)))


def _statement_table(listed: Listed[StatementView]) -> Markup:
    rows = [
        (
            _about(view),
            join(
                (
                    isolated(", ".join(view.signers)),
                    element("div", "outside its window", class_="unsure") if view.lapsed else None,
                )
            ),
            _times(view),
            join(element("div", code(_place(place))) for place in view.places[:4]),
        )
        for view in listed.items
    ]
    header = ("statement, its payload's digest, its run", "signed by", "made", "attached as")
    table = to_html.table(header, rows, class_="statements")
    return join((table, _left_out(listed.left_out, "statements")))


def _about(view: StatementView) -> Markup:
    name = join((" ", element("strong", isolated(view.name)))) if view.name else None
    run = element("div", "run ", isolated(view.run), class_="dim") if view.run else None
    return join((isolated(view.type), name, element("div", code(view.digest)), run))


def _place(place: str) -> str:
    """The form of an attachment, and the first digits of the manifest that holds it."""
    form, _, manifest = place.partition(" ")
    return f"{form[:20]} {manifest[:19]}…"


def _times(view: StatementView) -> Markup:
    if view.logged is None:
        return moment(view.time)
    logged = element("div", "logged ", moment(view.logged), class_="dim")
    return join((moment(view.time), logged))


def _beside(listed: Listed[StatementView]) -> Markup | None:
    if not listed.total:
        return None
    return join(
        (
            element("h2", f"Signed, but not of this run ({listed.total})"),
            element(
                "p",
                "Authentic statements about this image that another run made, or that name no run."
                " They cannot stand in for this run's; a failing result among them still refuses.",
                class_="dim",
            ),
            _statement_table(listed),
        )
    )


def _claims(explanation: Explanation) -> Markup | None:
    listed = explanation.claims
    if not explanation.unproven:
        return None
    words = (
        "No trusted key signed these attachments, or they fail a check. Nothing here was proven: "
        "types and key ids are what the attachments say of themselves."
    )
    return element(
        "section",
        element("h2", f"Claims, not proven ({explanation.unproven})"),
        element("p", words),
        to_html.table(
            ("claims to be", "claims the key", "payload", "bytes", "attached as"),
            map(_claim, listed.items),
        ),
        _left_out(listed.left_out, "attachments"),
        class_="claims",
    )


def _claim(claim: Claim) -> tuple[Markup, ...]:
    return (
        isolated(visible(claim.type, 120) if claim.type else "unreadable"),
        join(element("div", code(visible(key, 60))) for key in claim.keys) or isolated("none"),
        code(claim.digest),
        isolated(str(claim.size)),
        code(_place(claim.place)),
    )


def _left_out(count: int, what: str) -> Markup | None:
    return element("p", f"… and {count} more {what}", class_="dim") if count > 0 else None


def _footer(explanation: Explanation) -> tuple[Markup, ...]:
    command = f"secure-pipeline explain {explanation.image} --policy {explanation.policy}"
    return (
        element("p", "The decision is the verifier's own; this page proves nothing by itself."),
        element("p", "Ask again: ", code(command), f" (exit code {int(explanation.code)})"),
    )
