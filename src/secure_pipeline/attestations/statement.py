"""in-toto statements. Written as v1; v0.1 is read too, because cosign still writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secure_pipeline import shape
from secure_pipeline.attestations.predicates import SIGN
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.oci.digest import Digest

STATEMENT_V1 = "https://in-toto.io/Statement/v1"
STATEMENT_V01 = "https://in-toto.io/Statement/v0.1"
MAX_PAYLOAD_BYTES = 48 << 20
MAX_SUBJECTS = 1000


@dataclass(frozen=True)
class Subject:
    """What a statement is about."""

    name: str
    digests: Mapping[str, str]
    """Algorithm to value; ``sha256`` is checked, others are left alone."""


@dataclass(frozen=True)
class Statement:
    """A parsed statement; ``payload`` is what was signed, never written anew."""

    predicate_type: str
    predicate: Mapping[str, Any]
    subjects: tuple[Subject, ...]
    payload: bytes

    def require_subject(self, digest: Digest) -> None:
        """Check that exactly this image is the subject (SIG-04).

        Raises: VerificationFailed naming expected and found digests.
        """
        found = [item.digests.get("sha256") for item in self.subjects]
        if found != [digest.hex]:
            names = ", ".join(f"sha256:{item}" if item else "no sha256" for item in found[:3])
            raise VerificationFailed(
                f"expected exactly the subject {digest}, found {names}", where=self.predicate_type
            )

    def require_among(self, digest: Digest) -> None:
        """Check that this image is one of the subjects: in-toto's rule, for others' statements.

        Raises: VerificationFailed naming expected and found digests (SIG-04).
        """
        found = [item.digests.get("sha256") for item in self.subjects]
        if digest.hex not in found:
            names = ", ".join(f"sha256:{item}" if item else "no sha256" for item in found[:3])
            raise VerificationFailed(
                f"expected the subject {digest}, found {names}", where=self.predicate_type
            )

    def require_type(self, predicate_type: str) -> None:
        """Check the predicate type, by exact match and without a default (SIG-03).

        Raises: VerificationFailed.
        """
        if self.predicate_type != predicate_type:
            raise VerificationFailed(
                f"expected predicate type {predicate_type!r}, found {self.predicate_type[:120]!r}"
            )


def make_statement(
    subject_name: str, digest: Digest, predicate_type: str, predicate: Mapping[str, Any]
) -> bytes:
    """Write a v1 statement about one image; equal inputs give equal bytes."""
    document = {
        "_type": STATEMENT_V1,
        "subject": [{"name": subject_name, "digest": {"sha256": digest.hex}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }
    text = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def parse_statement(payload: bytes, where: str = "statement") -> Statement:
    """Parse a payload whose signature was checked.

    Raises: VerificationFailed: unknown type (SIG-03), no subject or predicate, duplicate
    members (SIG-05), trailing bytes, NaN, deep nesting (SIG-07).
    """
    value = shape.parse_object(payload, where, limit=MAX_PAYLOAD_BYTES)
    kind = shape.member(value, "_type", str, where)
    if kind not in (STATEMENT_V1, STATEMENT_V01):
        raise VerificationFailed(f"_type {kind[:80]!r} is not an in-toto statement", where=where)
    subjects = shape.objects(value, "subject", where, limit=MAX_SUBJECTS)
    if not subjects:
        raise VerificationFailed("no subject", where=where)
    predicate_type = shape.member(value, "predicateType", str, where)
    if not predicate_type:
        raise VerificationFailed("predicateType is empty", where=where)
    if predicate_type == SIGN and value.get("predicate") is None:
        value["predicate"] = {}  # unset means empty (in-toto v1); cosign 2 leaves it out
    return Statement(
        predicate_type=predicate_type,
        predicate=shape.member(value, "predicate", dict, where),
        subjects=tuple(_subject(item, where) for item in subjects),
        payload=payload,
    )


def _subject(value: Mapping[str, Any], where: str) -> Subject:
    digests = shape.texts(value, "digest", where)
    if not digests:
        raise VerificationFailed("a subject has no digest", where=where)
    if "sha256" in digests:
        Digest(digests["sha256"])
    return Subject(shape.optional(value, "name", str, where) or "", digests)
