"""Signing as an identity with services that go wrong, one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.virtualservices import VirtualServices
from fakes.virtualsigstore import IDENTITY, Faults
from secure_pipeline.adapters.sigstoresigning import read_services
from secure_pipeline.attestations.bundle import proven
from secure_pipeline.attestations.statement import make_statement
from secure_pipeline.errors import ConfigError, PipelineError, Unavailable, VerificationFailed
from secure_pipeline.oci.digest import Digest

PAYLOAD = make_statement("service", Digest.of(b"image"), "https://example.com/v1", {})
CERTIFY, LOG, STAMP = "/api/v2/signingCert", "/api/v1/log/entries", "/stamp"


@pytest.fixture
def services() -> Iterator[VirtualServices]:
    with VirtualServices() as made:
        yield made


@pytest.mark.parametrize("late", [timedelta(minutes=11), timedelta(minutes=-1)])
def test_a_stamp_outside_the_certificate_is_given_to_nobody(
    services: VirtualServices, late: timedelta
) -> None:
    """A time-stamp after the certificate's end, or before its beginning, signs nothing."""
    services.service.stamp_after = late
    with pytest.raises(VerificationFailed, match=r"valid|expired"):
        services.signer().sign(PAYLOAD)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(entry_of=b"{}"),
        Faults(hash=True),
        Faults(checkpoint_key=True),
        Faults(promise_key=True),
    ],
    ids=["another entry", "root hash", "checkpoint", "promise"],
)
def test_an_entry_that_proves_nothing_is_given_to_nobody(
    services: VirtualServices, faults: Faults
) -> None:
    """A log that answers with another entry, or another proof, signs nothing."""
    services.service.faults = faults
    with pytest.raises(VerificationFailed):
        services.signer().sign(PAYLOAD)


@pytest.mark.parametrize("faults", [Faults(sct=False), Faults(sct_key=True)])
def test_a_certificate_that_no_log_promised_is_not_used(
    services: VirtualServices, faults: Faults
) -> None:
    """Without a good promise of a certificate log nothing is signed, logged or stamped."""
    services.service.faults = faults
    with pytest.raises(VerificationFailed, match=r"timestamp|SCT"):
        services.signer().sign(PAYLOAD)
    assert services.asked == [CERTIFY]


def test_an_identity_that_changes_in_between_is_refused(services: VirtualServices) -> None:
    """A renewed certificate for somebody else ends the run."""
    signer = services.signer()
    assert signer.identity[0] == IDENTITY
    services.service.identity = "https://ci.invalid/other"
    signer._signer = None
    with pytest.raises(VerificationFailed, match="changed"):
        signer.sign(PAYLOAD)


@pytest.mark.parametrize("path", [CERTIFY, LOG, STAMP])
def test_a_busy_service_is_asked_again(services: VirtualServices, path: str) -> None:
    """503 once: the next answer counts."""
    services.service.before[path] = [(503, b"")]
    assert proven(services.signer().sign(PAYLOAD)).payload == PAYLOAD
    assert services.asked.count(path) == 2


@pytest.mark.parametrize("path", [CERTIFY, LOG, STAMP])
@pytest.mark.parametrize(
    "answer",
    [(200, b""), (200, b"<html>"), (200, b"{}"), (200, b"[]"), (200, b"x" * (2 << 20)), (302, b"")],
    ids=["empty", "html", "object", "list", "too long", "redirect"],
)
def test_an_answer_of_another_kind_is_an_error_of_ours(
    services: VirtualServices, path: str, answer: tuple[int, bytes]
) -> None:
    """Whatever a service answers, the error is one line and names no token."""
    services.service.before[path] = [answer]
    with pytest.raises(PipelineError) as caught:
        services.signer().sign(PAYLOAD)
    assert "\n" not in str(caught.value)


def test_a_refusal_is_told_with_the_services_words(services: VirtualServices) -> None:
    """What Fulcio says about a token is shown, bounded."""
    services.service.before[CERTIFY] = [(403, b'{"message": "not you"}')]
    with pytest.raises(Unavailable, match=r"403.*not you"):
        services.signer().sign(PAYLOAD)


def changed(services: VirtualServices, **changes: Any) -> bytes:
    config = services.trust_config()
    config["signingConfig"] |= changes
    return json.dumps(config).encode()


def test_services_that_cannot_prove_a_signature_are_refused(services: VirtualServices) -> None:
    """No authority, no log, a log without times and no stamps, or two logs: said at once."""
    [log] = services.trust_config()["signingConfig"]["rekorTlogUrls"]
    two = [{**log, "operator": name} for name in ("a", "b")]
    for changes, why in (
        ({"caUrls": []}, "Fulcio"),
        ({"rekorTlogUrls": []}, "Rekor"),
        ({"rekorTlogUrls": [{**log, "majorApiVersion": 2}], "tsaUrls": []}, "time-stamp"),
        ({"rekorTlogUrls": two, "rekorTlogConfig": {"selector": "ALL"}}, "2 log entries"),
        ({"rekorTlogConfig": {"selector": "EXACT", "count": 2}}, "Expected 2"),
    ):
        with pytest.raises(ConfigError, match=why):
            read_services(changed(services, **changes), "config")


def test_the_public_instance_is_known(services: VirtualServices) -> None:
    """Without a file the services are those that came with the library."""
    found = read_services(None, "public")
    assert found.authority == "https://fulcio.sigstore.dev"
    assert found.root is None


@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_no_bytes_are_taken_for_services(data: bytes) -> None:
    """Anything else than a signing configuration is an error of the file."""
    with pytest.raises(ConfigError):
        read_services(data, "config")
