"""Stages with a key of a real Vault that ages, is rotated, and whose evidence is signed again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.cosign import Cosign
from fakes.faultproxy import Exchange
from fakes.registry import build_referrers_registry, push_layout, referrers_registry
from fakes.vaultcommands import MANAGING
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


@pytest.mark.parametrize("value", [None, "long ago", "2999-01-01T00:00:00Z"])
def test_an_unknown_age_refuses_before_anything_is_signed(
    made: tuple[VaultPlace, VaultPlace], tmp_path: Path, value: object
) -> None:
    """Missing, unparsable or in the future: exit 14, and no request for a signature."""
    place = made[1].copied(tmp_path)
    assert place.proxy

    def altered(exchange: Exchange) -> None:
        reply = exchange.forward()
        document = json.loads(reply.body)
        document["data"]["keys"]["1"]["creation_time"] = value
        headers = tuple(i for i in reply.headers if i[0].lower() != "content-length")
        exchange.reply(replace(reply, headers=headers, body=json.dumps(document).encode()))

    place.proxy.on("GET", "/transit/keys/release", altered)
    try:
        ended = place.run("sign")
    finally:
        place.proxy.rules.clear()
    assert ended.code == 14, ended.text
    assert f"version 1 of {TRANSIT}" in ended.err
    assert not [r for m in ("POST", "PUT") for r in place.proxy.requests(m, "/transit/sign/")]
    place.proxy.seen.clear()


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
    retired(place, both, image)
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


def retired(place: VaultPlace, both: Path, image: str) -> None:
    """What version 1 has signed is known; once it is out of trust, the new signatures hold."""
    ended = place.run("keys", "blast-radius", f"{TRANSIT}@1", "--json")
    assert ended.code == 0, ended.text
    (use,) = (item for item in ended.document["uses"] if item["artifact"] == image)
    assert use["stage"] == "sign"
    assert use["signatures"] > 7
    heads = [item for item in ended.document["uses"] if item["artifact"] == "ledger"]
    assert len(heads) == 1
    assert ended.document["looseUses"] == 0
    (use, *more) = place.run("keys", "blast-radius", f"{TRANSIT}@2", "--json").document["uses"]
    assert (use["artifact"], use["stage"]) == (image, "resign")
    assert [item["signatures"] for item in more] == [0] * len(more)
    place.vault.role("manager", "release")
    place.vault.api("PUT", "sys/policies/acl/manager", {"policy": MANAGING.format(key="release")})
    login = place.variables(role="manager")
    arguments = ("--from", "2026-01-02", "--reason", "shown to strangers", "--policy", str(both))
    ended = place.workplace.run("keys", "revoke", f"{TRANSIT}@1", *arguments, **login)
    assert ended.code == 0, ended.text
    proposal = both.with_name("both.proposed.yaml")
    assert "not-after: 2026-01-01" in proposal.read_text()
    verified = place.workplace.run("verify", image, "--policy", str(proposal))
    assert verified.code == 0, verified.text
    place.vault.api("POST", "transit/keys/release/config", {"min_encryption_version": 0})


def test_sig_21_a_revoked_version_is_not_trusted_any_more(
    place: VaultPlace, tmp_path: Path
) -> None:
    """Without new signatures the policy with a last day refuses, and resign launders nothing."""
    assert place.run("sign", SECURE_PIPELINE_KEY=f"{TRANSIT}@1").code == 0
    image = f"inference-service@{place.workplace.image()}"
    own = Path(place.workplace.environment["SECURE_PIPELINE_POLICY"]).read_text()
    policy = tmp_path / "retired.yaml"
    policy.write_text(
        own.replace("  - id: vault-0\n", "  - id: vault-0\n    not-after: 2026-01-01\n")
    )
    assert place.workplace.run("verify", image).code == 0
    verified = place.workplace.run("verify", image, "--policy", str(policy))
    assert verified.code in (11, 14), verified.text
    assert "key-window" in verified.text
    ended = place.run("resign", image, "--key", TRANSIT, "--policy", str(policy))
    assert ended.code == verified.code, ended.text
    assert "nothing was signed" in ended.out


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


def test_a_key_in_vault_quarantines_and_releases(place: VaultPlace) -> None:
    """The key never leaves: each statement is one signature in Vault, and no token is left."""
    one = "vault-transit://transit/release@1"
    assert place.run("sign", SECURE_PIPELINE_KEY=one).code == 0
    image = f"inference-service@{place.workplace.image()}"
    before = place.vault.accessors()
    layout = ("--layout", str(place.workplace.state / "image"))
    words = (image, *layout, "--key", one, "--reason", "the answers are cut off", "--json")
    put = place.run("quarantine", "add", *words)
    assert put.code == 0, put.text
    assert place.workplace.run("verify", image).code == 12
    freed = place.run("quarantine", "release", *words)
    assert freed.code == 0, freed.text
    assert freed.document["ended"] == [put.document["statement"]]
    assert place.workplace.run("verify", image).code == 0
    assert place.vault.accessors() == before
    recorded = [e for e in entries(place) if e.stage == "quarantine" and e.intent]
    assert len([e for e in recorded if e.subject == one and e.action == "sign"]) == 2
    outer = [e for e in recorded if e.subject == image]
    assert [e.details["statement"] for e in outer] == [
        put.document["statement"], freed.document["statement"],
    ]  # fmt: skip
    used = place.run("keys", "blast-radius", one, "--json").document["uses"]
    assert [u["signatures"] for u in used if u["stage"] == "quarantine"] == [1, 1]
