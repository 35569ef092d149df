"""Signed summaries: about builds, only where something is shown about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.evidence import NOON, public_key, signer
from fakes.release import FixedClock, Release, passed, policy
from fakes.runtime import FakeRuntime, container
from secure_pipeline.attestations import dsse
from secure_pipeline.attestations.predicates import VSA, read_run
from secure_pipeline.attestations.statement import parse_statement
from secure_pipeline.events import ignore
from secure_pipeline.oci.digest import Digest
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.ports import ChangedFile
from secure_pipeline.report import running as report_running
from secure_pipeline.stages import running_candidates
from secure_pipeline.stages.running import RunningInputs, RunningReport, verify_running
from secure_pipeline.stages.running_vsa import summaries, to_lines


class Scene:
    """A signed release that runs twice."""

    def __init__(self, release: Release, trusted: LoadedPolicy) -> None:
        release.run()
        self.release = release
        self.trusted = trusted
        image = str(release.image.digest)
        self.runtime = FakeRuntime([container(image, "one"), container(image, "two")])

    def report(self, **changes: Any) -> RunningReport:
        inputs = RunningInputs(self.trusted, running_candidates.listed(self.release.layout))
        return verify_running(replace(inputs, **changes), [self.runtime], FixedClock(), ignore)


@pytest.fixture
def scene(release: Release, trusted: LoadedPolicy) -> Scene:
    return Scene(release, trusted)


def test_one_summary_a_build(scene: Scene) -> None:
    """Two containers of one build give one PASSED, signed, about exactly its digest and run."""
    (made,) = summaries(scene.report(), signer())
    envelope = dsse.parse_envelope(made.envelope)
    assert public_key().signed(envelope)
    statement = parse_statement(envelope.payload)
    statement.require_type(VSA)
    statement.require_subject(scene.release.image.digest)
    assert statement.predicate["verificationResult"] == "PASSED"
    assert statement.predicate["resourceUri"].startswith("pkg:oci/image@sha256%3A")
    assert statement.predicate["timeVerified"] == "2026-03-01T12:00:00Z"
    assert read_run(VSA, statement.predicate).run_id == "run-1"
    assert to_lines([made]) == made.envelope + b"\n"
    assert b"\n" not in made.envelope


def test_attached_it_leaves_the_evidence_whole(scene: Scene) -> None:
    """The image verifies with its summary beside it."""
    (made,) = summaries(scene.report(), signer())
    scene.release.smuggle(made.envelope)
    passed(scene.release.verify(scene.trusted))
    assert scene.report().code == 0


def test_drift_says_nothing_about_the_build(scene: Scene) -> None:
    """One changed container: no PASSED for the build, and no FAILED either."""
    scene.runtime.changed = {"id-one": (ChangedFile("/bin/sh", "changed"),)}
    assert summaries(scene.report(), signer()) == ()


def test_what_cannot_be_told_has_no_summary(scene: Scene) -> None:
    """Undetermined and unknown images are left out."""
    scene.runtime.running.append(container(str(Digest.of(b"other")), "other"))
    scene.runtime.changed = {"id-one": None}
    assert summaries(scene.report(), signer()) == ()


def test_denied_evidence_is_a_failed_summary(scene: Scene, tmp_path: Path) -> None:
    """The build itself is denied: FAILED."""
    strict = policy(tmp_path / "strict", builders="[https://other.example/builder]")
    (made,) = summaries(scene.report(policy=strict), signer())
    assert made.predicate["verificationResult"] == "FAILED"
    assert made.predicate["verifiedLevels"] == ["FAILED"]


def test_the_report_for_people_and_machines(scene: Scene) -> None:
    """One line a container, reasons below it, a sum; foreign text cannot move the cursor."""
    scene.runtime.changed = {"id-two": (ChangedFile("/bin/\x1b[2J\udcff", "added"),)}
    report = scene.report()
    digest = scene.release.image.digest
    assert report_running.lines(report) == [
        f"MATCH docker://one {digest} run run-1",
        f"MISMATCH docker://two {digest} run run-1",
        "  drift: /bin/\\x1b[2J\\xdcff was added",
        "MISMATCH: 2 containers (1 MATCH, 1 MISMATCH)",
    ]
    document = report_running.document(report)
    assert (document["time"], document["exitCode"]) == ("2026-03-01T12:00:00Z", 11)
    assert document["policy"] == scene.trusted.digest
    two = {item["container"]: item for item in document["containers"]}["docker://two"]
    assert two["outcome"] == "MISMATCH"
    assert two["image"] == f"image@{digest}"
    assert [rule["outcome"] for rule in two["rules"]].count("deny") == 1
    assert NOON.isoformat().startswith("2026-03-01T12")
