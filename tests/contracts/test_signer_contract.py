"""Every signer keeps one contract: keys in a file, in Vault's transit engine, fetched from KV."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.vaultplace import PASSWORD, make_keys, prepare_vault
from fakes.vaultserver import RealVault, real_vault
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.vault import VaultSession
from secure_pipeline.adapters.vaultlogin import AppRole
from secure_pipeline.adapters.vaultpending import PendingTokens
from secure_pipeline.adapters.vaultwire import VaultServer
from secure_pipeline.attestations import dsse
from secure_pipeline.attestations.statement import make_statement
from secure_pipeline.errors import ConfigError
from secure_pipeline.keys import local
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.keys.vault_kv import fetch
from secure_pipeline.keys.vault_transit import VaultTransitSigner
from secure_pipeline.keys.verify import PublicKey
from secure_pipeline.oci.digest import Digest
from secure_pipeline.policy.document import Algorithm
from secure_pipeline.ports import Signer

pytestmark = pytest.mark.integration

KINDS = ("file", "transit", "transit-p384", "transit-ed25519", "fetched", "fetched-pem")


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVault]:
    """A real Vault with every kind of key, and a role for each."""
    directory = tmp_path_factory.mktemp("vault")
    with real_vault(directory) as made:
        prepare_vault(made, make_keys(directory / "keys"))
        for kind in ("ecdsa-p384", "ed25519"):
            made.transit_key(kind, kind)
            made.role(kind, kind)
        yield made


@pytest.fixture(scope="module")
def opened(vault: RealVault, tmp_path_factory: pytest.TempPathFactory) -> Iterator[
    Callable[[str], VaultSession]
]:  # fmt: skip
    """Opens sessions of a role, and ends them all."""
    sessions = []
    server = VaultServer(vault.address, ca=vault.authority.ca)

    def open_session(role: str) -> VaultSession:
        answer = vault.api("GET", f"auth/approle/role/{role}/role-id")
        login = AppRole(role, answer["data"]["role_id"], vault.wrapped_secret_id(role))
        pending = PendingTokens(tmp_path_factory.mktemp("state") / "tokens")
        sessions.append(VaultSession(server, login, SystemClock(), pending))
        return sessions[-1]

    yield open_session
    for session in sessions:
        session.close()


@pytest.fixture(scope="module", params=KINDS)
def signer(
    request: pytest.FixtureRequest,
    opened: Callable[[str], VaultSession],
    tmp_path_factory: pytest.TempPathFactory,
) -> Signer:
    """One signer of each kind."""
    if request.param == "file":
        path = tmp_path_factory.mktemp("file") / "release.key"
        local.generate(path, PASSWORD)
        return local.load(path, PASSWORD)
    if request.param.startswith("transit"):
        name = {"transit-p384": "ecdsa-p384", "transit-ed25519": "ed25519"}.get(
            request.param, "release"
        )
        role = "signer" if name == "release" else name
        return VaultTransitSigner(opened(role), KeyRef.parse(f"hashivault://{name}"))
    field = "pem" if request.param.endswith("pem") else "key"
    ref = KeyRef.parse(f"vault-kv://secret/release#{field}")
    return fetch(opened("signer"), ref, lambda: PASSWORD)


def public(signer: Signer) -> PublicKey:
    """The public half, bound to the algorithm that the signer says."""
    return PublicKey("signer", Algorithm(signer.algorithm), signer.public_key_der)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(message=st.binary(max_size=4096), other=st.binary(max_size=64))
def test_a_signature_is_of_the_message_alone(signer: Signer, message: bytes, other: bytes) -> None:
    """What it signs verifies with its public key, and for no other message."""
    signature = signer.sign(message)
    assert public(signer).verify(message, signature)
    assert not public(signer).verify(message + other + b"x", signature)


def test_a_large_statement_is_signed(signer: Signer) -> None:
    """A bill of materials of megabytes is signed like a small one, or refused with what to use."""
    message = bytes(range(256)) * (8 << 12)
    if isinstance(signer, VaultTransitSigner) and signer.algorithm == "ed25519":
        with pytest.raises(ConfigError, match="too long for an Ed25519 key") as caught:
            signer.sign(message)
        assert "ecdsa-p256" in (caught.value.hint or "")
        message = message[: 768 << 10]
    assert public(signer).verify(message, signer.sign(message))


def test_an_envelope_is_its_own(signer: Signer) -> None:
    """An envelope that it signs is accepted by the key that it shows."""
    payload = make_statement("service", Digest.of(b"image"), "https://example.com/v1", {"a": 1})
    envelope = dsse.parse_envelope(dsse.sign_envelope(payload, signer))
    assert public(signer).signed(envelope)


def test_nothing_of_the_key_is_in_its_texts(signer: Signer) -> None:
    """What a signer prints as is not more than its kind and place."""
    assert len(repr(signer)) < 120
    assert "BEGIN" not in repr(signer)
