"""The sign stage with keys in a real Vault; cosign verifies; every token ends."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.cosign import Cosign
from fakes.faultproxy import Exchange
from fakes.registry import build_referrers_registry, push_layout, referrers_registry
from fakes.vaultplace import FETCHED, PLAIN_PEM, TRANSIT, VaultPlace, vault_places
from secure_pipeline.attestations import predicates
from secure_pipeline.attestations.attachments import collect
from secure_pipeline.attestations.statement import parse_statement
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("vault-sign")]

_SECONDS = 60


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
    made.proxy.seen.clear()
    yield made
    made.proxy.rules.clear()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with the referrers API."""
    program = build_referrers_registry(tmp_path_factory.mktemp("registry"))
    with referrers_registry(program) as host:
        yield host


def notes(place: VaultPlace) -> list[Path]:
    """Notes of tokens that may still live."""
    return sorted((place.workplace.state / "vault-tokens").glob("*"))


def envelopes(place: VaultPlace) -> list[object]:
    """What is attached to the image."""
    layout = Layout.open(place.workplace.state / "image")
    return list(collect(layout, Digest.parse(place.workplace.image())))


@pytest.mark.parametrize("key", [TRANSIT, "hashivault://release", FETCHED, PLAIN_PEM])
def test_cosign_verifies_what_a_key_in_vault_signed(
    place: VaultPlace, registry: str, tmp_path: Path, key: str
) -> None:
    """Each kind of key signs the whole evidence; cosign and verify accept it; no token is left."""
    before = place.vault.accessors()
    shown = place.run("keys", "show", key, "--json")
    assert shown.code == 0, shown.text
    public = tmp_path / "exported.pub"
    public.write_text(shown.document["pem"])
    signed = place.run("sign", "--json", SECURE_PIPELINE_KEY=key)
    assert signed.code == 0, signed.text
    (stage,) = signed.document["stages"]
    assert stage["figures"]["keyVersion"] == 1
    assert stage["figures"]["keyUri"] == (TRANSIT if "hashivault" in key else key)
    assert place.vault.accessors() == before
    assert notes(place) == []
    verified = place.workplace.run("verify")
    assert verified.code == 0, verified.text
    layout = Layout.open(place.workplace.state / "image")
    digest = Digest.parse(place.workplace.image())
    kinds = {
        parse_statement(item.envelope.payload).predicate_type for item in collect(layout, digest)
    }
    assert predicates.SEAL in kinds
    repository = f"signed-{len(kinds)}-{abs(hash(key)) % 10**6}"
    push_layout(layout, registry, repository, lambda item: not (item.tag or "").endswith(".att"))
    cosign = Cosign.located("cosign", tmp_path / "cosign")
    for kind in kinds:
        image = f"{registry}/{repository}@{digest}"
        ended = cosign.verify_attestation(public, kind, image, "--new-bundle-format=true")
        assert ended.returncode == 0, ended.stderr


def started(place: VaultPlace, until: str, **changes: str) -> subprocess.Popen[str]:
    """Start ``sign`` and wait until Vault was asked for a signature that it does not give."""
    assert place.proxy
    process = place.workplace.start("sign", **{**place.variables(), **changes})
    deadline = time.monotonic() + _SECONDS
    while not place.proxy.requests("POST", until) and not place.proxy.requests("PUT", until):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_token_ends_when_the_program_is_stopped(
    faulty: VaultPlace, number: signal.Signals
) -> None:
    """Ctrl-C and SIGTERM in the middle of a signature revoke the token and publish nothing."""
    assert faulty.proxy
    before = faulty.vault.accessors()
    go_on = threading.Event()

    def held(exchange: Exchange) -> None:
        go_on.wait(_SECONDS)
        exchange.cut()

    faulty.proxy.on("POST", "/sign/", held)
    process = started(faulty, "/sign/")
    assert len(faulty.vault.accessors() - before) == 1
    process.send_signal(number)
    go_on.set()
    _, err = process.communicate(timeout=_SECONDS)
    assert process.returncode == 130, err
    assert faulty.vault.accessors() == before
    assert notes(faulty) == []
    assert envelopes(faulty) == []


def test_a_token_that_kill_9_left_is_revoked_later(faulty: VaultPlace) -> None:
    """After kill -9 the token lives and is noted; ``vault revoke-pending`` ends it."""
    assert faulty.proxy
    before = faulty.vault.accessors()
    go_on = threading.Event()
    faulty.proxy.on("POST", "/sign/", lambda exchange: (go_on.wait(_SECONDS), exchange.cut())[1])
    process = started(faulty, "/sign/")
    process.kill()
    process.communicate(timeout=_SECONDS)
    go_on.set()
    (left,) = faulty.vault.accessors() - before
    (note,) = notes(faulty)
    assert json.loads(note.read_bytes())["accessor"] == left
    assert note.stat().st_mode & 0o777 == 0o600
    faulty.proxy.rules.clear()
    ended = faulty.run("vault", "revoke-pending")
    assert (ended.code, ended.out) == (0, f"token {left}: revoked\n"), ended.text
    assert faulty.vault.accessors() == before
    assert faulty.run("vault", "revoke-pending").out == "no token is left\n"
    signed = faulty.run("sign")
    assert signed.code == 0, signed.text


def test_a_whole_run_signs_with_vault_and_ends_its_token(place: VaultPlace) -> None:
    """``run`` logs in once, when it signs, and its own verify accepts what the policy names."""
    before = place.vault.accessors()
    ended = place.run("run", "--json", SECURE_PIPELINE_KEY="hashivault://release")
    assert ended.code == 0, ended.text
    stages = {stage["stage"]: stage for stage in ended.document["stages"]}
    assert stages["sign"]["figures"]["keyVersion"] == 1
    assert stages["verify"]["verdict"] == "PASS"
    assert place.vault.accessors() == before
    shown = place.workplace.run("audit", "show", "--json")
    assert shown.code == 0, shown.text
    logins = shown.text.count('"action": "login"')
    assert logins >= 2, "an intent and its conclusion"
