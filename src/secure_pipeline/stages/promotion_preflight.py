"""What has to hold before the first request goes to the canary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from secure_pipeline.canary.controller import Identity
from secure_pipeline.canary.story import percent
from secure_pipeline.errors import Inconclusive, PolicyDenied, UsageError, VerificationFailed
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.ports import Router
from secure_pipeline.stages.promotion_journal import KnownGood, Quarantined


@dataclass(frozen=True)
class Roles:
    """Which slot plays which part."""

    canary: str
    baseline: str


def roles(router: Router, slots: Mapping[str, object]) -> Roles:
    """The slot with all traffic is the baseline.

    Raises: Inconclusive if traffic is split: somebody else is moving it, or left it so;
    Unavailable.
    """
    routing = router.read()
    full = [slot for slot in slots if routing.shares.get(slot) == 1]
    empty = [slot for slot in slots if routing.shares.get(slot) == 0]
    if len(full) == len(empty) == 1:
        return Roles(empty[0], full[0])
    shares = {slot: routing.shares.get(slot, Fraction(0)) for slot in slots}
    words = ", ".join(f"{slot} {percent(share)}" for slot, share in sorted(shares.items()))
    raise Inconclusive(
        f"no slot has all the traffic and the other none: {words} ({routing.detail})",
        hint="give the version that is known to be good all traffic, then promote",
    )


@dataclass(frozen=True)
class Checks:
    """How things are looked at; slots by name."""

    identify: Callable[[str, ImageReference], Identity] | None
    """None if the target says that identities are not checked."""
    healthy: Callable[[str], bool | None]


def check_slots(
    roles: Roles, image: ImageReference, good: KnownGood | None, checks: Checks
) -> None:
    """Check identities and health of both slots.

    ``good``: None where the baseline is taken as it is.
    Raises: VerificationFailed (the canary's slot runs another image), PolicyDenied (the
    baseline's is not the last known good one), UsageError (the image is the baseline already),
    Inconclusive (cannot be told, or not healthy).
    """
    # (1) the canary's slot runs what was verified (CAN-15)
    if checks.identify is not None:
        _require(checks.identify(roles.canary, image), roles.canary, image)
        if checks.identify(roles.baseline, image).same:
            raise _already(roles, image)
    # (2) the baseline's runs what was promoted last
    if good is not None:
        _check_known_good(roles, good, checks)
        if ImageReference.parse(good.image).digest == image.digest:
            raise _already(roles, image)
    # (3) both can serve
    for slot in (roles.baseline, roles.canary):
        if checks.healthy(slot) is False:
            raise Inconclusive(f"slot {slot} is not healthy", hint="see its health address")


def _already(roles: Roles, image: ImageReference) -> UsageError:
    return UsageError(
        f"slot {roles.baseline} has all traffic and runs {image.digest} already",
        hint="deploy another version to the other slot and promote that",
    )


def _check_known_good(roles: Roles, good: KnownGood, checks: Checks) -> None:
    hint = "look who changed it; --accept-baseline takes it as it is"
    if good.slot != roles.baseline:
        raise PolicyDenied(
            f"slot {roles.baseline} has all traffic, the last known good {good.image} was "
            f"promoted in slot {good.slot}",
            hint=hint,
        )
    if checks.identify is None:
        return
    known = checks.identify(roles.baseline, ImageReference.parse(good.image))
    if known.same is False:
        raise PolicyDenied(
            f"slot {roles.baseline} does not run the last known good {good.image}: {known.why}",
            hint=hint,
        )
    if known.same is None:
        raise Inconclusive(f"slot {roles.baseline}: {known.why}", hint=hint)


def check_metrics(problems: Sequence[str]) -> None:
    """Raises: Inconclusive with every problem that the sampler found, if there is any."""
    if problems:
        raise Inconclusive(
            f"the metrics cannot carry a verdict: {'; '.join(problems)[:2000]}",
            hint="see the target's prometheus, metrics and rules",
        )


def check_memory(image: ImageReference, quarantined: Mapping[str, Quarantined]) -> None:
    """Refuse what was rolled back here and is not signed into quarantine yet.

    Raises: PolicyDenied.
    """
    entry = quarantined.get(str(image.digest))
    if entry is not None:
        raise PolicyDenied(
            f"rolled back here at {entry.time:%Y-%m-%d %H:%M} UTC: {entry.why}",
            where=entry.image,
            hint=f"sign that first: secure-pipeline promote --abort --to {entry.target}",
        )


def _require(identity: Identity, slot: str, image: ImageReference) -> None:
    if identity.same is True:
        return
    kind = VerificationFailed if identity.same is False else Inconclusive
    raise kind(
        f"slot {slot} is not shown to run {image.digest}: {identity.why}",
        hint=f"deploy {image} to slot {slot} first",
    )
