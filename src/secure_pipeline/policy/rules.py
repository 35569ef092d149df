"""The rules of a release, in the order in which they are checked.

``decide`` reads top to bottom like the policy: who is trusted, what is attached, what is
authentic, which run, is its evidence complete and of one piece, does each statement meet the
gates. Every rule leaves its outcome and its reason; docs/stages/verify.md lists their ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from secure_pipeline.attestations.attachments import Attachment
from secure_pipeline.attestations.buildkit import Contained
from secure_pipeline.attestations.predicates import AFTER_SEAL, SEAL, RunContext
from secure_pipeline.attestations.seal import Seal, check_seal, parse_seal
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy import vex
from secure_pipeline.policy.decision import Decision, Outcome, Rule, allow, forbid, unsure, wrong
from secure_pipeline.policy.document import Policy
from secure_pipeline.policy.evidence import EvidenceSet, Found, Item, authenticate
from secure_pipeline.policy.evidence_gates import Bench, failing_rules, gate_rules
from secure_pipeline.policy.keyless import Keyless
from secure_pipeline.policy.quarantine import quarantine_rule
from secure_pipeline.policy.required import may_sign, required_rules
from secure_pipeline.policy.trust import KnownIdentity, TrustedSigner
from secure_pipeline.policy.unsealed import PROVENANCES, unsealed_rules
from secure_pipeline.shape import rfc3339


@dataclass(frozen=True)
class Question:
    """What is to be decided."""

    image: ImageReference
    policy: Policy
    signers: tuple[TrustedSigner, ...]
    now: datetime
    run_id: str | None = None
    """The run whose evidence counts; the one sealed last if None."""
    vex: tuple[vex.Statement, ...] = ()
    """Of the documents that the policy names."""
    keyless: Keyless = Keyless()
    """Identities that sign without keys, and what checks them."""


@dataclass(frozen=True)
class Answer:
    """The decision, and what it was made from."""

    decision: Decision
    run: RunContext | None
    used: tuple[Item, ...] = ()
    """All authentic statements that were looked at."""
    untrusted: int = 0
    """Attachments that no trusted key or identity signed."""


def decide(
    question: Question,
    attachments: Sequence[Attachment],
    contained: Sequence[Contained] = (),
) -> Answer:
    """Decide whether the image's evidence meets the policy. The content is checked elsewhere.

    ``contained`` are the unsigned statements inside an index.
    """
    # (1) a policy that trusts nobody or asks for nothing refuses
    identities = question.keyless.identities
    rules = policy_rules(question.policy, question.signers, identities)
    if any(rule.fault for rule in rules):
        return Answer(Decision(rules), None)
    # (2) signatures, payloads, subjects, key windows
    found = authenticate(
        Found(attachments, contained),
        question.signers,
        question.keyless,
        question.image.digest,
        question.now,
    )
    rules += found.rules
    if not found.items:
        return Answer(Decision(rules), None, (), len(found.untrusted))
    # (3) whoever failed before stays out until it is released, whichever run it was of
    rules += (quarantine_rule(question.policy.quarantine, question.image, found.items),)
    subject = vex.Subject(question.image.name, str(question.image.digest))
    bench = Bench(question.policy, subject, question.now, question.vex)
    # (4) which run: its seal says
    sealed, seal_rules = choose_seal(question, found)
    rules += seal_rules
    if sealed is None:
        rules += tuple(rule for item in found.items for rule in item.lapsed)
        rules += required_rules(question.policy, question.now, found.items, found)
        if all(rule.outcome is Outcome.ALLOW for rule in seal_rules):
            rules += time_rules(question.policy, question.now, found.items, None)
            runs = {item.run for item in found.items if item.run}
            rules += tuple(source_rule(question.policy, run) for run in runs)
            rules += unsealed_rules(found.items, bench)
        return Answer(Decision(rules), None, found.items, len(found.untrusted))
    run, members = sealed.seal.context, members_of(sealed, found.items)
    rules += tuple(rule for item in (sealed.item, *members) for rule in item.lapsed)
    # (5) the set is complete and of one run (SIG-09)
    rules += (sealed_rule(sealed, found.items), run_rule(run, members))
    # (6) what the policy requires is there, by keys it allows, and fresh
    rules += required_rules(question.policy, question.now, members, found)
    rules += time_rules(question.policy, question.now, (sealed.item, *members), sealed.item)
    # (7) where it comes from
    rules += (source_rule(question.policy, run), builder_rule(question.policy, run))
    # (8) the gates, evaluated again from the evidence itself
    for item in members:
        rules += gate_rules(item, bench)
    # (9) no failing result for this digest hides behind a good one (SIG-10)
    others = [item for item in found.items if item not in members]
    rules += failing_rules(others, bench)
    return Answer(Decision(rules), run, found.items, len(found.untrusted))


def policy_rules(
    policy: Policy, signers: Sequence[TrustedSigner], identities: Sequence[KnownIdentity]
) -> tuple[Rule, ...]:
    """Empty means refuse: no keys or identities, no requirements, no builders (CLI-07)."""
    rules = []
    if not signers and not identities:
        rules.append(
            forbid(
                "policy",
                "the policy trusts no key and no identity",
                hint="add to 'keys' or 'identities' of the policy, or name a public key with --key "
                "(where --key signs: --trust-key)",
            )
        )
    if not policy.require:
        rules.append(
            forbid(
                "policy",
                "the policy requires no evidence, so nothing could be proven",
                hint="list predicate types under 'require' of the policy",
            )
        )
    provenance = any(requirement.predicate in PROVENANCES for requirement in policy.require)
    if not policy.builders and (policy.seal.required or provenance):
        rules.append(
            forbid(
                "policy",
                "the policy accepts no builder",
                hint="list builder ids under 'builders' of the policy",
            )
        )
    if rules:
        return tuple(rules)
    words = [f"{len(policy.require)} requirements"]
    for what, known in (("keys", signers), ("identities", identities)):
        words += [f"trusted {what}: {', '.join(item.id for item in known)}"] if known else []
    return (allow("policy", "; ".join(words)),)


@dataclass(frozen=True)
class Sealed:
    """A seal that was read."""

    item: Item
    seal: Seal

    @property
    def run_id(self) -> str:
        """The run that it closes."""
        return self.seal.context.run_id


def choose_seal(question: Question, found: EvidenceSet) -> tuple[Sealed | None, tuple[Rule, ...]]:
    """Pick the seal of the run asked for, or the latest one by a key that may seal."""
    items = [item for item in found.items if item.type == SEAL]
    if not items and not question.policy.seal.required and question.run_id is None:
        why = "the policy does not require a seal: nothing shows that the evidence is complete"
        return None, (allow("seal", why),)
    if not items:
        return None, (wrong("seal", "no seal: nothing shows that the evidence is complete"),)
    allowed = [item for item in items if may_sign(item, question.policy.seal.keys)]
    if not allowed:
        names = ", ".join(sorted({name for item in items for name in item.signers}))
        return None, (forbid("seal", f"sealed by {names}, which may not seal", _digests(items)),)
    # a holder of a lapsed key must not be able to put its own seal last
    usable = [item for item in allowed if not item.lapsed] or allowed
    try:
        seals = [Sealed(item, parse_seal(item.statement.predicate)) for item in usable]
    except VerificationFailed as error:
        return None, (wrong("seal", str(error), _digests(usable)),)
    return _one_seal(question.run_id, seals)


def _one_seal(
    run_id: str | None, seals: Sequence[Sealed]
) -> tuple[Sealed | None, tuple[Rule, ...]]:
    runs = ", ".join(sorted({seal.run_id[:64] for seal in seals}))
    if run_id is not None:
        seals = [seal for seal in seals if seal.run_id == run_id]
        if not seals:
            return None, (wrong("seal", f"run {run_id} is not sealed here; sealed runs: {runs}"),)
    last = max(seal.seal.sealed_at for seal in seals)
    latest = [seal for seal in seals if seal.seal.sealed_at == last]
    digests = _digests(seal.item for seal in latest)
    if len({seal.run_id for seal in latest}) > 1:
        why = f"of runs {runs}, several are sealed in the same second"
        return None, (unsure("seal", why, digests, hint="name one with --run"),)
    rivals = [seal for seal in seals if seal.run_id == latest[0].run_id]
    if len(rivals) > 1:
        why = f"run {latest[0].run_id} has {len(rivals)} seals"
        return None, (wrong("seal", why, _digests(seal.item for seal in rivals)),)
    return rivals[0], ()


def members_of(sealed: Sealed, items: Iterable[Item]) -> tuple[Item, ...]:
    """The statements the seal lists or its run claims, without verdicts made after it."""
    listed = {str(line.digest) for line in sealed.seal.statements}
    return tuple(
        item
        for item in items
        if item.digest in listed
        or (item.type not in AFTER_SEAL and item.run and item.run.run_id == sealed.run_id)
    )


def sealed_rule(sealed: Sealed, items: Iterable[Item]) -> Rule:
    """Nothing removed, added, swapped or mixed in since the seal."""
    digest = (sealed.item.digest,)
    try:
        check_seal(sealed.item.statement, [item.statement for item in items])
    except VerificationFailed as error:
        return wrong("seal", f"run {sealed.run_id}: {error.message}", digest)
    count = len(sealed.seal.statements)
    why = f"run {sealed.run_id}: all {count} sealed statements are there and no other"
    return allow("seal", why, digest)


def run_rule(run: RunContext, members: Sequence[Item]) -> Rule:
    """One run, one commit, one builder in all statements (SIG-09)."""
    for item in members:
        if item.run != run:
            found = f"run {item.run.run_id[:64]}" if item.run else "no run"
            why = f"{item.title} is of {found}, not wholly of run {run.run_id}"
            return wrong("run", why, (item.digest,))
    source = f"commit {run.commit}" if run.commit else "no commit"
    why = f"{len(members)} statements of run {run.run_id}, {source}, {run.builder_id}"
    return allow("run", why, _digests(members))


def time_rules(
    policy: Policy, now: datetime, items: Sequence[Item], seal: Item | None
) -> tuple[Rule, ...]:
    """Evidence from the future is no answer; a seal may have a greatest age."""
    rules = []
    for item in items:
        last = max(filter(None, (item.time, item.signed_at)), default=None)
        if last is not None and last - now > policy.clock_skew:
            why = f"{item.title} is dated {rfc3339(last)}, which is yet to come"
            rules.append(unsure("time", why, (item.digest,), "compare the machines' clocks"))
    limit = policy.seal.max_age
    if seal and limit is not None and seal.time is not None and now - seal.time > limit:
        why = f"the seal is of {rfc3339(seal.time)}: older than the policy's {limit}"
        rules.append(forbid("time", why, (seal.digest,), "run the pipeline again"))
    return tuple(rules) or (allow("time", f"checked at {rfc3339(now)}", _digests(items)),)


def source_rule(policy: Policy, run: RunContext) -> Rule:
    """A release comes from a commit, whole."""
    if run.commit is None and policy.source.require_commit:
        return forbid("source", "the source is not a git commit", hint="commit, then run again")
    if run.uncommitted and not policy.source.allow_uncommitted:
        why = f"the source differs from commit {run.commit}: uncommitted changes"
        return forbid("source", why, hint="commit, then run again")
    changes = " with uncommitted changes" if run.uncommitted else ""
    return allow("source", f"commit {run.commit}{changes}, tree {run.tree}")


def builder_rule(policy: Policy, run: RunContext) -> Rule:
    """Only builders that the policy lists."""
    if run.builder_id not in policy.builders:
        accepted = ", ".join(policy.builders)
        return forbid("builder", f"{run.builder_id[:200]} is not among {accepted}")
    return allow("builder", run.builder_id)


def _digests(items: Iterable[Item]) -> tuple[str, ...]:
    return tuple(item.digest for item in items)
