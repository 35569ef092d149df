"""``explain``: why the policy says yes or no about an image, and the evidence behind it.

The decision is ``verify``'s own, made by the same function from the same bytes. What no trusted
key signed is listed apart, as claims: nothing of it is a fact. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from secure_pipeline.attestations.attachments import Attachment, collect
from secure_pipeline.attestations.signatures import collect_signatures
from secure_pipeline.attestations.statement import parse_statement
from secure_pipeline.errors import ExitCode, Inconclusive, Unavailable, VerificationFailed
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.files import sha256_bytes
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.image import MAX_CONFIG_BYTES, parse_config
from secure_pipeline.oci.manifest import Descriptor, Manifest
from secure_pipeline.oci.store import Source
from secure_pipeline.oci.walk import CheckedImage, check_image
from secure_pipeline.policy.decision import Decision, Outcome, Rule
from secure_pipeline.policy.document import Policy, TrustedIdentity, TrustedKey
from secure_pipeline.policy.rules import Answer
from secure_pipeline.ports import Clock
from secure_pipeline.stages.evidence_facts import MAX_LISTED, Fact, cut, plural, short, size
from secure_pipeline.stages.evidence_graph import build_graph
from secure_pipeline.stages.evidence_nodes import Graph, Listed, first
from secure_pipeline.stages.verify import VerifyInputs, judge

STAGE = "explain"
MAX_RULES = 300
"""Rules that are shown, objections first; all are counted."""
MAX_CLAIMS = 20
MAX_CLAIM_BYTES = 1 << 20
"""Larger payloads of strangers are not looked into."""
MAX_WHY = 1000


@dataclass(frozen=True)
class Claim:
    """An attachment that proves nothing; every text is what it says about itself."""

    place: str
    """``bundle sha256:…``: the form, and the manifest that holds it."""
    digest: str
    """``sha256:…`` of its payload."""
    size: int
    """Bytes of its payload."""
    type: str | None
    """The predicate type that it claims; None if that cannot be read."""
    keys: tuple[str, ...]
    """Key ids that it claims."""


@dataclass(frozen=True)
class SignerView:
    """A key or an identity that signed something."""

    id: str
    """As the policy names it."""
    what: str
    """Algorithm and window of a key; issuer and subject of an identity."""


@dataclass(frozen=True)
class Explanation:
    """A decision with everything it rests on; all texts are bounded."""

    image: str
    policy: str
    """File name of the policy."""
    policy_digest: str
    judged: datetime
    """The time at which windows and ages were judged."""
    outcome: Outcome
    code: ExitCode
    because: str
    """Why, in one sentence that fits after "because"."""
    hint: str | None
    """What to type, where the first objection says so."""
    run: str | None
    graph: Graph
    rules: Listed[Rule]
    """Objections first."""
    tally: Mapping[Outcome, int]
    """How many rules of all ended so."""
    signers: tuple[SignerView, ...]
    untrusted: int
    """Attachments that no trusted key signed."""
    claims: Listed[Claim]
    """Attachments that are no evidence; strangers' ones and broken ones."""

    @property
    def unproven(self) -> int:
        """Attachments that no trusted key signed, or that failed a check."""
        return max(self.untrusted, self.claims.total)

    @property
    def missing(self) -> str:
        """What the policy requires and nothing answers, in a line."""
        titles = self.graph.missing
        more = f" and {len(titles) - MAX_LISTED} more" if len(titles) > MAX_LISTED else ""
        return cut(", ".join(titles[:MAX_LISTED]), MAX_WHY) + more or "nothing that is required"

    @property
    def extra(self) -> str:
        """What lies beside the image and cannot count, in a line."""
        others = plural(self.graph.beside.total, "statement")
        strangers = plural(self.untrusted, "attachment")
        parts = (
            f"{others} of other runs" if self.graph.beside.total else "",
            f"{strangers} by unknown keys" if self.untrusted else "",
        )
        return " · ".join(filter(None, parts)) or "nothing"


def explain(inputs: VerifyInputs, clock: Clock, on_event: OnEvent) -> Explanation:
    """Decide as ``verify`` does, and show what the decision rests on.

    Raises: ConfigError (a key of the policy), Unavailable.
    """
    now = clock.now()
    # (1) the decision, and nothing that could soften it
    decision, answer = judge(inputs, now, on_event)
    # (2) the evidence that it was made from
    on_event(Progress(STAGE, "arranging the evidence"))
    policy = inputs.policy.policy
    graph = build_graph(policy, decision, answer, _image(inputs.source, inputs.image.digest))
    # (3) what else lies beside the image
    claims = _claims(inputs, decision, answer)
    objections = decision.objections
    return Explanation(
        image=str(inputs.image),
        policy=inputs.policy.source.name,
        policy_digest=inputs.policy.digest,
        judged=now,
        outcome=decision.outcome,
        code=decision.code,
        because=_because(decision, answer, graph),
        hint=objections[0].hint if objections else None,
        run=cut(answer.run.run_id) if answer.run else None,
        graph=graph,
        rules=_rules(decision),
        tally={o: sum(rule.outcome is o for rule in decision.rules) for o in Outcome},
        signers=_signers(policy, answer),
        untrusted=answer.untrusted,
        claims=claims,
    )


def _because(decision: Decision, answer: Answer, graph: Graph) -> str:
    if decision.outcome is Outcome.ALLOW:
        keys = sorted({key for view in graph.statements.items for key in view.signers})
        run = f" of run {cut(answer.run.run_id, 80)}" if answer.run else ""
        who = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        what = f"{plural(graph.statements.total, 'statement')}{run}, signed by {who}"
        return f"all {len(decision.rules)} rules allow: {what}"
    objections = decision.objections
    if not objections:
        return "no rule was evaluated"
    more = len(objections) - 1
    others = f" (and {more} more {'objection' if more == 1 else 'objections'})" if more else ""
    return f"{cut(objections[0].why, 400)}{others}"


def _rules(decision: Decision) -> Listed[Rule]:
    allowing = [rule for rule in decision.rules if rule.outcome is Outcome.ALLOW]
    return first([_bounded(rule) for rule in (*decision.objections, *allowing)], MAX_RULES)


def _bounded(rule: Rule) -> Rule:
    hint = cut(rule.hint, MAX_WHY) if rule.hint else None
    return replace(rule, why=cut(rule.why, MAX_WHY), hint=hint, evidence=rule.evidence[:MAX_LISTED])


def _signers(policy: Policy, answer: Answer) -> tuple[SignerView, ...]:
    known = {key.id: _key(key) for key in policy.keys}
    known |= {entry.id: _identity(entry) for entry in policy.identities}
    used = sorted({name for item in answer.used for name in item.signers})
    return tuple(SignerView(name, known.get(name, "given on the command line")) for name in used)


def _key(key: TrustedKey) -> str:
    bounded = key.not_before or key.not_after
    window = f", trusted {key.not_before or '…'} to {key.not_after or '…'}" if bounded else ""
    return f"{key.algorithm.value} key of the policy{window}"


def _identity(entry: TrustedIdentity) -> str:
    who = entry.identity or f"whoever matches {entry.identity_pattern}"
    return cut(f"{who} by {entry.issuer}")


def _image(source: Source, digest: Digest) -> tuple[str, tuple[Fact, ...]]:
    """What the image is, from bytes that its digest names; layers are named, not read."""
    facts = [Fact("digest", str(digest))]
    try:
        checked = check_image(source, digest, layers=False)
        platforms = [_platform(source, *entry) for entry in checked.manifests[:MAX_LISTED]]
    except (VerificationFailed, Inconclusive, Unavailable):
        return short(str(digest)), tuple(facts)
    facts += [
        Fact("kind", checked.descriptor.media_type),
        *(Fact("platform", cut(name)) for name in dict.fromkeys(platforms)),
        Fact("size", f"{size(checked.total)} ({checked.total} bytes)"),
        *_layers(checked),
    ]
    layers = sum(len(manifest.layers) for _, manifest in checked.manifests)
    more = len(checked.manifests) - 1
    words = f"{cut(platforms[0], 60)}{f' and {more} more' if more else ''}"
    parts = (short(str(digest), 8), words, f"{plural(layers, 'layer')}, {size(checked.total)}")
    return " · ".join(parts), tuple(facts)


def _platform(source: Source, descriptor: Descriptor, manifest: Manifest) -> str:
    if descriptor.platform:
        return str(descriptor.platform)
    config = manifest.config
    where = str(config.digest)
    try:
        data = source.read_blob(config.digest, MAX_CONFIG_BYTES, config.size)
        return str(parse_config(data, where)[1])
    except VerificationFailed:
        return "platform unknown"


def _layers(checked: CheckedImage) -> list[Fact]:
    layers = [layer for _, manifest in checked.manifests for layer in manifest.layers]
    shown = [Fact("layer", f"{layer.digest} ({size(layer.size)})") for layer in layers[:MAX_LISTED]]
    more = len(layers) - len(shown)
    return [*shown, *([Fact("layer", f"and {more} more")] if more else [])]


def _claims(inputs: VerifyInputs, decision: Decision, answer: Answer) -> Listed[Claim]:
    """Attachments without authentic content; read again only where there may be some."""
    if decision.outcome is Outcome.ALLOW and not answer.untrusted:
        return Listed((), 0)
    try:
        source, digest = inputs.source, inputs.image.digest
        attachments = (*collect(source, digest), *collect_signatures(source, digest))
    except (VerificationFailed, Inconclusive, Unavailable):
        return Listed((), 0)  # the rule "attachments" says why
    used = {item.digest for item in answer.used}
    others = [item for item in attachments if _payload_digest(item) not in used]
    return Listed(_claim_views(others[:MAX_CLAIMS]), len(others))


def _payload_digest(attachment: Attachment) -> str:
    return f"sha256:{sha256_bytes(attachment.envelope.payload)}"


def _claim_views(attachments: Sequence[Attachment]) -> tuple[Claim, ...]:
    return tuple(
        Claim(
            place=f"{item.source} {item.manifest_digest}",
            digest=_payload_digest(item),
            size=len(item.envelope.payload),
            type=_claimed_type(item.envelope.payload),
            keys=tuple(
                cut(signature.keyid, 100)
                for signature in item.envelope.signatures[:MAX_LISTED]
                if signature.keyid
            ),
        )
        for item in attachments
    )


def _claimed_type(payload: bytes) -> str | None:
    if len(payload) > MAX_CLAIM_BYTES:
        return None
    try:
        return cut(parse_statement(payload).predicate_type, 120)
    except VerificationFailed:
        return None
