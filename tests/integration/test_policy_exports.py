"""Exported policies given to policy-controller's tester, about images as ``sign`` leaves them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from fakes.evidence import NOON, StepClock, make_image, run_context, sign_inputs
from fakes.interopruns import Ground, open_ground
from fakes.registry import push_layout
from secure_pipeline.attestations import predicates
from secure_pipeline.events import ignore
from secure_pipeline.keys.local import LocalSigner
from secure_pipeline.oci.layout import Layout
from secure_pipeline.policy.document import Algorithm, load
from secure_pipeline.policy.export.policycontroller import FILE, files
from secure_pipeline.policy.export.release import release
from secure_pipeline.stages.result import Verdict
from secure_pipeline.stages.sign import sign

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("interop")]

P256 = Algorithm.ECDSA_P256_SHA256
SIGNERS = {
    "first": LocalSigner(ec.generate_private_key(ec.SECP256R1()), P256),
    "second": LocalSigner(ec.generate_private_key(ec.SECP384R1()), Algorithm.ECDSA_P384_SHA384),
    "third": LocalSigner(ed25519.Ed25519PrivateKey.generate(), Algorithm.ED25519),
    "stranger": LocalSigner(ec.generate_private_key(ec.SECP256R1()), P256),
}
REQUIRED = (
    f"{{predicate: {predicates.TEST_RESULT!r}, name: analyze}}",
    f"{{predicate: {predicates.TEST_RESULT!r}, name: unit}}",
    *(
        f"{{predicate: {kind!r}, max-age: 1d}}"
        for kind in (
            *(predicates.PROVENANCE, predicates.VULNS, predicates.COSIGN_VULN),
            *(predicates.CYCLONEDX, predicates.SPDX),
        )
    ),
)


@dataclass(frozen=True)
class Place:
    """Images in a registry, and the tester."""

    ground: Ground
    directory: Path

    def image(self, name: str, *signers: str) -> str:
        """Push an image that these have signed, each in a run; return its name."""
        path = self.directory / name
        image = make_image(path, name.encode())
        for number, who in enumerate(signers):
            inputs = sign_inputs(path, image, f"run-{number}")
            done = sign(inputs, SIGNERS[who], StepClock(NOON), ignore)
            assert done.verdict is Verdict.PASS
        push_layout(Layout.open(path), self.ground.hosts["api"], name)
        return self.ground.reference("api", name, image.digest)

    def admits(
        self,
        image: str,
        *,
        keys: tuple[str, ...] = ("first",),
        required: tuple[str, ...] = REQUIRED,
        builder: str = run_context().builder_id,
        more: str = "",
    ) -> bool:
        """Export a policy and ask the tester; a file that it does not understand fails."""
        path = self.directory / "policy.yaml"
        lines = [
            f"  - {{id: {who}, algorithm: {SIGNERS[who].algorithm},"
            f" public-key: {json.dumps(SIGNERS[who].public_key(who).pem.decode())}}}"
            for who in keys
        ]
        path.write_text(
            "\n".join(
                (
                    *("version: 1", "keys:", *lines),
                    *("require:", *(f"  - {item}" for item in required)),
                    *("builders:", f"  - {builder}", more),
                )
            )
        )
        exported = files(release(load(path), ["127.0.0.1:*/**"], "release"))[FILE]
        cip = self.directory / FILE
        cip.write_text(exported)
        ended = subprocess.run(
            [str(self.ground.policy_tester), "-policy", str(cip), "-image", image],
            env={"HOME": str(self.directory), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            timeout=120,
        )
        assert b"Policy was successfully validated" in ended.stderr, ended.stderr
        decision = json.loads(ended.stdout or b"{}")
        assert (ended.returncode == 0) == (not decision.get("errors")), ended.stdout
        return ended.returncode == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with open_ground(tmp_path_factory.mktemp("exports")) as ground:
        directory = tmp_path_factory.mktemp("images")
        yield Place(ground, directory)


@pytest.fixture(scope="module")
def signed(place: Place) -> str:
    return place.image("signed", "first")


def test_what_was_signed_is_admitted(place: Place, signed: str) -> None:
    """All that sign attaches satisfies the exported policy, all of its types and the seal."""
    assert place.admits(signed)


def test_what_nobody_or_a_stranger_signed_is_refused(place: Place, signed: str) -> None:
    """An image without evidence, and one with all of it by a key that the policy does not have."""
    assert not place.admits(place.image("unsigned"))
    assert not place.admits(place.image("foreign", "stranger"))
    assert not place.admits(signed, keys=("second",))


@pytest.mark.parametrize("number", range(len(REQUIRED)))
def test_each_requirement_is_asked(place: Place, signed: str, number: int) -> None:
    """Change one required type or name to another: what passed is refused."""
    changed = list(REQUIRED)
    changed[number] = (
        REQUIRED[number].replace("name: ", "name: other-")
        if "name: " in REQUIRED[number]
        else REQUIRED[number].replace("://", "://other.")
    )
    assert not place.admits(signed, required=tuple(changed))


def test_the_builder_is_asked(place: Place, signed: str) -> None:
    """Provenance of another builder is refused."""
    assert not place.admits(signed, builder="https://other.example/builder")


def test_any_of_several_keys_is_enough(place: Place, signed: str) -> None:
    """Where a policy has several keys, one of them signs: also after a key was rotated."""
    assert place.admits(signed, keys=("stranger", "first"))


def test_keys_of_every_algorithm(place: Place) -> None:
    """P-384 with SHA-384 and Ed25519 are told to the controller as they are."""
    assert place.admits(place.image("p384", "second"), keys=("second",))
    assert place.admits(place.image("ed25519", "third"), keys=("third",))


def test_a_quorum_is_counted(place: Place, signed: str) -> None:
    """Two of three keys: one signature is refused, two are admitted."""
    two = f"{{predicate: {predicates.VULNS!r}, quorum: 2}}"
    keys = ("first", "second", "third")
    assert not place.admits(signed, keys=keys, required=(two,))
    assert place.admits(place.image("twice", "first", "third"), keys=keys, required=(two,))


def test_only_the_named_keys_may_sign(place: Place, signed: str) -> None:
    """A requirement's own keys hold for it alone."""
    keys = ("first", "second")
    theirs = f"{{predicate: {predicates.VULNS!r}, keys: [second]}}"
    assert not place.admits(signed, keys=keys, required=(theirs,))
    ours = f"{{predicate: {predicates.VULNS!r}, keys: [first]}}"
    assert place.admits(signed, keys=keys, required=(ours,))


def test_identities_are_understood(place: Place, signed: str) -> None:
    """Identities and patterns are valid for the controller; without their root they admit nothing.

    A key beside them is still enough.
    """
    more = """\
trust-root: root.json
identities:
  - {id: exact, issuer: "https://issuer.example", identity: "release@example.com"}
  - id: pattern
    issuer: https://token.actions.githubusercontent.com
    identity-pattern: 'https://github\\.com/team/(?:one|two-[a-z0-9_]{1,9}?)/\\.github/.+@refs/tags/v\\d+'
"""
    assert place.admits(signed, more=more)
    assert not place.admits(signed, keys=("second",), more=more)
