"""Promotions as they might have gone, with numbers that fit each other; the same each time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache
from pathlib import Path

from secure_pipeline.canary.model import (
    Counts,
    Estimate,
    Health,
    Look,
    NoData,
    RuleState,
    Window,
)
from secure_pipeline.canary.story import (
    Ending,
    Moment,
    Phase,
    PromotionRecord,
    StepRecord,
)
from secure_pipeline.canary.target import LoadedTarget, Target
from secure_pipeline.documents import decode, parse_yaml
from secure_pipeline.files import sha256_bytes
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.reference import ImageReference

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
INTERVAL = 5.0
NAME = "registry.example:5000/team/inference-service"
HOSTILE = (
    "</script><script>alert(1)</script><img src=//evil.example onerror=alert(1)>"
    "\x1b[2J\x07\r\n\u202egnp.exe\u2066 \u0000 & \"quotes\" 'too' e\u0301\u0301\u0301\u0301\u0301"
)
TARGET_YAML = b"""\
version: 1
name: production
slots:
  blue:
    labels: {job: inference, slot: blue}
    runtime: docker://blue
    health: http://127.0.0.1:8001/healthz
  green:
    labels: {job: inference, slot: green}
    runtime: docker://green
    health: http://127.0.0.1:8002/healthz
router:
  haproxy:
    socket: /run/haproxy/admin.sock
    backend: inference
    servers: {blue: blue, green: green}
prometheus: {url: "http://127.0.0.1:9090"}
rules:
  alerts: [{name: InferenceDown}]
  queries:
    - {name: queue, query: 'max(inference_requests_running{$canary})', maximum: 12}
"""


def target() -> Target:
    """Two slots behind HAProxy, with an alert and a query."""
    return decode(Target, parse_yaml(TARGET_YAML, "production.yaml"))


def loaded() -> LoadedTarget:
    """The target as if it were read from a file."""
    digest = f"sha256:{sha256_bytes(TARGET_YAML)}"
    return LoadedTarget(target(), Path("targets/production.yaml"), digest)


@dataclass(frozen=True)
class Version:
    """How one version behaves."""

    mean: float = 0.042
    slow: float = 0.004
    errors: float = 0.0005


GOOD = Version()
HEALTHY = Version(0.0437, 0.006, 0.0005)
SLOW = Version(0.4, 0.985, 0.0005)
FAILING = Version(0.0431, 0.005, 0.03)
NO_WINDOW = NoData("no series of slot green has a sample since traffic was moved")


class Telling:
    """Tells a promotion look by look; a stand-in for the real analysis, with the same words."""

    def __init__(self, canary: Version, *, requests: float = 60.0, seed: int = 7) -> None:
        self.random = random.Random(seed)
        self.canary, self.requests = canary, requests
        self.time = START
        self.looks: list[Look] = []
        self.moments: list[Moment] = []
        self.steps: list[StepRecord] = []
        self.budget = 3
        self._begin()

    def _begin(self) -> None:
        self.evidence = {"latency": [0.0, 0.0], "errors": [0.0, 0.0]}
        self.total = {"latency": [0.0, 0.0], "errors": [0.0, 0.0]}
        self.begun, self.row, self.first = self.time, 0, len(self.looks)

    @property
    def share(self) -> Fraction:
        return target().steps[len(self.steps)].share

    def say(self, note: str, phase: Phase = Phase.WATCHING, routed: Fraction | None = None) -> None:
        """A moment that is no look."""
        self._moment(None, note, phase, routed)

    def _moment(self, look: Look | None, note: str, phase: Phase, routed: Fraction | None) -> None:
        number = min(len(self.steps), 2)
        share = {Phase.WATCHING: target().steps[number].share, Phase.PROMOTING: Fraction(1),
                 Phase.PROMOTED: Fraction(1)}.get(phase, Fraction(0))  # fmt: skip
        moment = Moment(
            self.time, phase, number + 1, 3, Fraction(share), routed, self.elapsed,
            target().steps[number].deadline.total_seconds(), self.row, 3, look, note,
        )  # fmt: skip
        self.moments.append(moment)

    @property
    def elapsed(self) -> float:
        return (self.time - self.begun).total_seconds()

    def look(self, why: NoData | None = None) -> Health:
        """Five seconds later, one look."""
        self.time += timedelta(seconds=INTERVAL)
        window = why or self._window()
        rules = self._rules(window)
        look = Look(len(self.looks) + 1, self.time, window, rules, self.budget)
        self.looks.append(look)
        self.row = self.row + 1 if look.health is Health.HEALTHY else 0
        routed = Fraction(round(256 * float(self.share)), 256)
        self._moment(look, "", Phase.WATCHING, min(routed, Fraction(self.share)))
        return look.health

    def _window(self) -> Window:
        share = float(self.share)
        ended = self.time.timestamp()
        return Window(
            ended - INTERVAL,
            ended,
            self._counts(self.canary, self.requests * INTERVAL * share),
            self._counts(GOOD, self.requests * INTERVAL * (1 - share)),
        )

    def _counts(self, version: Version, requests: float) -> Counts:
        draw = self.random
        count = round(draw.gauss(requests, math.sqrt(requests) / 2))
        tokens = 12 * count
        slow = float(sum(draw.random() < version.slow for _ in range(tokens)))
        errors = float(sum(draw.random() < version.errors for _ in range(count)))
        mean = version.mean * draw.gauss(1, 0.01)
        p95 = mean * 1.42 * draw.gauss(1, 0.015)
        exact = Estimate(slow, slow, slow)
        return Counts(
            tokens, exact, tokens * mean, Estimate(p95 * 0.95, p95, p95 * 1.05),
            count, errors, 0,
        )  # fmt: skip

    def _rules(self, window: Window | NoData) -> tuple[RuleState, ...]:
        if isinstance(window, NoData):
            names = (("latency", True), ("errors", True), ("restarts", True), ("mean", False))
            return tuple(RuleState(name, hard, Health.NO_DATA, window.why) for name, hard in names)
        slow = (window.canary.slow.value, window.canary.tokens)
        fails = (window.canary.errors, window.canary.requests)
        base = window.baseline
        mean = window.canary.mean or 0.0
        over = mean > 0.15
        self.budget -= over
        verdict = Health.BAD if over else Health.HEALTHY
        return (
            self._statistical("latency", "tokens over 150 ms", slow, 0.05,
                              base.slow.value / base.tokens, 40),
            self._statistical("errors", "requests failed", fails, 0.01,
                              base.errors / base.requests, 1),
            RuleState("restarts", True, Health.HEALTHY, "0 restarts of 0 allowed",
                      {"restarts": 0.0, "limit": 0.0}),
            RuleState("mean", False, verdict, f"{mean * 1000:.1f} ms a token, limit 150 ms",
                      {"value": mean, "limit": 0.15}),
            RuleState("alert:InferenceDown", True, Health.HEALTHY, "does not fire"),
            RuleState("query:queue", False, Health.HEALTHY, "3 is at most 12", {"value": 3.0}),
        )  # fmt: skip

    def _statistical(
        self, name: str, what: str, seen: tuple[float, float], limit: float, base: float, fate: int
    ) -> RuleState:
        """Evidence as a likelihood ratio against twice, and a quarter of, the limit."""
        hits, total = seen[0] / fate, seen[1] / fate
        self.total[name] = [a + b for a, b in zip(self.total[name], seen, strict=True)]
        for index, other in enumerate((limit * 2, limit / 4)):
            gain = hits * math.log(other / limit)
            gain += (total - hits) * math.log((1 - other) / (1 - limit))
            self.evidence[name][index] = max(0.0, self.evidence[name][index] + gain)
        abort = min(1.0, self.evidence[name][0] / math.log(1 / 0.01))
        health = min(1.0, self.evidence[name][1] / math.log(1 / 0.05))
        state = Health.UNDETERMINED
        if abort >= 1 or health >= 1:
            state = Health.BAD if abort >= 1 else Health.HEALTHY
        share = seen[0] / seen[1] if seen[1] else 0.0
        why = f"{share:.2%} of {seen[1]:.0f} {what}, limit {limit:.0%}, baseline {base:.2%}"
        figures = {
            "limit": limit,
            "canary_share": share,
            "baseline_share": base,
            "units": total,
            "canary_share_step": self.total[name][0] / max(self.total[name][1], 1.0),
            "baseline_share_step": base,
            "toward_abort": abort,
            "toward_health": health,
        }
        return RuleState(name, True, state, why, figures)

    def step(self, outcome: str = "passed") -> None:
        """End the present step."""
        seen = self.looks[self.first :]
        healthy = sum(look.health is Health.HEALTHY for look in seen)
        share = Fraction(self.share)
        self.steps.append(StepRecord(share, self.begun, self.time, len(seen), healthy, outcome))
        self._begin()

    def climb(self) -> Health:
        """Look until the step is passed or something is bad."""
        while self.row < 3 or self.elapsed < 60:
            if self.look() is Health.BAD:
                return Health.BAD
        self.step()
        return Health.HEALTHY

    def record(self, ending: Ending, phase: Phase, **more: object) -> PromotionRecord:
        """The whole."""
        record = PromotionRecord(
            id="20260301-120000-5e1f",
            target=loaded(),
            image=ImageReference(NAME, Digest.of(b"canary")),
            canary="green",
            baseline="blue",
            baseline_image=f"{NAME}@{Digest.of(b'baseline')}",
            started=START,
            finished=self.time,
            phase=phase,
            ending=ending,
            steps=tuple(self.steps),
            looks=tuple(self.looks),
            baseline_healthy=None if phase is Phase.PROMOTED else True,
        )
        return replace(record, **more)  # type: ignore[arg-type]


def _promoted(story: Telling) -> PromotionRecord:
    ending = Ending("passed", "3 of 3 steps passed, each with 3 healthy looks in a row")
    return story.record(ending, Phase.PROMOTED)


def healthy() -> tuple[Telling, PromotionRecord]:
    """Three steps, all passed."""
    story = Telling(HEALTHY)
    story.say("step 1 begins: 5% of the traffic goes to green", routed=Fraction(0))
    while len(story.steps) < 3:
        story.climb()
    story.say("all traffic goes to green", Phase.PROMOTING, Fraction(1, 2))
    story.time += timedelta(seconds=1)
    story.say("promoted", Phase.PROMOTED, Fraction(1))
    return story, _promoted(story)


def _aborted(story: Telling, cause: str, **more: object) -> tuple[Telling, PromotionRecord]:
    why = next(rule.why for rule in story.looks[-1].rules if rule.rule == cause)
    story.step("aborted")
    story.steps, kept = story.steps[:-1], story.steps
    story.say(f"abort: {why}", Phase.ABORTING)
    story.time += timedelta(seconds=1)
    story.say("no traffic to green", Phase.ABORTED, Fraction(0))
    story.steps = kept
    return story, story.record(Ending(cause, why), Phase.ABORTED, **more)


def latency() -> tuple[Telling, PromotionRecord]:
    """400 ms a token: over within some looks."""
    story = Telling(SLOW)
    while story.look() is not Health.BAD:
        pass
    return _aborted(story, "latency")


def errors() -> tuple[Telling, PromotionRecord]:
    """3 % errors that the second step shows."""
    story = Telling(HEALTHY, requests=24.0, seed=11)
    story.climb()
    story.canary = FAILING
    while story.look() is not Health.BAD:
        pass
    return _aborted(story, "errors", baseline_healthy=False)


def no_data() -> tuple[Telling, PromotionRecord]:
    """No traffic to the canary until the deadline."""
    story = Telling(HEALTHY)
    while story.elapsed < 600:
        story.look(NO_WINDOW)
    story.step("aborted")
    why = f"no healthy look within 10 min: {NO_WINDOW.why}"
    record = story.record(Ending("no-data", why), Phase.ABORTED, baseline_healthy=None)
    return story, record


def interrupted() -> tuple[Telling, PromotionRecord]:
    """The program was killed in the second step, went on after a minute, and saw some gaps."""
    story = Telling(HEALTHY, seed=3)
    story.climb()
    for _ in range(5):
        story.look()
    story.step("interrupted")
    share = story.steps[-1]
    story.steps = story.steps[:-1]
    story.time += timedelta(seconds=75)
    story._begin()
    story.say("found unfinished in step 2: a full window begins")
    for _ in range(4):
        story.look(NoData("the last sample is 74 s old, older than 60 s"))
    story.climb()
    story.climb()
    story.steps.insert(1, share)
    return story, replace(_promoted(story), resumed=1)


def hostile() -> tuple[Telling, PromotionRecord]:
    """Foreign text that would run, load, redraw or turn around; and much of one letter."""
    story, record = latency()

    def bend(look: Look) -> Look:
        bad = RuleState(f"alert:{HOSTILE}", True, Health.BAD, HOSTILE, {HOSTILE: 1.0})
        return replace(look, rules=(bad, *look.rules))

    looks = tuple(map(bend, record.looks))
    story.moments = [
        replace(moment, note=HOSTILE, look=moment.look and bend(moment.look))
        for moment in story.moments
    ]
    ending = Ending(f"alert:{HOSTILE}", HOSTILE + "A" * 5000)
    return story, replace(record, looks=looks, ending=ending, id=HOSTILE, baseline_image=HOSTILE)


CASES: Mapping[str, Callable[[], tuple[Telling, PromotionRecord]]] = {
    name: cache(tell)
    for name, tell in {
        "healthy": healthy,
        "latency": latency,
        "errors": errors,
        "no-data": no_data,
        "interrupted": interrupted,
        "hostile": hostile,
    }.items()
}
"""Each is told once, and only read."""
