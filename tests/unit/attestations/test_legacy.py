"""Annotations of cosign 1 and 2, put together as a bundle; and signatures as statements."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.der import tlv
from fakes.evidence import NOON
from fakes.foreign import simple_signing
from fakes.fulcio import der, new_key
from fakes.virtualsigstore import IDENTITY, ISSUER, Faults, VirtualSigstore
from secure_pipeline.attestations import bundle, dsse, legacy
from secure_pipeline.attestations.attachments import Attachment
from secure_pipeline.attestations.legacy import CERTIFICATE, LOG_ENTRY, TIMESTAMP
from secure_pipeline.attestations.predicates import SIGN
from secure_pipeline.attestations.signatures import SIMPLE_SIGNING, SimpleSigning, read_statement
from secure_pipeline.attestations.statement import parse_statement
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.keys.certificate import Claim, read_claim
from secure_pipeline.oci.digest import Digest

PAYLOAD = b'{"a":1}'
IMAGE = Digest("a" * 64)


@cache
def made() -> tuple[dsse.Envelope, dict[str, str]]:
    envelope, annotations = VirtualSigstore(NOON).attested(PAYLOAD, faults=Faults(stamped=True))
    return dsse.parse_envelope(envelope), annotations


def convert(**changes: str | None) -> legacy.Keyless | None:
    envelope, annotations = made()
    names = {"certificate": CERTIFICATE, "entry": LOG_ENTRY, "stamp": TIMESTAMP}
    changed = dict(annotations)
    for name, value in changes.items():
        changed.pop(names[name])
        if value is not None:
            changed[names[name]] = value
    return legacy.of_envelope(changed, envelope, "layer")


def entry(**changes: Any) -> str:
    """The log entry's annotation with members of its payload replaced."""
    value = json.loads(made()[1][LOG_ENTRY])
    value["Payload"] |= changes
    return json.dumps(value)


def test_the_bundle_holds_what_the_annotations_say() -> None:
    """Version 0.1: the certificate alone, the entry with its promise, time-stamp and envelope."""
    keyless = convert()
    assert keyless is not None
    document = json.loads(keyless.proof)
    material = document["verificationMaterial"]
    (certificate,) = material["x509CertificateChain"]["certificates"]
    assert base64.b64decode(certificate["rawBytes"]) == keyless.certificate
    assert read_claim(keyless.certificate) == Claim(IDENTITY, ISSUER)
    (logged,) = material["tlogEntries"]
    assert logged["kindVersion"] == {"kind": "dsse", "version": "0.0.1"}
    assert "inclusionProof" not in logged
    assert len(material["timestampVerificationData"]["rfc3161Timestamps"]) == 1
    read = bundle.read_bundle(keyless.proof)
    assert read.certificate == keyless.certificate
    assert read.envelope.payload == PAYLOAD


def test_without_a_certificate_a_bare_key_signed() -> None:
    """Entry and time-stamp beside a key's signature say nothing about who signed."""
    assert convert(certificate=None) is None
    assert legacy.of_message({}, b"x", b"y", "layer") is None


def test_sig_23_the_chain_in_the_annotations_is_left_out() -> None:
    """Who may issue certificates is the trust root's to say."""
    _, annotations = made()
    assert "dev.sigstore.cosign/chain" in annotations
    keyless = convert()
    assert keyless is not None
    material = json.loads(keyless.proof)["verificationMaterial"]
    assert len(material["x509CertificateChain"]["certificates"]) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"certificate": ""},
        {"certificate": "-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----\n"},
        {"certificate": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"},
        {"entry": ""},
        {"entry": "[]"},
        {"entry": '{"Payload":{},"Payload":{}}'},
        {"entry": entry(body="%%")},
        {"entry": entry(body=base64.b64encode(b"[]").decode())},
        {"entry": entry(logIndex=-1)},
        {"entry": entry(logIndex="1")},
        {"entry": entry(integratedTime=True)},
        {"entry": entry(integratedTime=1.5)},
        {"entry": entry(logID="00")},
        {"entry": entry(logID="Z" * 64)},
        {"stamp": "{}"},
        {"stamp": '{"SignedRFC3161Timestamp":"%%"}'},
    ],
)
def test_sig_05_malformed_annotations_are_refused(changes: dict[str, str]) -> None:
    """Strictly, each by its form: nothing is guessed."""
    with pytest.raises(VerificationFailed):
        convert(**changes)


def test_two_certificates_in_one_annotation_are_refused() -> None:
    """The first of several would be a guess."""
    pem = made()[1][CERTIFICATE]
    with pytest.raises(VerificationFailed, match="not one PEM"):
        convert(certificate=pem + pem)


@settings(deadline=None)
@given(st.text(max_size=60), st.sampled_from(["certificate", "entry", "stamp"]))
def test_sig_26_any_text_converts_or_is_refused(text: str, name: str) -> None:
    """No other exception comes out."""
    try:
        convert(**{name: text})
    except VerificationFailed:
        return


@given(st.binary(max_size=80))
def test_sig_26_bytes_that_are_no_certificate_are_refused(data: bytes) -> None:
    """A claim is read or refused."""
    with pytest.raises(VerificationFailed):
        read_claim(data)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_sig_26_a_changed_certificate_is_read_or_refused(data: st.DataObject) -> None:
    """Some bytes of a good certificate replaced: a claim or our own error, nothing else."""
    keyless = convert()
    assert keyless is not None
    changed = bytearray(keyless.certificate)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert read_claim(bytes(changed)).identity
    except VerificationFailed:
        return


@pytest.mark.parametrize("kind", ["directory", "x400", "none"])
def test_sig_26_names_of_a_certificate_that_nobody_writes_are_refused(kind: str) -> None:
    """Kinds of names that the library does not know are no crash."""
    names = {
        "directory": tlv(0x30, tlv(0xA4, tlv(0x30))),
        "x400": tlv(0x30, tlv(0xA3, tlv(0x30))),
        "none": tlv(0x30),
    }
    key = new_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOON)
        .not_valid_after(NOON + timedelta(minutes=10))
        .add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), names[kind]), True
        )
        .sign(key, hashes.SHA256())
    )
    with pytest.raises(VerificationFailed):
        read_claim(der(certificate))


def simple(payload: bytes) -> Attachment:
    signature = dsse.EnvelopeSignature("", b"x")
    return Attachment("sig", SimpleSigning(SIMPLE_SIGNING, payload, (signature,), payload), IMAGE)


def test_simple_signing_is_read_as_a_statement() -> None:
    """Type and subject are those of cosign 3's statement; the payload is what was signed."""
    payload = simple_signing(IMAGE)
    statement = read_statement(simple(payload))
    statement.require_type(SIGN)
    statement.require_subject(IMAGE)
    assert statement.payload == payload
    assert simple(payload).envelope.message == payload


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_sig_26_any_payload_is_read_or_refused(payload: bytes) -> None:
    """Nothing but our own error comes out of a signed payload that is no signature."""
    with pytest.raises(VerificationFailed):
        read_statement(simple(payload))


@pytest.mark.parametrize("text", [b"", b'"predicate":null,'])
def test_a_signature_of_cosign_2_has_no_predicate(text: bytes) -> None:
    """Unset means empty there; any other type still has to have one."""
    subject = b'"subject":[{"digest":{"sha256":"' + IMAGE.hex.encode() + b'"}}]'
    head = b'{"_type":"https://in-toto.io/Statement/v1",' + text
    statement = parse_statement(
        head + b'"predicateType":"' + SIGN.encode() + b'",' + subject + b"}"
    )
    assert statement.predicate == {}
    with pytest.raises(VerificationFailed, match="predicate is missing"):
        parse_statement(head + b'"predicateType":"https://x/y",' + subject + b"}")
