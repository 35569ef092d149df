"""From attachments to evidence: what a trusted key signed about exactly this image.

An attachment by a key that the policy does not know is no evidence: it is counted aloud and
changes nothing, so that a stranger who may push can neither pass nor block an image. What
claims a trusted key and does not verify, or what a trusted key signed about another image,
is proven wrong and refuses.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from secure_pipeline.attestations.attachments import Attachment
from secure_pipeline.attestations.predicates import TEST_RESULT, RunContext, read_run, read_time
from secure_pipeline.attestations.statement import Statement, parse_statement
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.files import sha256_bytes
from secure_pipeline.oci.digest import Digest
from secure_pipeline.policy.decision import Rule, allow, unsure, wrong
from secure_pipeline.policy.document import TrustedKey
from secure_pipeline.policy.trust import TrustedSigner
from secure_pipeline.shape import rfc3339

MAX_CHECKS = 100_000
"""Signatures times keys; at 0.1 ms each the wall time stays near 10 s (SIG-15)."""


@dataclass(frozen=True)
class Item:
    """One authentic statement about the image."""

    statement: Statement
    digest: str
    """``sha256:…`` of the signed payload."""
    signers: frozenset[str]
    """Ids of the different trusted keys that signed it, those inside their window if any is."""
    lapsed: tuple[Rule, ...]
    """Why none of them is inside its window; empty if one is."""
    sources: tuple[str, ...]
    """Where it is attached; the same statement may be in several places."""
    run: RunContext | None
    """None when it says nothing about a run."""
    time: datetime | None
    """When it was made, as it says itself, UTC."""

    @property
    def type(self) -> str:
        """Its predicate type."""
        return self.statement.predicate_type

    @property
    def name(self) -> str | None:
        """For a test result: configuration[0].name, else None."""
        return test_name(self.statement)

    @property
    def title(self) -> str:
        """Type, name and the digest's first digits, for messages."""
        name = f" '{self.name[:40]}'" if self.name else ""
        return f"{self.type[:120]}{name} ({self.digest[:19]}…)"


@dataclass(frozen=True)
class EvidenceSet:
    """All authentic statements, and the rules that were evaluated on the way to them."""

    items: tuple[Item, ...]
    untrusted: tuple[str, ...]
    """Where the attachments are that no trusted key signed."""
    rules: tuple[Rule, ...]


def authenticate(
    attachments: Sequence[Attachment],
    signers: Sequence[TrustedSigner],
    image: Digest,
    now: datetime,
) -> EvidenceSet:
    """Check signatures, then parse, then compare subjects; in this order for each attachment."""
    # (1) at least one attachment: 0 of 0 verified is no proof (SIG-11)
    if not attachments:
        return EvidenceSet((), (), (wrong("attachments", f"no evidence is attached to {image}"),))
    checks = len(signers) * sum(len(item.envelope.signatures) for item in attachments)
    if checks > MAX_CHECKS:
        why = f"{checks} signature checks would be needed; the limit is {MAX_CHECKS}"
        return EvidenceSet((), (), (unsure("attachments", why),))
    faults: list[Rule] = []
    untrusted: list[str] = []
    items: dict[str, Item] = {}
    for attachment in attachments:
        where = f"{attachment.source} {attachment.manifest_digest}"
        # (2) who signed the bytes; nothing in them is believed before
        found, forged = _signers_of(attachment, where, signers)
        faults += forged
        if not found:
            untrusted.append(where)
            continue
        # (3) parse strictly (SIG-05, SIG-07), (4) compare the subject (SIG-04)
        try:
            statement = parse_statement(attachment.envelope.payload)
        except VerificationFailed as error:
            faults.append(wrong("statement", f"{where}: {error}"))
            continue
        try:
            statement.require_subject(image)
            item = _item(statement, where, found, now)
        except VerificationFailed as error:
            faults.append(wrong("subject", f"{where}: {error}"))
            continue
        # (5) one statement in two places is one statement
        items[item.digest] = _merge(items.get(item.digest), item)
    return EvidenceSet(
        tuple(items.values()),
        tuple(untrusted),
        (_summary(len(attachments), items.values(), untrusted), *faults),
    )


def test_name(statement: Statement) -> str | None:
    """Return configuration[0].name of a test result; None for other types or where it lacks."""
    if statement.predicate_type != TEST_RESULT:
        return None
    configuration = statement.predicate.get("configuration")
    first = configuration[0] if isinstance(configuration, list) and configuration else None
    name = first.get("name") if isinstance(first, dict) else None
    return name if isinstance(name, str) and name else None


def _signers_of(
    attachment: Attachment, where: str, signers: Sequence[TrustedSigner]
) -> tuple[list[TrustedSigner], list[Rule]]:
    """The different trusted keys that signed; key ids only accuse, they never convince."""
    found: dict[str, TrustedSigner] = {}
    forged: list[Rule] = []
    message = attachment.envelope.message
    for signature in attachment.envelope.signatures:
        signer = next((s for s in signers if s.key.verify(message, signature.sig)), None)
        if signer is not None:
            found[signer.id] = signer
            continue
        claimed = next((s for s in signers if signature.keyid == s.key.hint), None)
        if claimed is not None:
            why = f"{where}: the signature claims key '{claimed.id}' and is not its own"
            forged.append(wrong("signature", why))
    return list(found.values()), forged


def _item(statement: Statement, source: str, found: list[TrustedSigner], now: datetime) -> Item:
    kind, predicate = statement.predicate_type, statement.predicate
    time = read_time(kind, predicate)
    reasons = {signer.id: _lapse(signer, source, time, now) for signer in found}
    inside = frozenset(key for key, reason in reasons.items() if reason is None)
    return Item(
        statement=statement,
        digest=f"sha256:{sha256_bytes(statement.payload)}",
        signers=inside or frozenset(reasons),
        lapsed=() if inside else tuple(rule for rule in reasons.values() if rule),
        sources=(source,),
        run=_run(statement),
        time=time,
    )


def _run(statement: Statement) -> RunContext | None:
    """A statement of ours names its run; one that other tools made with the key need not."""
    try:
        return read_run(statement.predicate_type, statement.predicate)
    except VerificationFailed:
        return None


def _lapse(signer: TrustedSigner, source: str, time: datetime | None, now: datetime) -> Rule | None:
    """Say why a key is outside its window (SIG-21), or None.

    A holder of an old key can write any time into a statement. So the present, the only
    trusted time without a time-stamp authority, has to be inside the window too.
    """
    if signer.window is None:
        return None
    window = f"the window of key '{signer.id}' ({_window(signer.window)})"
    if time is not None and not signer.trusted_at(time):
        return wrong("key-window", f"{source}: made at {rfc3339(time)}, outside {window}")
    if not signer.trusted_at(now):
        return unsure(
            "key-window",
            f"{source}: {window} does not hold today, and only the statement itself dates it",
            hint="sign the evidence again with a key of the present",
        )
    bounded = signer.window.not_before or signer.window.not_after
    if time is None and bounded:
        return unsure("key-window", f"{source}: has no time to compare with {window}")
    return None


def _window(entry: TrustedKey) -> str:
    return f"{entry.not_before or '…'} to {entry.not_after or '…'}"


def _merge(known: Item | None, item: Item) -> Item:
    """Two envelopes of one payload: the different signers add up, the places are both kept."""
    if known is None:
        return item
    sources = (*known.sources, *item.sources)
    if bool(known.lapsed) == bool(item.lapsed):
        both = known.signers | item.signers
        return replace(known, signers=both, lapsed=known.lapsed + item.lapsed, sources=sources)
    return replace(item if known.lapsed else known, sources=sources)


def _summary(attachments: int, items: Collection[Item], untrusted: list[str]) -> Rule:
    """Count everything aloud; unknown signers neither help nor harm."""
    counts = f"{attachments} attachments, {len(items)} statements signed by trusted keys"
    ignored = f"; {len(untrusted)} attachments by unknown keys are no evidence" if untrusted else ""
    digests = tuple(item.digest for item in items)
    if not items:
        return wrong(
            "signature",
            f"no statement is signed by a trusted key ({counts}{ignored})",
            hint="add the key to the policy, or pass --key PUBLIC_KEY",
        )
    return allow("signature", f"{counts}{ignored}", digests)
