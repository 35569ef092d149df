"""The readers' rules of ``interop`` against the readers themselves, and the page of all runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from fakes.beside import Beside
from fakes.interopruns import (
    COSIGNS,
    READERS,
    REGISTRIES,
    TYPES,
    Ground,
    all_scenes,
    emulated,
    of_kind,
    open_ground,
    ours_read_by_others,
    page_section,
    play,
    theirs_read_by_us,
    with_section,
)
from fakes.registry import push_layout
from fakes.scenes import KIND, SCENES
from secure_pipeline.interop.model import Answer, Finding
from secure_pipeline.interop.readers import report
from secure_pipeline.interop.sight import look
from secure_pipeline.keys.local import LocalSigner
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.document import Algorithm

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("interop")]

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/interop.md"
Verdicts = dict[tuple[str, str, str, str], bool]
Scenes = dict[tuple[str, str], tuple[bool, Finding | None]]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with open_ground(tmp_path_factory.mktemp("interop")) as made:
        yield made


@pytest.fixture(scope="module")
def ours(ground: Ground) -> Verdicts:
    return ours_read_by_others(ground)


@pytest.fixture(scope="module")
def theirs(ground: Ground) -> Verdicts:
    return theirs_read_by_us(ground)


@pytest.fixture(scope="module")
def scenes(ground: Ground) -> Scenes:
    return all_scenes(ground)


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_accepted_by_every_reader(ours: Verdicts, kind: str) -> None:
    """Both cosigns accept it in both forms and registries, policy-controller the older form.

    JavaScript accepts the bundle.
    """
    verdicts = {key: accepted for key, accepted in ours.items() if key[0] == kind}
    assert len(verdicts) == (len(COSIGNS) * 2 + 1) * len(REGISTRIES) + 1
    assert all(verdicts.values()), verdicts


@pytest.mark.parametrize("kind", TYPES)
def test_we_accept_every_type_that_cosign_writes(theirs: Verdicts, kind: str) -> None:
    """What either cosign attested, in both forms and registries, is read, signed and about it."""
    verdicts = {key: accepted for key, accepted in theirs.items() if key[0] == kind}
    assert len(verdicts) == len(COSIGNS) * 2 * len(REGISTRIES)
    assert all(verdicts.values()), verdicts


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("title", SCENES)
def test_the_rules_say_what_the_reader_does(scenes: Scenes, title: str, reader: str) -> None:
    """For each state of evidence the emulated answer is yes or no, and the reader's own."""
    real, finding = scenes[title, reader]
    accepted = finding.accepted if finding else Answer.NO
    assert accepted is Answer.of(real), finding


def test_the_scenes_cover_both_answers(scenes: Scenes) -> None:
    """Each reader accepts some scenes and rejects others, and the cosigns differ in one."""
    for reader in READERS:
        verdicts = [real for (_, who), (real, _) in scenes.items() if who == reader]
        assert verdicts.count(True) > 5
        assert verdicts.count(False) > 5
    assert any(scenes[title, "cosign-2"][0] != scenes[title, "cosign-3"][0] for title in SCENES)


def test_the_page_has_these_runs(ours: Verdicts, theirs: Verdicts, scenes: Scenes) -> None:
    """The tables of the page are the verdicts of this test; tests/golden/interop writes them."""
    page = PAGE.read_text()
    assert page == with_section(page, page_section(ours, theirs, scenes))


SIGNERS = {
    Algorithm.ECDSA_P256_SHA256: lambda: ec.generate_private_key(ec.SECP256R1()),
    Algorithm.ECDSA_P384_SHA384: lambda: ec.generate_private_key(ec.SECP384R1()),
    Algorithm.ED25519: ed25519.Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("form", ["bundle", "att"])
@pytest.mark.parametrize("algorithm", SIGNERS)
def test_what_a_key_needs_is_said(
    ground: Ground, tmp_path: Path, algorithm: Algorithm, form: str
) -> None:
    """Each kind of key verifies with exactly the options that are listed as needed."""
    signer = LocalSigner(SIGNERS[algorithm](), algorithm)
    site = Beside.make(tmp_path / "layout", signer)
    envelope = site.envelope(site.statement(KIND))
    if form == "bundle":
        site.put_bundle(site.wrapped(envelope))
    else:
        site.put_layer(envelope, KIND)
    site.finish()
    name = f"key-{algorithm.value}-{form}"
    push_layout(site.layout, ground.hosts["api"], name)
    public = signer.public_key("release")
    (tmp_path / "release.pub").write_bytes(public.pem)
    image = ImageReference(f"{ground.hosts['api']}/{name}", site.image)
    sight = look(ground.repository("api", name), site.image)
    for verdict in report(image, sight, public, tuple(COSIGNS)).verdicts:
        assert verdict.accepted is Answer.YES
        options = [item for item in verdict.needs if item.startswith("--signature")]
        cosign = ground.cosigns[verdict.reader]
        run = (tmp_path / "release.pub", KIND, str(image))
        accepted = cosign.verify_attestation(*run, *options, *cosign.always).returncode == 0
        assert accepted
        if options:
            assert cosign.verify_attestation(*run, *cosign.always).returncode != 0


def test_the_command_on_a_registry(ground: Ground) -> None:
    """The command reads a registry, says all eight answers, and exits as required readers want."""
    name, image = play(ground, 1000, SCENES["both"])
    reference = ground.reference("api", name, image)

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "secure_pipeline", "interop", reference),
                *("--key", str(ground.key), "--json", *options),
            ],
            cwd=ground.directory,
            env={"PATH": os.environ["PATH"], "HOME": str(ground.directory)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    ended = run()
    assert ended.returncode == 0, ended.stderr
    readers = {item["reader"]: item["accepted"] for item in json.loads(ended.stdout)["readers"]}
    assert readers == {
        "cosign-2": "yes",
        "cosign-3": "yes",
        "policy-controller": "yes",
        "kyverno": "yes",
        "kyverno-bundle": "no",
        "kyverno-ivp": "no",
        "conforma": "yes",
        "gh": "no",
    }
    assert run("--require", "cosign-3", "--require", "kyverno").returncode == 0
    assert run("--require", "gh").returncode == 11


def test_a_layout_is_judged_like_the_registry_it_goes_to(ground: Ground) -> None:
    """The answers for a layout are those for a registry that it was pushed to.

    Not so for readers that go by the artifact type in the list of referrers: this registry lists
    the config's type instead, and the rules say so.
    """
    name, image = play(ground, 1001, SCENES["both"])
    there = emulated(ground, "api", name, image)
    layout = Layout.open(ground.directory / "scene-1001")
    public = ground.signer.public_key("release.pub")
    here = report(ImageReference("service", image), look(layout, image), public, ()).verdicts
    for verdict in here:
        finding = of_kind(there[verdict.reader])
        if verdict.reader in ("gh", "kyverno-bundle"):
            assert finding
            assert finding.found is Answer.NO
            assert "lists its bundle as 'application/vnd.oci.empty.v1+json'" in finding.why
        else:
            assert of_kind(verdict) == finding
