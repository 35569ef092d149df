"""The parts around the promotion loop: identities, preflight, journal, watcher."""

from __future__ import annotations

import json
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pytest

from fakes.promotionworld import IMAGE, Programs, SimulatedClock, World
from fakes.release import Release
from fakes.router import FakeRouter
from fakes.runtime import FakeRuntime, container
from secure_pipeline.canary.controller import Identity
from secure_pipeline.canary.model import NoData, Sample
from secure_pipeline.errors import (
    Inconclusive,
    PolicyDenied,
    Unavailable,
    UsageError,
    VerificationFailed,
)
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.ports import ContainerKind
from secure_pipeline.stages import promotion_preflight as preflight
from secure_pipeline.stages.promotion_identity import described, identify
from secure_pipeline.stages.promotion_journal import Journal, KnownGood, Quarantined
from secure_pipeline.stages.promotion_watch import Glance, Watcher

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
OTHER = ImageReference(IMAGE.name, Digest.of(b"other"))
ROLES = preflight.Roles("green", "blue")


class Release1:
    """A build in a layout, and what runs of it."""

    def __init__(self, directory: Path) -> None:
        self.release = Release(directory / "image")
        self.image = ImageReference("inference-service", self.release.image.digest)

    def same(self, *containers: object) -> Identity:
        return identify(FakeRuntime(list(containers)), self.release.layout, self.image)  # type: ignore[arg-type]


@pytest.fixture
def build(tmp_path: Path) -> Release1:
    return Release1(tmp_path)


def test_can_15_a_container_of_the_build_is_it(build: Release1) -> None:
    """By the digest of its manifest, whatever it was asked for as."""
    running = container(str(build.image.digest), "one")
    assert build.same(running).same is True


def test_can_15_one_container_of_another_build_is_enough(build: Release1) -> None:
    """A slot with two versions is not the version that was verified."""
    one = container(str(build.image.digest), "one")
    two = replace(container(str(Digest.of(b"config")), "two"), image_is_config=True)
    found = build.same(one, two)
    assert found.same is not True
    assert "docker://two" in found.why


def test_can_15_what_does_not_serve_does_not_count(build: Release1) -> None:
    """Init containers and those that ended are no proof, and no objection."""
    ended = replace(container(str(build.image.digest), "one"), running=False)
    init = replace(container(str(Digest.of(b"x")), "two"), kind=ContainerKind.INIT)
    assert build.same(ended, init).same is None


def test_a_slot_is_described_in_the_runtimes_words(build: Release1) -> None:
    """One name or digest; two different ones are none."""
    one = container(str(build.image.digest), "one")
    two = container(str(Digest.of(b"x")), "two")
    assert described(FakeRuntime([one])) is not None
    assert described(FakeRuntime([one, two])) is None


def test_roles_come_from_the_router() -> None:
    """All traffic makes the baseline; a split belongs to somebody else."""
    slots = {"blue": 1, "green": 1}
    assert preflight.roles(FakeRouter(("blue", "green")), slots) == ROLES
    split = FakeRouter(("blue", "green"), {"blue": Fraction(19, 20), "green": Fraction(1, 20)})
    with pytest.raises(Inconclusive, match="green 5 %"):
        preflight.roles(split, slots)
    down = FakeRouter(("blue", "green"))
    down.down.add("blue")
    assert preflight.roles(down, slots) == ROLES


def checks(
    canary: bool | None = True,
    baseline: bool | None = False,
    healthy: bool | None = True,
    good: bool | None = True,
) -> preflight.Checks:
    def of(slot: str, image: ImageReference) -> Identity:
        if slot == "green":
            return Identity(canary, "green")
        return Identity(good if image == OTHER else baseline, "blue")

    return preflight.Checks(of, lambda slot: healthy)


GOOD = KnownGood("blue", str(OTHER), NOON)


def test_everything_that_has_to_hold_before_the_first_request() -> None:
    """Canary, baseline and health, each with the error that fits."""
    preflight.check_slots(ROLES, IMAGE, GOOD, checks())
    preflight.check_slots(ROLES, IMAGE, None, checks(healthy=None))
    for found, good, error in (
        (checks(canary=False), GOOD, VerificationFailed),
        (checks(canary=None), GOOD, Inconclusive),
        (checks(baseline=True), GOOD, UsageError),
        (checks(good=False), GOOD, PolicyDenied),
        (checks(good=None), GOOD, Inconclusive),
        (checks(healthy=False), GOOD, Inconclusive),
        (checks(), replace(GOOD, slot="green"), PolicyDenied),
    ):
        with pytest.raises(error):
            preflight.check_slots(ROLES, IMAGE, good, found)


def test_unchecked_identities_still_know_the_slot() -> None:
    """A target without runtimes refuses a baseline in the wrong slot all the same."""
    unchecked = replace(checks(), identify=None)
    preflight.check_slots(ROLES, IMAGE, GOOD, unchecked)
    with pytest.raises(PolicyDenied):
        preflight.check_slots(ROLES, IMAGE, replace(GOOD, slot="green"), unchecked)
    with pytest.raises(UsageError, match="already"):
        preflight.check_slots(ROLES, IMAGE, replace(GOOD, image=str(IMAGE)), unchecked)


def test_problems_of_the_metrics_refuse() -> None:
    """Each of them is named."""
    with pytest.raises(Inconclusive, match="no series of green"):
        preflight.check_metrics(("no series of green",))


def test_an_unsigned_quarantine_of_this_machine_refuses() -> None:
    """A digest that was rolled back is remembered before its statement is signed."""
    entry = Quarantined(str(IMAGE), "latency", "slow", NOON, "production", "1")
    with pytest.raises(PolicyDenied, match="slow"):
        preflight.check_memory(IMAGE, {str(IMAGE.digest): entry})
    preflight.check_memory(OTHER, {str(IMAGE.digest): entry})


def test_the_journal_gives_back_what_was_written(tmp_path: Path) -> None:
    """State, looks, the last good image and the memory of quarantines, from another program."""
    world = World()
    record = Programs(world).run()
    journal, again = Journal(tmp_path, "production"), Journal(tmp_path, "production")
    assert again.unfinished() is None
    saved = world.on_disk
    assert saved is not None
    with journal.lock() as mine:
        assert mine
        journal.save(saved)
        for look in record.looks:
            journal.append("1", look)
        journal.set_known_good(GOOD)
        with again.lock() as theirs:
            assert not theirs
    assert again.unfinished() == saved
    assert tuple(again.looks("1")) == record.looks
    assert again.known_good() == GOOD
    entry = Quarantined(str(IMAGE), "latency", "slow", NOON, "production", "1")
    journal.set_quarantined(str(IMAGE.digest), entry)
    assert again.quarantined() == {str(IMAGE.digest): entry}
    journal.set_quarantined(str(IMAGE.digest), None)
    journal.close()
    assert again.quarantined() == {}
    assert again.unfinished() is None


def test_without_a_place_to_remember_nothing_begins(tmp_path: Path) -> None:
    """A state directory that cannot be written is exit 4 before anything moves."""
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable), Journal(tmp_path / "file", "production").lock():
        pass


def test_a_damaged_journal_is_no_empty_one(tmp_path: Path) -> None:
    """What cannot be read may be a canary with traffic: a person has to look."""
    journal = Journal(tmp_path, "production")
    journal.directory.mkdir()
    for text in ("", "{", "{}", json.dumps({"version": 1})):
        (journal.directory / "current.json").write_text(text)
        with pytest.raises(Inconclusive, match="cannot be read"):
            journal.unfinished()
    (tmp_path / "quarantine.json").write_text("[]")
    with pytest.raises(Inconclusive):
        journal.quarantined()


def test_a_torn_line_of_looks_is_left_out(tmp_path: Path) -> None:
    """A kill may tear the last line; the others stay."""
    looks = Programs(World()).run().looks
    journal = Journal(tmp_path, "production")
    for look in looks[:3]:
        journal.append("1", look)
    path = journal.folder("1") / "looks.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert tuple(journal.looks("1")) == looks[:2]


class Later:
    """An executor whose work is done when the test says so."""

    def __init__(self) -> None:
        self.begun: list[tuple[Future[Glance], object]] = []

    def submit(self, work: object, /) -> Future[Glance]:
        future: Future[Glance] = Future()
        self.begun.append((future, work))
        return future

    def finish(self) -> None:
        future, work = self.begun.pop()
        future.set_result(work())  # type: ignore[operator]


class Samples:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def mark(self) -> None:
        self.calls.append("mark")

    def sample(self) -> Sample:
        self.calls.append("sample")
        return Sample(NoData("…"))


def test_a_round_that_was_begun_before_the_move_is_thrown_away() -> None:
    """Only what was begun after ``renew`` counts, and the sampler is told to forget first."""
    clock, executor, samples = SimulatedClock(), Later(), Samples()
    watcher = Watcher(samples, lambda: Identity(True, ""), executor, clock, 5.0)
    assert watcher.poll() is None
    watcher.renew()
    executor.finish()
    assert watcher.poll() is None
    executor.finish()
    glance = watcher.poll()
    assert glance is not None
    assert samples.calls == ["mark", "sample"] * 2


def test_an_identity_that_cannot_be_had_is_none() -> None:
    """An error of the runtime neither proves nor denies."""

    def fails() -> Identity:
        raise Unavailable("the engine is gone")

    clock, executor = SimulatedClock(), Later()
    watcher = Watcher(Samples(), fails, executor, clock, 5.0)
    watcher.poll()
    executor.finish()
    glance = watcher.poll()
    assert glance is not None
    assert glance.identity == Identity(None, "the engine is gone")
