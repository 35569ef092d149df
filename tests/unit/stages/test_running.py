"""``verify running``: outcomes of containers, from the runtime's word, bytes and evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fakes.evidence import NOON, run_context, signer
from fakes.release import BUILDER, FixedClock, Release, policy, suite
from fakes.runtime import FakeRuntime, container
from secure_pipeline.attestations import predicates
from secure_pipeline.attestations.quarantine import quarantine_predicate
from secure_pipeline.errors import (
    ConfigError,
    ExitCode,
    PipelineError,
    Unavailable,
    UsageError,
)
from secure_pipeline.events import ignore
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.oci.store import Source
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.ports import ChangedFile, ContainerKind, RunningContainer
from secure_pipeline.stages import running_candidates
from secure_pipeline.stages.result import Evidence
from secure_pipeline.stages.running import (
    MAX_FILES,
    MAX_NAMES,
    Candidate,
    ContainerCheck,
    RunningInputs,
    RunningReport,
    Standing,
    verify_running,
)

HOST = "registry.example/team/app"
OTHER = str(Digest.of(b"another image"))


class Scene:
    """A signed release, and a runtime that runs it."""

    def __init__(self, release: Release, trusted: LoadedPolicy) -> None:
        release.run()
        self.release = release
        self.policy = trusted
        self.config = str(release.layout.read_manifest(release.image).config.digest)
        self.root = str(release.image.digest)
        self.runtime = FakeRuntime([container(self.config, image_is_config=True)])
        self.stores: dict[str, Callable[[], Source]] = {HOST: lambda: release.layout}

    def open(self, name: str) -> Source:
        return self.stores[name]()

    def look(self, **changes: Any) -> RunningReport:
        """One look, with the layout's builds as candidates unless ``changes`` says others."""
        candidates = running_candidates.listed(self.release.layout)
        inputs = RunningInputs(policy=self.policy, candidates=candidates)
        return verify_running(replace(inputs, **changes), [self.runtime], FixedClock(NOON), ignore)

    def only(self, **changes: Any) -> ContainerCheck:
        report = self.look(**changes)
        (check,) = report.checks
        assert (report.standing, report.code) == (check.standing, check.decision.code)
        return check


@pytest.fixture
def scene(release: Release, trusted: LoadedPolicy) -> Scene:
    return Scene(release, trusted)


def why(check: ContainerCheck) -> str:
    return "\n".join(f"{rule.id}: {rule.why} {rule.hint}" for rule in check.decision.objections)


@pytest.mark.parametrize("form", ["config", "root"])
def test_the_signed_image_matches(scene: Scene, form: str) -> None:
    """By config or by manifest: identity, all rules of the evidence, and no drift."""
    image = getattr(scene, form)
    scene.runtime.running = [container(image, image_is_config=form == "config")]
    check = scene.only()
    assert (check.standing, check.decision.code) == (Standing.MATCH, ExitCode.PASS), why(check)
    assert check.run == "run-1"
    assert check.image == ImageReference("image", scene.release.image.digest)
    ids = [rule.id for rule in check.decision.rules]
    assert (ids[0], ids[-1]) == ("image", "drift")
    assert {"seal", "required", "vulnerabilities"} <= set(ids)


def test_what_is_in_quarantine_must_not_run(scene: Scene) -> None:
    """An image that was put into quarantine since is denied wherever it still runs."""
    predicate = quarantine_predicate("slow", "latency", "blue", None, "ci", NOON)
    about = run_context("run-1", builder_id=BUILDER)
    scene.release.attach(
        scene.release.payloads([Evidence(predicates.QUARANTINE, predicate)], about)
    )
    check = scene.only()
    assert check.standing is not Standing.MATCH
    assert check.decision.code is ExitCode.DENIED
    assert "in quarantine, latency: slow" in why(check)


def test_reg_06_what_was_asked_for_does_not_count(scene: Scene) -> None:
    """The right tag with another image below it is a mismatch."""
    asked = f"{HOST}@{scene.root}"
    scene.runtime.running = [container(OTHER, asked=asked, image_is_config=True)]
    check = scene.only()
    assert (check.standing, check.decision.code) == (Standing.MISMATCH, ExitCode.VERIFICATION)
    assert OTHER in why(check)


@pytest.mark.parametrize("image", ["", "app:v1", "sha512:00", "sha256:00", "name@sha256:x"])
def test_reg_05_unknown_shapes_are_undetermined(scene: Scene, image: str) -> None:
    """What is no digest of a known form cannot be told."""
    scene.runtime.running = [container(image)]
    check = scene.only()
    assert (check.standing, check.decision.code) == (Standing.UNREACHABLE, ExitCode.INCONCLUSIVE)


def test_reg_05_an_unknown_digest_of_unknown_form(scene: Scene) -> None:
    """Without knowing that it is a config's, another digest proves nothing."""
    scene.runtime.running = [container(OTHER)]
    assert scene.only().standing is Standing.UNREACHABLE


def test_without_evidence_it_is_a_mismatch(tmp_path: Path, trusted: LoadedPolicy) -> None:
    """The right bytes with nothing signed about them."""
    scene = Scene(Release(tmp_path / "signed"), trusted)
    bare = Release(tmp_path / "bare", b"bare")
    check = scene.only(candidates=running_candidates.listed(bare.layout))
    assert check.standing is Standing.MISMATCH
    scene.runtime.running = [container(str(bare.image.digest))]
    check = scene.only(candidates=running_candidates.listed(bare.layout))
    assert check.decision.code is ExitCode.VERIFICATION
    assert "no evidence is attached" in why(check)


def test_a_gate_that_is_not_met_is_12(scene: Scene, tmp_path: Path) -> None:
    """Proven, and denied by the policy of today."""
    strict = policy(tmp_path / "strict", builders="[https://other.example/builder]")
    check = scene.only(policy=strict)
    assert (check.standing, check.decision.code) == (Standing.MISMATCH, ExitCode.DENIED)


def test_drift_names_the_files(scene: Scene) -> None:
    """Each changed executable is a reason; past the limit they are counted."""
    scene.runtime.changed = {"id-web": (ChangedFile("/bin/sh", "changed"),)}
    check = scene.only()
    assert check.decision.code is ExitCode.VERIFICATION
    assert "drift: /bin/sh was changed" in why(check)
    assert scene.only(drift=False).standing is Standing.MATCH
    many = tuple(ChangedFile(f"/bin/{number}", "added") for number in range(MAX_FILES + 5))
    scene.runtime.changed = {"id-web": many}
    assert "5 more executables differ" in why(scene.only())


def test_drift_that_cannot_be_seen(scene: Scene) -> None:
    """None is no clean bill, unless nothing can be written there or the operator says so."""
    scene.runtime.changed = {"id-web": None}
    check = scene.only()
    assert check.standing is Standing.UNREACHABLE
    assert "--no-drift" in why(check)
    assert scene.only(drift=False).standing is Standing.MATCH
    scene.runtime.running = [replace(scene.runtime.running[0], read_only=True)]
    assert scene.only().standing is Standing.MATCH


def test_drift_over_a_limit_or_without_an_answer(scene: Scene) -> None:
    """Errors while looking are undetermined for that container."""
    scene.runtime.changed = {"id-web": Unavailable("no answer", hint="try again")}
    check = scene.only()
    assert (check.standing, "try again" in why(check)) == (Standing.UNREACHABLE, True)


def test_the_worst_of_all_counts(scene: Scene) -> None:
    """MISMATCH over UNREACHABLE over MATCH, whatever kind of container it is."""
    good = scene.runtime.running[0]
    lost = container("", "lost", kind=ContainerKind.SIDECAR)
    bad = container(OTHER, "bad", kind=ContainerKind.EPHEMERAL, image_is_config=True)
    for running, standing, code in (
        ([good], Standing.MATCH, ExitCode.PASS),
        ([good, lost], Standing.UNREACHABLE, ExitCode.INCONCLUSIVE),
        ([good, lost, bad], Standing.MISMATCH, ExitCode.VERIFICATION),
        ([bad, good], Standing.MISMATCH, ExitCode.VERIFICATION),
    ):
        scene.runtime.running = list(running)
        report = scene.look()
        assert (report.standing, report.code) == (standing, code)
        assert len(report.checks) == len(running)


def test_no_containers_are_never_a_pass(scene: Scene) -> None:
    """Nothing to look at is a usage error, at once or when everything has gone."""
    gone = scene.runtime.running
    scene.runtime.running = []
    with pytest.raises(UsageError):
        scene.look()
    scene.runtime.listings = [gone]
    with pytest.raises(UsageError, match="gone"):
        scene.look()
    assert RunningReport(NOON, scene.policy, ()).code is not ExitCode.PASS


def test_what_ended_and_what_has_not_started(scene: Scene) -> None:
    """An init container is judged by what it ran; one that waits cannot be judged."""
    good = scene.runtime.running[0]
    ended = replace(good, kind=ContainerKind.INIT, running=False)
    scene.runtime.running = [ended]
    scene.runtime.changed = {"id-web": None}
    assert scene.only().standing is Standing.MATCH
    scene.runtime.running = [replace(good, running=False, started="")]
    assert scene.only().standing is Standing.UNREACHABLE


def test_a_container_that_restarts_meanwhile_is_checked_again(scene: Scene) -> None:
    """What counts is what is there at the end."""
    good = scene.runtime.running[0]
    other = replace(good, id="id-new", image=OTHER, started="2026-03-01T11:30:00Z")
    scene.runtime.running = [other]
    scene.runtime.listings = [[good]]
    scene.runtime.changed = {}
    report = scene.look()
    assert [check.container for check in report.checks] == [other]
    assert report.standing is Standing.MISMATCH


def test_containers_that_never_stay_are_undetermined(scene: Scene) -> None:
    """After some rounds the last one is not called proven."""
    good = scene.runtime.running[0]
    each = [replace(good, started=f"2026-03-01T11:00:0{number}Z") for number in range(5)]
    scene.runtime.listings = [[one] for one in each]
    report = scene.look()
    assert report.standing is Standing.UNREACHABLE
    assert report.checks[-1].decision.rules[0].id == "stable"


@pytest.mark.parametrize("error", [UsageError("none"), Unavailable("away")])
def test_a_mismatch_is_not_lost_when_the_runtime_goes(scene: Scene, error: PipelineError) -> None:
    """What was proven wrong stays proven, though the container or the engine is gone."""
    scene.runtime.listings = [[container(OTHER, image_is_config=True)], error]
    assert scene.look().code is ExitCode.VERIFICATION


def test_a_match_is_not_proven_when_it_cannot_be_listed_again(scene: Scene) -> None:
    """It could have been replaced meanwhile."""
    scene.runtime.listings = [scene.runtime.running, Unavailable("away")]
    assert scene.look().code is ExitCode.INCONCLUSIVE


def test_an_engine_that_does_not_answer_is_unavailable(scene: Scene) -> None:
    """At the start nothing is known at all: exit 4."""
    scene.runtime.listings = [Unavailable("away", hint="start it")]
    with pytest.raises(Unavailable):
        scene.look()


def test_two_targets_that_name_one_container(scene: Scene) -> None:
    """It is checked once."""
    inputs = RunningInputs(scene.policy, running_candidates.listed(scene.release.layout))
    report = verify_running(inputs, [scene.runtime, scene.runtime], FixedClock(), ignore)
    assert len(report.checks) == 1


class TestCandidates:
    """Where builds are looked for."""

    def test_names_say_where_it_was_pulled_from(self, scene: Scene) -> None:
        """The runtime's own name by digest leads to image and evidence."""
        running = replace(scene.runtime.running[0], names=(f"{HOST}@{scene.root}",))
        scene.runtime.running = [running]
        check = scene.only(candidates=running_candidates.pulled(scene.open))
        assert (check.standing, str(check.image)) == (Standing.MATCH, f"{HOST}@{scene.root}")

    def test_no_name_at_all(self, scene: Scene) -> None:
        """Nothing says which build it should be: undetermined, with what to type."""
        check = scene.only(candidates=running_candidates.pulled(scene.open))
        assert check.standing is Standing.UNREACHABLE
        assert "--image" in why(check)

    def test_names_that_are_none_are_left_out(self) -> None:
        """Tags, other algorithms and endless lists lead nowhere."""
        names = ("app:v1@sha256:" + "0" * 64, "app", "app@sha512:0", "@sha256:" + "0" * 64)
        many = tuple(f"h.example/a{n}@sha256:{'0' * 64}" for n in range(MAX_NAMES * 2))
        of = running_candidates.pulled(lambda name: pytest.fail(name))
        assert list(of(container(OTHER, names=names))) == []
        assert len(of(container(OTHER, names=many))) == MAX_NAMES

    def test_the_build_it_must_be(self, scene: Scene) -> None:
        """--image names one: that one matches, any other is a mismatch."""
        image = ImageReference(HOST, scene.release.image.digest)
        named = running_candidates.named([image], scene.open)
        assert scene.only(candidates=named).standing is Standing.MATCH
        scene.runtime.running = [container(OTHER, image_is_config=True)]
        assert scene.only(candidates=named).standing is Standing.MISMATCH

    def test_one_of_several_builds(self, scene: Scene, tmp_path: Path) -> None:
        """Two builds are allowed during a rollout; it has to be one of them."""
        new = Release(tmp_path / "new", b"new")
        new.run()
        scene.stores["registry.example/team/new"] = lambda: new.layout
        old = ImageReference(HOST, scene.release.image.digest)
        images = [old, ImageReference("registry.example/team/new", new.image.digest)]
        config = str(new.layout.read_manifest(new.image).config.digest)
        scene.runtime.running.append(container(config, "new", image_is_config=True))
        report = scene.look(candidates=running_candidates.named(images, scene.open))
        assert [check.image for check in report.checks] == images
        assert report.standing is Standing.MATCH
        only_old = running_candidates.named([old], scene.open)
        assert scene.look(candidates=only_old).standing is Standing.MISMATCH

    def test_builds_of_a_layout_without_its_evidence(self, scene: Scene) -> None:
        """Of everything that a layout lists, only images are builds."""
        of = running_candidates.listed(scene.release.layout)
        (found,) = of(scene.runtime.running[0])
        assert found.image.digest == scene.release.image.digest
        pulled = replace(scene.runtime.running[0], names=(f"{HOST}@{scene.root}",))
        assert [str(each.image) for each in of(pulled)] == [f"{HOST}@{scene.root}"]

    @pytest.mark.parametrize("error", [Unavailable("away", hint="start it"), UsageError("bad")])
    def test_a_registry_that_does_not_answer(self, scene: Scene, error: PipelineError) -> None:
        """The build cannot be read: undetermined, with the registry's hint."""

        def away() -> Source:
            raise error

        scene.stores[HOST] = away
        running = replace(scene.runtime.running[0], names=(f"{HOST}@{scene.root}",))
        scene.runtime.running = [running]
        check = scene.only(candidates=running_candidates.pulled(scene.open))
        assert check.decision.code is ExitCode.INCONCLUSIVE

    def test_a_registry_that_is_configured_wrongly(self, scene: Scene) -> None:
        """A broken configuration is the operator's to mend: exit 3, no verdict."""

        def broken() -> Source:
            raise ConfigError("no such CA")

        scene.stores[HOST] = broken
        running = replace(scene.runtime.running[0], names=(f"{HOST}@{scene.root}",))
        scene.runtime.running = [running]
        with pytest.raises(ConfigError):
            scene.look(candidates=running_candidates.pulled(scene.open))


class TestSeveralPlaces:
    """The same build in several registries."""

    @pytest.fixture
    def elsewhere(self, tmp_path: Path, release: Release) -> Release:
        """The same image without evidence."""
        other = Release(tmp_path / "elsewhere")
        assert other.image.digest == release.image.digest
        return other

    def candidates(self, *sources: Source) -> Callable[[RunningContainer], Sequence[Candidate]]:
        def candidate(number: int, source: Source) -> Candidate:
            (found,) = {
                item.digest
                for item in source.manifests()  # type: ignore[attr-defined]
                if not item.artifact_type and not str(item.tag).endswith(".att")
            }
            return Candidate(ImageReference(f"h{number}.example/app", found), lambda: source)

        found = [candidate(number, source) for number, source in enumerate(sources)]
        return lambda container: found

    def test_a_place_without_evidence_takes_nothing_away(
        self, scene: Scene, elsewhere: Release
    ) -> None:
        """The sealed evidence of one place is proof, in any order."""
        places = (scene.release.layout, elsewhere.layout)
        for order in (places, places[::-1]):
            assert scene.only(candidates=self.candidates(*order)).standing is Standing.MATCH

    def test_a_trusted_denial_in_one_place_decides(self, scene: Scene, elsewhere: Release) -> None:
        """A failed test that a trusted key signed counts, though the other place lacks it."""
        elsewhere.run("run-2", items={"test": suite("test", "FAILED")})
        places = (scene.release.layout, elsewhere.layout)
        for order in (places, places[::-1]):
            check = scene.only(candidates=self.candidates(*order))
            assert check.standing is Standing.MISMATCH

    def test_strangers_decide_nothing(self, scene: Scene, elsewhere: Release) -> None:
        """Statements of unknown keys in another place neither help nor harm."""
        elsewhere.run("run-2", key=signer(1), time=NOON - timedelta(hours=1))
        places = (elsewhere.layout, scene.release.layout)
        assert scene.only(candidates=self.candidates(*places)).standing is Standing.MATCH
        alone = scene.only(candidates=self.candidates(elsewhere.layout))
        assert alone.standing is Standing.MISMATCH
