"""``verify`` of signatures over an image, and of statements that a signed index holds."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from fakes.evidence import run_context, signer
from fakes.foreign import (
    SIGN,
    SLSA_V1,
    TEAM,
    VULNS,
    Foreign,
    open_policy,
    requiring,
    simple_signing,
    vulnerabilities,
)
from fakes.release import passed, refused
from secure_pipeline.attestations import dsse
from secure_pipeline.attestations.predicates import SEAL, bind
from secure_pipeline.errors import ExitCode
from secure_pipeline.oci.digest import Digest
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.stages.result import Evidence

OTHER = Digest("1" * 64)
SIGNED = f"[{{predicate: '{SIGN}'}}]"


@pytest.fixture
def foreign(tmp_path: Path) -> Foreign:
    return Foreign(tmp_path / "image")


@pytest.fixture
def lenient(tmp_path: Path) -> LoadedPolicy:
    return open_policy(tmp_path / "policy")


def sign_simply(payload: bytes, key: Any = None) -> dict[str, str]:
    signature = (key or signer()).sign(payload)
    return {"dev.cosignproject.cosign/signature": base64.b64encode(signature).decode()}


def test_both_forms_of_an_image_signature_count(tmp_path: Path) -> None:
    """The .sig layer of cosign 2 and the bundle of cosign 3 meet one and the same requirement."""
    chosen = open_policy(tmp_path / "p", require=SIGNED, builders="[]")
    old, new = Foreign(tmp_path / "old"), Foreign(tmp_path / "new")
    payload = simple_signing(old.image.digest)
    old.put_sig((payload, sign_simply(payload)))
    new.put_key_bundle(new.statement(SIGN, {}, version="https://in-toto.io/Statement/v1"))
    passed(old.verify(chosen))
    passed(new.verify(chosen))


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (simple_signing(f"sha256:{'1' * 64}"), "subject:"),
        (simple_signing("sha256:x"), "statement:"),
        (simple_signing(f"sha256:{'1' * 64}", "atomic container signature"), "no image signature"),
        (b"{}", "critical is missing"),
        (b'{"critical":{},"critical":{}}', "duplicate member"),
        (b"not JSON", "statement:"),
    ],
)
def test_sig_04_image_signature_about_something_else_is_refused(
    tmp_path: Path, foreign: Foreign, payload: bytes, words: str
) -> None:
    """A trusted signature over another image, or over no image, refuses."""
    good = simple_signing(foreign.image.digest)
    foreign.put_sig((good, sign_simply(good)), (payload, sign_simply(payload)))
    chosen = open_policy(tmp_path / "p", require=SIGNED, builders="[]")
    refused(foreign.verify(chosen), ExitCode.VERIFICATION, words)


def test_image_signature_by_a_stranger_is_counted_and_no_more(
    tmp_path: Path, foreign: Foreign
) -> None:
    """Another key's .sig layer neither passes nor blocks."""
    payload = simple_signing(foreign.image.digest)
    foreign.put_sig((payload, sign_simply(payload, signer(1))))
    chosen = open_policy(tmp_path / "p", require=SIGNED, builders="[]")
    refused(foreign.verify(chosen), ExitCode.VERIFICATION, "1 attachments by unknown keys")
    foreign.put_key_bundle(foreign.statement(SIGN, {}))
    passed(foreign.verify(chosen))


def test_envelope_is_not_taken_for_a_bare_signature(tmp_path: Path, foreign: Foreign) -> None:
    """SIG-01: a signature over a payload alone does not verify as an envelope's, nor back."""
    payload = foreign.statement()
    plain = signer().sign(payload)
    envelope = dsse.serialise(dsse.PAYLOAD_TYPE, payload, (dsse.EnvelopeSignature("", plain),))
    foreign.put_att((envelope, {}))
    simple = simple_signing(foreign.image.digest)
    wrapped = signer().sign(dsse.pae(dsse.PAYLOAD_TYPE, simple))
    annotations = {"dev.cosignproject.cosign/signature": base64.b64encode(wrapped).decode()}
    foreign.put_sig((simple, annotations))
    chosen = requiring(tmp_path / "p", SLSA_V1, SIGN)
    refused(foreign.verify(chosen), ExitCode.VERIFICATION, "no statement is signed")


@pytest.mark.parametrize("annotation", [{}, {"dev.cosignproject.cosign/signature": "%%"}])
def test_sig_layer_without_a_readable_signature_is_refused(
    foreign: Foreign, lenient: LoadedPolicy, annotation: dict[str, str]
) -> None:
    """A malformed attachment refuses, as malformed envelopes do."""
    foreign.put_sig((simple_signing(foreign.image.digest), annotation))
    refused(foreign.verify(lenient), ExitCode.VERIFICATION, "attachments:", "canonical base64")


def test_statements_of_buildkit_are_counted_and_prove_nothing(
    tmp_path: Path, foreign: Foreign
) -> None:
    """Unsigned statements in an index satisfy no requirement; they are named."""
    foreign.index(foreign.statement())
    chosen = requiring(tmp_path / "p", SLSA_V1)
    refused(foreign.verify(chosen), ExitCode.VERIFICATION, "1 statements inside the index")
    foreign.put_key_bundle(foreign.statement(VULNS, vulnerabilities()))
    result = foreign.verify(chosen)
    refused(result, ExitCode.VERIFICATION, f"{SLSA_V1} is missing")
    assert "1 unsigned statements in the index" in str(result.figures["decision"])


def test_a_signature_over_the_index_covers_its_statements(tmp_path: Path, foreign: Foreign) -> None:
    """Who signs an index signs the statements in it, about the images in it."""
    foreign.index(foreign.statement())
    payload = simple_signing(foreign.image.digest)
    foreign.put_sig((payload, sign_simply(payload)))
    passed(foreign.verify(requiring(tmp_path / "p", SLSA_V1, SIGN)))


def test_a_strangers_signature_covers_nothing(tmp_path: Path, foreign: Foreign) -> None:
    """A signature by an unknown key leaves the statements unsigned."""
    foreign.index(foreign.statement())
    payload = simple_signing(foreign.image.digest)
    foreign.put_sig((payload, sign_simply(payload, signer(1))))
    result = foreign.verify(requiring(tmp_path / "p", SLSA_V1))
    refused(result, ExitCode.VERIFICATION, "1 unsigned statements in the index")


def test_sig_04_statement_in_a_signed_index_about_another_image_is_refused(
    tmp_path: Path, foreign: Foreign
) -> None:
    """The subject has to be the image of the index that the attestation manifest refers to."""
    foreign.index(foreign.statement(subjects=[OTHER]))
    payload = simple_signing(foreign.image.digest)
    foreign.put_sig((payload, sign_simply(payload)))
    result = foreign.verify(requiring(tmp_path / "p", SIGN, builders="[]"))
    refused(result, ExitCode.VERIFICATION, "statement: index", str(OTHER))


def test_a_run_of_ours_is_not_sealed_through_an_index(tmp_path: Path, foreign: Foreign) -> None:
    """Who signs an image does not sign a seal or a result of ours that somebody put into it."""
    about = run_context("run-1", builder_id=TEAM)
    scan = bind(Evidence(VULNS, vulnerabilities()), about)
    foreign.index(foreign.statement(SEAL, {}), foreign.statement(VULNS, scan))
    payload = simple_signing(foreign.image.digest)
    foreign.put_sig((payload, sign_simply(payload)))
    result = foreign.verify(requiring(tmp_path / "p", SIGN, builders="[]"))
    refused(result, ExitCode.VERIFICATION, "has to be signed itself")
    assert result.reasons[0].count("statement: index") == 1
    assert len(result.reasons) == 2


def test_attestation_manifest_about_nothing_in_the_index_is_left_out(
    tmp_path: Path, foreign: Foreign
) -> None:
    """A reference to an image that is not in the index gives no evidence."""
    foreign.index(foreign.statement(subjects=[OTHER]), refers=OTHER)
    payload = simple_signing(foreign.image.digest)
    foreign.put_sig((payload, sign_simply(payload)))
    passed(foreign.verify(requiring(tmp_path / "p", SIGN, builders="[]")))
    refused(
        foreign.verify(requiring(tmp_path / "q", SIGN, SLSA_V1)),
        ExitCode.VERIFICATION,
        f"{SLSA_V1} is missing",
    )
