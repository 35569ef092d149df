"""From attachments to evidence: what a trusted key or identity signed about this image.

An attachment by a key that the policy does not know is no evidence: it is counted aloud and
changes nothing, so that a stranger who may push can neither pass nor block an image. What
claims a trusted key or identity and does not verify, or what one signed about another image,
is proven wrong and refuses.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from secure_pipeline.attestations.attachments import Attachment
from secure_pipeline.attestations.buildkit import Contained
from secure_pipeline.attestations.predicates import (
    NAMESPACE,
    SIGN,
    TEST_RESULT,
    RunContext,
    read_run,
    read_time,
)
from secure_pipeline.attestations.signatures import read_statement
from secure_pipeline.attestations.statement import Statement, parse_statement
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.files import sha256_bytes
from secure_pipeline.oci.digest import Digest
from secure_pipeline.policy.decision import Rule, allow, unsure, wrong
from secure_pipeline.policy.document import TrustedKey
from secure_pipeline.policy.keyless import Keyless, excess
from secure_pipeline.policy.trust import KnownIdentity, TrustedSigner
from secure_pipeline.shape import rfc3339

Known = TrustedSigner | KnownIdentity

MAX_CHECKS = 100_000
"""Signatures times keys; at 0.1 ms each the wall time stays near 10 s (SIG-15)."""


@dataclass(frozen=True)
class Item:
    """One authentic statement about the image."""

    statement: Statement
    digest: str
    """``sha256:…`` of the signed payload."""
    signers: frozenset[str]
    """Ids of the different trusted keys and identities that signed it, those of keys inside
    their window if any is."""
    lapsed: tuple[Rule, ...]
    """Why none of them is inside its window; empty if one is."""
    sources: tuple[str, ...]
    """Where it is attached; the same statement may be in several places."""
    run: RunContext | None
    """None when it says nothing about a run."""
    time: datetime | None
    """When it was made, as it says itself, UTC; the trusted time of its signature where it says
    nothing or a later time."""
    signed_at: datetime | None = None
    """When a log or a time-stamp authority first saw a keyless signature of it, UTC."""
    everyone: frozenset[str] = frozenset()
    """Ids of all trusted keys and identities that signed it, inside their window or not."""

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
    """Where the attachments are that no trusted key or identity signed."""
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Found:
    """What lies beside an image, and in it."""

    attachments: Sequence[Attachment]
    contained: Sequence[Contained] = ()
    """Unsigned statements inside an index."""


def authenticate(
    attached: Found,
    signers: Sequence[TrustedSigner],
    keyless: Keyless,
    image: Digest,
    now: datetime,
) -> EvidenceSet:
    """Check signatures, then parse, then compare subjects; in this order for each attachment."""
    attachments = attached.attachments
    # (1) at least one attachment: 0 of 0 verified is no proof (SIG-11)
    if not attachments:
        inside = len(attached.contained)
        more = f"; {inside} statements inside the index are unsigned" if inside else ""
        why = f"no evidence is attached to {image}{more}"
        return EvidenceSet((), (), (wrong("attachments", why),))
    claims = [keyless.claimed(item) for item in attachments]
    too_much = _excess(attachments, signers) or excess(claims)
    if too_much:
        return EvidenceSet((), (), (too_much,))
    work = _Work(image, now)
    for attachment, claim in zip(attachments, claims, strict=True):
        where = f"{attachment.source} {attachment.manifest_digest}"
        # (2) who signed the bytes; nothing in them is believed before
        found, forged = _signers_of(attachment, where, signers)
        work.faults += forged
        signed_at = None
        if claim is not None:
            certified = keyless.certify(attachment, where, claim)
            if isinstance(certified, Rule):
                work.faults.append(certified)
            else:
                found, signed_at = [*found, claim], certified.signed_at
        # (3) what they signed
        work.take(attachment, where, found, signed_at)
    # (4) what a signed index holds is signed with it
    ignored = work.take_contained(attached.contained)
    items = tuple(work.items.values())
    summary = _summary(len(attachments), items, work.untrusted, ignored)
    return EvidenceSet(items, tuple(work.untrusted), (summary, *work.faults))


def _excess(attachments: Sequence[Attachment], signers: Sequence[TrustedSigner]) -> Rule | None:
    checks = len(signers) * sum(len(item.envelope.signatures) for item in attachments)
    if checks <= MAX_CHECKS:
        return None
    why = f"{checks} signature checks would be needed; the limit is {MAX_CHECKS}"
    return unsure("attachments", why)


class _Work:
    """What was found so far."""

    def __init__(self, image: Digest, now: datetime) -> None:
        self.image = image
        self.now = now
        self.faults: list[Rule] = []
        self.untrusted: list[str] = []
        self.items: dict[str, Item] = {}

    def take(
        self, attachment: Attachment, where: str, found: list[Known], signed_at: datetime | None
    ) -> None:
        """Read what trusted signers signed; without one it is only counted."""
        if not found:
            self.untrusted.append(where)
            return
        try:  # strictly (SIG-05, SIG-07)
            statement = read_statement(attachment)
        except VerificationFailed as error:
            self.faults.append(wrong("statement", f"{where}: {error}"))
            return
        self._add(statement, self.image, where, found, signed_at)

    def take_contained(self, contained: Sequence[Contained]) -> int:
        """Read what an index holds if a signature covers the index; else return how much."""
        covers = [i for i in self.items.values() if i.type == SIGN and not i.lapsed]
        if not covers:
            return len(contained)
        signers = frozenset[str]().union(*(item.signers for item in covers))
        times = [item.signed_at for item in covers if item.signed_at]
        for part in contained:
            where = f"index {part.manifest}"
            try:
                statement = parse_statement(part.payload)
                if _is_ours(statement):  # the signer of an image does not close a run of ours
                    raise VerificationFailed("a statement of our runs has to be signed itself")
                statement.require_among(part.about)
                item = _item(statement, where, [], self.now, min(times, default=None))
            except VerificationFailed as error:
                self.faults.append(wrong("statement", f"{where}: {error}"))
                continue
            item = replace(item, signers=signers, everyone=signers)
            self.items[item.digest] = _merge(self.items.get(item.digest), item)
        return 0

    def _add(
        self,
        statement: Statement,
        about: Digest,
        where: str,
        found: list[Known],
        signed_at: datetime | None,
    ) -> None:
        try:  # about this image (SIG-04)
            if _is_ours(statement):
                statement.require_subject(about)
            else:
                statement.require_among(about)
            item = _item(statement, where, found, self.now, signed_at)
        except VerificationFailed as error:
            self.faults.append(wrong("subject", f"{where}: {error}"))
            return
        # one statement in two places is one statement
        self.items[item.digest] = _merge(self.items.get(item.digest), item)


def _is_ours(statement: Statement) -> bool:
    """Ours are about one image each; other tools' may be about several (in-toto's rule)."""
    return statement.predicate_type.startswith(f"{NAMESPACE}/") or _run(statement) is not None


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
) -> tuple[list[Known], list[Rule]]:
    """The different trusted keys that signed; key ids only accuse, they never convince."""
    found: dict[str, Known] = {}
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


def _item(
    statement: Statement,
    source: str,
    found: list[Known],
    now: datetime,
    signed_at: datetime | None,
) -> Item:
    kind, predicate = statement.predicate_type, statement.predicate
    time = min(filter(None, (read_time(kind, predicate), signed_at)), default=None)
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
        signed_at=signed_at,
        everyone=frozenset(reasons),
    )


def _run(statement: Statement) -> RunContext | None:
    """A statement of ours names its run; one that other tools made with the key need not."""
    try:
        return read_run(statement.predicate_type, statement.predicate)
    except VerificationFailed:
        return None


def _lapse(signer: Known, source: str, time: datetime | None, now: datetime) -> Rule | None:
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
    seen = min(filter(None, (known.signed_at, item.signed_at)), default=None)
    time = min(filter(None, (known.time, item.time)), default=None)
    everyone = known.everyone | item.everyone
    known, item = (replace(i, signed_at=seen, time=time, everyone=everyone) for i in (known, item))
    if bool(known.lapsed) == bool(item.lapsed):
        both = known.signers | item.signers
        return replace(known, signers=both, lapsed=known.lapsed + item.lapsed, sources=sources)
    return replace(item if known.lapsed else known, sources=sources)


def _summary(
    attachments: int, items: Collection[Item], untrusted: list[str], unsigned: int
) -> Rule:
    """Count everything aloud; unknown signers neither help nor harm."""
    counts = f"{attachments} attachments, {len(items)} statements signed by trusted keys"
    ignored = f"; {len(untrusted)} attachments by unknown keys are no evidence" if untrusted else ""
    ignored += f"; {unsigned} unsigned statements in the index are no evidence" if unsigned else ""
    digests = tuple(item.digest for item in items)
    if not items:
        return wrong(
            "signature",
            f"no statement is signed by a trusted key ({counts}{ignored})",
            hint="add the key to the policy, or name it with --key (where --key signs: "
            "--trust-key)",
        )
    return allow("signature", f"{counts}{ignored}", digests)
