"""Exported policies and roles on a real Vault: each role can do its part, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.vaultcommands import VaultCommands, apply_exported
from fakes.vaultserver import RealVault, real_vault

pytestmark = pytest.mark.integration

NAME = "secure-pipeline-{}"
ROLE = "auth/approle/role/secure-pipeline-pipeline"
INPUT = {"input": "bWVzc2FnZQ=="}
SIGN = ("POST", "transit/sign/release", INPUT)
PROMOTE = ("POST", "transit/sign/promotion", INPUT)
Asked = tuple[str, str, object]

OUT_OF_REACH: list[Asked] = [
    ("POST", "transit/sign/release/sha2-512", INPUT),
    ("POST", "transit/keys/release", {"type": "ed25519"}),
    ("DELETE", "transit/keys/release", None),
    ("POST", "transit/keys/release/config", {"exportable": True}),
    ("POST", "transit/keys/release/config", {"deletion_allowed": True}),
    ("POST", "transit/keys/release/trim", {"min_available_version": 1}),
    ("GET", "transit/export/signing-key/release", None),
    ("GET", "transit/export/signing-key/release/1", None),
    ("GET", "transit/byok-export/release/release", None),
    ("GET", "transit/backup/release", None),
    ("POST", "transit/restore/release", {"backup": "x", "force": True}),
    ("POST", "transit/sign/other", INPUT),
    ("POST", "transit/keys/other", {}),
    ("POST", "secret/data/other", {"data": {"a": "b"}}),
    ("GET", "secret/data/other", None),
    ("PUT", "sys/policies/acl/secure-pipeline-pipeline", {"policy": 'path "*" {}'}),
    ("PUT", "sys/policies/acl/mine", {"policy": 'path "*" {}'}),
    ("POST", ROLE, {"token_policies": ["root"]}),
    ("POST", f"{ROLE}/secret-id", {}),
    ("POST", f"{ROLE}/custom-secret-id", {"secret_id": "x"}),
    ("POST", "auth/token/create", {}),
    ("POST", "auth/token/create-orphan", {}),
    ("POST", "sys/auth/other", {"type": "approle"}),
    ("DELETE", "sys/auth/approle", None),
    ("POST", "sys/mounts/other", {"type": "transit"}),
    ("PUT", "sys/seal", None),
    ("PUT", "sys/audit/file", {"type": "file", "options": {"file_path": "stdout"}}),
    ("GET", "sys/audit", None),
]
"""For every role below, whoever else may do some of it."""
PIPELINE_ONLY_MORE: list[Asked] = [
    PROMOTE,
    ("POST", "transit/keys/release/rotate", None),
    ("POST", "transit/keys/release/config", {"min_encryption_version": 1}),
    ("POST", "transit/verify/release", INPUT),
    ("POST", "transit/hmac/release", INPUT),
    ("LIST", "transit/keys", None),
    ("GET", "transit/keys/promotion", None),
    ("GET", "auth/token/lookup-self", None),
    ("POST", "auth/token/renew-self", None),
    ("POST", "auth/token/lookup-accessor", {"accessor": "x"}),
    ("POST", "auth/token/revoke-accessor", {"accessor": "x"}),
    ("GET", f"{ROLE}/role-id", None),
    ("LIST", f"{ROLE}/secret-id", None),
    ("GET", "sys/policies/acl/secure-pipeline-pipeline", None),
    ("GET", "cubbyhole/x", None),
]


@dataclass(frozen=True)
class Place:
    """A Vault to which the exported files were applied."""

    vault: RealVault
    commands: VaultCommands
    directory: Path

    def login(self, role: str = "pipeline") -> str:
        """A token of an AppRole role."""
        name = NAME.format(role)
        at = f"auth/approle/role/{name}"
        role_id = self.vault.api("GET", f"{at}/role-id")["data"]["role_id"]
        secret_id = self.vault.api("POST", f"{at}/secret-id", {})["data"]["secret_id"]
        body = {"role_id": role_id, "secret_id": secret_id}
        answer = self.vault.api("POST", "auth/approle/login", body, token="")
        return str(answer["auth"]["client_token"])

    def person(self, role: str, *more: str) -> str:
        """A token of a person with a role's policy, the default one, and others."""
        body = {"policies": [NAME.format(role), *more]}
        return str(self.vault.api("POST", "auth/token/create", body)["auth"]["client_token"])

    def status(self, asked: Asked, token: str) -> int:
        """What Vault answers."""
        return self.vault.status(*asked, token)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Exported by the program, applied as the README's commands would."""
    directory = tmp_path_factory.mktemp("policies")
    with real_vault(directory / "vault") as vault:
        for key in ("release", "promotion", "other"):
            vault.transit_key(key)
        vault.api("POST", "secret/data/other", {"data": {"a": "secret"}})
        vault.role("starter", "release")
        commands = VaultCommands(vault, directory)
        ended = commands.run(
            "policy", "export", "vault", "--cidr", "127.0.0.0/8", "--output", "out", role="starter"
        )
        assert ended.code == 0, ended.text
        made = Place(vault, commands, directory / "out")
        apply_exported(vault, made.directory)
        yield made


def refused(place: Place, asked: list[Asked], token: str) -> None:
    """Every one is answered by 403."""
    answers = {(method, path): place.status((method, path, body), token)
               for method, path, body in asked}  # fmt: skip
    assert {found: code for found, code in answers.items() if code != 403} == {}


def test_the_pipeline_signs_and_can_do_nothing_else(place: Place) -> None:
    """Its token signs, reads the public key, ends itself; everything else is 403."""
    token = place.login()
    assert place.status(SIGN, token) == 200
    assert place.status(("GET", "transit/keys/release", None), token) == 200
    for part in (OUT_OF_REACH, PIPELINE_ONLY_MORE):
        refused(place, part, place.login())
    assert place.status(("POST", "auth/token/revoke-self", None), token) == 204
    assert place.status(SIGN, token) == 403


def test_the_pipelines_token_is_short_and_counted(place: Place) -> None:
    """Fifteen minutes and no more, fifty requests, one policy, bound to the network."""
    token = place.login()
    data = place.vault.api("POST", "auth/token/lookup", {"token": token})["data"]
    assert 0 < data["ttl"] <= 900
    assert data["explicit_max_ttl"] == 900
    assert data["policies"] == [NAME.format("pipeline")]
    assert data["type"] == "service"
    assert data["bound_cidrs"] == ["127.0.0.0/8"]
    for _ in range(50):
        assert place.status(SIGN, token) == 200
    assert place.status(SIGN, token) == 403


def test_a_secret_id_is_good_for_one_login(place: Place) -> None:
    """The second login with it is refused, and one from another network too."""
    vault = place.vault
    role_id = vault.api("GET", f"{ROLE}/role-id")["data"]["role_id"]

    def secret_id() -> str:
        return str(vault.api("POST", f"{ROLE}/secret-id", {})["data"]["secret_id"])

    body = {"role_id": role_id, "secret_id": secret_id()}
    login = ("POST", "auth/approle/login", body)
    assert [place.status(login, "") for _ in range(2)] == [200, 400]
    settings = json.loads((place.directory / "approle/secure-pipeline-pipeline.json").read_text())
    elsewhere = {"secret_id_bound_cidrs": ["10.9.0.0/16"], "token_bound_cidrs": ["10.9.0.0/16"]}
    vault.api("POST", ROLE, settings | elsewhere)
    try:
        body = {"role_id": role_id, "secret_id": secret_id()}
        assert place.status(("POST", "auth/approle/login", body), "") in (400, 403, 500)
    finally:
        vault.api("POST", ROLE, settings)


def test_the_program_signs_with_the_exported_role(place: Place) -> None:
    """The role is enough for the program, and the policy's list of Vault policies fits it."""
    policy = place.commands.policy(f"signing:\n  token-policies: [{NAME.format('pipeline')}]\n")
    key = "vault-transit://transit/release"
    ended = place.commands.run(
        "keys", "status", key, "--policy", str(policy), role=NAME.format("pipeline")
    )
    assert ended.code == 0, ended.text
    ended = place.commands.run("keys", "rotate", key, role=NAME.format("pipeline"))
    assert ended.code == 12, ended.text
    assert place.vault.api("GET", "transit/keys/release")["data"]["latest_version"] == 1


def test_the_operators_role_is_enough_to_rotate_and_retire(place: Place) -> None:
    """Rotation and revocation run with the exported operator, and nothing wider."""
    key, role = "vault-transit://transit/promotion", NAME.format("operator")
    old = place.vault.api("GET", "transit/keys/promotion")["data"]["latest_version"]
    policy = place.commands.policy(old=place.commands.public("promotion", old))
    ended = place.commands.run("keys", "rotate", key, "--json", role=role)
    assert ended.code == 0, ended.text
    assert ended.document["version"] == old + 1
    ended = place.commands.run(
        "keys", "revoke", f"{key}@{old}", "--from", "2026-05-04", "--reason", "end of its month",
        "--policy", str(policy), role=role,
    )  # fmt: skip
    assert ended.code == 0, ended.text
    data = place.vault.api("GET", "transit/keys/promotion")["data"]
    assert data["min_encryption_version"] == old + 1


WIDE = """
path "transit/*" { capabilities = ["create", "read", "update", "delete", "list"] }
path "transit/sign/release" { capabilities = ["update"] }
path "transit/sign/release/sha2-512" { capabilities = ["update"] }
path "transit/export/signing-key/release" { capabilities = ["read"] }
path "transit/keys/release/config" { capabilities = ["update"] }
path "auth/approle/role/secure-pipeline-pipeline/secret-id" { capabilities = ["update"] }
path "auth/approle/role/secure-pipeline-pipeline/role-id" { capabilities = ["read"] }
"""


@pytest.mark.parametrize("role", ["engineer", "reviewer"])
def test_engineers_and_reviewers_cannot_sign(place: Place, role: str) -> None:
    """403 for both keys; also with the default policy, and with a second one that allows it."""
    place.vault.api("PUT", "sys/policies/acl/wide", {"policy": WIDE})
    token = place.person(role)
    refused(place, [SIGN, PROMOTE, *OUT_OF_REACH], token)
    assert place.status(("GET", "transit/keys/release", None), token) == 200
    wide = place.person(role, "wide")
    mine = [item for item in OUT_OF_REACH[:9] if item[1] != "transit/keys/release"]
    refused(place, [SIGN, PROMOTE, *mine], wide)


def test_an_engineer_can_check_a_signature_and_start_no_login(place: Place) -> None:
    """Verification by Vault works for engineers; a login of the pipeline is out of reach."""
    signed = place.vault.api("POST", "transit/sign/release", INPUT)["data"]["signature"]
    token = place.person("engineer", "wide")
    body = INPUT | {"signature": signed}
    answer = place.vault.api("POST", "transit/verify/release", body, token=token)
    assert answer["data"]["valid"] is True
    refused(place, [("GET", f"{ROLE}/role-id", None), ("POST", f"{ROLE}/secret-id", {})], token)


def test_a_reviewer_reads_what_there_is_to_review(place: Place) -> None:
    """Policies, roles, public keys and the list of secret-ids; nothing can be changed."""
    token = place.person("reviewer")
    for asked in (
        ("GET", "transit/keys/promotion", None),
        ("GET", "sys/policies/acl/secure-pipeline-operator", None),
        ("GET", ROLE, None),
    ):
        assert place.status(asked, token) == 200, asked
    place.vault.api("POST", f"{ROLE}/secret-id", {})
    assert place.status(("LIST", f"{ROLE}/secret-id", None), token) == 200
    refused(place, [("POST", "transit/verify/release", INPUT), *PIPELINE_ONLY_MORE[1:3]], token)


@pytest.mark.parametrize("kind", ["person", "approle"])
def test_an_operator_promotes_and_signs_no_release(place: Place, kind: str) -> None:
    """Promotion key yes, release key never; rotates and retires versions; ends credentials."""

    def token() -> str:
        return place.person("operator") if kind == "person" else place.login("operator")

    mine = token()
    assert place.status(PROMOTE, mine) == 200
    refused(place, [SIGN, *OUT_OF_REACH], mine)
    vault = place.vault
    vault.api("PUT", "sys/policies/acl/wide", {"policy": WIDE})
    refused(place, [SIGN, OUT_OF_REACH[0]], place.person("operator", "wide"))
    mine = token()
    assert place.status(("POST", "transit/keys/promotion/rotate", None), mine) in (200, 204)
    least = ("POST", "transit/keys/promotion/config", {"min_encryption_version": 1})
    assert place.status(least, mine) in (200, 204)
    victim = place.login()
    accessor = vault.api("POST", "auth/token/lookup", {"token": victim})["data"]["accessor"]
    body = {"accessor": accessor}
    assert place.status(("POST", "auth/token/revoke-accessor", body), mine) == 204
    assert not vault.lives(accessor)
    made = vault.api("POST", f"{ROLE}/secret-id", {})["data"]["secret_id_accessor"]
    destroy = ("POST", f"{ROLE}/secret-id-accessor/destroy", {"secret_id_accessor": made})
    assert place.status(destroy, mine) == 204


def test_the_issuer_hands_out_wrapped_secret_ids_only(place: Place) -> None:
    """Unwrapped, or wrapped for too long, is refused; a wrapped one logs the pipeline in."""
    vault, token = place.vault, place.person("issuer")
    path = f"{ROLE}/secret-id"
    assert place.status(("POST", path, {}), token) in (400, 403)
    assert vault._send("POST", path, {}, token, {"X-Vault-Wrap-TTL": "1h"}).status_code in (
        400,
        403,
    )
    answer = vault.api("POST", path, {}, token=token, **{"X-Vault-Wrap-TTL": "120s"})
    assert answer["wrap_info"]["creation_path"] == path
    assert vault.status("POST", "sys/wrapping/unwrap", None, answer["wrap_info"]["token"]) == 200
    refused(place, [SIGN, PROMOTE, *(i for i in OUT_OF_REACH if i[1] != path)], token)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no network is named"),
        (("--cidr", "10.0.0.1/8"), "'10.0.0.1/8' is no network"),
        (("--cidr", "0.0.0.0/0"), "binds to nothing"),
        (("--cidr", "10.0.0.0/8", "--key", "file:x"), "is no transit key"),
        (("--cidr", "10.0.0.0/8", "--key", "vault-transit://t/k@1"), "know no versions"),
        (("--cidr", "10.0.0.0/8", "--key", "vault-transit://t/promotion"), "one key for releases"),
        (("--cidr", "10.0.0.0/8", "--prefix", 'a" {'), "is no plain name"),
        (("--cidr", "10.0.0.0/8", "--token-uses", "0"), "0 uses of a token"),
    ],
)
def test_what_would_bind_nothing_is_not_written(
    place: Place, arguments: tuple[str, ...], words: str
) -> None:
    """Mistakes that would widen a role are usage errors, and no file is written."""
    ended = place.commands.run(
        "policy", "export", "vault", "--output", "none", *arguments, role="starter"
    )
    assert ended.code == 2, ended.text
    assert words in ended.err
    assert "hint: " in ended.err
    assert not (place.commands.root / "none").exists()
