"""The rules of a file: one bundle beside it, and no registry to ask.

The statement has to be of a type that the policy requires of releases; an image's other
requirements, its seal and its scan are the image's, which a file of ours names by digest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from secure_pipeline.attestations.attachments import Attachment
from secure_pipeline.attestations.fileform import Origin, read_origin
from secure_pipeline.attestations.predicates import PROVENANCE, RunContext
from secure_pipeline.attestations.statement import Statement
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.policy import vex
from secure_pipeline.policy.decision import Decision, Rule, allow, forbid, wrong
from secure_pipeline.policy.document import Policy
from secure_pipeline.policy.evidence import EvidenceSet, Found, Item, authenticate
from secure_pipeline.policy.evidence_gates import Bench, gate_rules
from secure_pipeline.policy.keyless import Keyless
from secure_pipeline.policy.required import answers, required_rules
from secure_pipeline.policy.rules import policy_rules, source_rule, time_rules
from secure_pipeline.policy.trust import TrustedSigner
from secure_pipeline.policy.unsealed import builder_rules


@dataclass(frozen=True)
class FileQuestion:
    """What is to be decided about one file."""

    name: str
    """What it is called here; only its digest says what it is."""
    digest: Digest
    policy: Policy
    signers: tuple[TrustedSigner, ...]
    now: datetime
    keyless: Keyless = Keyless()


@dataclass(frozen=True)
class FileAnswer:
    """The decision, and what the statement says of the file."""

    decision: Decision
    signed_name: str | None = None
    """What it was called where it was signed."""
    run: RunContext | None = None
    """Of our own statements."""
    origin: Origin | None = None
    """The image that it was taken from, of our own statements."""


def decide_file(question: FileQuestion, attachment: Attachment) -> FileAnswer:
    """Decide whether a file's statement meets the policy. Its content was hashed before."""
    policy, now = question.policy, question.now
    # (1) a policy that trusts nobody or asks for nothing refuses
    rules = policy_rules(policy, question.signers, question.keyless.identities)
    if any(rule.fault for rule in rules):
        return FileAnswer(Decision(rules))
    # (2) signature, payload, the file's digest as subject, key window
    found = authenticate(
        Found((attachment,)), question.signers, question.keyless, question.digest, now
    )
    rules += found.rules
    if not found.items:
        return FileAnswer(Decision(rules))
    (item,) = found.items
    rules += item.lapsed
    # (3) what it is called, and where it comes from: an image's statement is no file's
    name = _signed_name(item.statement, question.digest)
    rules += (_name_rule(question.name, name),)
    origin, origin_rules = _origin(item)
    rules += origin_rules
    # (4) a statement that the policy asks for, by keys it allows, fresh
    rules += _required(policy, now, item, found)
    rules += time_rules(policy, now, (item,), None)
    # (5) by whom it was made, from what
    rules += (source_rule(policy, item.run),) if item.run else ()
    rules += builder_rules(policy, (item,))
    # (6) the gates that the statement itself answers
    subject = vex.Subject(question.name, str(question.digest))
    rules += gate_rules(item, Bench(policy, subject, now, of_file=True))
    return FileAnswer(Decision(rules), name, item.run, origin)


def _signed_name(statement: Statement, digest: Digest) -> str:
    """The name of the subject that has the digest; "" if it has none."""
    return next(s.name for s in statement.subjects if s.digests.get("sha256") == digest.hex)


def _name_rule(here: str, signed: str) -> Rule:
    """A file may be renamed; whoever reads its name, as installers do, is told."""
    if here == signed:
        return allow("name", f"signed as {signed!r}")
    return allow("name", f"signed as {signed[:200]!r}; called {here[:200]!r} here")


def _origin(item: Item) -> tuple[Origin | None, tuple[Rule, ...]]:
    """The image that a file of ours was in; other tools' statements name none."""
    if item.run is None:
        return None, ()
    try:
        item.statement.require_type(PROVENANCE)
        origin = read_origin(item.statement.predicate)
    except VerificationFailed as error:
        why = f"{item.title} is no statement about a file: {error.message}"
        return None, (wrong("origin", why, (item.digest,)),)
    why = f"{origin.path[:200]} of {origin.image[:300]}"
    return origin, (allow("origin", why, (item.digest,)),)


def _required(policy: Policy, now: datetime, item: Item, found: EvidenceSet) -> tuple[Rule, ...]:
    asked = tuple(entry for entry in policy.require if answers(entry, item))
    if not asked:
        why = f"the policy does not ask for {item.title}"
        return (forbid("required", why, (item.digest,), "list its type under 'require'"),)
    return required_rules(replace(policy, require=asked), now, (item,), found)
