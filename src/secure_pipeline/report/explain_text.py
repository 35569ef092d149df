"""One image's evidence and decision as lines for a terminal of 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

from secure_pipeline.policy.decision import Outcome, Rule
from secure_pipeline.report.foreign import visible
from secure_pipeline.shape import rfc3339
from secure_pipeline.stages.evidence_nodes import Graph, Node, State, StatementView
from secure_pipeline.stages.explain import Explanation

WIDTH = 98
MAX_SUMMARY = 72
MAX_BESIDE = 10
MAX_RULES = 60
VERDICTS: Mapping[Outcome, str] = {
    Outcome.ALLOW: "ALLOWED by",
    Outcome.DENY: "DENIED by",
    Outcome.UNDETERMINED: "CANNOT TELL under",
}
_SYMBOLS: Mapping[State, str] = {
    State.HOLDS: "✓",
    State.REFUSED: "✗",
    State.MISSING: "✗",
    State.UNSURE: "?",
    State.NONE: "·",
}
_COLOURS: Mapping[State | Outcome, str] = {
    State.HOLDS: "32",
    State.REFUSED: "31",
    State.MISSING: "31",
    State.UNSURE: "33",
    State.NONE: "2",
    Outcome.ALLOW: "32",
    Outcome.DENY: "31",
    Outcome.UNDETERMINED: "33",
}
_COUNTED = (
    (Outcome.ALLOW, "allow"),
    (Outcome.DENY, "deny"),
    (Outcome.UNDETERMINED, "cannot tell"),
)
_BRANCHES = (("analyze", "test", "build"), ("scan", "sbom", "other"),
             ("ledger", "summary", "approvals", "canary"))  # fmt: skip


def explanation_lines(explanation: Explanation, *, colour: bool = False) -> list[str]:
    """The verdict and why, the chain, the rules, and what lies beside; in this order."""
    lines = [
        *_verdict(explanation, colour),
        "",
        *_chain(explanation.graph, colour),
        "",
        *_rules(explanation, colour),
        *_beside(explanation.graph),
        *_claims(explanation),
    ]
    return lines


def sentence(explanation: Explanation) -> str:
    """The answer in one sentence."""
    digest = f"{explanation.policy_digest[:19]}…"
    policy = visible(explanation.policy, 80)
    because = visible(explanation.because, 600)
    return f"{VERDICTS[explanation.outcome]} policy {policy} ({digest}) because {because}"


def _verdict(explanation: Explanation, colour: bool) -> Iterator[str]:
    text = sentence(explanation)
    word = VERDICTS[explanation.outcome].rpartition(" ")[0]
    for number, line in enumerate(_wrap(text)):
        first = number == 0 and line.startswith(word)
        bold = f"1;{_COLOURS[explanation.outcome]}"
        yield _paint(word, bold, colour) + line[len(word) :] if first else line
    if explanation.hint:
        yield from _wrap(f"hint: {visible(explanation.hint, 300)}")
    yield f"image   {visible(explanation.image, 400)}"
    run = visible(explanation.run, 100) if explanation.run else "no sealed run"
    yield f"run     {run}, judged at {rfc3339(explanation.judged)}"
    for signer in explanation.signers:
        yield f"signed  by {visible(signer.id, 80)}, {visible(signer.what, 200)}"
    if explanation.graph.missing:
        yield from _wrap(f"missing {visible(explanation.missing)}")
    if explanation.extra != "nothing":
        yield from _wrap(f"beside  {explanation.extra}")


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False) or [""]


def _chain(graph: Graph, colour: bool) -> Iterator[str]:
    several = len({view.signers for view in graph.statements.items}) > 1
    present = {node.id for node in graph.nodes}
    for node in graph.nodes:
        group = next((names for names in _BRANCHES if node.id in names), ())
        last = [name for name in group if name in present][-1:] == [node.id]
        branch = ("└─ " if last else "├─ ") if group else ""
        symbol = _paint(_SYMBOLS[node.state], _COLOURS[node.state], colour)
        title = node.title.ljust(24 - len(branch))
        by = f"  [{_signers(node)}]" if several and node.statements.items else ""
        yield f"  {branch}{symbol} {title} {_short(node.summary, MAX_SUMMARY)}{by}".rstrip()
        yield from _objections(node, colour)


def _signers(node: Node) -> str:
    names = sorted({name for view in node.statements.items for name in view.signers})
    return visible(", ".join(names), 40)


def _objections(node: Node, colour: bool) -> Iterator[str]:
    """Why a step does not hold, a line each; the rules below say it in full."""
    for rule in [rule for rule in node.rules if rule.outcome is not Outcome.ALLOW][:5]:
        line = _short(f"{rule.id}: {rule.why}", WIDTH - 8)
        yield " " * 8 + _paint(line, _COLOURS[rule.outcome], colour)


def _short(text: str, width: int) -> str:
    line = visible(text)
    return line if len(line) <= width else line[: width - 1] + "…"


def _rules(explanation: Explanation, colour: bool) -> Iterator[str]:
    counts = (f"{explanation.tally[outcome]} {word}" for outcome, word in _COUNTED)
    yield f"rules: {', '.join(counts)}"
    shown = explanation.rules.items[:MAX_RULES]
    names = max((len(rule.id) for rule in shown), default=0)
    for rule in shown:
        word = rule.outcome.value.upper().ljust(12)
        start = f"  {_paint(word, _COLOURS[rule.outcome], colour)}  {rule.id.ljust(names)}  "
        yield from _rule(rule, start, 18 + names)
    if explanation.rules.total > len(shown):
        yield f"  … and {explanation.rules.total - len(shown)} more rules"


def _rule(rule: Rule, start: str, indent: int) -> Iterator[str]:
    """An objection in full; a rule that is met in one line."""
    if rule.outcome is Outcome.ALLOW:
        yield start + _short(rule.why, WIDTH - indent)
        return
    hint = f" (hint: {rule.hint})" if rule.hint else ""
    first, *more = textwrap.wrap(visible(rule.why + hint), WIDTH - indent) or [""]
    yield start + first
    yield from (" " * indent + line for line in more)


def _beside(graph: Graph) -> Iterator[str]:
    listed = graph.beside
    if not listed.total:
        return
    yield ""
    yield f"signed, but not of this run: {listed.total} statements, which cannot replace its own"
    for view in listed.items[:MAX_BESIDE]:
        yield from textwrap.wrap(_view(view), WIDTH, initial_indent="  ", subsequent_indent="    ")
    if listed.total > MAX_BESIDE:
        yield f"  … and {listed.total - MAX_BESIDE} more"


def _view(view: StatementView) -> str:
    name = f" '{visible(view.name, 40)}'" if view.name else ""
    run = f"run {visible(view.run, 64)}" if view.run else "no run"
    signers = visible(", ".join(view.signers), 60)
    return f"{visible(view.type, 100)}{name} ({view.digest[:19]}…) of {run}, by {signers}"


def _claims(explanation: Explanation) -> Iterator[str]:
    listed = explanation.claims
    if not explanation.unproven:
        return
    yield ""
    yield (
        f"claims, not proven: {explanation.unproven} attachments that no trusted key signed, or "
        "that fail"
    )
    for claim in listed.items[:MAX_BESIDE]:
        kind = visible(claim.type, 100) if claim.type else "something unreadable"
        keys = ", ".join(visible(key, 60) for key in claim.keys[:3])
        by = f", by key {keys}" if keys else ""
        line = f"claims to be {kind}{by} ({claim.digest[:19]}…, {claim.size} bytes)"
        yield from textwrap.wrap(line, WIDTH, initial_indent="  ", subsequent_indent="    ")
    if listed.total > MAX_BESIDE:
        yield f"  … and {listed.total - MAX_BESIDE} more"


def _paint(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text
