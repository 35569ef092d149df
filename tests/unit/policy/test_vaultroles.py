"""The exported roles as texts; what they do is shown on a real Vault."""

import json
from datetime import timedelta

import pytest

from fakes.workplace import ROOT
from secure_pipeline.errors import UsageError
from secure_pipeline.policy.vaultroles import VaultRoles, files, vault_roles


def roles(key: str = "vault-transit://team/signing/release", **more: object) -> VaultRoles:
    options = {
        "promotion": None, "cidrs": ["10.20.0.0/16", "fd00::/8"], "token_ttl": timedelta(minutes=5),
        "token_uses": 20, "prefix": "app", "approle": "ci", **more,
    }  # fmt: skip
    return vault_roles(key, **options)  # type: ignore[arg-type]


def test_the_pipelines_role_is_narrow() -> None:
    """The policy's time to live, the number of uses and the networks are in the role."""
    role = json.loads(files(roles())["approle/app-pipeline.json"])
    assert role["token_ttl"] == role["token_max_ttl"] == role["token_explicit_max_ttl"] == "300s"
    assert (role["secret_id_num_uses"], role["token_num_uses"]) == (1, 20)
    assert (
        role["token_bound_cidrs"] == role["secret_id_bound_cidrs"] == ["10.20.0.0/16", "fd00::/8"]
    )
    assert role["token_no_default_policy"] is True
    assert role["token_policies"] == ["app-pipeline"]


def test_the_pipelines_policy_has_three_paths() -> None:
    """Sign, read the public key, end the token; under the mount that the key names."""
    text = files(roles())["policies/app-pipeline.hcl"]
    assert [line.split('"')[1] for line in text.splitlines() if line.startswith("path")] == [
        "team/signing/keys/release", "team/signing/sign/release", "auth/token/revoke-self"
    ]  # fmt: skip


def test_pods_sign_with_their_own_key_alone() -> None:
    """Each pod's role is bound to the service account and audience that tekton/ gives it."""
    made = files(roles(pods="runs"))
    accounts = (ROOT / "tekton/rbac/accounts.yaml").read_text()
    for name, stage, key in (("pipeline", "sign", "release"), ("promoter", "promote", "promotion")):
        role = json.loads(made[f"kubernetes/app-{name}.json"])
        (account,) = role["bound_service_account_names"]
        assert account == f"secure-pipeline-{stage}"
        assert f"name: {account}\n" in accounts
        assert (
            f"audience: {role['audience']}\n" in (ROOT / f"tekton/tasks/{stage}.yaml").read_text()
        )
        assert role["bound_service_account_namespaces"] == ["runs"]
        approle = json.loads(made["approle/app-pipeline.json"])
        shared = {member: role[member] for member in role if member.startswith("token_")}
        assert shared == {m: v for m, v in approle.items() if m.startswith("token_")} | {
            "token_policies": [f"app-{name}"]
        }
        paths = [line.split('"')[1] for line in made[f"policies/app-{name}.hcl"].splitlines()
                 if line.startswith("path")]  # fmt: skip
        assert paths == [
            f"team/signing/keys/{key}", f"team/signing/sign/{key}", "auth/token/revoke-self"
        ]  # fmt: skip
        at = f'path "auth/kubernetes/role/app-{name}" {{\n  capabilities'
        assert f'{at} = ["read"]' in made["policies/app-reviewer.hcl"]
        assert f'{at} = ["deny"]' in made["policies/app-engineer.hcl"]
    with pytest.raises(UsageError, match="is no namespace"):
        roles(pods="*")


def test_the_same_words_give_the_same_files() -> None:
    """What is written can be kept in git and compared."""
    assert files(roles()) == files(roles())
    assert set(files(roles())) == {
        "README.md", "approle/app-operator.json", "approle/app-pipeline.json",
        *(f"policies/app-{name}.hcl"
          for name in ("engineer", "issuer", "operator", "pipeline", "reviewer")),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["", "a b", "../x", 'x" {', "é", "a" * 65])
def test_names_are_plain(name: str) -> None:
    """A prefix or a mount cannot bring HCL or a path along."""
    for option in ("prefix", "approle"):
        with pytest.raises(UsageError, match="is no plain name"):
            roles(**{option: name})
