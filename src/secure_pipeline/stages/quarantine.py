"""``quarantine``: statements that an image must not serve, or that it may again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from secure_pipeline.attestations import dsse, predicates
from secure_pipeline.attestations.author import author
from secure_pipeline.attestations.predicates import QUARANTINE, RELEASE, RunContext
from secure_pipeline.attestations.quarantine import (
    ASKED,
    quarantine_predicate,
    release_predicate,
)
from secure_pipeline.attestations.statement import make_statement, parse_statement
from secure_pipeline.errors import ExitCode, PolicyDenied, UsageError, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.decision import Decision, Rule
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.policy.quarantine import Standing, standings
from secure_pipeline.policy.trust import trusted_signers
from secure_pipeline.ports import AnySigner
from secure_pipeline.stages.result import Evidence
from secure_pipeline.stages.verify import VerifyInputs, check_evidence

STAGE = "quarantine"
_READING = ("policy", "attachments", "signature", "statement", "subject")
"""Rules about whether the evidence can be read at all."""


@dataclass(frozen=True)
class Found:
    """What the statements beside one image say about its quarantine."""

    standings: tuple[Standing, ...]
    """Open ones first."""
    unread: tuple[Rule, ...]
    """Why there may be more than could be read; empty if there is not."""
    run: RunContext | None
    """The run that is sealed for the image."""

    @property
    def open(self) -> tuple[Standing, ...]:
        """Those that keep the image out."""
        return tuple(one for one in self.standings if one.open)

    @property
    def code(self) -> ExitCode:
        """DENIED if one is open; PASS only if everything could be read."""
        if self.open:
            return ExitCode.DENIED
        return Decision(self.unread).code if self.unread else ExitCode.PASS


def look(inputs: VerifyInputs, now: datetime) -> Found:
    """Read what is said about an image's quarantine, as ``verify`` would.

    Raises: ConfigError (a key of the policy), Unavailable.
    """
    answer = check_evidence(inputs, trusted_signers(inputs.policy, inputs.operator_keys), now)
    objections = answer.decision.objections
    unread = tuple(rule for rule in objections if rule.id in _READING)
    if not answer.used and not unread:
        unread = objections
    return Found(standings(inputs.policy.policy.quarantine, answer.used), unread, answer.run)


def added(reason: str, by: str, now: datetime) -> Evidence:
    """A quarantine that somebody asks for. Raises: UsageError for a reason that is no line."""
    return _evidence(QUARANTINE, lambda: quarantine_predicate(reason, ASKED, None, None, by, now))


def released(
    found: Found, named: Sequence[str], reason: str, by: str, now: datetime
) -> tuple[Evidence, tuple[Digest, ...]]:
    """A release of the named statements, or of all that are open; and which those are.

    Raises: UsageError if nothing is open, one that is named is not, or the reason is no line.
    """
    still = [one.item.digest for one in found.open]
    if not still:
        why = f"; {found.unread[0].why}" if found.unread else ""
        raise UsageError(
            f"no quarantine of this image is open{why}", hint="secure-pipeline quarantine list"
        )
    unknown = next((digest for digest in named if digest not in still), None)
    if unknown is not None:
        raise UsageError(
            f"{unknown[:100]!r} is no open quarantine", hint=f"one of {', '.join(still[:3])}"
        )
    ended = tuple(Digest.parse(digest) for digest in named or still)
    made = _evidence(RELEASE, lambda: release_predicate(ended, reason, by, now))
    return made, ended


def check_key(policy: LoadedPolicy, public_key: bytes, kind: str, now: datetime) -> str:
    """Return the policy's id of a key (DER) that may sign a statement of this kind now.

    Raises: PolicyDenied if verification would not count what it signs.
    """
    signer = next((one for one in trusted_signers(policy) if one.key.der == public_key), None)
    where, rule = str(policy.source), policy.policy.quarantine
    if signer is None:
        raise PolicyDenied(
            "the key is none of the policy's keys, so nothing that it signs would count",
            where=where,
            hint="secure-pipeline keys show KEY, and put it into the policy",
        )
    member, keys = (
        ("keys", rule.keys) if kind == QUARANTINE else ("release-keys", rule.release_keys)
    )
    if keys is not None and signer.id not in keys:
        raise PolicyDenied(
            f"key '{signer.id}' is not among quarantine.{member}: {', '.join(keys)}", where=where
        )
    if kind == RELEASE and not signer.trusted_at(now):
        raise PolicyDenied(f"today is outside the window of key '{signer.id}'", where=where)
    return signer.id


def check_effect(found: Found, ended: Sequence[Digest], made: Digest | None) -> None:
    """Check that what was signed counts now: these are not open any more, and this one is.

    Raises: VerificationFailed.
    """
    still = {one.item.digest for one in found.open}
    left = [str(digest) for digest in ended if str(digest) in still]
    if left or (made is not None and str(made) not in still):
        what = f"quarantine {left[0]} is still open" if left else f"{made} is not open"
        raise VerificationFailed(f"signed and attached, but {what}", where=STAGE)


def signed_statements(
    image: ImageReference, items: Sequence[Evidence], context: RunContext | None, signer: AnySigner
) -> list[dsse.Envelope]:
    """Sign one statement per predicate about an image, bound to its sealed run if there is one.

    The digest that other statements name one by is ``Digest.of(envelope.payload)``.
    Raises: like ``Author.sign``.
    """
    payloads = []
    for item in items:
        predicate = predicates.bind(item, context) if context else item.predicate
        payloads.append(make_statement(image.name, image.digest, item.predicate_type, predicate))
    return author(signer).sign([parse_statement(payload) for payload in payloads])


def _evidence(kind: str, make: Callable[[], dict[str, Any]]) -> Evidence:
    try:
        return Evidence(kind, make())
    except VerificationFailed as error:
        raise UsageError(error.message, hint="--reason takes one line that says why") from None
