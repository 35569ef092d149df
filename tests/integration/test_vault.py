"""Sessions with a real Vault: logins, what is refused, and that every token ends."""

from __future__ import annotations

import json
import resource
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fakes.authority import make_authority
from fakes.vaultserver import RealVault, real_vault
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.vault import TokenRule, VaultSession
from secure_pipeline.adapters.vaultlogin import AppRole, Login, PersonToken
from secure_pipeline.adapters.vaultpending import PendingTokens
from secure_pipeline.adapters.vaultwire import Refused, VaultServer
from secure_pipeline.audit.entry import Actor
from secure_pipeline.audit.log import FileLedger
from secure_pipeline.errors import ConfigError, PolicyDenied, Unavailable, VerificationFailed
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.keys.vault_kv import fetch
from secure_pipeline.keys.vault_transit import VaultTransitSigner

pytestmark = pytest.mark.integration

KEY = KeyRef.parse("vault-transit://transit/release")


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVault]:
    """A Vault with a key that the role ``signer`` may use."""
    with real_vault(tmp_path_factory.mktemp("vault")) as made:
        made.transit_key("release")
        made.role("signer", "release")
        yield made


def server(vault: RealVault, **more: object) -> VaultServer:
    """How a client names it."""
    options = {"ca": vault.authority.ca, "seconds": 5.0, "patience": 0.0, **more}
    return VaultServer(vault.address, **options)  # type: ignore[arg-type]


def approle(vault: RealVault, role: str = "signer", **more: object) -> AppRole:
    """A login with a fresh wrapped secret-id."""
    role_id = vault.api("GET", f"auth/approle/role/{role}/role-id")["data"]["role_id"]
    options = {"wrapped": vault.wrapped_secret_id(role), **more}
    return AppRole(role=role, role_id=role_id, **options)  # type: ignore[arg-type]


def session(vault: RealVault, login: Login, tmp_path: Path, **more: object) -> VaultSession:
    """A session that notes its tokens below ``tmp_path``."""
    where = more.pop("server", None) or server(vault)
    pending = PendingTokens(tmp_path / "tokens")
    return VaultSession(where, login, SystemClock(), pending, **more)  # type: ignore[arg-type]


def test_a_token_lives_for_its_session_only(vault: RealVault, tmp_path: Path) -> None:
    """The token of a login is noted while it lives, and gone from Vault afterwards."""
    before = vault.accessors()
    with session(vault, approle(vault), tmp_path) as open_session:
        signer = VaultTransitSigner(open_session, KEY)
        assert signer.public_key("k").verify(b"message", signer.sign(b"message"))
        (note,) = (tmp_path / "tokens").iterdir()
        assert stat.S_IMODE(note.stat().st_mode) == 0o600
        (pending,) = PendingTokens(tmp_path / "tokens").all()
        assert vault.lives(pending.accessor)
    assert not vault.lives(pending.accessor)
    assert vault.accessors() == before
    assert PendingTokens(tmp_path / "tokens").all() == ()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_token_ends_with_any_error(
    vault: RealVault, tmp_path: Path, error: type[BaseException]
) -> None:
    """Whatever ends the session, the token is revoked."""
    before = vault.accessors()
    with suppress(error), session(vault, approle(vault), tmp_path) as open_session:
        assert vault.accessors() > before
        assert open_session
        raise error
    assert vault.accessors() == before


def test_vlt_06_a_secret_id_that_was_unwrapped_already_is_an_alarm(
    vault: RealVault, tmp_path: Path
) -> None:
    """The second use of a wrapping token says that the secret-id may have been stolen."""
    login = approle(vault)
    with session(vault, login, tmp_path):
        pass
    with (
        pytest.raises(VerificationFailed, match="may have been stolen"),
        session(vault, login, tmp_path),
    ):
        pass


def test_a_persons_token_stays_theirs(vault: RealVault, tmp_path: Path) -> None:
    """A long-lived token of a person is used to make a short one, which alone is revoked."""
    vault.api("PUT", "sys/policies/acl/person", {
        "policy": 'path "auth/token/create" { capabilities = ["update"] }'
        ' path "transit/keys/release" { capabilities = ["read"] }',
    })  # fmt: skip
    made = vault.api("POST", "auth/token/create", {"policies": ["person"], "ttl": "100h"})["auth"]
    before = vault.accessors()
    with session(vault, PersonToken(made["client_token"]), tmp_path) as open_session:
        assert VaultTransitSigner(open_session, KEY).version == 1
        (child,) = vault.accessors() - before
    assert not vault.lives(child)
    assert vault.lives(made["accessor"])


def test_a_root_token_is_not_used(vault: RealVault, tmp_path: Path) -> None:
    """The root token of a file never signs; what was made of it is revoked."""
    before = vault.accessors()
    with (
        pytest.raises(PolicyDenied, match="is a root token"),
        session(vault, PersonToken(vault.root), tmp_path),
    ):
        pass
    assert vault.accessors() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ttl": "20m"}, "lives for 1200 seconds; the policy allows 900"),
        ({"token_type": "batch"}, "is a batch token"),
        ({"ttl": "0"}, "lives for"),
    ],
)
def test_a_token_that_is_too_much_is_refused_and_revoked(
    vault: RealVault, tmp_path: Path, options: dict[str, str], words: str
) -> None:
    """Over-long, batch and default time-to-live tokens are refused before they are used."""
    role = f"wide-{'-'.join(options)}-{'-'.join(options.values())}"
    vault.role(role, "release", **options)  # type: ignore[arg-type]
    before = vault.accessors()
    with (
        pytest.raises(PolicyDenied, match=words),
        session(vault, approle(vault, role), tmp_path),
    ):
        pass
    assert vault.accessors() == before


def test_unexpected_policies_are_refused(vault: RealVault, tmp_path: Path) -> None:
    """A token with a policy that the operator did not name is refused and revoked."""
    before = vault.accessors()
    rule = TokenRule(policies=("signer",))
    with (
        pytest.raises(PolicyDenied, match="has the policies default"),
        session(vault, approle(vault), tmp_path, rule=rule),
    ):
        pass
    assert vault.accessors() == before
    named = TokenRule(policies=("default", "signer"))
    with session(vault, approle(vault), tmp_path, rule=named):
        pass


def test_what_cannot_be_revoked_is_reported_and_revoked_later(
    vault: RealVault, tmp_path: Path
) -> None:
    """A role that may not revoke leaves a note with the accessor; a later session finishes it."""
    vault.role("stuck", "release", token_no_default_policy=True)
    told: list[str] = []
    with session(vault, approle(vault, "stuck"), tmp_path, warn=told.append):
        pass
    (left,) = PendingTokens(tmp_path / "tokens").all()
    assert vault.lives(left.accessor)
    assert left.accessor in told[0]
    with session(vault, approle(vault), tmp_path) as later:
        assert later.revoke_pending() == ((left, "revoked"),)
    assert not vault.lives(left.accessor)
    PendingTokens(tmp_path / "tokens").note(left)
    with session(vault, approle(vault), tmp_path) as later:
        assert later.revoke_pending() == ((left, "gone already"),)
    assert PendingTokens(tmp_path / "tokens").all() == ()


def test_a_role_may_only_what_its_policy_says(vault: RealVault, tmp_path: Path) -> None:
    """The wrong role reads no key: Vault's refusal is told in our words."""
    vault.transit_key("other")
    vault.role("elsewhere", "other")
    with session(vault, approle(vault, "elsewhere"), tmp_path) as open_session:
        with pytest.raises(Refused, match="permission denied") as caught:
            VaultTransitSigner(open_session, KEY)
        assert caught.value.status == 403


def test_vlt_11_the_wrong_authority_is_not_trusted(vault: RealVault, tmp_path: Path) -> None:
    """A server whose certificate another authority made gets no secret."""
    other = make_authority(tmp_path / "other").ca
    with (
        pytest.raises(Unavailable, match="certificate is not trusted"),
        session(vault, approle(vault), tmp_path, server=server(vault, ca=other)),
    ):
        pass


def test_what_a_session_does_is_in_the_ledger(vault: RealVault, tmp_path: Path) -> None:
    """Login, fetching and signing are recorded before they happen, as the entity of Vault's."""
    vault.api("POST", "secret/data/release", {"data": {"key": "no key at all"}})
    path = tmp_path / "ledger.jsonl"
    ledger = FileLedger(path, Actor("os", "me", verified=False), SystemClock())
    with session(vault, approle(vault), tmp_path, ledger=ledger, run="r-1") as open_session:
        VaultTransitSigner(open_session, KEY).sign(b"message")
        with pytest.raises(ConfigError, match="no private key"):
            fetch(open_session, KeyRef.parse("vault-kv://secret/release#key"), lambda: "")
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
    _, *entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(entry["action"], entry["kind"]) for entry in entries] == [
        (action, kind) for action in ("login", "sign", "fetch") for kind in ("intent", "conclusion")
    ]
    assert [entry["actor"]["kind"] for entry in entries] == ["os"] * 2 + ["vault"] * 4
    assert all(entry["actor"]["verified"] for entry in entries[2:])
    signed = entries[3]["details"]
    assert entries[2]["details"]["version"] == 1
    assert entries[2]["details"]["requestHash"].startswith("sha256:")
    assert signed["requestId"]
    assert entries[5]["details"]["version"] == 1


def test_nothing_is_signed_that_cannot_be_recorded(vault: RealVault, tmp_path: Path) -> None:
    """Where the ledger cannot be written, no login happens."""
    login = approle(vault)
    before = vault.accessors()
    actor = Actor("os", "me", verified=False)
    ledger = FileLedger(Path("/proc/ledger.jsonl"), actor, SystemClock())
    with pytest.raises(Unavailable), session(vault, login, tmp_path, ledger=ledger):
        pass
    assert vault.accessors() == before
    assert vault.status("POST", "sys/wrapping/lookup", {"token": login.wrapped}, "") == 200


def test_vlt_11_a_certificate_of_another_name_is_not_trusted(tmp_path: Path) -> None:
    """The right authority, but the certificate is of another address: nothing is sent."""
    (tmp_path / "store").mkdir()
    other = RealVault(tmp_path, make_authority(tmp_path / "tls"), host="127.0.0.2")
    other.start()
    try:
        login = AppRole("signer", "role-id", "wrapped")
        with (
            pytest.raises(Unavailable, match="certificate is not trusted"),
            session(other, login, tmp_path),
        ):
            pass
    finally:
        other.kill()
