"""A router in memory that fails as it is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from fractions import Fraction

from secure_pipeline.errors import Unavailable
from secure_pipeline.ports import Routing


class Fault(Enum):
    """What goes wrong at one call. A ``read`` raises at each of them."""

    FAIL = "fail"
    """Nothing happens, and it raises."""
    HALF = "half"
    """``set`` gets half way from the old share to the new one, and raises."""
    APPLY = "apply"
    """``set`` does all that was asked, and raises."""
    LOSE = "lose"
    """``set`` does nothing, and says nothing."""


class FakeRouter:
    """Two slots. Each call, ``set`` or ``read``, takes the next of ``faults``, if there is one.

    A fault is None (this call goes well), a Fault, or a function of the router that is called
    before the call does its work: it may change ``share`` or ``down``, or raise.
    """

    def __init__(
        self,
        slots: tuple[str, str] = ("blue", "green"),
        at: Mapping[str, Fraction] | None = None,
    ) -> None:
        """``at``: the shares to begin with; by default the first slot has everything."""
        first, second = slots
        self.share: dict[str, Fraction] = dict(at or {first: Fraction(1), second: Fraction(0)})
        """Slot to its weight as a share of the sum."""
        self.history: list[tuple[str, Fraction]] = []
        """(canary, share) of every ``set``, whatever became of it."""
        self.faults: deque[Fault | Callable[[FakeRouter], None] | None] = deque()
        self.down: set[str] = set()
        """Slots that the router holds for down: another one with any weight gets everything."""

    def set(self, canary: str, share: Fraction) -> None:
        if canary not in self.share or not 0 <= share <= 1:
            raise ValueError(f"a share of {share} for {canary}")
        self.history.append((canary, share))
        fault = self._fault()
        if fault is Fault.LOSE:
            return
        if fault is Fault.FAIL:
            raise Unavailable("told to fail")
        if share and canary in self.down:
            raise Unavailable("the canary cannot take traffic: it is down")
        if 0 < share < 1 and self.down:
            raise Unavailable("the canary would get more: the other slot is down")
        self.put(canary, (self.share[canary] + share) / 2 if fault is Fault.HALF else share)
        if fault is not None:
            raise Unavailable(f"told to {fault.value}")

    def read(self) -> Routing:
        if self._fault() not in (None, Fault.LOSE):
            raise Unavailable("told not to answer")
        shares = {
            slot: Fraction(1) if share and self.down - {slot} else share
            for slot, share in self.share.items()
        }
        words = [f"{slot} {share}{' DOWN' * (slot in self.down)}" for slot, share in shares.items()]
        return Routing(shares, ", ".join(words))

    def put(self, slot: str, share: Fraction) -> None:
        """Change the weights from elsewhere, past ``faults`` and ``history``."""
        (other,) = (name for name in self.share if name != slot)
        self.share = {slot: share, other: 1 - share}

    def _fault(self) -> Fault | None:
        fault = self.faults.popleft() if self.faults else None
        if fault is None or isinstance(fault, Fault):
            return fault
        fault(self)
        return None
