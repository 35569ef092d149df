"""What the operator's environment says about Vault."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from secure_pipeline.adapters.vaultlogin import (
    AppRole,
    GithubRole,
    JwtRole,
    KubernetesRole,
    PersonToken,
)
from secure_pipeline.errors import ConfigError, PolicyDenied, UsageError
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.policy.document import SigningRule
from secure_pipeline.wiring import vault

P = vault.PREFIX
SECRET = "hvs.sentinel-secret"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A working directory with a file that holds a token."""
    (tmp_path / "token").write_text(f"{SECRET}\n")
    (tmp_path / "home").mkdir()
    return tmp_path


@pytest.mark.parametrize("value", ["1", "true", "TRUE", "yes", "anything"])
def test_vlt_11_skipping_verification_is_an_error(directory: Path, value: str) -> None:
    """VAULT_SKIP_VERIFY is not honoured and not passed over in silence."""
    with pytest.raises(ConfigError, match="VAULT_SKIP_VERIFY") as caught:
        vault.server({"VAULT_ADDR": "https://v", "VAULT_SKIP_VERIFY": value}, directory)
    assert "VAULT_CACERT" in (caught.value.hint or "")


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_vlt_11_what_switches_nothing_off_is_no_error(directory: Path, value: str) -> None:
    """A variable that says no is accepted."""
    server = vault.server({"VAULT_ADDR": "https://v", "VAULT_SKIP_VERIFY": value}, directory)
    assert not server.plain_http


def test_the_server_is_named_by_the_usual_variables(directory: Path) -> None:
    """Address, authority and namespace come from Vault's own variables, peers from ours."""
    found = vault.server(
        {
            "VAULT_ADDR": "https://vault.example:8200/",
            "VAULT_CACERT": "ca.pem",
            "VAULT_NAMESPACE": "team/ci/",
            f"{P}PEERS": "https://a.example:8200, https://b.example:8200/",
        },
        directory,
    )
    assert found.address == "https://vault.example:8200"
    assert found.ca == directory / "ca.pem"
    assert found.namespace == "team/ci"
    assert found.peers == ("https://a.example:8200", "https://b.example:8200")


def test_without_an_address_there_is_no_vault(directory: Path) -> None:
    """No address is guessed, not even this machine's."""
    with pytest.raises(UsageError, match="no Vault server is named"):
        vault.server({}, directory)


def test_each_login_takes_its_own_variables(directory: Path) -> None:
    """The method is named, or approle where there is a role-id, or a person's token file."""
    role = {f"{P}ROLE": "signer"}
    files = {f"{P}JWT_FILE": "token", f"{P}WRAPPED_SECRET_ID_FILE": "token"}
    approle = vault.login({**role, **files, f"{P}ROLE_ID": "id"}, directory)
    assert isinstance(approle, AppRole)
    assert (approle.wrapped, approle.expected_path) == (
        SECRET, "auth/approle/role/signer/secret-id",
    )  # fmt: skip
    mounted = vault.login(
        {**role, **files, f"{P}ROLE_ID": "i", f"{P}LOGIN": "approle:ci"}, directory
    )
    assert isinstance(mounted, AppRole)
    assert mounted.expected_path == "auth/ci/role/signer/secret-id"
    jwt = vault.login({**role, **files, f"{P}LOGIN": "jwt"}, directory)
    assert isinstance(jwt, JwtRole)
    kubernetes = vault.login({**role, **files, f"{P}LOGIN": "kubernetes"}, directory)
    assert isinstance(kubernetes, KubernetesRole)
    asked = {
        "ACTIONS_ID_TOKEN_REQUEST_URL": "https://actions.example/t",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": SECRET,
    }
    github = vault.login({**role, **asked, f"{P}LOGIN": "github:gh"}, directory)
    assert isinstance(github, GithubRole)
    assert github.mount == "gh"
    person = vault.login({f"{P}TOKEN_FILE": "token"}, directory)
    assert isinstance(person, PersonToken)
    for login in (approle, jwt, kubernetes, github, person):
        assert SECRET not in repr(login)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "no login to Vault is configured"),
        ({"VAULT_TOKEN": SECRET}, "VAULT_TOKEN is seen by every program"),
        ({f"{P}LOGIN": "password"}, "LOGIN is 'password'"),
        ({f"{P}LOGIN": "approle"}, "WRAPPED_SECRET_ID_FILE is not set"),
        ({f"{P}LOGIN": "jwt"}, "JWT_FILE is not set"),
        ({f"{P}LOGIN": "github"}, "no identity token to ask for"),
        ({f"{P}LOGIN": "jwt", f"{P}JWT_FILE": "token"}, "ROLE is not set"),
    ],
)
def test_what_is_missing_is_named(directory: Path, environment: dict[str, str], words: str) -> None:
    """A login that is not whole is a usage error before anything is sent; no secret in it."""
    with pytest.raises(UsageError, match=words) as caught:
        vault.login({"HOME": str(directory / "home"), **environment}, directory)
    assert caught.value.hint
    assert SECRET not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize("content", [b"", b"\n", b"two tokens", b"a\nb", b"\xff\xfe", b"x" * 17000])
def test_a_file_that_holds_no_token_is_not_quoted(directory: Path, content: bytes) -> None:
    """Empty, several lines, blanks and binary are no token; the file's content is not shown."""
    (directory / "token").write_bytes(content)
    with pytest.raises(ConfigError, match="holds no token") as caught:
        vault.login({f"{P}TOKEN_FILE": "token"}, directory)
    assert str(caught.value) == f"{directory / 'token'}: holds no token"


def test_vlt_14_the_policy_has_to_allow_keys_that_leave_vault() -> None:
    """A fetched key is refused by default; a transit key never needs that permission."""
    fetched = KeyRef.parse("vault-kv://secret/release#key")
    with pytest.raises(PolicyDenied, match="no key that leaves Vault"):
        vault.check_rule(fetched, SigningRule())
    vault.check_rule(fetched, SigningRule(allow_fetched_keys=True))
    vault.check_rule(KeyRef.parse("hashivault://release"), SigningRule())


def test_the_policy_bounds_the_tokens() -> None:
    """Fifteen minutes by default; a day at most; the names of policies as given."""
    assert vault.token_rule(SigningRule()).seconds == 900
    assert vault.token_rule(SigningRule(max_token_ttl=timedelta(minutes=1))).seconds == 60
    for wrong in (timedelta(0), timedelta(days=2)):
        with pytest.raises(ValueError, match="max-token-ttl"):
            SigningRule(max_token_ttl=wrong)
