"""The promotion loop in a simulated world: every end, every fault, kills at every call."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.promotionworld import (
    CANARY,
    Programs,
    Version,
    World,
    moved_from_elsewhere,
    router_fault,
    set_wall,
    switch,
)
from fakes.router import Fault
from fakes.thorough import times
from secure_pipeline.canary.controller import (
    Plan,
    Seen,
    State,
    aborting,
    advance,
    begun,
    resumed,
)
from secure_pipeline.canary.model import Health
from secure_pipeline.canary.story import Ending, Phase, PromotionRecord
from secure_pipeline.errors import Unavailable
from secure_pipeline.stages import promote

STEPS = [Fraction(1, 20), Fraction(1, 4), Fraction(1, 2)]
BAD = Version(slow=1.0)
FAILING = Version(errors=0.03)


def end(world: World, **programs: object) -> PromotionRecord:
    """Run to the end; the canary's real share is what the end says."""
    record = Programs(world, **programs).run()  # type: ignore[arg-type]
    assert world.router.share[CANARY] == (1 if record.phase is Phase.PROMOTED else 0)
    return record


def test_a_healthy_version_climbs_every_step_and_ends_with_all_traffic() -> None:
    """5, 25, 50, 100 %, in this order, each held for its minimum, and nothing in between."""
    world = World()
    record = end(world)
    assert record.phase is Phase.PROMOTED
    assert [share for _, share in world.shares] == [*STEPS, 1]
    times = [time for time, _ in world.shares]
    assert all(later - earlier >= 10 for earlier, later in pairwise(times))
    assert [step.outcome for step in record.steps] == ["passed"] * 3


@pytest.mark.parametrize(("canary", "cause"), [(BAD, "latency"), (FAILING, "errors")])
def test_a_bad_version_never_gets_beyond_the_first_step(canary: Version, cause: str) -> None:
    """400 ms a token, or 3 % errors: 5 % of the traffic, then none."""
    world = World(canary=canary)
    record = end(world)
    assert (record.phase, record.ending.cause) == (Phase.ABORTED, cause)
    assert [share for _, share in world.shares] == [STEPS[0], 0]


def test_a_version_that_turns_bad_late_is_rolled_back_from_there() -> None:
    """Health in earlier steps excuses nothing."""
    world = World(events=[(80.0, switch(canary=BAD))], rate=60.0)
    record = end(world)
    assert record.ending.cause in ("latency", "mean")
    assert record.steps[-1].outcome == "aborted"


def test_can_01_metrics_that_are_down_hold_and_then_abort() -> None:
    """No answer holds the share until the deadline of the step; it is never a pass."""
    world = World(metrics="down")
    record = end(world)
    assert record.ending.cause == "no-data"
    assert [share for _, share in world.shares] == [STEPS[0], 0]
    assert world.shares[-1][0] == pytest.approx(120, abs=2)


def test_can_01_slow_metrics_do_not_keep_the_router_from_being_read() -> None:
    """While an answer takes 20 s, a share that somebody raises is seen within two polls."""
    world = World(metrics="slow", events=[(7.0, moved_from_elsewhere(Fraction(1, 2)))])
    record = end(world)
    assert record.ending.cause == "routing"
    assert world.clock.seconds < 10


def test_can_02_empty_answers_are_no_data() -> None:
    """Without series nothing advances, and the deadline aborts."""
    assert end(World(metrics="empty")).ending.cause == "no-data"


def test_can_04_no_traffic_does_not_advance() -> None:
    """A canary that nobody asks is neither good nor bad: hold, then abort."""
    world = World(rate=0.01)
    record = end(world)
    assert record.ending.cause == "no-data"
    assert max(share for _, share in world.shares) == STEPS[0]


def test_can_06_undetermined_at_the_end_of_a_step_is_no_success() -> None:
    """A version right at its limit shows nothing, and is not promoted."""
    world = World(canary=Version(slow=0.05))
    record = end(world)
    assert (record.phase, record.ending.cause) == (Phase.ABORTED, "deadline")


def test_can_12_a_breach_while_traffic_is_being_moved_aborts() -> None:
    """The router does not follow to 25 %; the canary turns bad meanwhile, which counts."""
    events = [(20.0, router_fault(Fault.LOSE, 400)), (60.0, switch(canary=BAD))]
    record = end(World(events=events))
    assert record.phase is Phase.ABORTED


def test_can_15_another_image_in_the_slot_aborts() -> None:
    """The identity is looked at all the time, not only before."""
    record = end(World(events=[(25.0, switch(identity=False))]))
    assert record.ending.cause == "identity"


def test_can_15_an_identity_that_cannot_be_told_holds_and_then_aborts() -> None:
    """Health without identity counts nothing."""
    world = World(identity=None)
    record = end(world)
    assert record.phase is Phase.ABORTED
    assert max(share for _, share in world.shares) == STEPS[0]


def test_can_16_a_share_over_the_step_aborts_at_once() -> None:
    """Whoever raised it; the next reading sees it."""
    world = World(events=[(6.0, moved_from_elsewhere(Fraction(6, 100)))])
    record = end(world)
    assert record.ending.cause == "routing"
    assert world.clock.seconds < 8


def test_can_16_a_dead_baseline_counts_as_a_share_of_everything() -> None:
    """The router gives a canary with weight 5 all requests when the other server is down."""
    world = World()
    world.events = [(6.0, lambda w: w.router.down.add("blue"))]
    assert end(world).ending.cause == "routing"


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.HALF, Fault.APPLY, Fault.LOSE])
def test_an_abort_goes_on_until_the_router_shows_0(fault: Fault) -> None:
    """A router that fails for a while, in any way, ends with the canary at 0 all the same."""
    world = World(canary=BAD, events=[(12.0, router_fault(fault, 60))])
    assert end(world).phase is Phase.ABORTED


def test_0_that_was_read_before_it_was_asked_for_is_not_the_end() -> None:
    """A request that timed out may still come into force: 0 is asked for at least once."""
    world = World()
    world.router.faults.extend([None, Fault.LOSE])
    world.stop = Ending("interrupted", "Ctrl-C")
    end(world)
    assert world.router.history[-1] == (CANARY, 0)


def test_ctrl_c_rolls_back() -> None:
    """It is a reason to abort, in any phase."""
    stop = switch(stop=Ending("interrupted", "Ctrl-C"))
    world = World(events=[(40.0, stop)])
    assert end(world).ending.cause == "interrupted"


def test_a_full_disk_rolls_back_and_needs_no_disk_for_it() -> None:
    """An intent that cannot be written moves nothing upward."""
    world = World(events=[(20.0, switch(disk_full=True))])
    record = end(world)
    assert (record.phase, record.ending.cause) == (Phase.ABORTED, "error")


def test_nothing_moves_if_the_first_intent_cannot_be_written() -> None:
    """A full disk before the start is an error, and the router was never called."""
    world = World(disk_full=True)
    with pytest.raises(Unavailable):
        Programs(world).run()
    assert not world.router.history


def test_a_broken_view_changes_nothing() -> None:
    """A terminal that is gone neither aborts nor keeps an abort."""
    assert end(World(), broken_view=True).phase is Phase.PROMOTED
    assert end(World(canary=BAD), broken_view=True).phase is Phase.ABORTED


def test_a_bug_in_the_loop_rolls_back() -> None:
    """Whatever is raised inside, the canary loses its traffic (SIG-26)."""

    def explode(world: World) -> None:
        raise ZeroDivisionError

    record = end(World(events=[(20.0, explode)]))
    assert record.ending.cause == "error"
    assert "ZeroDivisionError" in record.ending.why


@pytest.mark.thorough
def test_a_router_that_never_obeys_is_given_up_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a day of asking (here: two hours) it is an error that says what to do."""
    assert timedelta(days=1).total_seconds() == promote.ABORT_SECONDS
    seconds = promote.ABORT_SECONDS / times(1, 12)
    monkeypatch.setattr(promote, "ABORT_SECONDS", seconds)
    world = World(canary=BAD)

    def stuck(world: World) -> None:
        world.router.faults.extend([Fault.FAIL] * 1_000_000)

    world.events = [(6.0, stuck), (30.0, switch(stop=Ending("asked", "stop")))]
    with pytest.raises(Unavailable, match="still gives"):
        Programs(world).run()
    assert world.clock.seconds > seconds


KILLS = st.integers(0, 260)


@settings(max_examples=150, deadline=None)
@given(kill=KILLS, canary=st.sampled_from([Version(), BAD, FAILING]), away=st.floats(0, 300))
def test_can_09_killed_at_any_call_it_ends_safely(kill: int, canary: Version, away: float) -> None:
    """The next program only holds, begins a full window or aborts; a bad one is never promoted."""
    world = World(canary=canary, kill_in=kill)
    programs = Programs(world, downtimes=[away])
    record = programs.run()
    assert world.router.share[CANARY] == (1 if record.phase is Phase.PROMOTED else 0)
    if canary is not world.canary or canary in (BAD, FAILING):
        assert record.phase is Phase.ABORTED
    if record.phase is Phase.PROMOTED:
        _each_step_was_healthy(record, programs)


def test_can_09_a_move_to_100_that_was_under_way_goes_back_to_the_last_step() -> None:
    """After a kill nothing is promoted without a full window, even if it was decided before."""
    plan = Programs(World()).plan
    state = State(Phase.PROMOTING, 2, Fraction(1), total=60)
    again = resumed(plan, state, 5.0)
    assert (again.phase, again.intended, again.healthy) == (Phase.WATCHING, STEPS[2], 0)


def test_can_09_killed_after_all_traffic_has_moved_it_watches_a_full_window_again() -> None:
    """Not rolled back for it, and not promoted for it: the last step once more, then 100 %."""
    world = World()
    programs = Programs(world)
    moved = world.sleep

    def kill_once_at_100(seconds: float) -> None:
        moved(seconds)
        if world.router.share[CANARY] == 1 and "killed" not in world.disk:
            world.disk["killed"] = True
            world.kill_in = 0

    world.sleep = kill_once_at_100  # type: ignore[method-assign]
    record = programs.run()
    assert (record.phase, record.resumed) == (Phase.PROMOTED, 1)
    assert [share for _, share in world.shares] == [*STEPS, 1, STEPS[2], 1]


def _each_step_was_healthy(record: PromotionRecord, programs: Programs) -> None:
    """In each passed step, as many healthy looks in a row as are needed, the last ones."""
    passed = [step for step in record.steps if step.outcome == "passed"]
    # a kill during the move to 100 % has the last step passed once more
    assert list(dict.fromkeys(step.share for step in passed)) == STEPS
    until = 0
    for step in record.steps:
        until += step.looks
        if step.outcome == "passed":
            last = record.looks[until - programs.plan.needed : until]
            assert [look.health for look in last] == [Health.HEALTHY] * programs.plan.needed


CHANGES = st.one_of(
    st.builds(lambda mode: switch(metrics=mode), st.sampled_from(["up", "down", "slow", "empty"])),
    st.builds(router_fault, st.sampled_from(list(Fault)), st.integers(1, 30)),
    st.builds(set_wall, st.floats(-1e6, 1e6)),
    st.builds(lambda rate: switch(rate=rate), st.sampled_from([0.0, 20.0, 400.0])),
    st.builds(lambda same: switch(identity=same), st.sampled_from([True, True, None, False])),
    st.builds(lambda calls: switch(kill_in=calls), st.integers(0, 12)),
    st.builds(lambda full: switch(disk_full=full), st.booleans()),
    st.builds(lambda up: _baseline(up=up), st.booleans()),
)
SCHEDULES = st.lists(st.tuples(st.floats(0, 260), CHANGES), max_size=8)


def _baseline(*, up: bool) -> object:
    def change(world: World) -> None:
        world.router.down.difference_update({"blue"}) if up else world.router.down.add("blue")

    return change


@pytest.mark.thorough
@settings(max_examples=times(600, 150), deadline=None)
@given(schedule=SCHEDULES, canary=st.sampled_from([Version(), Version(), BAD, FAILING]))
def test_any_schedule_of_faults_keeps_every_promise(schedule: list, canary: Version) -> None:  # type: ignore[type-arg]
    """In 150 schedules (thorough: 600) no share is over its step's, none passes without health.

    Prometheus down, empty or slow; a router that fails, half-applies, loses or applies and fails;
    kills; clocks set back and forth; traffic that stops; full disks. 0 % after each abort, a
    decision before the deadline, the intent on disk before each call.
    """
    world = World(canary=canary, events=list(schedule))
    programs = Programs(world, downtimes=[1.0] * 20)
    record = programs.run(limit=20)
    # (1) the share is never more than a step's, and steps come in order
    highest = Fraction(0)
    for _, share in world.shares:
        assert share in (0, 1) or share <= STEPS[-1]
        if share > highest:
            following = [step for step in [*STEPS, Fraction(1)] if step > highest]
            assert share <= following[0]
            highest = max(step for step in [Fraction(0), *STEPS, Fraction(1)] if step <= share)
    # (2) promoted only with conclusive health; a bad version never
    if record.phase is Phase.PROMOTED:
        assert canary == Version()
        _each_step_was_healthy(record, programs)
        assert world.router.share[CANARY] == 1
    # (3) 0 % after an abort
    else:
        assert world.router.share[CANARY] == 0
    # (4) a decision in time: deadlines, downtimes, and what the router needs to obey
    assert world.clock.seconds <= programs.plan.deadline + 20 + 300


STATES = st.builds(
    State,
    st.sampled_from(list(Phase)),
    st.integers(0, 2),
    st.sampled_from([Fraction(0), *STEPS, Fraction(1)]),
    st.integers(0, 5),
    st.floats(0, 500),
    st.floats(0, 900),
    st.just(Ending("passed", "…")),
    st.sampled_from(list(Health)),
)


@given(
    state=STATES,
    passed=st.floats(0, 100),
    share=st.none() | st.fractions(0, 1),
    stop=st.booleans(),
)
def test_nothing_but_observed_health_leads_upward(
    state: State, passed: float, share: Fraction | None, stop: bool
) -> None:
    """Without an observation the intended share never grows past what the state had earned."""
    plan = Programs(World()).plan
    ending = Ending("interrupted", "…") if stop else None
    after = advance(plan, state, Seen(passed, share, None, ending))
    if state.healthy < plan.needed:
        assert after.intended <= state.intended
    if stop and not state.phase.over:
        assert after.phase in (Phase.ABORTING, Phase.ABORTED)


def test_a_plan_without_steps_or_looks_is_refused() -> None:
    """Empty means refuse: a plan that asks for nothing is no plan."""
    plan = Programs(World()).plan
    with pytest.raises(ValueError, match="steps"):
        Plan((), 3)
    with pytest.raises(ValueError, match="healthy"):
        Plan(plan.steps, 0)
    assert begun(plan).intended == STEPS[0]
    with pytest.raises(ValueError, match="passed"):
        Seen(-1.0, None)
    assert aborting(begun(plan), Ending("asked", "…")).intended == 0
