"""What signs as an identity keeps one contract with a real Sigstore and with our services."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from fakes.privatesigstore import PrivateSigstore, private_sigstore
from fakes.virtualservices import VirtualServices
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.http import Transport
from secure_pipeline.adapters.sigstore import SigstoreVerifier
from secure_pipeline.adapters.sigstoresigning import LIMITS, SigstoreSigner, read_services
from secure_pipeline.attestations.bundle import proven, read_entry
from secure_pipeline.attestations.statement import make_statement
from secure_pipeline.errors import Unavailable
from secure_pipeline.oci.digest import Digest
from secure_pipeline.ports import Clock

pytestmark = pytest.mark.integration

Instance = PrivateSigstore | VirtualServices


class Ahead(SystemClock):
    """A clock that is some minutes ahead."""

    def __init__(self, minutes: int) -> None:
        self._ahead = timedelta(minutes=minutes)

    def now(self) -> datetime:
        return super().now() + self._ahead


@pytest.fixture(scope="module", params=["private", "virtual"])
def instance(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    """The real services (Rekor of version 2), and ours (version 1)."""
    if request.param == "private":
        with private_sigstore(tmp_path_factory.mktemp("sigstore")) as private:
            yield private
    else:
        with VirtualServices() as virtual:
            yield virtual


def verifier_of(instance: Instance) -> SigstoreVerifier:
    root = json.dumps(instance.trust_config()["trustedRoot"]).encode()
    return SigstoreVerifier(root, "root", SystemClock().now())


def signer_of(
    instance: Instance, token: Callable[[], str] | None = None, clock: Clock | None = None
) -> SigstoreSigner:
    services = read_services(json.dumps(instance.trust_config()).encode(), "config")
    transport = Transport(SystemClock(), limits=LIMITS)
    return SigstoreSigner(
        services, verifier_of(instance), token or instance.token, transport, clock or SystemClock()
    )


def statement(number: int = 0) -> bytes:
    return make_statement("service", Digest.of(b"image"), "https://example.com/v1", {"n": number})


def test_a_bundle_is_of_its_payload_and_identity(instance: Instance) -> None:
    """What it signs verifies as its identity, holds the payload as it was, and nothing else."""
    signer = signer_of(instance)
    bundle = signer.sign(statement())
    assert proven(bundle).payload == statement()
    found = verifier_of(instance).verify(bundle, statement())
    assert (found.identity, found.issuer) == signer.identity
    assert signer.signed(bundle, statement())
    assert not signer.signed(bundle, statement(1))


def test_one_certificate_signs_much_at_the_same_time(instance: Instance) -> None:
    """Threads share key and certificate; each statement has a bundle of its own."""
    asked = []

    def token() -> str:
        asked.append(1)
        return instance.token()

    signer = signer_of(instance, token)
    payloads = [statement(number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        bundles = list(pool.map(signer.sign, payloads))
    assert [proven(item).payload for item in bundles] == payloads
    assert len({read_entry(item).certificate for item in bundles}) == 1
    assert len(asked) == 1


@pytest.mark.parametrize("minutes", [8, 11], ids=["soon", "ended"])
def test_a_certificate_that_ends_is_renewed(instance: Instance, minutes: int) -> None:
    """With less than the margin left, the next signature has a new certificate and token."""
    signer = signer_of(instance, clock=Ahead(minutes))
    first, second = signer.sign(statement(1)), signer.sign(statement(2))
    assert read_entry(first).certificate != read_entry(second).certificate
    assert signer.signed(first, statement(1))


def test_a_token_that_ended_signs_nothing(instance: Instance) -> None:
    """Said before anything is sent, and without the token."""
    ended = instance.token(exp=1)
    with pytest.raises(Unavailable, match="expired") as caught:
        signer_of(instance, lambda: ended).sign(statement())
    assert ended not in str(caught.value)


def test_nothing_of_the_token_is_in_its_texts(instance: Instance) -> None:
    """What it prints as is no more than its kind."""
    signer = signer_of(instance)
    signer.sign(statement())
    assert len(repr(signer)) < 40
