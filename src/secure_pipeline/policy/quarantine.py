"""Quarantine: an image that failed stays out until somebody who may says otherwise.

Only a release that names a quarantine statement ends it; times decide nothing, as whoever holds a
key can write any. A statement that cannot be read keeps the image out all the same. A key that is
out of its window may still keep an image out, but never lets one in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secure_pipeline.attestations.predicates import QUARANTINE, RELEASE
from secure_pipeline.attestations.quarantine import (
    Quarantine,
    Release,
    read_quarantine,
    read_release,
)
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.decision import Rule, allow, forbid
from secure_pipeline.policy.document import QuarantineRule
from secure_pipeline.policy.evidence import Item
from secure_pipeline.policy.required import may_sign
from secure_pipeline.shape import rfc3339

RULE = "quarantine"


@dataclass(frozen=True)
class ReleasedBy:
    """A release that counts."""

    item: Item
    release: Release


@dataclass(frozen=True)
class Standing:
    """One quarantine statement that counts, and whether it was released."""

    item: Item
    quarantine: Quarantine | None
    """None if it is malformed."""
    problem: str
    """Why it is malformed; '' if it is not."""
    releases: tuple[ReleasedBy, ...]

    @property
    def open(self) -> bool:
        """Whether it still keeps the image out."""
        return not self.releases

    @property
    def why(self) -> str:
        """What, why, where, when and by which statement, in a line."""
        if self.quarantine is None:
            return f"a malformed statement ({self.problem}): {self.item.digest}"
        said = self.quarantine
        where = f" at target {said.target}" if said.target else ""
        return f"{said.cause}: {said.reason} ({rfc3339(said.time)}{where}; {self.item.digest})"


def standings(rule: QuarantineRule, items: Sequence[Item]) -> tuple[Standing, ...]:
    """What authentic statements about one image say about its quarantine, open ones first."""
    releases = [one for item in items if (one := _release(rule, item))]
    found = [
        _standing(item, releases)
        for item in items
        if item.type == QUARANTINE and may_quarantine(rule, item.everyone)
    ]
    return tuple(sorted(found, key=lambda one: not one.open))


def may_quarantine(rule: QuarantineRule, signers: frozenset[str]) -> bool:
    """Tell whether one of these keys and identities may put an image into quarantine."""
    return rule.keys is None or bool(signers & {*rule.keys})


def quarantine_rule(rule: QuarantineRule, image: ImageReference, items: Sequence[Item]) -> Rule:
    """Forbid while a quarantine statement is open."""
    found = standings(rule, items)
    still = [one for one in found if one.open]
    if still:
        more = f" (and {len(still) - 1} more)" if len(still) > 1 else ""
        return forbid(
            RULE,
            f"in quarantine, {still[0].why}{more}",
            tuple(one.item.digest for one in still),
            hint=f"secure-pipeline quarantine release {image} --reason … --key KEY",
        )
    ended = tuple(dict.fromkeys(item for one in found for item in _digests(one)))
    return allow(RULE, f"{len(found)} quarantines of this image, {len(found)} released", ended)


def _standing(item: Item, releases: Sequence[ReleasedBy]) -> Standing:
    matching = tuple(
        one for one in releases if item.digest in {str(d) for d in one.release.statements}
    )
    try:
        return Standing(item, read_quarantine(item.statement.predicate), "", matching)
    except VerificationFailed as error:
        return Standing(item, None, error.message, matching)


def _release(rule: QuarantineRule, item: Item) -> ReleasedBy | None:
    if item.type != RELEASE or item.lapsed or not may_sign(item, rule.release_keys):
        return None
    try:
        return ReleasedBy(item, read_release(item.statement.predicate))
    except VerificationFailed:
        return None


def _digests(one: Standing) -> tuple[str, ...]:
    return (one.item.digest, *(release.item.digest for release in one.releases))
