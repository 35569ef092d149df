"""``promote``: move traffic step by step while it is watched; end at 100 % or at 0 %.

The loop around the state machine of ``canary.controller``: read the router, take what the
watcher has, ask the machine, write its answer to disk, make the router follow. Whatever else
fails, the canary loses its traffic: that needs the router and nothing more.
docs/stages/promote.md tells it for operators.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from secure_pipeline.canary import controller
from secure_pipeline.canary.analysis import Analysis
from secure_pipeline.canary.controller import Observation, Plan, Seen, State
from secure_pipeline.canary.model import Health, Look
from secure_pipeline.canary.story import (
    Ending,
    Moment,
    Phase,
    PromotionRecord,
    StepRecord,
    percent,
)
from secure_pipeline.canary.target import LoadedTarget
from secure_pipeline.errors import PipelineError, Unavailable
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.ports import Clock, Router
from secure_pipeline.stages.promotion_journal import Journal, Saved
from secure_pipeline.stages.promotion_watch import Watcher

STAGE = "promote"
POLL_SECONDS = 0.5
"""Between two readings of the router."""
AGAIN_SECONDS = (0.5, 1.0, 2.0, 5.0)
"""Between two requests to the router for the same share; the last one stays."""
ABORT_SECONDS = 24 * 3600.0
"""An abort that the router does not follow for so long is given up, loudly."""
MAX_LOOKS = 20_000
"""Looks kept for the record; beyond it every second one of the older half is left out."""

OnMoment = Callable[[Moment], None]


@dataclass(frozen=True)
class PromoteInputs:
    """What is promoted where. Evidence and quarantine are checked already."""

    id: str
    image: ImageReference
    target: LoadedTarget
    canary: str
    """Slot of the image."""
    baseline: str
    baseline_image: str | None
    found: Saved | None = None
    """What an earlier program left unfinished here."""
    abort: Ending | None = None
    """Why what was found is only rolled back."""


@dataclass(frozen=True)
class PromotePorts:
    """What the loop uses."""

    router: Router
    watcher: Watcher
    healthy: Callable[[str], bool | None]
    """Whether a slot can serve; None if its target names no address. Never raises, never takes
    longer than a few seconds."""
    journal: Journal
    clock: Clock
    sleep: Callable[[float], None]
    stopped: Callable[[], Ending | None]
    """Why somebody wants it to stop; None while nobody does."""


def promote(inputs: PromoteInputs, ports: PromotePorts, on_moment: OnMoment) -> PromotionRecord:
    """Run a promotion to its end, PROMOTED or ABORTED.

    Raises: Unavailable if its first intent cannot be written (then nothing was moved), and if
    the router does not take the canary's traffic away within ABORT_SECONDS.
    """
    return _Promotion(inputs, ports, on_moment).run()


class _Promotion:
    def __init__(self, inputs: PromoteInputs, ports: PromotePorts, on_moment: OnMoment) -> None:
        self.inputs = inputs
        self.ports = ports
        self.on_moment = on_moment
        target = inputs.target.target
        self.plan = Plan.of(target)
        now = ports.clock.now()
        self.started = self.step_started = now
        self.state = controller.begun(self.plan)
        self.analysis = Analysis.begin(target.rules, target.analysis)
        self.looks: list[Look] = []
        self.number = self.step_look = 0
        self.steps: tuple[StepRecord, ...] = ()
        self.resumed = 0
        self.baseline_healthy: bool | None = None
        self._placed: tuple[Phase, int] | None = None
        self._asked: tuple[Fraction, int, float] | None = None
        """Share asked of the router, how often, and when last."""
        self._last = ports.clock.monotonic()
        self._abort_began: float | None = None
        if inputs.found:
            self._take_up(inputs.found, now)

    def run(self) -> PromotionRecord:
        self._begin()
        while not self.state.phase.over:
            try:
                self._tick()
                if not self.state.phase.over:
                    self.ports.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                self._abort(Ending("interrupted", "Ctrl-C"))
            except PipelineError as error:
                self._abort(Ending("error", str(error)))
            except Exception as error:  # the canary must lose its traffic whatever is broken here
                self._abort(Ending("error", f"a bug: {type(error).__name__}: {error}"))
            self._give_up_in_the_end()
        return self._record()

    def _begin(self) -> None:
        """Write the first intent; where traffic may have moved before, that is no condition."""
        try:
            self._save(self.state)
        except PipelineError as error:
            if not self.resumed:
                raise
            self._abort(Ending("error", f"its state cannot be written: {error}"))
        if self.resumed and not self.state.phase.over:
            self._steer(None)  # back to what is intended now, before what is read counts
            self._tell(None, None, f"taken up again: {self.state.phase.value}")

    def _take_up(self, found: Saved, now: datetime) -> None:
        """Go on from what is on disk: only hold, begin a full window, or abort (CAN-09)."""
        self.started, self.steps, self.number = found.started, found.steps, found.looks
        self.step_started, self.step_look = found.step_started, found.step_look
        # a look that was written and not counted before a kill has a later one of its number
        looks = {look.number: look for look in self.ports.journal.looks(found.id)}
        self.looks = [look for number, look in sorted(looks.items()) if number <= found.looks]
        self.resumed = found.resumed + 1
        self.state = found.state
        if found.state.phase is Phase.ABORTING or found.state.phase.over:
            return
        if found.state.phase is Phase.WATCHING:
            self._close_step(found.state, "interrupted")
        self.state = self._resumed(found, (now - found.saved).total_seconds())

    def _resumed(self, found: Saved, downtime: float) -> State:
        if self.inputs.abort:
            return controller.aborting(found.state, self.inputs.abort)
        target = self.inputs.target.target
        try:
            analysis = Analysis.from_json(target.rules, target.analysis, found.analysis)
        except PipelineError as error:
            return controller.aborting(found.state, Ending("restarted", str(error)))
        self.analysis = analysis.renewed()
        return controller.resumed(self.plan, found.state, downtime)

    def _tick(self) -> None:
        # (1) the router, every time (CAN-16)
        share = self._read()
        self._notice_place(share)
        # (2) what the watcher has; while aborting nothing but the router matters
        aborting = self.state.phase is Phase.ABORTING
        observation = None if aborting else self._observe()
        # (3) one decision
        now = self.ports.clock.monotonic()
        passed, self._last = max(0.0, now - self._last), now
        # what is read before 0 was asked for says nothing about requests still on their way
        counted = None if aborting and not self._asked_for(Fraction(0)) else share
        seen = Seen(passed, counted, observation, self.ports.stopped())
        state = controller.advance(self.plan, self.state, seen)
        # (4) on disk before the router hears of it
        note = self._enter(state, observation is not None)
        # (5) make the router follow
        note = "; ".join(filter(None, (note, self._steer(share))))
        if note or observation:
            self._tell(share, observation.look if observation else None, note)

    def _read(self) -> Fraction | None:
        try:
            return self.ports.router.read().shares.get(self.inputs.canary)
        except PipelineError:
            return None

    def _notice_place(self, share: Fraction | None) -> None:
        """When a share comes into force, a full window begins."""
        place = (self.state.phase, self.state.step)
        if controller.in_place(self.plan, self.state, share):
            if self._placed != place:
                self.ports.watcher.renew()
                self.analysis = self.analysis.renewed()
            self._placed = place
        elif share is not None:
            self._placed = None

    def _observe(self) -> Observation | None:
        glance = self.ports.watcher.poll()
        if glance is None:
            return None
        self.number += 1
        self.analysis, look = self.analysis.observe(
            glance.sample, self.number, self.ports.clock.now()
        )
        self.looks.append(look)
        if len(self.looks) > MAX_LOOKS:
            half = MAX_LOOKS // 2
            self.looks = self.looks[:half:2] + self.looks[half:]
        self.ports.journal.append(self._id, look)
        return Observation(look, glance.identity)

    def _enter(self, state: State, looked: bool) -> str:
        """Write the new state, then be in it; return what changed, for people."""
        before = self.state
        moved = (state.phase, state.step, state.intended) != (
            before.phase, before.step, before.intended,
        )  # fmt: skip
        if moved and before.phase is Phase.WATCHING:
            self._close_step(before, "aborted" if state.phase is Phase.ABORTING else "passed")
        self.state = state
        if moved or looked:
            try:
                self._save(state)
            except PipelineError as error:
                if state.phase not in (Phase.ABORTING, Phase.ABORTED):
                    ending = Ending("error", f"its state cannot be written: {error}")
                    self.state = controller.aborting(before, ending)
        return self._changed() if moved or self.state is not state else ""

    def _changed(self) -> str:
        state = self.state
        if state.phase is Phase.ABORTING:
            self._check_baseline()
            return f"aborting: {state.ending.why if state.ending else ''}"
        if state.phase is Phase.ABORTED:
            return "aborted: the canary has no traffic"
        if state.phase is Phase.PROMOTED:
            return "promoted: all traffic is at the new version"
        return f"passed: moving to {percent(state.intended)}"

    def _abort(self, ending: Ending) -> None:
        """Abort from anywhere; the disk and the view may be what is broken."""
        if self.state.phase is Phase.ABORTING or self.state.phase.over:
            return
        if self.state.phase is Phase.WATCHING:
            self._close_step(self.state, "aborted")
        self.state = controller.aborting(self.state, ending)
        with suppress(PipelineError):
            self._save(self.state)
        self._check_baseline()
        self._steer(None)
        self._tell(None, None, f"aborting: {ending.why}")

    def _check_baseline(self) -> None:
        """Ask once whether the version that traffic goes back to can serve; go back anyway."""
        self._abort_began = self.ports.clock.monotonic()
        with suppress(Exception):
            self.baseline_healthy = self.ports.healthy(self.inputs.baseline)

    def _steer(self, share: Fraction | None) -> str:
        """Ask the router, again only after a while; return what people should know of it."""
        state, now = self.state, self.ports.clock.monotonic()
        asked = self._asked_for(state.intended)
        if controller.in_place(self.plan, state, share) and (
            asked or state.phase is not Phase.ABORTING
        ):
            return ""
        times, last = self._asked[1:] if self._asked and asked else (0, now)
        if times and now - last < AGAIN_SECONDS[min(times, len(AGAIN_SECONDS)) - 1]:
            return ""
        self._asked = (state.intended, times + 1, now)
        try:  # what is in force is read, not believed
            self.ports.router.set(self.inputs.canary, state.intended)
        except PipelineError as error:
            return f"the router was asked for {percent(state.intended)}: {error}"
        return f"the router was asked again for {percent(state.intended)}" if times else ""

    def _asked_for(self, share: Fraction) -> bool:
        return self._asked is not None and self._asked[0] == share

    def _give_up_in_the_end(self) -> None:
        if self.state.phase is not Phase.ABORTING:
            return
        now = self.ports.clock.monotonic()
        self._abort_began = now if self._abort_began is None else self._abort_began
        if now - self._abort_began > ABORT_SECONDS:
            raise Unavailable(
                f"the router still gives slot {self.inputs.canary} traffic",
                where=self.inputs.target.target.name,
                hint="take it away by hand; then 'secure-pipeline promote --abort --to TARGET'",
            )

    def _close_step(self, state: State, outcome: str) -> None:
        since = [look for look in self.looks if look.number > self.step_look]
        healthy = sum(look.health is Health.HEALTHY for look in since)
        now = self.ports.clock.now()
        looks = self.number - self.step_look
        record = StepRecord(state.intended, self.step_started, now, looks, healthy, outcome)
        self.steps += (record,)
        self.step_started, self.step_look = now, self.number

    @property
    def _id(self) -> str:
        return self.inputs.found.id if self.inputs.found else self.inputs.id

    def _save(self, state: State) -> None:
        self.ports.journal.save(
            Saved(
                version=1,
                id=self._id,
                image=str(self.inputs.image),
                canary=self.inputs.canary,
                baseline=self.inputs.baseline,
                baseline_image=self.inputs.baseline_image,
                target_digest=self.inputs.target.digest,
                started=self.started,
                saved=self.ports.clock.now(),
                step_started=self.step_started,
                step_look=self.step_look,
                state=state,
                analysis=self.analysis.to_json(),
                looks=self.number,
                steps=self.steps,
                resumed=self.resumed,
            )
        )

    def _tell(self, share: Fraction | None, look: Look | None, note: str) -> None:
        state, last = self.state, len(self.plan.steps) - 1
        step = self.plan.steps[min(state.step, last)]
        promoting = state.phase is Phase.PROMOTING
        moment = Moment(
            time=self.ports.clock.now(),
            phase=state.phase,
            step=state.step + 1,
            steps=len(self.plan.steps),
            intended=state.intended,
            routed=share,
            elapsed=state.elapsed,
            deadline=controller.SETTLE_SECONDS if promoting else step.deadline,
            healthy_in_a_row=state.healthy,
            needed=self.plan.needed,
            look=look,
            note=note,
        )
        with suppress(Exception):  # a closed terminal must not keep traffic where it is
            self.on_moment(moment)

    def _record(self) -> PromotionRecord:
        assert self.state.ending is not None
        return PromotionRecord(
            id=self._id,
            target=self.inputs.target,
            image=self.inputs.image,
            canary=self.inputs.canary,
            baseline=self.inputs.baseline,
            baseline_image=self.inputs.baseline_image,
            started=self.started,
            finished=self.ports.clock.now(),
            phase=self.state.phase,
            ending=self.state.ending,
            steps=self.steps,
            looks=tuple(self.looks),
            baseline_healthy=self.baseline_healthy,
            resumed=self.resumed,
        )
