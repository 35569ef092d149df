"""What a canary promotion needs: a router that splits traffic, and metrics of both versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol


@dataclass(frozen=True)
class Routing:
    """What is in force at a router now, read back from it and never remembered."""

    shares: Mapping[str, Fraction]
    """Slot to the greatest share of new requests, 0 to 1, that it gets in the router's present
    state. A slot gets the share of another that the router holds for down; where parts of the
    router differ (processes, rules), the greatest one counts. So they may add up to more than 1."""
    detail: str
    """The weights and states in the router's own words, one line."""


class Router(Protocol):
    """Splits requests between the two slots of a target."""

    def set(self, canary: str, share: Fraction) -> None:
        """Ask for ``share`` (0 to 1) of new requests to slot ``canary``, the rest to the other.

        Where the router cannot express the share, the next smaller one that it can; 0 and 1 are
        exact. Repeating does no harm. Raises: Unavailable; it may have taken effect all the
        same, wholly or in part, so ``read`` alone tells.
        """

    def read(self) -> Routing:
        """Read what is in force. Raises: Unavailable (no answer, or one that tells nothing)."""


@dataclass(frozen=True)
class Series:
    """One series of a metric: exactly the samples that were scraped, oldest first."""

    labels: Mapping[str, str]
    """With ``__name__``."""
    samples: tuple[tuple[float, float], ...]
    """(time of the scrape, value). Times are seconds since 1970 by the metrics service's clock."""


@dataclass(frozen=True)
class Alert:
    """An alert that fires now."""

    name: str
    labels: Mapping[str, str]


class Metrics(Protocol):
    """A service that scrapes both versions. Every call has a deadline of its own."""

    def clock(self) -> float:
        """The service's present time, seconds since 1970. Raises: Unavailable, Inconclusive."""

    def samples(self, selector: str, seconds: float) -> tuple[Series, ...]:
        """Return the raw samples of the last ``seconds`` of all series of a selector.

        Values may be NaN or infinite. Empty if there are none. Raises: Unavailable (no answer,
        refused), Inconclusive (warnings, a partial or malformed answer, too many series).
        """

    def value(self, query: str) -> float | None:
        """Evaluate an expression now; None if its result is empty.

        Raises: Unavailable; Inconclusive (NaN or infinite, more than one sample, warnings, an
        expression that is refused).
        """

    def alerts(self, names: Sequence[str]) -> tuple[Alert, ...]:
        """Return those of the named alerts that fire now.

        Raises: Unavailable; Inconclusive if a name is no alerting rule, or its rule was not
        evaluated lately or fails: then silence would mean nothing.
        """
