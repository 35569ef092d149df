"""How old keys and credentials of Vault may be when something is signed with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from secure_pipeline.documents import field
from secure_pipeline.errors import Inconclusive, PolicyDenied, VerificationFailed
from secure_pipeline.shape import rfc3339, timestamp

_FIRST_YEAR = 2000
"""Go's zero time and the epoch's are how programs write that they do not know."""
_THIRTY_DAYS = timedelta(days=30)


@dataclass(frozen=True)
class RotationRule:
    """Ages over which nothing is signed; an age that is not known is no age."""

    key: timedelta = field(
        "Age of the version of a key in Vault that is in use.", default=_THIRTY_DAYS
    )
    secret_id: timedelta = field(
        "Age of the secret-id of an AppRole that logs in.", default=_THIRTY_DAYS
    )
    token: timedelta = field(
        "Age of the Vault token, or of the one it was made from.", default=_THIRTY_DAYS
    )

    def __post_init__(self) -> None:
        for name in ("key", "secret_id", "token"):
            if getattr(self, name) <= timedelta(0):
                raise ValueError(f"{name.replace('_', '-')} must be more than nothing")

    def limit(self, kind: str) -> timedelta:
        """The limit of 'key', 'secret-id' or 'token'."""
        found: timedelta = getattr(self, kind.replace("-", "_"))
        return found


@dataclass(frozen=True)
class Issued:
    """Something that ages."""

    kind: str
    """'key', 'secret-id' or 'token'."""
    name: str
    """For messages: ``version 3 of vault-transit://transit/release``."""
    created: datetime | None
    """UTC; None if it is not known, or not told in a way that can be read."""


@dataclass(frozen=True)
class Age:
    """How old something is; never negative."""

    issued: Issued
    created: datetime
    age: timedelta
    limit: timedelta

    @property
    def due(self) -> datetime:
        """When it has to be replaced at the latest, UTC."""
        return self.created + self.limit

    @property
    def over(self) -> bool:
        """Whether that time has passed."""
        return self.age > self.limit


def read_moment(value: object) -> datetime | None:
    """Read a creation time as Vault writes it, RFC 3339 text or seconds since 1970; else None."""
    if isinstance(value, str):
        try:
            found = timestamp(value, "time")
        except (VerificationFailed, OverflowError):
            return None
    elif isinstance(value, int) and not isinstance(value, bool):
        try:
            found = datetime.fromtimestamp(value, UTC)
        except (ValueError, OverflowError, OSError):
            return None
    else:
        return None
    return found if found.year >= _FIRST_YEAR else None


def age_of(issued: Issued, rule: RotationRule, now: datetime, skew: timedelta) -> Age:
    """Measure an age by our own clock; up to ``skew`` in the future counts as new.

    Raises: Inconclusive if it is not known when it was made, or that lies in the future.
    """
    created = issued.created
    if created is None:
        raise Inconclusive(
            f"it is not known when {issued.name} was made",
            hint="Vault must tell its creation time; secure-pipeline keys status shows what it "
            "tells",
        )
    if created > now + skew:
        raise Inconclusive(
            f"{issued.name} was made at {rfc3339(created)}, which is in the future",
            hint=f"compare this machine's clock ({rfc3339(now)}) with Vault's",
        )
    age = max(now - created, timedelta(0))
    return Age(issued, created, age, rule.limit(issued.kind))


def check_ages(
    things: Sequence[Issued], rule: RotationRule, now: datetime, skew: timedelta
) -> tuple[Age, ...]:
    """Measure everything that is about to be used.

    Raises: PolicyDenied for one that is too old, Inconclusive for one of unknown age.
    """
    ages = tuple(age_of(item, rule, now, skew) for item in things)
    for item in ages:
        if item.over:
            kind = item.issued.kind
            raise PolicyDenied(
                f"{item.issued.name} is {days(item.age)} old; the policy allows "
                f"{days(item.limit)} (rotation.{kind})",
                hint=_HINTS[kind],
            )
    return ages


_HINTS = {
    "key": "secure-pipeline keys rotate KEY",
    "secret-id": "make a new wrapped secret-id of the role",
    "token": "log in to Vault again",
}


def days(span: timedelta) -> str:
    """Write a span as people say it, rounded down: ``31 days``, ``5 hours``, ``40 seconds``."""
    seconds = int(span.total_seconds())
    units = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
    size, unit = next((pair for pair in units if seconds >= 2 * pair[0]), units[-1])
    count = seconds // size
    return f"{count} {unit}{'' if count == 1 else 's'}"
