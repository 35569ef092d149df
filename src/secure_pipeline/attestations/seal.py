"""The seal: a last statement that lists every other one of its run.

From then on a removed, added or swapped statement shows, and so does a set that was cut
short: without a seal there is no evidence set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from secure_pipeline import shape
from secure_pipeline.attestations import merkle, predicates
from secure_pipeline.attestations.predicates import RunContext
from secure_pipeline.attestations.statement import Statement, parse_statement
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.oci.digest import Digest

MAX_STATEMENTS = 1000


@dataclass(frozen=True, order=True)
class SealedStatement:
    """One line of a seal."""

    predicate_type: str
    digest: Digest
    """Of the statement's payload."""


@dataclass(frozen=True)
class Seal:
    """A parsed seal; statements are sorted and unique."""

    context: RunContext
    required: tuple[str, ...]
    statements: tuple[SealedStatement, ...]
    tree_size: int
    root: str
    """Lower-case hex."""
    sealed_at: datetime


def make_seal(
    payloads: Sequence[bytes], required: Iterable[str], context: RunContext, now: datetime
) -> dict[str, Any]:
    """Return the predicate of a seal over statement payloads, in whatever order they come.

    Raises: VerificationFailed if a payload is not of this run, occurs twice, or a required
    type is missing: what would not verify is not sealed.
    """
    return seal_over([parse_statement(payload) for payload in payloads], required, context, now)


def seal_over(
    statements: Sequence[Statement], required: Iterable[str], context: RunContext, now: datetime
) -> dict[str, Any]:
    """Do what ``make_seal`` does, for statements that are parsed already."""
    lines = sorted(map(_line, statements))
    predicate = {
        predicates.RUN_MEMBER: predicates.to_json(context),
        "requiredPredicateTypes": sorted(set(required)),
        "statements": [
            {"predicateType": line.predicate_type, "digest": {"sha256": line.digest.hex}}
            for line in lines
        ],
        "merkle": {
            "algorithm": merkle.ALGORITHM,
            "treeSize": len(lines),
            "root": merkle.root(leaves(lines)).hex(),
        },
        "sealedAt": shape.rfc3339(now),
    }
    _check(parse_seal(predicate), statements)
    return predicate


def leaves(lines: Sequence[SealedStatement]) -> list[bytes]:
    """Return the tree's leaves: the 32 bytes of each payload's digest, in the seal's order."""
    return [bytes.fromhex(line.digest.hex) for line in lines]


def parse_seal(predicate: Mapping[str, Any]) -> Seal:
    """Parse a seal's predicate.

    Raises: VerificationFailed; also for an empty list or one that is not sorted and unique.
    """
    where = "seal"
    tree = shape.member(predicate, "merkle", dict, where)
    if shape.member(tree, "algorithm", str, where) != merkle.ALGORITHM:
        raise VerificationFailed(f"merkle algorithm is not {merkle.ALGORITHM}", where=where)
    lines = tuple(
        SealedStatement(
            shape.member(item, "predicateType", str, where),
            Digest(shape.texts(item, "digest", where).get("sha256", "")),
        )
        for item in shape.objects(predicate, "statements", where, limit=MAX_STATEMENTS)
    )
    if not lines or list(lines) != sorted(set(lines)):
        raise VerificationFailed("statements are empty, or not sorted and unique", where=where)
    required = shape.member(predicate, "requiredPredicateTypes", list, where)
    if any(not isinstance(item, str) or not item for item in required):
        raise VerificationFailed("requiredPredicateTypes holds no type", where=where)
    return Seal(
        context=predicates.read_run(predicates.SEAL, predicate),
        required=tuple(required),
        statements=lines,
        tree_size=shape.member(tree, "treeSize", int, where),
        root=shape.member(tree, "root", str, where),
        sealed_at=shape.timestamp(shape.member(predicate, "sealedAt", str, where), where),
    )


def check_seal(seal_statement: Statement, statements: Sequence[Statement]) -> None:
    """Check a seal against all statements found whose signatures were checked.

    Statements of other runs may be among them and are left alone, as are those of the types
    in ``predicates.AFTER_SEAL``, which a run adds once it is sealed.
    Raises: VerificationFailed saying what was removed, added or mixed in.
    """
    seal_statement.require_type(predicates.SEAL)
    seal = parse_seal(seal_statement.predicate)
    _check(seal, [item for item in statements if _counts(item, seal)])


def _check(seal: Seal, statements: Sequence[Statement]) -> None:
    found = {_line(item): item for item in statements}
    # (1) none removed: every sealed statement is there
    for line in seal.statements:
        if line not in found:
            raise VerificationFailed(
                f"sealed statement {line.digest} ({line.predicate_type}) is missing", where="seal"
            )
    # (2) none added: the run has no statement that is not sealed
    for line in found:
        if line not in seal.statements:
            raise VerificationFailed(
                f"statement {line.digest} ({line.predicate_type}) is not sealed", where="seal"
            )
    # (3) none mixed in: every sealed statement belongs to the seal's run
    for line, statement in found.items():
        if predicates.read_run(statement.predicate_type, statement.predicate) != seal.context:
            raise VerificationFailed(
                f"statement {line.digest} ({line.predicate_type}) is of another run", where="seal"
            )
    # (4) the tree over them has the sealed size and root
    root = merkle.root(leaves(seal.statements)).hex()
    if (seal.tree_size, seal.root) != (len(seal.statements), root):
        raise VerificationFailed(
            f"expected Merkle root {root} of {len(seal.statements)}, "
            f"found {seal.root[:64]} of {seal.tree_size}",
            where="seal",
        )
    # (5) every type that the run promised is among them
    missing = sorted(set(seal.required) - {line.predicate_type for line in seal.statements})
    if missing:
        raise VerificationFailed(f"required {missing[0]} is not sealed", where="seal")


def _line(statement: Statement) -> SealedStatement:
    return SealedStatement(statement.predicate_type, Digest.of(statement.payload))


def _counts(statement: Statement, seal: Seal) -> bool:
    """Tell whether a seal must account for a statement."""
    if _line(statement) in seal.statements:
        return True
    if statement.predicate_type in predicates.AFTER_SEAL:
        return False
    try:
        run = predicates.read_run(statement.predicate_type, statement.predicate)
    except VerificationFailed:
        return False  # belongs to no run of ours: what needs it will refuse it (SIG-09)
    return run.run_id == seal.context.run_id
