"""Quarantine in real registries, as people start it; cosign judges what lies beside the image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fakes.cosign import Cosign
from fakes.evidence import NAME, NOON, public_key, signer
from fakes.registry import (
    build_referrers_registry,
    debian_program,
    debian_registry,
    referrers_registry,
)
from fakes.release import REQUIRE, Release, policy
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.dockerconfig import NoCredentials
from secure_pipeline.adapters.registry import Repository, open_repository
from secure_pipeline.attestations import dsse, predicates
from secure_pipeline.attestations.forms import att_tag
from secure_pipeline.attestations.statement import Statement, parse_statement
from secure_pipeline.audit import reader
from secure_pipeline.keys import local
from secure_pipeline.oci.copy import copy_image
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.stages.quarantine import added, look, released, signed_statements
from secure_pipeline.stages.verify import VerifyInputs
from secure_pipeline.wiring.signing import publish_statements

pytestmark = pytest.mark.integration
PASSWORD = "only for tests"


@dataclass(frozen=True)
class Ended:
    """How the program ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.out)
        return value


@dataclass(frozen=True)
class Place:
    """A release in a registry, two keys in files, and a policy that tells them apart."""

    directory: Path
    host: str
    repository: str
    image: ImageReference

    @property
    def name(self) -> str:
        return f"{self.host}/{self.repository}"

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.image.digest}"

    def store(self) -> Repository:
        """A client of its own."""
        return open_repository(self.name, credentials=NoCredentials(), clock=SystemClock())

    def run(self, *words: str) -> Ended:
        ended = subprocess.run(
            [sys.executable, "-m", "secure_pipeline", *words],
            cwd=self.directory,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.directory),
                "SECURE_PIPELINE_POLICY": str(self.directory / "policy.yaml"),
                "SECURE_PIPELINE_STATE": str(self.directory / "state"),
                "SECURE_PIPELINE_KEY_PASSWORD": PASSWORD,
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Traceback" not in ended.stderr, ended.stderr
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def add(self, key: str = "canary") -> Ended:
        return self.run(
            *("quarantine", "add", self.reference, "--json"),
            *("--reason", "the answers are cut off", "--key", f"file:{key}.key"),
        )

    def release(self, key: str = "duty", *more: str) -> Ended:
        return self.run(
            *("quarantine", "release", self.reference, "--json"),
            *("--reason", "repaired", "--key", f"file:{key}.key", *more),
        )

    def statements(self, kind: str) -> dict[str, list[Statement]]:
        """Statements of a type in each layout, read apart from the writer's own idea of them."""
        store, digest = self.store(), self.image.digest
        tagged = store.tagged(att_tag(digest))
        manifests = [store.read_manifest(item) for item in store.referrers(digest)]
        layers = {
            "att": store.read_manifest(tagged).layers if tagged else (),
            "bundle": [layer for one in manifests for layer in one.layers],
        }
        found: dict[str, list[Statement]] = {"att": [], "bundle": []}
        for place, items in layers.items():
            for item in items:
                document = json.loads(store.read_blob(item.digest, 1 << 20))
                payload = document.get("dsseEnvelope", document)["payload"]
                statement = parse_statement(dsse.strict_base64(payload, "payload", place))
                if statement.predicate_type == kind:
                    found[place].append(statement)
        return found


@pytest.fixture(scope="module", params=["api", "plain"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with the referrers API, and Debian's without."""
    directory = tmp_path_factory.mktemp("registry")
    if request.param == "api":
        with referrers_registry(build_referrers_registry(directory)) as found:
            yield found
    else:
        with debian_registry(debian_program(), directory) as found:
            yield found


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys in files: the canary's and that of whoever is on duty."""
    directory = tmp_path_factory.mktemp("keys")
    for name in ("canary", "duty"):
        local.generate(directory / f"{name}.key", PASSWORD)
    return directory


@pytest.fixture
def place(host: str, keys: Path, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A signed release, copied into a repository of this test's own."""
    release = Release(tmp_path / "image")
    release.run()
    for path in keys.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    trusted = policy(tmp_path, require=REQUIRE.replace(", max-age: 7d", ""))
    entries = "".join(
        f"{{id: {name}, public-key: {name}.pub, algorithm: ecdsa-p256-sha256}}, "
        for name in ("canary", "duty")
    )
    trusted.source.write_text(
        trusted.source.read_text().replace("keys: [", f"keys: [{entries}")
        + "quarantine: {keys: [canary], release-keys: [duty]}\n"
    )
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:60].strip("-")
    made = Place(tmp_path, host, f"tests/{name}", ImageReference(NAME, release.image.digest))
    copy_image(release.layout, release.image.digest, made.store(), tag=None, on_progress=str)
    return made


def test_in_and_out_again(place: Place) -> None:
    """Add, verify 12, release, verify 0; both statements are in both layouts, bound to the run."""
    assert place.run("verify", place.reference).code == 0
    put = place.add()
    assert put.code == 0, put.err
    assert put.document["added"] == {"bundle": 1, "att": 1}
    denied = place.run("verify", place.reference, "--json")
    assert denied.code == 12, denied.err
    (reason,) = denied.document["reasons"]
    assert put.document["statement"] in reason
    assert place.run("quarantine", "list", place.reference).code == 12
    freed = place.release()
    assert freed.code == 0, freed.err
    assert freed.document["ended"] == [put.document["statement"]]
    assert place.run("verify", place.reference).code == 0
    assert place.run("quarantine", "list", place.reference).code == 0
    for kind in (predicates.QUARANTINE, predicates.RELEASE):
        for found in place.statements(kind).values():
            (statement,) = found
            statement.require_subject(place.image.digest)
            assert predicates.read_run(kind, statement.predicate).run_id == "run-1"
    entries = [stored.entry for stored in reader.entries(place.directory / "state/ledger.jsonl")]
    intents = [(e.action, e.subject) for e in entries if e.stage == "quarantine" and not e.intent]
    once = [("sign", place.reference), ("push", place.reference)]
    assert intents == [*once, *once]


def test_a_key_that_may_not_changes_nothing(place: Place) -> None:
    """The canary's key cannot release, nor can duty's key quarantine: 12, and nothing is sent."""
    assert place.add("duty").code == 12
    assert place.add().code == 0
    before = (
        place.statements(predicates.QUARANTINE),
        place.store().tagged(att_tag(place.image.digest)),
    )
    refused = place.release("canary")
    assert refused.code == 12, refused.err
    assert "release-keys" in refused.err
    after = (
        place.statements(predicates.QUARANTINE),
        place.store().tagged(att_tag(place.image.digest)),
    )
    assert before == after
    assert place.statements(predicates.RELEASE) == {"att": [], "bundle": []}
    assert place.run("verify", place.reference).code == 12


def test_strangers_words_change_nothing(place: Place) -> None:
    """Whoever may push, but is not in the policy, neither keeps an image out nor lets it in."""
    stranger = signer(7)
    (false,) = signed_statements(place.image, [added("because", "x", NOON)], None, stranger)
    publish_statements(place.store(), place.image, [false], stranger, SystemClock())
    assert place.run("verify", place.reference).code == 0
    assert place.add().code == 0
    trusted = policy(place.directory / "mine", key=signer())
    every = VerifyInputs(place.store(), place.image, trusted, operator_keys=(
        ((place.directory / "canary.pub").read_bytes(), public_key().algorithm),
    ))  # fmt: skip
    now = datetime.now(UTC)
    release, ended = released(look(every, now), (), "because", "x", now)
    assert len(ended) == 1
    (false,) = signed_statements(place.image, [release], None, stranger)
    publish_statements(place.store(), place.image, [false], stranger, SystemClock())
    ended_ = place.run("verify", place.reference)
    assert ended_.code == 12, ended_.out
    assert "attachments by unknown keys are no evidence" in ended_.out


def test_a_copy_carries_the_verdicts_along(place: Place) -> None:
    """To another repository and to a layout: what is kept out here is kept out there."""
    assert place.add().code == 0
    other = f"{place.name}-copy"
    assert place.run("copy", place.reference, other).code == 0
    there = f"{other}@{place.image.digest}"
    assert place.run("verify", there).code == 12
    assert place.run("copy", place.reference, "layout:copy").code == 0
    assert place.run("verify", place.reference, "--layout", "copy").code == 12
    # a release follows by another copy; what is not copied is not released
    assert place.release().code == 0
    assert place.run("verify", there).code == 12
    assert place.run("copy", place.reference, other).code == 0
    assert place.run("verify", there).code == 0


def test_cosign_still_accepts_the_image(place: Place, tmp_path: Path) -> None:
    """The run's evidence and both verdicts verify with cosign, in each layout."""
    assert place.add().code == 0
    assert place.release().code == 0
    (tmp_path / "release-key.pub").write_bytes(public_key().pem)
    cosign = Cosign.located("cosign", tmp_path / "cosign")
    judged = (
        (predicates.PROVENANCE, "release-key.pub"),
        (predicates.QUARANTINE, "canary.pub"),
        (predicates.RELEASE, "duty.pub"),
    )
    for kind, key in judged:
        for form in ("--new-bundle-format=true", "--new-bundle-format=false"):
            ended = cosign.verify_attestation(tmp_path / key, kind, place.reference, form)
            assert ended.returncode == 0, (kind, form, ended.stderr)
    wrong = cosign.verify_attestation(
        tmp_path / "canary.pub", predicates.RELEASE, place.reference, "--new-bundle-format=true"
    )
    assert wrong.returncode != 0
