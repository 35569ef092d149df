"""JSON Web Tokens and service accounts log in to a real Vault."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.faultproxy import FaultProxy, answer, fault_proxy
from fakes.issuer import ISSUER, SUBJECT, Issuer
from fakes.vaultserver import SIGNING_POLICY, RealVault, real_vault
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.identitytoken import GithubJob
from secure_pipeline.adapters.vault import VaultSession
from secure_pipeline.adapters.vaultlogin import GithubRole, JwtRole, KubernetesRole, Login
from secure_pipeline.adapters.vaultpending import PendingTokens
from secure_pipeline.adapters.vaultwire import Refused, VaultServer
from secure_pipeline.errors import Unavailable
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.keys.vault_transit import VaultTransitSigner

pytestmark = pytest.mark.integration

KEY = KeyRef.parse("hashivault://release")


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """An issuer whose key Vault knows."""
    return Issuer()


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[RealVault]:
    """A Vault that trusts the issuer for one subject."""
    with real_vault(tmp_path_factory.mktemp("vault")) as made:
        made.transit_key("release")
        policy = SIGNING_POLICY.format(key="release")
        made.api("PUT", "sys/policies/acl/signer", {"policy": policy})
        made.api("POST", "sys/auth/jwt", {"type": "jwt"})
        keys = {"jwt_validation_pubkeys": [issuer.public], "bound_issuer": ISSUER}
        made.api("POST", "auth/jwt/config", keys)
        role = {
            "role_type": "jwt", "user_claim": "sub", "bound_subject": SUBJECT,
            "bound_audiences": ["vault"], "token_policies": ["signer"],
            "token_ttl": "5m", "token_max_ttl": "5m",
        }  # fmt: skip
        made.api("POST", "auth/jwt/role/signer", role)
        yield made


def session(vault: RealVault, login: Login, tmp_path: Path, **more: object) -> VaultSession:
    """A session over TLS."""
    server = VaultServer(
        vault.address,
        ca=vault.authority.ca,
        seconds=5.0,
        patience=0.0,
        **more,  # type: ignore[arg-type]
    )
    return VaultSession(server, login, SystemClock(), PendingTokens(tmp_path / "tokens"))


def test_a_json_web_token_logs_in(vault: RealVault, issuer: Issuer, tmp_path: Path) -> None:
    """The issuer's token signs, and Vault's token is gone afterwards."""
    before = vault.accessors()
    with session(vault, JwtRole("signer", issuer.token()), tmp_path) as open_session:
        assert VaultTransitSigner(open_session, KEY).sign(b"message")
        assert len(vault.accessors() - before) == 1
    assert vault.accessors() == before


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "repo:team/other:ref:refs/heads/main"},
        {"aud": "another"},
        {"exp": 1},
        {"iss": "https://issuer.example"},
    ],
)
def test_another_subject_audience_issuer_or_time_is_refused(
    vault: RealVault, issuer: Issuer, tmp_path: Path, claims: dict[str, object]
) -> None:
    """Vault refuses it, and the refusal does not repeat the token."""
    token = issuer.token(**claims)
    with pytest.raises(Refused) as caught, session(vault, JwtRole("signer", token), tmp_path):
        pass
    assert token not in f"{caught.value}{caught.value.hint}"
    assert caught.value.exit_code == 12


def test_github_gives_the_token_that_logs_in(
    vault: RealVault, issuer: Issuer, tmp_path: Path
) -> None:
    """The job's own token is asked for with the audience, and used at once."""
    with fault_proxy() as github:
        body = json.dumps({"count": 1, "value": issuer.token()}).encode()
        github.on("GET", "/token", answer(200, body))
        url = f"http://{github.host}/token?api-version=2.0"
        login = GithubRole("signer", GithubJob(url, "request-token"), audience="vault")
        with session(vault, login, tmp_path) as open_session:
            assert VaultTransitSigner(open_session, KEY).version == 1
        assert [item.path for item in github.seen] == ["/token?api-version=2.0&audience=vault"]
        github.rules.clear()
        github.on("GET", "/token", answer(403, b"no"))
        with pytest.raises(Unavailable, match="no identity token"), session(vault, login, tmp_path):
            pass


@pytest.fixture
def reviewer() -> Iterator[FaultProxy]:
    """The part of a Kubernetes API that Vault asks whose a token is."""
    with fault_proxy() as made:
        yield made


def _review(name: str) -> bytes:
    status = {
        "authenticated": True,
        "audiences": ["https://kubernetes.default"],
        "user": {
            "username": f"system:serviceaccount:ci:{name}",
            "uid": "1",
            "groups": ["system:serviceaccounts"],
        },
    }
    kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
    return json.dumps({**kind, "status": status}).encode()


@pytest.mark.parametrize(("name", "good"), [("signer", True), ("stranger", False)])
def test_a_service_account_logs_in(
    vault: RealVault, issuer: Issuer, reviewer: FaultProxy, tmp_path: Path, name: str, good: bool
) -> None:
    """The service account that the role binds signs; another one does not."""
    mount = f"k8s-{name}"
    vault.api("POST", f"sys/auth/{mount}", {"type": "kubernetes"})
    config = {
        "kubernetes_host": f"http://{reviewer.host}", "token_reviewer_jwt": issuer.token(),
        "disable_local_ca_jwt": True, "kubernetes_ca_cert": vault.authority.ca.read_text(),
    }  # fmt: skip
    vault.api("POST", f"auth/{mount}/config", config)
    role = {
        "bound_service_account_names": ["signer"], "bound_service_account_namespaces": ["ci"],
        "token_policies": ["signer"], "token_ttl": "5m", "token_max_ttl": "5m",
    }  # fmt: skip
    vault.api("POST", f"auth/{mount}/role/signer", role)
    headers = {"Content_Type": "application/json"}
    reviewer.on("POST", "/tokenreviews", answer(201, _review(name), **headers))
    account = {"kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": name, "uid": "1"}}}
    subject = f"system:serviceaccount:ci:{name}"
    token = issuer.token(sub=subject, aud=["https://kubernetes.default"], **account)
    opened = session(vault, KubernetesRole("signer", token, mount), tmp_path)
    if not good:
        with pytest.raises(Refused), opened:
            pass
        return
    with opened as open_session:
        assert VaultTransitSigner(open_session, KEY).sign(b"message")
