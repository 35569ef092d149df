"""What people see of Vault's troubles: exit codes, one line of what is wrong, nothing half done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.authority import make_authority
from fakes.faultproxy import Exchange, answer
from fakes.vaultplace import FETCHED, VaultPlace, vault_places
from secure_pipeline.attestations.attachments import collect
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("vault-commands")]


@pytest.fixture(scope="module")
def places(
    tmp_path_factory: pytest.TempPathFactory, shared: Path
) -> Iterator[tuple[VaultPlace, VaultPlace]]:
    """A workplace that is ready to be signed, with two Vaults."""
    with vault_places(tmp_path_factory.mktemp("vaults"), shared) as made:
        yield made


@pytest.fixture
def place(places: tuple[VaultPlace, VaultPlace], tmp_path: Path) -> VaultPlace:
    """A copy beside the Vault with TLS."""
    return places[0].copied(tmp_path)


@pytest.fixture
def faulty(places: tuple[VaultPlace, VaultPlace], tmp_path: Path) -> Iterator[VaultPlace]:
    """A copy beside the Vault that faults can be put in front of."""
    made = places[1].copied(tmp_path)
    assert made.proxy
    made.proxy.rules.clear()
    yield made
    made.proxy.rules.clear()


def attached(place: VaultPlace) -> int:
    """How many envelopes are beside the image."""
    layout = Layout.open(place.workplace.state / "image")
    return len(list(collect(layout, Digest.parse(place.workplace.image()))))


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"VAULT_ADDR": ""}, 2, "no Vault server is named"),
        ({"SECURE_PIPELINE_VAULT_ROLE": ""}, 2, "SECURE_PIPELINE_VAULT_ROLE is not set"),
        ({"VAULT_SKIP_VERIFY": "1"}, 3, "VAULT_SKIP_VERIFY"),
        ({"VAULT_ADDR": "http://vault.example"}, 3, "plain http is refused"),
        ({"VAULT_CACERT": "missing.pem"}, 3, "no such file of certificate authorities"),
        ({"SECURE_PIPELINE_KEY": "vault-transit://release"}, 2, "does not name a key in Vault"),
        ({"SECURE_PIPELINE_KEY": "vault-transit://transit/other"}, 12, "permission denied"),
        ({"SECURE_PIPELINE_KEY": "vault-transit://transit/release@7"}, 3, "version 7"),
        ({"SECURE_PIPELINE_VAULT_ROLE": "another"}, 11, "made by another request"),
        ({"SECURE_PIPELINE_VAULT_ROLE_ID": "another"}, 12, "invalid role"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_signed(
    place: VaultPlace, changes: dict[str, str], code: int, words: str
) -> None:
    """Each mistake has its exit code and its words, and leaves neither evidence nor a token."""
    variables = {**place.variables(), **changes}
    before = place.vault.accessors()
    ended = place.workplace.run("sign", timeout=120, **variables)
    assert ended.code == code, ended.text
    assert words in ended.err
    assert attached(place) == 0
    assert place.vault.accessors() <= before


def test_vlt_06_the_second_use_of_a_wrapped_secret_id_is_exit_11(place: VaultPlace) -> None:
    """One wrapping token signs once; a second run with it is an alarm with what to look for."""
    variables = place.variables()
    first = place.workplace.run("sign", timeout=120, **variables)
    assert first.code == 0, first.text
    second = place.workplace.run("sign", "--run", "again", timeout=120, **variables)
    assert second.code != 0
    third = place.workplace.run("keys", "show", "hashivault://release", timeout=120, **variables)
    assert third.code == 11, third.text
    assert "may have been stolen" in third.err
    assert "audit log" in third.err


def test_vlt_11_the_wrong_authority_is_exit_4(place: VaultPlace, tmp_path: Path) -> None:
    """A certificate of another authority: nothing was sent, and the hint names the variable."""
    other = make_authority(tmp_path / "other").ca
    ended = place.run("sign", VAULT_CACERT=str(other))
    assert ended.code == 4, ended.text
    assert "certificate is not trusted" in ended.err
    assert attached(place) == 0


def test_vlt_09_a_sealed_vault_is_exit_4(faulty: VaultPlace) -> None:
    """Sealed, with its own words and what an operator types."""
    assert faulty.proxy
    faulty.proxy.on("GET", "/sys/health", answer(503, b"{}"))
    ended = faulty.run("sign")
    assert ended.code == 4, ended.text
    assert "Vault is sealed" in ended.err
    assert "hint: vault operator unseal" in ended.err
    assert "run r-" not in ended.text, "it is told before anything is begun"


def test_a_token_that_lives_too_long_is_exit_12(place: VaultPlace) -> None:
    """A role whose tokens outlive the policy's maximum signs nothing; its token is revoked."""
    place.vault.role("long", "release", ttl="2h")
    variables = place.variables(role="long")
    before = place.vault.accessors()
    ended = place.workplace.run("sign", timeout=120, **variables)
    assert ended.code == 12, ended.text
    assert "lives for 7200 seconds; the policy allows 900" in ended.err
    assert attached(place) == 0
    assert place.vault.accessors() <= before


def test_vlt_14_a_fetched_key_needs_the_policys_permission(place: VaultPlace) -> None:
    """The built-in policy allows no key that leaves Vault: exit 12 before anything is asked."""
    variables = place.variables(FETCHED)
    environment = dict(place.workplace.environment)
    environment.pop("SECURE_PIPELINE_POLICY")
    workplace = type(place.workplace)(place.root, environment)
    ended = workplace.run("keys", "show", FETCHED, timeout=120, **variables)
    assert ended.code == 12, ended.text
    assert "no key that leaves Vault" in ended.err


def test_a_key_that_the_policy_does_not_name_signs_nothing(place: VaultPlace) -> None:
    """After a rotation the new version is refused until the policy has its public key."""
    place.vault.transit_key("rotated")
    place.vault.role("rotating", "rotated")
    variables = place.variables("hashivault://rotated", role="rotating")
    ended = place.workplace.run("sign", timeout=120, **variables)
    assert ended.code == 12, ended.text
    assert "none of the policy's keys" in ended.err
    assert attached(place) == 0


def test_vlt_09_a_vault_that_restarts_in_the_middle_leaves_nothing_half_signed(
    faulty: VaultPlace,
) -> None:
    """The third signature meets a Vault that restarts, sealed; signing again finishes."""
    assert faulty.proxy
    count = []

    def restarting(exchange: Exchange) -> None:
        count.append(exchange)
        if len(count) == 3:
            faulty.vault.restart(unseal=False)
        exchange.reply(exchange.forward())

    faulty.proxy.on("POST", "/transit/sign/", restarting)
    ended = faulty.run("sign")
    assert ended.code == 4, ended.text
    assert "Vault is sealed" in ended.err
    assert "vault revoke-pending" in ended.err
    assert attached(faulty) == 0
    faulty.vault.unseal()
    faulty.proxy.rules.clear()
    left = faulty.run("vault", "revoke-pending", "--json")
    assert left.code == 0, left.text
    assert [token["ended"] for token in left.document["tokens"]] == ["revoked"]
    again = faulty.run("sign")
    assert again.code == 0, again.text
    assert faulty.workplace.run("verify", timeout=120).code == 0
