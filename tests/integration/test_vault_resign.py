"""Stages with a key of a real Vault that ages, is rotated, and whose evidence is signed again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.cosign import Cosign
from fakes.registry import build_referrers_registry, push_layout, referrers_registry
from fakes.vaultplace import TRANSIT, VaultPlace, vault_places
from secure_pipeline.attestations import predicates
from secure_pipeline.attestations.attachments import collect
from secure_pipeline.audit import reader
from secure_pipeline.audit.entry import Entry
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("vault-resign")]


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, shared: Path
) -> Iterator[tuple[VaultPlace, VaultPlace]]:
    """A workplace that is ready to be signed, with two Vaults."""
    with vault_places(tmp_path_factory.mktemp("vaults"), shared) as places:
        yield places


@pytest.fixture
def place(made: tuple[VaultPlace, VaultPlace], tmp_path: Path) -> VaultPlace:
    """A copy beside the Vault with TLS."""
    return made[0].copied(tmp_path)


def entries(place: VaultPlace) -> list[Entry]:
    """What the ledger holds."""
    return [s.entry for s in reader.entries(place.workplace.state / "ledger.jsonl")]


def changed(place: VaultPlace, path: Path, text: str) -> str:
    """The operator's policy with more text; its path."""
    own = Path(place.workplace.environment["SECURE_PIPELINE_POLICY"]).read_text()
    path.write_text(f"{own}\n{text}\n")
    return str(path)


@pytest.mark.parametrize("kind", ["key", "secret-id", "token"])
def test_too_old_refuses_before_anything_is_signed(
    place: VaultPlace, tmp_path: Path, kind: str
) -> None:
    """Exit 12, Vault was asked for no signature, nothing is attached, no token left."""
    policy = changed(place, tmp_path / "policy.yaml", f"rotation:\n  {kind}: 1ms")
    before = place.vault.accessors()
    for stage in ("analyze", "test", "build", "scan"):  # the run is of this policy
        assert place.workplace.run(stage, SECURE_PIPELINE_POLICY=policy).code == 0
    ended = place.run("sign", SECURE_PIPELINE_POLICY=policy)
    assert ended.code == 12, ended.text
    assert f"(rotation.{kind})" in ended.err
    signatures = [e for e in entries(place) if e.action == "sign" and e.subject == TRANSIT]
    assert signatures == []
    (refusal,) = [e for e in entries(place) if e.outcome and e.outcome.value == "refused"]
    assert refusal.action == "sign"
    layout = Layout.open(place.workplace.state / "image")
    assert collect(layout, Digest.parse(place.workplace.image())) == ()
    assert place.vault.accessors() == before


def test_rotate_then_resign_then_trust_the_new_key_only(place: VaultPlace, tmp_path: Path) -> None:
    """The whole way, in a layout and in a registry; cosign accepts the new signatures."""
    vault = place.vault
    assert place.run("sign").code == 0
    digest = place.workplace.image()
    image = f"inference-service@{digest}"
    # the operator rotates, and puts the new key into the policy beside the old one
    vault.api("POST", "transit/keys/release/rotate")
    pem = str(vault.api("GET", "transit/keys/release")["data"]["keys"]["2"]["public_key"])
    own = Path(place.workplace.environment["SECURE_PIPELINE_POLICY"]).read_text()
    entry = (
        f"  - id: release-v2\n    algorithm: ecdsa-p256-sha256\n    public-key: {json.dumps(pem)}\n"
    )
    both, new = tmp_path / "both.yaml", tmp_path / "new.yaml"
    both.write_text(own.replace("keys:\n", f"keys:\n{entry}", 1))
    head, _, rest = own.partition("keys:\n")
    new.write_text(f"{head}keys:\n{entry}{rest[rest.index(chr(10) * 2) :]}")
    assert place.workplace.run("verify", image, "--policy", str(new)).code != 0
    # a key that the policy does not have yet signs nothing
    ended = place.run("resign", image, "--key", TRANSIT)
    assert ended.code == 12, ended.text
    ended = place.run("resign", image, "--key", TRANSIT, "--policy", str(both), "--json")
    assert ended.code == 0, ended.text
    found = ended.document
    assert found["old"] == "vault-0"
    assert found["new"] == "release-v2"
    assert found["signed"] == found["statements"] == found["added"]["bundle"] > 8
    assert found["withoutOld"]["verdict"] == "PASS"
    verified = place.workplace.run("verify", image, "--policy", str(new))
    assert verified.code == 0, verified.text
    again = place.run("resign", image, "--key", TRANSIT, "--policy", str(both), "--json")
    assert (again.code, again.document["signed"]) == (0, 0)
    # cosign, with the new key alone
    layout = Layout.open(place.workplace.state / "image")
    with referrers_registry(build_referrers_registry(tmp_path / "program")) as host:
        push_layout(layout, host, "team/app", lambda item: True)
        name = f"{host}/team/app@{digest}"
        public = tmp_path / "new.pub"
        public.write_text(pem)
        cosign = Cosign.located("cosign", tmp_path / "cosign")
        for kind in (predicates.SEAL, predicates.PROVENANCE):
            ran = cosign.verify_attestation(public, kind, name, "--new-bundle-format=true")
            assert ran.returncode == 0, ran.stderr
            ran = cosign.verify_attestation(public, kind, name, "--new-bundle-format=false")
            assert ran.returncode == 0, ran.stderr


def test_evidence_in_a_registry_is_signed_again_there(place: VaultPlace, tmp_path: Path) -> None:
    """Only what verifies: tampered evidence refuses, whole evidence is pushed, both recorded."""
    vault = place.vault
    one = "vault-transit://transit/release@1"
    assert place.run("sign", SECURE_PIPELINE_KEY=one).code == 0
    digest = place.workplace.image()
    layout = Layout.open(place.workplace.state / "image")
    versions = vault.api("GET", "transit/keys/release")["data"]["keys"]
    if "2" not in versions:
        vault.api("POST", "transit/keys/release/rotate")
        versions = vault.api("GET", "transit/keys/release")["data"]["keys"]
    entry = (
        "  - id: release-v2\n    algorithm: ecdsa-p256-sha256\n"
        f"    public-key: {json.dumps(versions['2']['public_key'])}\n"
    )
    own = Path(place.workplace.environment["SECURE_PIPELINE_POLICY"]).read_text()
    both = tmp_path / "both.yaml"
    both.write_text(own.replace("keys:\n", f"keys:\n{entry}", 1))
    two = "vault-transit://transit/release@2"
    with referrers_registry(build_referrers_registry(tmp_path / "program")) as host:
        push_layout(layout, host, "team/whole", lambda item: True)
        push_layout(layout, host, "team/cut", lambda item: item.artifact_type is None
                    and not (item.tag or "").endswith(".att"))  # fmt: skip
        arguments = ("--key", two, "--policy", str(both))
        cut = place.run("resign", f"{host}/team/cut@{digest}", *arguments)
        assert cut.code == 11, cut.text
        assert "nothing was signed" in cut.out
        whole = f"{host}/team/whole@{digest}"
        ended = place.run("resign", whole, *arguments)
        assert ended.code == 0, ended.text
        assert "without key 'vault-0': PASS" in ended.out
    recorded = [e for e in entries(place) if e.stage == "resign"]
    (push,) = [e for e in recorded if e.action == "push" and e.outcome is None]
    assert push.subject == whole
    (outer,) = [e for e in recorded if e.action == "sign" and e.intent and e.subject == whole]
    assert outer.outcome
    assert outer.outcome.value == "done"
    signed = [e for e in recorded if e.subject == two and e.action == "sign" and e.outcome]
    assert len(signed) == outer.details["signed"] == outer.details["statements"]
    assert {e.details.get("version") for e in recorded if e.subject == two and not e.outcome} == {2}
