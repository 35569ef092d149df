"""Signed heads of a ledger, kept where the ledger's owner cannot change them (AUD-01).

A head is an in-toto statement of a type of its own in a DSSE envelope: the same bytes lie beside
the image as evidence and, one a line, in a file of the operator's choice.
docs/reference/predicates/ledger-head-v1.md describes it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from secure_pipeline import shape
from secure_pipeline.attestations import dsse, predicates
from secure_pipeline.attestations.attachments import Attachment, attach, collect
from secure_pipeline.attestations.author import author
from secure_pipeline.attestations.predicates import RUN_MEMBER, RunContext
from secure_pipeline.attestations.statement import Statement, make_statement, parse_statement
from secure_pipeline.audit.entry import instant
from secure_pipeline.audit.log import Head
from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.files import locked, read_bounded, write_atomic
from secure_pipeline.keys.verify import PublicKey
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.oci.store import Source
from secure_pipeline.policy.decision import Rule
from secure_pipeline.policy.keyless import Keyless
from secure_pipeline.ports import AnySigner, Clock

LEDGER_NAME = "ledger"
"""Name of the subject of a head that is about no image."""
NO_IDENTITY = Keyless()
MAX_ANCHOR_BYTES = 64 << 20
_HASH = re.compile(r"[0-9a-f]{64}")
_MAX_SEQ = 10**15


@dataclass(frozen=True)
class Checkpoint:
    """A head whose signature was checked."""

    head: Head
    taken: datetime
    key: str
    """Id of the key or identity that signed it."""
    where: str
    """Where it was found."""


def sign_head(
    head: Head,
    image: ImageReference | None,
    context: RunContext | None,
    signer: AnySigner,
    clock: Clock,
) -> dsse.Envelope:
    """Sign a head, as evidence about an image or about the ledger alone.

    Raises: like ``Author.sign``.
    """
    predicate: dict[str, Any] = {
        "origin": head.origin,
        "seq": head.seq,
        "hash": head.hash,
        "takenAt": instant(clock.now()),
    }
    if context is not None:
        predicate[RUN_MEMBER] = predicates.to_json(context)
    name, digest = (image.name, image.digest) if image else (LEDGER_NAME, Digest(head.hash))
    payload = make_statement(name, digest, predicates.LEDGER_HEAD, predicate)
    (envelope,) = author(signer).sign([parse_statement(payload)])
    return envelope


def attach_head(
    layout: Layout, image: ImageReference, envelope: dsse.Envelope, signer: AnySigner, clock: Clock
) -> None:
    """Attach a signed head to an image. Raises: like ``attachments.attach``."""
    attach(
        layout,
        layout.find(image.digest),
        image.name,
        [(envelope, predicates.LEDGER_HEAD)],
        author(signer).der,
        clock.now(),
    )


def keep(path: Path, envelope: dsse.Envelope) -> None:
    """Add a signed head to a file of heads, one a line, durably.

    Raises: Unavailable; ConfigError if the file cannot be read or is too large.
    """
    with locked(path.with_name(f"{path.name}.lock")):
        before = read_bounded(path, MAX_ANCHOR_BYTES) if path.exists() else b""
        write_atomic(path, before + envelope.raw + b"\n")


def heads_in_file(path: Path, keys: Sequence[PublicKey]) -> list[Checkpoint]:
    """Read a file of heads; every line must be one that a key has signed.

    Raises: ConfigError (cannot be read), VerificationFailed, Inconclusive if there is none.
    """
    data = read_bounded(path, MAX_ANCHOR_BYTES)
    found = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if line:
            where = f"{path}:{number}"
            found.append(_checked(dsse.parse_envelope(line, where), keys, where))
    if not found:
        raise Inconclusive("there is no head of a ledger", where=str(path))
    return found


def heads_beside(
    source: Source, image: Digest, keys: Sequence[PublicKey], keyless: Keyless = NO_IDENTITY
) -> list[Checkpoint]:
    """Read the heads beside an image; those that nobody known has signed are left out.

    Raises: VerificationFailed (malformed, or one that claims a known identity and proves none),
    Unavailable; Inconclusive over a limit, or if there is none.
    """
    where = f"{source.name}@{image}"
    found = []
    for item in collect(source, image):
        who = _signer_of(item, keys, keyless, where)
        statement = parse_statement(item.envelope.payload, where) if who else None
        if who and statement and statement.predicate_type == predicates.LEDGER_HEAD:
            statement.require_subject(image)
            found.append(_read(statement, who, where))
    if not found:
        raise Inconclusive(
            "no head of a ledger beside the image is signed by the key or identity", where=where
        )
    return found


def _signer_of(
    item: Attachment, keys: Sequence[PublicKey], keyless: Keyless, where: str
) -> str | None:
    """Id of the known key or identity that signed; None for anybody else's."""
    claim = keyless.claimed(item)
    if claim is None:
        return next((key.id for key in keys if key.signed(item.envelope)), None)
    certified = keyless.certify(item, where, claim)
    if isinstance(certified, Rule):
        raise VerificationFailed(certified.why)
    return claim.id


def _checked(envelope: dsse.Envelope, keys: Sequence[PublicKey], where: str) -> Checkpoint:
    """Check the signature first, then read. Raises: VerificationFailed."""
    key = next((key for key in keys if key.signed(envelope)), None)
    if key is None:
        raise VerificationFailed("the head is not signed by the key", where=where)
    return _read(parse_statement(envelope.payload, where), key.id, where)


def _read(statement: Statement, key: str, where: str) -> Checkpoint:
    statement.require_type(predicates.LEDGER_HEAD)
    predicate = statement.predicate
    origin, digest = (shape.member(predicate, name, str, where) for name in ("origin", "hash"))
    seq = shape.member(predicate, "seq", int, where)
    if not (_HASH.fullmatch(origin) and _HASH.fullmatch(digest) and 0 <= seq <= _MAX_SEQ):
        raise VerificationFailed("the head has no valid origin, seq and hash", where=where)
    taken = shape.timestamp(shape.member(predicate, "takenAt", str, where), where)
    return Checkpoint(Head(origin, seq, digest), taken, key, where)
