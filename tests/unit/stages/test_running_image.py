"""Whether what runs belongs to a build: all three forms of a runtime's digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fakes.images import Layer, build_image, build_index
from secure_pipeline.errors import Unavailable
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import INDEX_TYPE, Descriptor
from secure_pipeline.policy.decision import Outcome, Rule
from secure_pipeline.stages.running_image import MAX_PLATFORMS, Running, belongs

OTHER = Digest.of(b"something else")


class Multi:
    """An index of two platforms and BuildKit's attestation, in a layout."""

    def __init__(self, path: Path) -> None:
        self.root = build_index(
            path,
            {"linux/amd64": [Layer({"a": b"1"})], "linux/arm64": [Layer({"a": b"2"})]},
        )
        self.layout = Layout.open(path)
        self.amd64, self.arm64, self.attestation = self.layout.read_index(self.root).manifests

    def config(self, image: Descriptor) -> Digest:
        return self.layout.read_manifest(image).config.digest

    def judge(
        self, digest: Digest, platform: str | None = "linux/amd64", *, is_config: bool = False
    ) -> Rule:
        return belongs(self.layout, self.root.digest, Running(digest, is_config, platform))

    def add_index(self, *items: dict[str, Any]) -> Digest:
        document = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": list(items)}
        found = self.layout.write_blob(json.dumps(document).encode(), INDEX_TYPE)
        self.layout.add_manifest(found)
        return found.digest


@pytest.fixture
def multi(tmp_path: Path) -> Multi:
    return Multi(tmp_path / "multi")


def test_reg_05_all_three_forms_are_mapped(multi: Multi) -> None:
    """Index, manifest and config of the build are all proven to be it."""
    for digest in (multi.root.digest, multi.amd64.digest, multi.config(multi.amd64)):
        assert multi.judge(digest).outcome is Outcome.ALLOW
    known = multi.judge(multi.config(multi.amd64), is_config=True)
    assert known.outcome is Outcome.ALLOW


def test_reg_05_an_unknown_digest_is_never_equal_enough(multi: Multi) -> None:
    """What nothing can be told about is undetermined; what is surely a config is denied."""
    unknown = multi.judge(OTHER)
    assert unknown.outcome is Outcome.UNDETERMINED
    assert "cannot tell" in unknown.why
    assert multi.judge(OTHER, is_config=True).outcome is Outcome.DENY


@pytest.mark.parametrize("platform", ["linux/arm64", "linux/arm64/v8"])
def test_reg_04_the_child_for_the_machine(multi: Multi, platform: str) -> None:
    """The same index gives another child on another machine."""
    assert multi.judge(multi.root.digest, platform).outcome is Outcome.ALLOW
    assert multi.judge(multi.arm64.digest, platform).outcome is Outcome.ALLOW
    assert multi.judge(multi.config(multi.arm64), platform).outcome is Outcome.ALLOW


def test_reg_04_another_platform_is_denied(multi: Multi) -> None:
    """A child that is not for this machine refuses, and so does an index without one."""
    assert multi.judge(multi.arm64.digest).outcome is Outcome.DENY
    assert multi.judge(multi.config(multi.arm64), is_config=True).outcome is Outcome.DENY
    none = multi.judge(multi.root.digest, "linux/s390x")
    assert none.outcome is Outcome.DENY
    assert "linux/s390x" in none.why


def test_reg_04_an_ambiguous_platform_is_undetermined(multi: Multi) -> None:
    """Two images for one machine, or no platform known, are not guessed between."""
    assert multi.judge(multi.root.digest, None).outcome is Outcome.UNDETERMINED
    second = {**multi.arm64.to_json(), "platform": {"os": "linux", "architecture": "amd64"}}
    root = multi.add_index(multi.amd64.to_json(), second)
    rule = belongs(multi.layout, root, Running(root, False, "linux/amd64"))
    assert rule.outcome is Outcome.UNDETERMINED
    exact = belongs(multi.layout, root, Running(multi.amd64.digest, False, "linux/amd64"))
    assert exact.outcome is Outcome.ALLOW


def test_reg_04_an_index_that_names_no_platform(multi: Multi) -> None:
    """Then the config, which the manifest names by digest, tells."""
    plain = [{**image.to_json()} for image in (multi.amd64, multi.arm64)]
    for item in plain:
        del item["platform"]
    root = multi.add_index(*plain)
    for platform in ("linux/amd64", "linux/arm64"):
        rule = belongs(multi.layout, root, Running(root, False, platform))
        assert rule.outcome is Outcome.ALLOW, rule.why


def test_reg_07_attestations_are_no_platform(multi: Multi) -> None:
    """With unknown/unknown left out one image is left; as what runs it is never the build."""
    root = multi.add_index(multi.amd64.to_json(), multi.attestation.to_json())
    alone = belongs(multi.layout, root, Running(root, False, None))
    assert alone.outcome is Outcome.ALLOW
    for digest in (multi.attestation.digest, multi.config(multi.attestation)):
        for platform in ("linux/amd64", "unknown/unknown"):
            assert multi.judge(digest, platform, is_config=True).outcome is Outcome.DENY


def test_reg_07_an_attestation_that_claims_a_platform_is_ambiguous(multi: Multi) -> None:
    """Only unknown/unknown is left out: an annotation alone hides no image."""
    claims = {**multi.attestation.to_json(), "platform": {"os": "linux", "architecture": "amd64"}}
    root = multi.add_index(multi.amd64.to_json(), claims)
    rule = belongs(multi.layout, root, Running(root, False, "linux/amd64"))
    assert rule.outcome is Outcome.UNDETERMINED


def test_another_index_around_the_same_manifest(multi: Multi) -> None:
    """An index that the store has can be read: the same child is the same build."""
    around = multi.add_index(multi.amd64.to_json(), multi.attestation.to_json())
    assert multi.judge(around).outcome is Outcome.ALLOW
    elsewhere = multi.add_index(multi.arm64.to_json())
    assert multi.judge(elsewhere).outcome is Outcome.DENY


def test_an_image_for_one_platform(tmp_path: Path) -> None:
    """A manifest is its own root; another image of the same store is another build."""
    image = build_image(tmp_path / "one", [Layer({"a": b"1"})])
    other = build_image(tmp_path / "one", [Layer({"a": b"2"})], tag="other")
    layout = Layout.open(tmp_path / "one")
    config = layout.read_manifest(image).config.digest
    for digest, outcome in (
        (image.digest, Outcome.ALLOW),
        (config, Outcome.ALLOW),
        (other.digest, Outcome.DENY),
    ):
        running = Running(digest, False, "linux/amd64")
        assert belongs(layout, image.digest, running).outcome is outcome


def test_a_build_that_is_not_there_is_undetermined(multi: Multi) -> None:
    """Deleted is not disproven."""
    rule = belongs(multi.layout, OTHER, Running(OTHER, False, "linux/amd64"))
    assert rule.outcome is Outcome.UNDETERMINED
    assert "not to be had" in rule.why


def test_reg_02_altered_bytes_are_denied(multi: Multi) -> None:
    """A manifest with other bytes than its digest proves tampering."""
    path = multi.layout.path / "blobs" / "sha256" / multi.amd64.digest.hex
    path.write_bytes(path.read_bytes().replace(b"sha256", b"sha265", 1))
    assert multi.judge(multi.root.digest).outcome is Outcome.DENY


def test_a_store_that_does_not_answer_is_undetermined(
    multi: Multi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-way too."""

    def away(*arguments: object) -> None:
        raise Unavailable("no answer", hint="start it")

    for name in ("find", "read_index", "read_manifest"):
        with monkeypatch.context() as patched:
            patched.setattr(multi.layout, name, away)
            rule = multi.judge(multi.root.digest)
        assert (rule.outcome, rule.hint) == (Outcome.UNDETERMINED, "start it")


def test_shapes_that_are_no_image(multi: Multi) -> None:
    """An index in an index, evidence, and endless lists are undetermined, never an image."""
    nested = {**multi.root.to_json(), "platform": {"os": "linux", "architecture": "amd64"}}
    root = multi.add_index(nested)
    rule = belongs(multi.layout, root, Running(root, False, "linux/amd64"))
    assert rule.outcome is Outcome.UNDETERMINED
    many = [
        {**multi.amd64.to_json(), "digest": f"sha256:{number:064x}"}
        for number in range(MAX_PLATFORMS + 1)
    ]
    root = multi.add_index(*many)
    rule = belongs(multi.layout, root, Running(root, False, "linux/amd64"))
    assert rule.outcome is Outcome.UNDETERMINED
