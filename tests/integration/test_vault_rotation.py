"""Keys of a real Vault that age: what refuses, what rotation does, what is recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.faultproxy import Exchange, fault_proxy
from fakes.vaultcommands import VaultCommands
from fakes.vaultserver import RealVault, real_vault
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.vault import VaultSession
from secure_pipeline.adapters.vaultlogin import AppRole, PersonToken
from secure_pipeline.adapters.vaultpending import PendingTokens
from secure_pipeline.adapters.vaultwire import VaultServer
from secure_pipeline.audit import reader
from secure_pipeline.audit.entry import Entry, Outcome

pytestmark = pytest.mark.integration

KEY = "vault-transit://transit/release"
OLD = "rotation:\n  {kind}: 1ms\n"
"""Nothing real is younger."""


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVault]:
    """A Vault, without TLS so that faults can be put in front of it."""
    with real_vault(tmp_path_factory.mktemp("vault"), plain=True) as made:
        made.transit_key("release")
        yield made


@pytest.fixture
def commands(vault: RealVault, tmp_path: Path) -> Iterator[VaultCommands]:
    """The program with a login that may manage the key ``release``."""
    with fault_proxy(f"127.0.0.1:{vault.port}") as proxy:
        made = VaultCommands(vault, tmp_path, proxy)
        made.managing_role("release")
        yield made


def rewritten(change: Callable[[dict[str, object]], None]) -> Callable[[Exchange], None]:
    """Alter the ``data`` of Vault's answer."""

    def fault(exchange: Exchange) -> None:
        reply = exchange.forward()
        document = json.loads(reply.body)
        change(document["data"])
        headers = tuple(i for i in reply.headers if i[0].lower() != "content-length")
        exchange.reply(replace(reply, headers=headers, body=json.dumps(document).encode()))

    return fault


def entries(commands: VaultCommands) -> list[Entry]:
    """What the ledger holds."""
    return [stored.entry for stored in reader.entries(commands.ledger)]


def test_status_tells_version_age_and_when_it_is_due(commands: VaultCommands) -> None:
    """A young key with young credentials: exit 0, and all that an operator has to know."""
    policy = commands.policy(release=commands.public("release", 1))
    ended = commands.run("keys", "status", KEY, "--policy", str(policy), "--json")
    assert ended.code == 0, ended.text
    found = ended.document
    assert (found["version"], found["latestVersion"], found["pinned"]) == (1, 1, True)
    assert (found["limitSeconds"], found["tooOld"]) == (30 * 86400, False)
    assert [item["kind"] for item in found["credentials"]] == ["token", "secret-id"]
    assert f"key:         {KEY}\nversion:     1 (newest: 1)\n" in ended.err
    assert "limit 30 days, due 2" in ended.err


@pytest.mark.parametrize("kind", ["key", "secret-id", "token"])
def test_each_age_over_its_limit_is_told(commands: VaultCommands, kind: str) -> None:
    """Key, secret-id and token are each measured against their own limit: exit 12."""
    policy = commands.policy(OLD.format(kind=kind))
    ended = commands.run("keys", "status", KEY, "--policy", str(policy))
    assert ended.code == 12, ended.text
    label = "age" if kind == "key" else kind
    (line,) = (line for line in ended.out.splitlines() if "TOO OLD" in line)
    assert line.startswith(f"{label}:")


@pytest.mark.parametrize(
    "value", [None, "", "soon", 7, "0001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"]
)
def test_an_age_that_vault_does_not_tell_is_unknown(commands: VaultCommands, value: object) -> None:
    """A creation time that is missing, unparsable, zero or in the future: exit 14."""
    assert commands.proxy

    def change(data: dict[str, object]) -> None:
        data["keys"]["1"]["creation_time"] = value  # type: ignore[index]

    commands.proxy.on("GET", "/transit/keys/release", rewritten(change))
    ended = commands.run("keys", "status", KEY)
    assert ended.code == 14, ended.text
    assert "age:         unknown: " in ended.out


def test_a_fetched_key_is_as_old_as_its_version(commands: VaultCommands) -> None:
    """KV: the current version's created_time counts; the secret itself is not fetched."""
    vault, proxy = commands.vault, commands.proxy
    assert proxy
    for number in range(10):
        vault.api("POST", "secret/data/release", {"data": {"key": f"value {number}"}})
    data = vault.api("GET", "secret/metadata/release")["data"]
    ended = commands.run("keys", "status", "vault-kv://secret/release#key", "--json")
    assert ended.code == 0, ended.text
    assert ended.document["version"] == 10
    created = data["versions"]["10"]["created_time"]
    assert ended.document["created"] == f"{created[:19]}Z"
    assert not proxy.requests("GET", "/secret/data/")

    def touched(data: dict[str, object]) -> None:
        data["updated_time"] = "2999-01-01T00:00:00Z"
        data["versions"]["10"]["created_time"] = "2001-01-01T00:00:00Z"  # type: ignore[index]

    proxy.on("GET", "/secret/metadata/", rewritten(touched))
    ended = commands.run("keys", "status", "vault-kv://secret/release#key")
    assert ended.code == 12, ended.text


def test_rotation_is_recorded_and_tells_the_new_public_key(commands: VaultCommands) -> None:
    """Versions 9, 10: the newest is 10; the ledger has intent and conclusion of each rotation."""
    commands.vault.transit_key("often")
    commands.managing_role("often")
    key = "vault-transit://transit/often"
    for version in range(2, 9):
        commands.vault.api("POST", "transit/keys/often/rotate")
        assert commands.vault.api("GET", "transit/keys/often")["data"]["latest_version"] == version
    for version in (9, 10):
        ended = commands.run("keys", "rotate", key, "--json")
        assert ended.code == 0, ended.text
        found = ended.document
        assert (found["version"], found["previousVersion"]) == (version, version - 1)
        assert found["pem"].strip() == commands.public("often", version).strip()
        assert f"- id: often-v{version}\n" in ended.err
        policy = commands.policy()
        policy.write_text(f"version: 1\nkeys:\n{ended.err.partition('beside the old one:')[2]}")
        status = commands.run("keys", "status", key, "--policy", str(policy), "--json")
        assert status.code == 0, status.text
        assert (status.document["version"], status.document["pinned"]) == (version, True)
    rotations = [item for item in entries(commands) if item.action == "rotate"]
    assert [(i.kind.value, i.outcome and i.outcome.value) for i in rotations] == [
        ("intent", None), ("conclusion", "done"), ("intent", None), ("conclusion", "done")
    ]  # fmt: skip
    assert [i.details["version"] for i in rotations] == [8, 9, 9, 10]
    assert {i.subject for i in rotations} == {key}


def test_who_may_not_rotate_is_told_so(commands: VaultCommands) -> None:
    """Vault's 403 is exit 12, and the attempt is in the ledger as refused."""
    commands.vault.role("signer", "release")
    ended = commands.run("keys", "rotate", KEY, role="signer")
    assert ended.code == 12, ended.text
    assert "Vault refuses (403): permission denied" in ended.err
    last = [item for item in entries(commands) if item.action == "rotate"][-1]
    assert last.outcome is Outcome.REFUSED
    assert commands.vault.api("GET", "transit/keys/release")["data"]["latest_version"] == 1


@pytest.mark.parametrize(
    ("arguments", "words", "hint"),
    [
        (("status", "file:release.key"), "is not in Vault", "hint: vault-transit://"),
        (("status",), "no key is named", "hint: secure-pipeline keys status KEY"),
        (
            ("rotate", "vault-kv://secret/a#key"),
            "writing a new one",
            "vault kv put -mount=secret a",
        ),
        (("rotate", f"{KEY}@1"), "a version cannot be rotated", f"hint: {KEY}\n"),
    ],
)
def test_what_cannot_be_asked(
    commands: VaultCommands, arguments: tuple[str, ...], words: str, hint: str
) -> None:
    """Keys that have no age, or that Vault cannot rotate: usage, with what to type."""
    ended = commands.run("keys", *arguments)
    assert ended.code == 2, ended.text
    assert words in ended.err
    assert hint in ended.err


def test_a_persons_token_is_as_old_as_the_one_it_is_made_from(
    vault: RealVault, tmp_path: Path
) -> None:
    """A short child of an old token is no young login; one that AppRole makes is."""
    vault.api("PUT", "sys/policies/acl/person", {
        "policy": 'path "auth/token/create" { capabilities = ["update"] }'
    })  # fmt: skip
    made = vault.api("POST", "auth/token/create", {"policies": ["person"], "ttl": "100h"})["auth"]
    parent = vault.api("POST", "auth/token/lookup", {"token": made["client_token"]})["data"]
    server = VaultServer(vault.address, plain_http=True)
    before = SystemClock().now()
    for login, kinds in (
        (PersonToken(made["client_token"]), ["token"]),
        (approle(vault), ["token", "secret-id"]),
    ):
        pending = PendingTokens(tmp_path / "tokens")
        with VaultSession(server, login, SystemClock(), pending) as session:
            found = {item.kind: item.created for item in session.issued()}
        assert list(found) == kinds
        assert found["token"]
        if kinds == ["token"]:
            assert int(found["token"].timestamp()) == parent["creation_time"]
        else:
            assert found["secret-id"]
            assert before < found["token"]
            assert abs((found["secret-id"] - before).total_seconds()) < 60


def approle(vault: RealVault) -> AppRole:
    """A login with a fresh wrapped secret-id."""
    role_id = vault.role("signer", "release")
    return AppRole("signer", role_id, vault.wrapped_secret_id("signer"))
