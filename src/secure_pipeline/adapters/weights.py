"""Whole weights for a share of requests, as routers want them."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction


def split(share: Fraction, most: int) -> tuple[int, int]:
    """The canary's weight and the baseline's, from 0 to ``most`` (at least 100) each.

    Canary over sum is the greatest quotient that such weights can make and that is not over
    ``share``; among equal ones the pair that reads as per cent, else the smallest.
    Raises: ValueError for a share that is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share of {share}")
    if share == 1:
        return 100, 0
    wanted, of = share.numerator, share.denominator
    best = (0, 100)
    for baseline in range(1, most + 1):
        canary = min(most, wanted * baseline // (of - wanted))
        if canary * best[1] > best[0] * baseline:
            best = (canary, baseline)
    percent = Fraction(100 * best[0], sum(best))
    return (int(percent), 100 - int(percent)) if percent.denominator == 1 else best


def shares(
    weights: Mapping[str, int], counted: Mapping[str, int] | None = None
) -> dict[str, Fraction]:
    """Two slots to the greatest share that their weights allow.

    ``counted``: what each weighs for the other one, less or nothing while it is not up.
    A slot's own state never counts in its favour: it may be up in a second.
    """
    found = {}
    for slot, weight in weights.items():
        others = sum(w for name, w in (counted or weights).items() if name != slot)
        found[slot] = Fraction(weight, weight + others) if weight else Fraction(0)
    return found
