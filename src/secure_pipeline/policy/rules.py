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
from secure_pipeline.attestations.predicates import AFTER_SEAL, SEAL, RunContext
from secure_pipeline.attestations.seal import Seal, check_seal, parse_seal
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy import vex
from secure_pipeline.policy.decision import Decision, Rule, allow, forbid, unsure, wrong
from secure_pipeline.policy.document import Policy, Requirement
from secure_pipeline.policy.evidence import EvidenceSet, Item, authenticate
from secure_pipeline.policy.evidence_gates import Bench, failing_rules, gate_rules
from secure_pipeline.policy.trust import TrustedSigner
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


@dataclass(frozen=True)
class Answer:
    """The decision, and what it was made from."""

    decision: Decision
    run: RunContext | None
    used: tuple[Item, ...] = ()
    """All authentic statements that were looked at."""
    untrusted: int = 0
    """Attachments that no trusted key signed."""


def decide(question: Question, attachments: Sequence[Attachment]) -> Answer:
    """Decide whether the image's evidence meets the policy. The content is checked elsewhere."""
    # (1) a policy that trusts nobody or asks for nothing refuses
    rules = policy_rules(question)
    if any(rule.fault for rule in rules):
        return Answer(Decision(rules), None)
    # (2) signatures, payloads, subjects, key windows
    found = authenticate(attachments, question.signers, question.image.digest, question.now)
    rules += found.rules
    if not found.items:
        return Answer(Decision(rules), None, (), len(found.untrusted))
    # (3) which run: its seal says
    sealed, seal_rules = choose_seal(question, found)
    rules += seal_rules
    if sealed is None:
        rules += tuple(rule for item in found.items for rule in item.lapsed)
        rules += required_rules(question, found.items, found)
        return Answer(Decision(rules), None, found.items, len(found.untrusted))
    run, members = sealed.seal.context, members_of(sealed, found.items)
    rules += tuple(rule for item in (sealed.item, *members) for rule in item.lapsed)
    # (4) the set is complete and of one run (SIG-09)
    rules += (sealed_rule(sealed, found.items), run_rule(run, members))
    # (5) what the policy requires is there, by keys it allows, and fresh
    rules += required_rules(question, members, found)
    rules += time_rules(question, (sealed.item, *members))
    # (6) where it comes from
    rules += (source_rule(question.policy, run), builder_rule(question.policy, run))
    # (7) the gates, evaluated again from the evidence itself
    subject = vex.Subject(question.image.name, str(question.image.digest))
    bench = Bench(question.policy, subject, question.now, question.vex)
    for item in members:
        rules += gate_rules(item, bench)
    # (8) no failing result for this digest hides behind a good one (SIG-10)
    others = [item for item in found.items if item not in members]
    rules += failing_rules(others, bench)
    return Answer(Decision(rules), run, found.items, len(found.untrusted))


def policy_rules(question: Question) -> tuple[Rule, ...]:
    """Empty means refuse: no keys, no requirements, no builders (CLI-07)."""
    policy = question.policy
    rules = []
    if not question.signers:
        rules.append(
            forbid(
                "policy",
                "the policy trusts no key",
                hint="pass --key PUBLIC_KEY, or add the key to 'keys' of the policy",
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
    if not policy.builders:
        rules.append(
            forbid(
                "policy",
                "the policy accepts no builder",
                hint="list builder ids under 'builders' of the policy",
            )
        )
    if rules:
        return tuple(rules)
    keys = ", ".join(signer.id for signer in question.signers)
    return (allow("policy", f"{len(policy.require)} requirements; trusted keys: {keys}"),)


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
    if not items:
        return None, (wrong("seal", "no seal: nothing shows that the evidence is complete"),)
    allowed = [item for item in items if _may_sign(item, question.policy.seal.keys)]
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


def required_rules(
    question: Question, members: Sequence[Item], found: EvidenceSet
) -> tuple[Rule, ...]:
    """One rule for each requirement; types and names match exactly (SIG-03)."""
    return tuple(
        _required(requirement, question, members, found) for requirement in question.policy.require
    )


def _required(
    requirement: Requirement, question: Question, members: Sequence[Item], found: EvidenceSet
) -> Rule:
    matches = [item for item in members if _answers(requirement, item)]
    if not matches:
        return wrong("required", f"{requirement.title} is missing{_elsewhere(requirement, found)}")
    for item in matches:
        signers = item.signers if requirement.keys is None else item.signers & {*requirement.keys}
        if len(signers) < requirement.quorum:
            why = (
                f"{item.title} is signed by {', '.join(sorted(item.signers))}: {len(signers)} of "
                f"{requirement.quorum} keys that may sign it"
            )
            return forbid("required", why, (item.digest,))
        aged = _age_rule(requirement, item, question.now)
        if aged:
            return aged
    return allow("required", f"{requirement.title} is there", _digests(matches))


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


def _answers(requirement: Requirement, item: Item) -> bool:
    return item.type == requirement.predicate and requirement.name in (None, item.name)


def _elsewhere(requirement: Requirement, found: EvidenceSet) -> str:
    """Say where a missing statement is, when it is somewhere that does not count."""
    runs = {
        item.run.run_id[:64] if item.run else "no run"
        for item in found.items
        if _answers(requirement, item)
    }
    if runs:
        return f" in this run (there is one of {', '.join(sorted(runs))})"
    if found.untrusted:
        return f" ({len(found.untrusted)} attachments are signed by unknown keys)"
    return ""


def time_rules(question: Question, items: Sequence[Item]) -> tuple[Rule, ...]:
    """Evidence from the future is no answer; a seal may have a greatest age."""
    policy, now = question.policy, question.now
    rules = []
    for item in items:
        if item.time is not None and item.time - now > policy.clock_skew:
            why = f"{item.title} is dated {rfc3339(item.time)}, which is yet to come"
            rules.append(unsure("time", why, (item.digest,), "compare the machines' clocks"))
    seal = items[0]
    limit = policy.seal.max_age
    if limit is not None and seal.time is not None and now - seal.time > limit:
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


def _may_sign(item: Item, keys: tuple[str, ...] | None) -> bool:
    return keys is None or bool(item.signers & {*keys})


def _digests(items: Iterable[Item]) -> tuple[str, ...]:
    return tuple(item.digest for item in items)
