"""The promotion as a pure state machine: what was seen, in; what should be, out.

``advance`` takes no step on its own: the caller writes the state to disk, then makes the router
follow ``intended``, then sees again. So a program that is killed anywhere finds on disk what it
meant to do, and ``resumed`` can only hold, begin a full window, or go on aborting (CAN-09).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from secure_pipeline.canary.model import Health, Look
from secure_pipeline.canary.story import Ending, Phase, percent
from secure_pipeline.canary.target import Target

SETTLE_SECONDS = 300.0
"""For the last move, to 100 %, to be in force."""


@dataclass(frozen=True)
class PlannedStep:
    """One step in the units of the machine."""

    share: Fraction
    minimum: float
    """Seconds."""
    deadline: float
    """Seconds."""


@dataclass(frozen=True)
class Plan:
    """The way up."""

    steps: tuple[PlannedStep, ...]
    needed: int
    """Healthy looks in a row that each step needs."""

    def __post_init__(self) -> None:
        if not self.steps or self.needed < 1:
            raise ValueError("a plan has steps, and each needs healthy looks")

    @classmethod
    def of(cls, target: Target) -> Plan:
        """The plan that a target describes."""
        steps = (
            PlannedStep(
                Fraction(step.share), step.minimum.total_seconds(), step.deadline.total_seconds()
            )
            for step in target.steps
        )
        return cls(tuple(steps), target.analysis.healthy_looks)

    @property
    def deadline(self) -> float:
        """Seconds for all steps and the last move, however often the program ended meanwhile."""
        return sum(step.deadline for step in self.steps) + SETTLE_SECONDS


@dataclass(frozen=True)
class State:
    """What is on disk before the router hears of it."""

    phase: Phase
    step: int
    """Index of the step, from 0; of the last one while promoting."""
    intended: Fraction
    """Greatest share of the canary."""
    healthy: int = 0
    """Healthy looks in a row, in place."""
    elapsed: float = 0.0
    """Seconds in this step."""
    total: float = 0.0
    """Seconds since the first step began."""
    ending: Ending | None = None
    """Set when the end is decided."""
    last: Health = Health.NO_DATA
    """Of the latest look in this step."""


@dataclass(frozen=True)
class Identity:
    """Whether the canary's slot runs the image that is promoted; None if it cannot be told."""

    same: bool | None
    why: str


@dataclass(frozen=True)
class Observation:
    """A look, and what ran while it was taken."""

    look: Look
    identity: Identity


@dataclass(frozen=True)
class Seen:
    """Everything that was seen since the state before."""

    passed: float
    """Seconds; never negative, whatever the clock on the wall did."""
    share: Fraction | None
    """The canary's, read back just now; None if the router gave no answer."""
    observation: Observation | None = None
    """Taken since the present step's share is in place; None if there is no new one."""
    stop: Ending | None = None
    """Why somebody asks to abort."""

    def __post_init__(self) -> None:
        if not self.passed >= 0:
            raise ValueError(f"{self.passed} seconds passed")


def begun(plan: Plan) -> State:
    """The first step, before any traffic has moved."""
    return State(Phase.WATCHING, 0, plan.steps[0].share)


def in_place(plan: Plan, state: State, share: Fraction | None) -> bool:
    """Tell whether the router does what is intended: no more, and more than the step before."""
    if share is None:
        return False
    if state.phase is not Phase.WATCHING:
        return share == state.intended
    before = plan.steps[state.step - 1].share if state.step else Fraction(0)
    return before < share <= state.intended


def advance(plan: Plan, state: State, seen: Seen) -> State:
    """The next state. Total: every combination has one, and none but health leads upward."""
    # (1) what is over stays so; an abort ends only with the canary at 0
    if state.phase.over:
        return state
    if state.phase is Phase.ABORTING:
        return replace(state, phase=Phase.ABORTED) if seen.share == 0 else state
    state = replace(state, elapsed=state.elapsed + seen.passed, total=state.total + seen.passed)
    # (2) reasons to abort, in every phase (CAN-12, CAN-15, CAN-16)
    if seen.stop:
        return aborting(state, seen.stop)
    if seen.share is not None and seen.share > state.intended:
        why = f"{percent(seen.share)} of traffic at the canary, {percent(state.intended)} intended"
        return aborting(state, Ending("routing", why))
    if seen.observation:
        refused = _refusal(seen.observation)
        if refused:
            return aborting(state, refused)
    # (3) no decision in time is a decision (CAN-01, CAN-02, CAN-04)
    late = _late(plan, state)
    if late:
        return aborting(state, late)
    # (4) only conclusive health in place counts, and only in a row (CAN-06)
    state = _counted(plan, state, seen)
    return _upward(plan, state, seen.share)


def aborting(state: State, ending: Ending) -> State:
    """Intend nothing but that the canary gets no traffic."""
    return replace(state, phase=Phase.ABORTING, intended=Fraction(0), healthy=0, ending=ending)


def resumed(plan: Plan, state: State, downtime: float) -> State:
    """What the state on disk means to a program that was not there for ``downtime`` seconds.

    Nothing that was healthy before counts, and a move to 100 % that was under way goes back to
    the last step. An abort stays one.
    """
    if state.phase is Phase.PROMOTING:
        state = replace(
            state, phase=Phase.WATCHING, intended=plan.steps[state.step].share, elapsed=0.0
        )
    if state.phase is Phase.WATCHING:
        away = max(0.0, downtime)
        return replace(
            state,
            healthy=0,
            elapsed=state.elapsed + away,
            total=state.total + away,
            last=Health.NO_DATA,
        )
    return state


def _refusal(observation: Observation) -> Ending | None:
    if observation.identity.same is False:
        return Ending("identity", observation.identity.why)
    look = observation.look
    if look.health is Health.BAD and look.decider is not None:
        return Ending(look.decider.rule, look.decider.why)
    return None


def _late(plan: Plan, state: State) -> Ending | None:
    promoting = state.phase is Phase.PROMOTING
    deadline = SETTLE_SECONDS if promoting else plan.steps[state.step].deadline
    if state.elapsed <= deadline and state.total <= plan.deadline:
        return None
    if promoting:
        return Ending("routing", f"not all traffic moved within {deadline:.0f} s")
    cause = "no-data" if state.last is Health.NO_DATA else "deadline"
    return Ending(cause, f"no decision within {deadline:.0f} s: last look {state.last.value}")


def _counted(plan: Plan, state: State, seen: Seen) -> State:
    placed = in_place(plan, state, seen.share)
    observation = seen.observation
    if observation is None:
        return state if placed else replace(state, healthy=0)
    health = observation.look.health
    good = placed and health is Health.HEALTHY and observation.identity.same is True
    return replace(state, healthy=state.healthy + 1 if good else 0, last=health)


def _upward(plan: Plan, state: State, share: Fraction | None) -> State:
    if not in_place(plan, state, share):
        return state
    if state.phase is Phase.PROMOTING:
        ending = Ending("passed", f"healthy in all {len(plan.steps)} steps")
        return replace(state, phase=Phase.PROMOTED, ending=ending)
    step = plan.steps[state.step]
    if state.healthy < plan.needed or state.elapsed < step.minimum:
        return state
    if state.step + 1 == len(plan.steps):
        return replace(state, phase=Phase.PROMOTING, intended=Fraction(1), healthy=0, elapsed=0.0)
    following = state.step + 1
    return State(Phase.WATCHING, following, plan.steps[following].share, total=state.total)
