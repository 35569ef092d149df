"""A version of a real Vault's key goes out of trust: Vault, ledger and the proposed policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from fakes.evidence import NAME
from fakes.registry import build_referrers_registry, push_layout, referrers_registry
from fakes.release import Release
from fakes.vaultcommands import MANAGING, VaultCommands
from fakes.vaultserver import RealVault, real_vault
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.vault import VaultSession
from secure_pipeline.adapters.vaultlogin import AppRole
from secure_pipeline.adapters.vaultpending import PendingTokens
from secure_pipeline.adapters.vaultwire import VaultServer
from secure_pipeline.audit import reader
from secure_pipeline.audit.entry import Entry
from secure_pipeline.audit.recording import recorded
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.keys.vault_transit import VaultTransitSigner
from secure_pipeline.policy.document import load
from secure_pipeline.ports import SecretUse
from secure_pipeline.wiring.auditing import open_ledger

pytestmark = pytest.mark.integration

REASON = "a laptop with a login was stolen"
INPUT = {"input": "bWVzc2FnZQ=="}


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVault]:
    """A Vault with TLS."""
    with real_vault(tmp_path_factory.mktemp("vault")) as made:
        yield made


@pytest.fixture
def commands(vault: RealVault, tmp_path: Path, request: pytest.FixtureRequest) -> VaultCommands:
    """The program with a login that manages a key of the test's own, of three versions."""
    name = key_of(request.node.name)
    vault.transit_key(name)
    for _ in range(2):
        vault.api("POST", f"transit/keys/{name}/rotate")
    made = VaultCommands(vault, tmp_path)
    made.managing_role(name)
    return made


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """The key's URI."""
    return f"vault-transit://transit/{key_of(request.node.name)}"


def key_of(test: str) -> str:
    """A name for the key of one test."""
    return "".join(c if c.isalnum() else "-" for c in test)[-60:].strip("-")


def entries(commands: VaultCommands, action: str) -> list[Entry]:
    """What the ledger holds of an action."""
    found = [stored.entry for stored in reader.entries(commands.ledger)]
    return [item for item in found if item.action == action]


def sign(commands: VaultCommands, key: str, release: Release, *, record: bool = True) -> None:
    """Sign a whole run's evidence with a version, as the stage records it."""
    vault = commands.vault
    role_id = vault.api("GET", "auth/approle/role/manager/role-id")["data"]["role_id"]
    login = AppRole("manager", str(role_id), vault.wrapped_secret_id("manager"))
    server = VaultServer(vault.address, ca=vault.authority.ca)
    ledger = open_ledger(commands.ledger)
    pending = PendingTokens(commands.root / "tokens")
    subject = f"{NAME}@{release.image.digest}"
    if not record:
        with VaultSession(server, login, SystemClock(), pending) as session:
            release.run("r-1", key=VaultTransitSigner(session, KeyRef.parse(key)))
        return
    with (
        recorded(ledger, SecretUse("sign", "sign", subject, "r-1", {"key": key})),
        VaultSession(server, login, SystemClock(), pending, ledger=ledger, run="r-1") as session,
    ):
        release.run("r-1", key=VaultTransitSigner(session, KeyRef.parse(key)))


def test_a_revoked_version_signs_no_more(commands: VaultCommands, key: str) -> None:
    """Vault refuses it, the program too; the proposal differs by one line; all is recorded."""
    name = key.rpartition("/")[2]
    pems = {f"v{n}": commands.public(name, n) for n in (1, 2, 3)}
    policy = commands.policy(**pems)
    before = policy.read_bytes()
    ended = commands.run(
        "keys", "revoke", f"{key}@2", "--from", "2026-05-04T10:00:00+02:00", "--reason", REASON,
        "--policy", str(policy), "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.text
    found = ended.document
    assert (found["leastVersion"], found["policyKey"]) == (3, "v2")
    assert found["notAfter"] == "2026-05-03"
    # the trusted policy is the operator's: only a proposal was written
    assert policy.read_bytes() == before
    proposal = Path(found["proposal"])
    assert proposal == policy.with_name("policy.proposed.yaml")
    windows = {k.id: str(k.not_after) for k in load(proposal).policy.keys}
    assert windows == {"v1": "None", "v2": "2026-05-03", "v3": "None"}
    assert "+    not-after: 2026-05-03\n" in ended.err
    # Vault itself
    path = f"transit/sign/{name}"
    signs = [
        commands.vault.status("POST", path, INPUT | {"key_version": n}, commands.vault.root) == 200
        for n in (1, 2, 3)
    ]
    assert signs == [False, False, True]
    shown = commands.run("keys", "status", f"{key}@2", "--policy", str(policy))
    assert shown.code == 3, shown.text
    assert "version 2 may not sign; versions 3 to 3 may" in shown.err
    intent, conclusion = entries(commands, "revoke")
    assert intent.details["reason"] == REASON
    assert intent.details["from"] == "2026-05-04T08:00:00Z"
    assert intent.details["version"] == 2
    assert intent.details["policyKey"] == "v2"
    assert conclusion.outcome
    assert conclusion.outcome.value == "done"
    assert conclusion.details["leastVersion"] == 3
    # an earlier version afterwards does not lower it
    ended = commands.run(
        "keys", "revoke", f"{key}@1", "--from", "2026-05-04", "--reason", REASON,
        "--policy", str(policy), "--output", str(commands.root / "other.yaml"),
    )  # fmt: skip
    assert ended.code == 0, ended.text
    data = commands.vault.api("GET", f"transit/keys/{name}")["data"]
    assert data["min_encryption_version"] == 3
    assert (commands.root / "other.yaml").exists()


def test_who_may_not_configure_the_key_is_told(commands: VaultCommands, key: str) -> None:
    """403: exit 12, the attempt is in the ledger as refused, the key is as before."""
    name = key.rpartition("/")[2]
    commands.vault.role("signer", name)
    policy = commands.policy(v1=commands.public(name, 1))
    ended = commands.run(
        "keys", "revoke", f"{key}@1", "--from", "2026-05-04", "--reason", REASON,
        "--policy", str(policy), role="signer",
    )  # fmt: skip
    assert ended.code == 12, ended.text
    assert entries(commands, "revoke")[-1].outcome is not None
    data = commands.vault.api("GET", f"transit/keys/{name}")["data"]
    assert data["min_encryption_version"] == 0


@pytest.mark.parametrize(
    ("version", "arguments", "code", "words"),
    [
        ("@3", (), 2, "version 3 is the newest"),
        ("@7", (), 2, "version 7 is the newest"),
        ("", (), 2, "names no version of a key in Vault"),
        ("@1", ("--reason", "short"), 2, "the reason is too short"),
        ("@1", ("--from", "soon"), 2, "'soon' is not a time"),
        ("@1", ("--output", "policy.yaml"), 2, "the trusted policy itself is not written to"),
    ],
)
def test_what_is_refused_changes_nothing(
    commands: VaultCommands, key: str, version: str, arguments: tuple[str, ...], code: int,
    words: str,
) -> None:  # fmt: skip
    """Mistakes are told before Vault, ledger or any file is touched."""
    name = key.rpartition("/")[2]
    policy = commands.policy(v1=commands.public(name, 1))
    text = policy.read_bytes()
    given = ("--from", "2026-05-04", "--reason", REASON, "--policy", "policy.yaml", *arguments)
    ended = commands.run("keys", "revoke", f"{key}{version}", *given)
    assert ended.code == code, ended.text
    assert words in ended.err
    assert "hint: " in ended.err
    assert policy.read_bytes() == text
    assert not (commands.root / "policy.proposed.yaml").exists()
    assert commands.vault.api("GET", f"transit/keys/{name}")["data"]["min_encryption_version"] == 0


def test_blast_radius_of_one_version(commands: VaultCommands, key: str) -> None:
    """The ledger names what the version signed; a store shows what the ledger does not know."""
    known = Release(commands.root / "known")
    stranger = Release(commands.root / "stranger", b"stranger\n")
    other = Release(commands.root / "other", b"other\n")
    sign(commands, f"{key}@2", known)
    sign(commands, f"{key}@3", other)
    sign(commands, f"{key}@2", stranger, record=False)
    ended = commands.run("keys", "blast-radius", f"{key}@2", "--json")
    assert ended.code == 0, ended.text
    (use,) = ended.document["uses"]
    assert use["artifact"] == f"{NAME}@{known.image.digest}"
    assert (use["run"], use["signatures"], use["outcome"]) == ("r-1", 8, "done")
    assert "what was signed without this ledger" in ended.err
    places = [f"layout:{commands.root / name}" for name in ("known", "stranger", "other")]
    arguments = [word for place in places for word in ("--in", place)]
    ended = commands.run("keys", "blast-radius", f"{key}@2", "--json", *arguments)
    assert ended.code == 0, ended.text
    found = {item["image"]: (len(item["predicateTypes"]), item["inLedger"])
             for item in ended.document["found"]}  # fmt: skip
    assert found == {
        f"{places[0]}@{known.image.digest}": (8, True),
        f"{places[1]}@{stranger.image.digest}": (8, False),
    }
    assert "NOT IN THE LEDGER" in ended.err
    # the key was retired since: its public half is still shown, or comes from a file
    name = key.rpartition("/")[2]
    pem = commands.root / "two.pub"
    pem.write_text(commands.public(name, 2))
    settings = {"min_decryption_version": 3, "min_encryption_version": 3}
    commands.vault.api("POST", f"transit/keys/{name}/config", settings)
    ended = commands.run("keys", "blast-radius", f"{key}@2", *arguments)
    assert ended.code == 2, ended.text
    assert "hint: --public-key FILE" in ended.err
    ended = commands.run("keys", "blast-radius", f"{key}@2", *arguments, "--public-key", str(pem))
    assert ended.code == 0, ended.text


def test_what_cannot_be_read_makes_no_empty_list(commands: VaultCommands, key: str) -> None:
    """No ledger, or a store with altered evidence: exit 14, and what was not seen is named."""
    ended = commands.run("keys", "blast-radius", f"{key}@2")
    assert ended.code == 14, ended.text
    assert "there is no ledger" in ended.err
    release = Release(commands.root / "known")
    sign(commands, f"{key}@2", release)
    release.smuggle_layer(b"{")
    place = f"layout:{release.path}"
    ended = commands.run("keys", "blast-radius", f"{key}@2", "--in", place)
    assert ended.code == 14, ended.text
    assert f"{NAME}@{release.image.digest}" in ended.out
    assert f"not seen:\n  {place}@{release.image.digest}: " in ended.out


def test_ci_06_every_credential_is_listed_and_revoked(commands: VaultCommands, key: str) -> None:
    """Tokens that killed runs left are all named, live minutes only, and all end at once."""
    vault = commands.vault
    pending = PendingTokens(commands.root / "state" / "vault-tokens")
    server = VaultServer(vault.address, ca=vault.authority.ca)
    role_id = vault.api("GET", "auth/approle/role/manager/role-id")["data"]["role_id"]
    policy = MANAGING.format(key=key.rpartition("/")[2])
    policy += 'path "auth/token/revoke-accessor" { capabilities = ["update"] }'
    vault.api("PUT", "sys/policies/acl/manager", {"policy": policy})
    before = vault.accessors()
    for _ in range(3):  # as a kill leaves them: logged in, and never closed
        login = AppRole("manager", str(role_id), vault.wrapped_secret_id("manager"))
        VaultSession(server, login, SystemClock(), pending).open()
    left = vault.accessors() - before
    listed = commands.run("vault", "pending", "--json")
    assert listed.code == 0, listed.text
    assert {item["accessor"] for item in listed.document["tokens"]} == left
    assert len(left) == 3
    assert all(0 < item["seconds"] <= 900 for item in listed.document["tokens"])
    ended = commands.run("vault", "revoke-pending")
    assert ended.code == 0, ended.text
    assert not any(vault.lives(accessor) for accessor in left)
    assert commands.run("vault", "pending").out == "no token is left\n"


def test_blast_radius_of_a_repository(commands: VaultCommands, key: str, tmp_path: Path) -> None:
    """All tagged images, and those that only their evidence's tag names; others are said."""
    tagged, untagged, foreign = (
        Release(tmp_path / name, name.encode()) for name in ("tagged", "untagged", "foreign")
    )
    for release in (tagged, untagged):
        sign(commands, f"{key}@2", release)
    sign(commands, f"{key}@3", foreign)
    name = "team/app"
    with referrers_registry(build_referrers_registry(tmp_path / "program")) as host:
        for release in (tagged, untagged, foreign):
            push_layout(release.layout, host, name)
        data = (tagged.path / "blobs/sha256" / tagged.image.digest.hex).read_bytes()
        answer = requests.put(
            f"http://{host}/v2/{name}/manifests/v1", data, timeout=20,
            headers={"Content-Type": tagged.image.media_type},
        )  # fmt: skip
        assert answer.status_code == 201
        place = f"{host}/{name}"
        ended = commands.run("keys", "blast-radius", f"{key}@2", "--in", place, "--json")
        assert ended.code == 0, ended.text
        found = {item["image"]: item["inLedger"] for item in ended.document["found"]}
        images = [f"{place}@{release.image.digest}" for release in (tagged, untagged)]
        assert found == dict.fromkeys(images, True)
        assert any("images without a tag" in line for line in ended.document["notSeen"])
        ended = commands.run("keys", "blast-radius", f"{key}@2", "--in", f"{host}/nothing/here")
        assert ended.code in (4, 14), ended.text
