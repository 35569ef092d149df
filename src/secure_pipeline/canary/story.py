"""What happened in a promotion: moments as they pass, and the whole once it is over.

Views, reports and the signed predicate are made from these and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from fractions import Fraction

from secure_pipeline.canary.model import Look
from secure_pipeline.canary.target import LoadedTarget
from secure_pipeline.oci.reference import ImageReference


def percent(share: Fraction) -> str:
    """A share as a line for people writes it: ``0.5 %``."""
    return f"{float(share) * 100:g} %"


class Phase(Enum):
    """Where a promotion is."""

    WATCHING = "watching"
    """In a step: traffic was moved, or is about to be, and the canary is watched."""
    PROMOTING = "promoting"
    """All steps are passed; all traffic is being moved."""
    ABORTING = "aborting"
    """Nothing matters but that the canary gets no traffic."""
    PROMOTED = "promoted"
    ABORTED = "aborted"

    @property
    def over(self) -> bool:
        """Whether nothing follows."""
        return self in (Phase.PROMOTED, Phase.ABORTED)


@dataclass(frozen=True)
class Moment:
    """The promotion at one time; one is told at each look and at each change."""

    time: datetime
    phase: Phase
    step: int
    """Of ``steps``, from 1."""
    steps: int
    intended: Fraction
    """Greatest share that the canary should have now, 0 to 1."""
    routed: Fraction | None
    """Share that was read back; None if the router gave no answer."""
    elapsed: float
    """Seconds in this step."""
    deadline: float
    """Seconds after which the step aborts."""
    healthy_in_a_row: int
    needed: int
    look: Look | None
    """The look, if this moment is one."""
    note: str
    """What changed, in one line; '' if nothing did."""


@dataclass(frozen=True)
class StepRecord:
    """One step as it went."""

    share: Fraction
    started: datetime
    finished: datetime
    looks: int
    healthy: int
    """Looks among them that were healthy."""
    outcome: str
    """'passed', 'aborted' or 'interrupted' (the program ended, and began it anew)."""


@dataclass(frozen=True)
class Ending:
    """Why a promotion ended as it did."""

    cause: str
    """A rule's name, or 'passed', 'deadline', 'no-data', 'routing', 'identity', 'interrupted',
    'restarted' (found unfinished, and rolled back), 'asked' (``--abort``)."""
    why: str
    """One line for people."""


@dataclass(frozen=True)
class PromotionRecord:
    """A promotion that is over."""

    id: str
    target: LoadedTarget
    image: ImageReference
    canary: str
    """Slot of the image."""
    baseline: str
    """The other slot."""
    baseline_image: str | None
    """What runs there, ``NAME@sha256:…`` or a bare digest, as far as it is known."""
    started: datetime
    finished: datetime
    phase: Phase
    """PROMOTED or ABORTED."""
    ending: Ending
    steps: tuple[StepRecord, ...]
    looks: tuple[Look, ...]
    """All looks, oldest first."""
    baseline_healthy: bool | None
    """What the baseline's health address said when traffic went back to it; None if not asked."""
    resumed: int = 0
    """Times that the program ended and went on."""

    def __post_init__(self) -> None:
        if not self.phase.over:
            raise ValueError(f"a promotion that is {self.phase.value} is not over")
