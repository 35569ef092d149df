"""A world for promotions on a simulated clock; its program can be killed at any call it makes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

from fakes.router import FakeRouter, Fault
from secure_pipeline.canary.controller import Identity, Plan
from secure_pipeline.canary.model import Counts, Estimate, Look, NoData, Sample, Window
from secure_pipeline.canary.story import Ending, Moment, PromotionRecord
from secure_pipeline.canary.target import (
    AnalysisConfig,
    HaproxyRouter,
    LoadedTarget,
    RouterConfig,
    ServiceAccess,
    Slot,
    Step,
    Target,
)
from secure_pipeline.documents import Percent
from secure_pipeline.errors import Unavailable
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.records import decode, encode
from secure_pipeline.stages.promote import PromoteInputs, PromotePorts, promote
from secure_pipeline.stages.promotion_journal import Journal, Saved
from secure_pipeline.stages.promotion_watch import Glance, Watcher

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
IMAGE = ImageReference.parse("inference-service@sha256:" + "a" * 64)
CANARY, BASELINE = "green", "blue"


class Killed(BaseException):
    """kill -9: nothing of the program runs after this."""


def target(**analysis: Any) -> LoadedTarget:
    """Three steps of two minutes at most."""
    steps = [
        Step(Percent(share), timedelta(seconds=10), timedelta(seconds=120))
        for share in ("5%", "25%", "50%")
    ]
    return LoadedTarget(
        Target(
            version=1,
            name="production",
            slots={slot: Slot({"slot": slot}) for slot in (BASELINE, CANARY)},
            router=RouterConfig(HaproxyRouter("s", "b", {BASELINE: "1", CANARY: "2"})),
            prometheus=ServiceAccess("http://127.0.0.1:9"),
            analysis=AnalysisConfig(**analysis),
            steps=tuple(steps),
            identity_unchecked="a simulation has no containers",
        ),
        Path("production.yaml"),
        "sha256:" + "b" * 64,
    )


@dataclass
class SimulatedClock:
    """Time that passes when somebody sleeps; the clock on the wall may be set."""

    seconds: float = 0.0
    wall: float = 0.0
    """Seconds that the wall clock is ahead."""

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds + self.wall)

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Version:
    """How a version behaves."""

    slow: float = 0.002
    """Share of its tokens over 150 ms."""
    errors: float = 0.0005


@dataclass
class World:
    """Everything outside the program. Faults are switches; ``at`` changes them over time."""

    clock: SimulatedClock = field(default_factory=SimulatedClock)
    router: FakeRouter = field(default_factory=lambda: FakeRouter((BASELINE, CANARY)))
    canary: Version = field(default_factory=Version)
    rate: float = 400.0
    """Requests a second, to both."""
    metrics: str = "up"
    """'up', 'down', 'slow' (20 s an answer) or 'empty'."""
    identity: bool | None = True
    kill_in: int | None = None
    """Calls from outside until the program is killed."""
    disk: dict[str, Any] = field(default_factory=dict)
    disk_full: bool = False
    events: list[tuple[float, Callable[[World], None]]] = field(default_factory=list)
    shares: list[tuple[float, Fraction]] = field(default_factory=list)
    """The canary's real share, whenever it changed."""
    stop: Ending | None = None

    def sleep(self, seconds: float) -> None:
        self.clock.seconds += seconds
        due = [event for event in self.events if event[0] <= self.clock.seconds]
        self.events = [event for event in self.events if event[0] > self.clock.seconds]
        for _, change in sorted(due, key=lambda event: event[0]):
            change(self)
        self.note()
        self.call()

    def call(self) -> None:
        """Every contact with the program comes here: a kill may strike."""
        if self.kill_in is not None:
            self.kill_in -= 1
            if self.kill_in < 0:
                self.kill_in = None
                raise Killed

    def note(self) -> None:
        share = self.router.share[CANARY]
        if not self.shares or self.shares[-1][1] != share:
            self.shares.append((self.clock.seconds, share))

    @property
    def on_disk(self) -> Saved | None:
        """The state that a program would find."""
        text = self.disk.get("current")
        return None if text is None else decode(Saved, json.loads(text))


@dataclass
class WatchedRouter:
    """The world's router; holds the rule that an intent is on disk before the call."""

    world: World

    def set(self, canary: str, share: Fraction) -> None:
        self.world.call()
        saved = self.world.on_disk
        assert saved is not None, "the router was called before anything was written"
        full = self.world.disk_full and share == 0
        assert full or share <= saved.state.intended, f"{share} asked, {saved.state} on disk"
        try:
            self.world.router.set(canary, share)
        finally:
            self.world.note()
        self.world.call()

    def read(self) -> Any:
        self.world.call()
        return self.world.router.read()


class MemoryJournal(Journal):
    """The journal on the world's disk: what was saved is what is found."""

    def __init__(self, world: World) -> None:
        super().__init__(Path("/nonexistent"), "production")
        self.world = world

    def unfinished(self) -> Saved | None:
        return self.world.on_disk

    def save(self, saved: Saved) -> None:
        self.world.call()
        if self.world.disk_full:
            raise Unavailable("cannot write: no space left")
        self.world.disk["current"] = json.dumps(encode(saved), allow_nan=False)
        self.world.call()

    def append(self, promotion: str, look: Look) -> None:
        if self.world.disk_full:
            raise Unavailable("cannot write: no space left")
        self.world.disk.setdefault("looks", []).append(json.dumps(encode(look), allow_nan=False))

    def looks(self, promotion: str) -> list[Look]:
        return [decode(Look, json.loads(line)) for line in self.world.disk.get("looks", ())]


class WorldSampler:
    """Windows of what really happened since the mark, in expectation."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.begun: float | None = None

    def mark(self) -> None:
        self.begun = self.world.clock.seconds if self.world.metrics in ("up", "slow") else None

    def sample(self) -> Sample:
        world, now = self.world, self.world.clock.seconds
        if world.metrics == "down":
            return Sample(NoData("no answer"))
        if world.metrics == "empty":
            return Sample(NoData("no series of green"))
        if self.begun is None:
            self.begun = now
        if now <= self.begun:
            return Sample(NoData("no new scrape"))
        share = float(world.router.share[CANARY])
        requests = world.rate * (now - self.begun)
        canary = _counts(requests * share, world.canary)
        if canary.tokens < 20:
            return Sample(NoData(f"{canary.tokens:g} tokens so far"))
        baseline = _counts(requests * (1 - share), Version())
        window = Window(self.begun, now, canary, baseline)
        self.begun = now
        return Sample(window)


def _counts(requests: float, version: Version) -> Counts:
    tokens = 10 * requests
    slow = tokens * version.slow
    seconds = 0.02 * (tokens - slow) + 0.4 * slow
    return Counts(
        tokens, Estimate(slow, slow, slow), seconds, None, requests, requests * version.errors, 0
    )


class LateExecutor:
    """Work is done at once, and known when the metrics would have answered."""

    def __init__(self, world: World) -> None:
        self.world = world

    def submit(self, work: Callable[[], Glance], /) -> Future[Glance]:
        future = _LateFuture(self.world, 20.0 if self.world.metrics == "slow" else 0.0)
        future.set_result(work())
        return future


class _LateFuture(Future[Glance]):
    def __init__(self, world: World, seconds: float) -> None:
        super().__init__()
        self._world, self._due = world, world.clock.seconds + seconds

    def done(self) -> bool:
        return self._world.clock.seconds >= self._due


@dataclass
class Programs:
    """Runs the program, again after each kill, until it comes to an end."""

    world: World
    target: LoadedTarget = field(default_factory=target)
    moments: list[Moment] = field(default_factory=list)
    downtimes: Iterable[float] = ()
    broken_view: bool = False

    def run(self, limit: int = 12) -> PromotionRecord:
        """The record of the program that came to the end."""
        away = iter(self.downtimes)
        for _ in range(limit):
            try:
                return promote(self.inputs(), self.ports(), self.tell)
            except Killed:
                self.world.clock.seconds += next(away, 1.0)
                self.world.note()
        raise AssertionError(f"not over after {limit} programs")

    def inputs(self) -> PromoteInputs:
        """What a new program begins with."""
        found = self.world.on_disk
        return PromoteInputs("1", IMAGE, self.target, CANARY, BASELINE, None, found)

    def ports(self) -> PromotePorts:
        """The world as a program sees it."""
        world = self.world
        watcher = Watcher(
            WorldSampler(world),
            lambda: Identity(world.identity, "simulated"),
            LateExecutor(world),
            world.clock,
            self.target.target.analysis.interval.total_seconds(),
        )
        return PromotePorts(
            WatchedRouter(world),
            watcher,
            lambda slot: True,
            MemoryJournal(world),
            world.clock,
            world.sleep,
            lambda: world.stop,
        )

    def tell(self, moment: Moment) -> None:
        self.moments.append(moment)
        if self.broken_view:
            raise BrokenPipeError

    @property
    def plan(self) -> Plan:
        """The plan of the target."""
        return Plan.of(self.target.target)


def router_fault(fault: Fault, times: int) -> Callable[[World], None]:
    """The next calls of the router go wrong."""
    return lambda world: world.router.faults.extend([fault] * times)


def switch(**values: Any) -> Callable[[World], None]:
    """Set attributes of the world."""

    def change(world: World) -> None:
        for name, value in values.items():
            setattr(world, name, value)

    return change


def set_wall(seconds: float) -> Callable[[World], None]:
    """Step the clock on the wall."""

    def change(world: World) -> None:
        world.clock.wall += seconds

    return change


def moved_from_elsewhere(share: Fraction) -> Callable[[World], None]:
    """Somebody else gives the canary this share."""
    return lambda world: world.router.put(CANARY, share)
