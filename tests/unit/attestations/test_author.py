"""Evidence of an identity: bundles of their own, once, and in no place that cannot prove them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.evidence import NOON, StepClock, make_image, sign_inputs, signer
from fakes.virtualservices import VirtualServices
from fakes.virtualsigstore import IDENTITY, ISSUER
from secure_pipeline.attestations import bundle
from secure_pipeline.attestations.attachments import collect
from secure_pipeline.attestations.author import author
from secure_pipeline.attestations.forms import att_tag
from secure_pipeline.attestations.publishing import Published, publish
from secure_pipeline.attestations.statement import make_statement, parse_statement
from secure_pipeline.errors import Unavailable, VerificationFailed
from secure_pipeline.events import ignore
from secure_pipeline.oci.layout import Layout
from secure_pipeline.stages.result import Verdict
from secure_pipeline.stages.sign import SignInputs, sign

LOG = "/api/v1/log/entries"


@pytest.fixture
def services() -> Iterator[VirtualServices]:
    with VirtualServices() as made:
        yield made


@pytest.fixture
def inputs(tmp_path: Path) -> SignInputs:
    return sign_inputs(tmp_path / "layout", make_image(tmp_path / "layout"))


def test_evidence_of_an_identity_is_attached_as_bundles_only(
    services: VirtualServices, inputs: SignInputs
) -> None:
    """Each statement once, with its certificate; the older layout could not prove it."""
    result = sign(inputs, services.signer(), StepClock(), ignore)
    assert result.verdict is Verdict.PASS
    assert (result.figures["identity"], result.figures["issuer"]) == (IDENTITY, ISSUER)
    layout = Layout.open(inputs.layout)
    found = collect(layout, inputs.image.digest)
    assert len(found) == result.figures["statements"] + 1
    assert all(item.source == "bundle" and item.certificate for item in found)
    assert layout.tagged(att_tag(inputs.image.digest)) is None
    (kept,) = [item for item in result.reports if item.name == "evidence.sigstore.jsonl"]
    assert {*kept.content.splitlines()} == {item.bundle for item in found}


def test_signing_again_asks_for_nothing_but_a_certificate(
    services: VirtualServices, inputs: SignInputs
) -> None:
    """What the same identity signed before is used as it is, down to the byte."""
    first = sign(inputs, services.signer(), StepClock(), ignore)
    before = (inputs.layout / "index.json").read_bytes()
    services.asked.clear()
    again = sign(inputs, services.signer(), StepClock(), ignore)
    assert services.asked == ["/api/v2/signingCert"]
    assert (again.figures, again.reports) == (first.figures, first.reports)
    assert (inputs.layout / "index.json").read_bytes() == before


def test_another_identity_signs_its_own(services: VirtualServices, inputs: SignInputs) -> None:
    """Evidence of somebody else, or of a key, is not taken for one's own."""
    sign(inputs, services.signer(), StepClock(), ignore)
    sign(inputs, signer(), StepClock(), ignore)
    services.service.identity = "https://ci.invalid/other"
    second = replace(inputs, context=replace(inputs.context, run_id="run-2"))
    assert sign(second, services.signer(), StepClock(), ignore).verdict is Verdict.PASS
    found = collect(Layout.open(inputs.layout), inputs.image.digest)
    assert len(found) == 3 * 8


def test_a_log_that_stops_in_between_leaves_nothing(
    services: VirtualServices, inputs: SignInputs
) -> None:
    """Some statements are logged, one is not: nothing at all is attached."""
    services.service.before[LOG] = [(400, b"no")]
    before = (inputs.layout / "index.json").read_bytes()
    with pytest.raises(Unavailable, match="no"):
        sign(inputs, services.signer(), StepClock(), ignore)
    assert (inputs.layout / "index.json").read_bytes() == before


def test_bundles_are_published_once(services: VirtualServices, inputs: SignInputs) -> None:
    """A second publication of the same bundles finds nothing to add, another's are refused."""
    layout, image = Layout.open(inputs.layout), inputs.image
    ours = author(services.signer())
    payloads = [make_statement(image.name, image.digest, f"https://x/{n}", {}) for n in range(3)]
    envelopes = ours.sign([parse_statement(payload) for payload in payloads])
    described = layout.find(image.digest)
    assert publish(layout, described, envelopes, ours, NOON) == Published(3, 0)
    assert publish(layout, described, envelopes, ours, NOON) == Published(0, 0)
    with pytest.raises(VerificationFailed, match="not signed by"):
        publish(layout, described, envelopes, author(signer()), NOON)


def test_the_bundle_of_a_key_proves_no_identity(inputs: SignInputs) -> None:
    """A bundle without a certificate is no proof of one."""
    (envelope,) = author(signer()).sign(
        [parse_statement(make_statement("x", inputs.image.digest, "https://x/1", {}))]
    )
    data = bundle.make_bundle(envelope.raw, signer().public_key_der)
    with pytest.raises(VerificationFailed, match="no certificate"):
        bundle.proven(data)
    with pytest.raises(VerificationFailed):
        bundle.read_entry(data)
