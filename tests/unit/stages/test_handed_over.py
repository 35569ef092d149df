"""Waiting for the verdict of a hand-over: only that of its own run, by who is trusted, counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fakes.evidence import NAME, NOON, signer
from fakes.release import FixedClock, Release, policy, two_keys
from secure_pipeline.attestations.predicates import PROMOTION
from secure_pipeline.attestations.statement import make_statement
from secure_pipeline.errors import ExitCode, Inconclusive, Unavailable
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.ports import Signer
from secure_pipeline.stages.handed_over import HandedOver, look, wait
from secure_pipeline.stages.verify import VerifyInputs
from secure_pipeline.trigger import HandOver

EVENT = HandOver(
    "a" * 32, ImageReference.parse(f"registry.example/s@sha256:{'b' * 64}"), "production",
    "https://hooks.example/", NOON, NOON + timedelta(minutes=5),
)  # fmt: skip


@dataclass
class MovingClock:
    """A clock that moves when somebody sleeps."""

    seconds: float = 0.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


def inputs(release: Release, trusted: LoadedPolicy) -> VerifyInputs:
    image = ImageReference(NAME, release.image.digest)
    return VerifyInputs(Layout.open(release.path), image, trusted)


def say(release: Release, key: Signer | None = None, **changes: Any) -> None:
    """Attach a signed verdict of the run."""
    predicate = {
        "engineRun": EVENT.run, "result": "PROMOTED", "why": "all steps passed",
        "target": {"name": "production"}, "finishedOn": "2026-03-01T12:00:00Z", **changes,
    }  # fmt: skip
    release.attach([make_statement(NAME, release.image.digest, PROMOTION, predicate)], key)


def looked(release: Release, trusted: LoadedPolicy) -> HandedOver | None:
    return look(inputs(release, trusted), EVENT, FixedClock())


def test_a_promotion_of_the_run_is_the_answer(release: Release, trusted: LoadedPolicy) -> None:
    """Signed by a trusted key and the image verifies: 0, with who said so."""
    release.run()
    assert looked(release, trusted) is None
    say(release)
    ended = looked(release, trusted)
    assert ended is not None
    assert (ended.result, ended.code, ended.signers) == ("PROMOTED", ExitCode.PASS, ("release",))
    assert ended.why == "all steps passed"


@pytest.mark.parametrize(
    "changes",
    [
        {"engineRun": "promote-" + "c" * 32},
        {"engineRun": None},
        {"target": {"name": "staging"}},
        {"target": "production"},
        {"result": "RUNNING"},
        {"result": ["PROMOTED"]},
    ],
)
def test_another_verdict_is_none(
    release: Release, trusted: LoadedPolicy, changes: dict[str, Any]
) -> None:
    """Of another run, an earlier one, another target, or with no end that is known: not there."""
    release.run()
    say(release, **changes)
    assert looked(release, trusted) is None


def test_a_stranger_says_nothing(release: Release, trusted: LoadedPolicy) -> None:
    """What no key of the policy signed is not there."""
    release.run()
    say(release, signer(1))
    assert looked(release, trusted) is None


def test_a_key_out_of_its_window_says_nothing(tmp_path: Path, release: Release) -> None:
    """A verdict by a key whose window is over does not count."""
    window = ", not-before: 2026-01-01, not-after: 2026-02-01"
    release.run()
    say(release)
    assert looked(release, policy(tmp_path / "lapsed", window=window)) is None


def test_rolled_back_is_13_whatever_else_is_said(tmp_path: Path, release: Release) -> None:
    """Where two verdicts of one run are signed, the worse one counts."""
    trusted = two_keys(tmp_path / "two")
    release.run()
    say(release, signer(1))
    say(release, result="ROLLED_BACK", why="slow")
    ended = looked(release, trusted)
    assert ended is not None
    assert (ended.result, ended.why, ended.code) == ("ROLLED_BACK", "slow", ExitCode.ROLLED_BACK)


def test_promoted_but_not_verified_is_no_success(release: Release, trusted: LoadedPolicy) -> None:
    """A verdict beside evidence that does not meet the policy: what verify says, 11."""
    release.run(without=["test"])
    say(release)
    ended = looked(release, trusted)
    assert ended is not None
    assert ended.code is ExitCode.VERIFICATION


def test_waiting_ends(release: Release, trusted: LoadedPolicy) -> None:
    """No verdict within the time: 14, with the run's name; never a pass."""
    release.run()
    clock = MovingClock()
    with pytest.raises(Inconclusive) as caught:
        wait(inputs(release, trusted), EVENT, clock, 25, clock.sleep)
    assert EVENT.run in f"{caught.value}"
    assert clock.slept == [10, 10, 5]


def test_waiting_finds_what_comes_later(release: Release, trusted: LoadedPolicy) -> None:
    """A verdict that is attached while it waits is found at the next look."""
    release.run()
    clock = MovingClock()

    def later(seconds: float) -> None:
        clock.sleep(seconds)
        if len(clock.slept) == 2:
            say(release)

    ended = wait(inputs(release, trusted), EVENT, clock, 60, later)
    assert (ended.code, clock.seconds) == (ExitCode.PASS, 20)


def test_a_registry_may_be_away_for_a_while(
    release: Release, trusted: LoadedPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked again; if it is away at the end, that is what is said: 4."""
    release.run()
    given, clock = inputs(release, trusted), MovingClock()

    def away(*_: object) -> None:
        raise Unavailable("no answer")

    monkeypatch.setattr(given.source, "find", away)
    with pytest.raises(Unavailable, match="no answer"):
        wait(given, EVENT, clock, 15, clock.sleep)
    assert clock.slept == [10, 5]
