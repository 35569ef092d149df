"""Envelopes and bundles."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.evidence import public_key, signer
from secure_pipeline.attestations import bundle, dsse
from secure_pipeline.errors import PipelineError, VerificationFailed

PAYLOAD = b'{"a":1}'


def envelope(**changes: Any) -> bytes:
    """A signed envelope with members replaced; None removes one."""
    members = json.loads(dsse.sign_envelope(PAYLOAD, signer())) | changes
    return json.dumps({name: item for name, item in members.items() if item is not None}).encode()


def test_pae_is_that_of_the_protocol() -> None:
    """The pre-authentication encoding equals the protocol's own example, in bytes."""
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert dsse.pae("é", "ü".encode()) == b"DSSEv1 2 \xc3\xa9 2 \xc3\xbc"


@given(st.tuples(st.text(), st.binary()), st.tuples(st.text(), st.binary()))
def test_pae_is_injective(one: tuple[str, bytes], two: tuple[str, bytes]) -> None:
    """Different types or payloads never give the same bytes to sign."""
    assert (dsse.pae(*one) == dsse.pae(*two)) == (one == two)


@given(st.binary(min_size=1, max_size=500))
def test_a_signed_payload_comes_back_authentic(payload: bytes) -> None:
    """Any payload survives signing, both as an envelope and in a bundle, and verifies."""
    raw = dsse.sign_envelope(payload, signer())
    plain = dsse.parse_envelope(raw)
    bundled = bundle.parse_bundle(bundle.make_bundle(raw, signer().public_key_der))
    for parsed in (plain, bundled):
        assert parsed.payload == payload
        assert parsed.raw == raw
        assert public_key().signed(parsed)
        assert not public_key(signer(1)).signed(parsed)


def test_sig_01_a_swapped_payload_type_is_refused() -> None:
    """Only the in-toto type is read, and a signature over another type does not verify."""
    for swapped in ("application/json", "application/vnd.in-toto.spdx+json", "", "text/plain"):
        with pytest.raises(VerificationFailed, match="payloadType"):
            dsse.parse_envelope(envelope(payloadType=swapped))
    other = signer().sign(dsse.pae("text/plain", PAYLOAD))
    relabelled = envelope(signatures=[{"sig": base64.b64encode(other).decode()}])
    assert not public_key().signed(dsse.parse_envelope(relabelled))


@pytest.mark.parametrize("signatures", [[], None])
def test_sig_11_no_signature_is_refused(signatures: list[Any] | None) -> None:
    """An envelope without signatures is not '0 of 0 verified'."""
    with pytest.raises(VerificationFailed, match="no signatures"):
        dsse.parse_envelope(envelope(signatures=signatures))


def test_sig_15_too_many_signatures_are_refused() -> None:
    """An envelope with more signatures than the limit is refused before any is checked."""
    many = [{"sig": "AAAA"}] * (dsse.MAX_SIGNATURES + 1)
    with pytest.raises(VerificationFailed, match="limit"):
        dsse.parse_envelope(envelope(signatures=many))


def test_key_ids_neither_convince_nor_hide() -> None:
    """Which key signed is found by its signature, whatever the key id says."""
    members = json.loads(envelope())
    members["signatures"][0]["keyid"] = dsse.key_id(signer(1).public_key_der)
    parsed = dsse.parse_envelope(json.dumps(members).encode())
    assert public_key().signed(parsed)
    assert not public_key(signer(1)).signed(parsed)


@pytest.mark.parametrize(
    "payload",
    ["", "eyJ hIjoxfQ==", "eyJhIjoxfQ", "eyJhIjoxfR==", "eyJhIjoxfQ==\n", "e-_=", "====", 5, None],
)
def test_loose_base64_is_refused(payload: Any) -> None:
    """Padding, alphabet, white space and stray bits have one spelling only."""
    with pytest.raises(VerificationFailed):
        dsse.parse_envelope(envelope(payload=payload))


GOOD = envelope().decode()
MALFORMED = {
    "duplicate payload": GOOD.replace("{", '{"payload":"e30=",', 1),
    "duplicate signatures": GOOD.replace("{", '{"signatures":[],', 1),
    "trailing value": GOOD + "{}",
    "trailing bytes": GOOD + "\0",
    "byte order mark": "\ufeff" + GOOD,
    "not a number": GOOD.replace("{", '{"x":NaN,', 1),
    "infinity": GOOD.replace("{", '{"x":-Infinity,', 1),
    "lone surrogate": GOOD.replace("{", '{"x":"\\ud800",', 1),
    "deep": GOOD.replace("{", '{"x":' + "[" * 100_000 + "]" * 100_000 + ",", 1),
    "array": f"[{GOOD}]",
    "empty": "",
    "signature is text": GOOD.replace("[{", '["x",{', 1),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_sig_05_sig_07_ambiguous_json_is_refused(case: str) -> None:
    """JSON that two parsers could read differently is refused as an envelope and in a bundle."""
    with pytest.raises(VerificationFailed):
        dsse.parse_envelope(MALFORMED[case].encode())
    wrapped = (
        f'{{"mediaType":"{bundle.MEDIA_TYPE}","verificationMaterial":'
        f'{{"publicKey":{{"hint":"x"}}}},"dsseEnvelope":{MALFORMED[case] or "0"}}}'
    )
    with pytest.raises(VerificationFailed):
        bundle.parse_bundle(wrapped.encode())


@given(st.binary(max_size=300))
def test_any_bytes_are_an_envelope_or_a_refusal(data: bytes) -> None:
    """No bytes make a parser fail in another way."""
    for parse in (dsse.parse_envelope, bundle.parse_bundle):
        with pytest.raises(PipelineError):
            parse(data)


def make(**changes: Any) -> dict[str, Any]:
    members = json.loads(bundle.make_bundle(envelope(), signer().public_key_der))
    return {name: item for name, item in (members | changes).items() if item is not None}


def test_a_bundle_names_its_key_as_cosign_does() -> None:
    """The hint is base64(SHA-256(public key)), and parsing gives it as the key id."""
    members = make()
    hint = dsse.key_id(signer().public_key_der)
    assert members["verificationMaterial"] == {"publicKey": {"hint": hint}}
    parsed = bundle.parse_bundle(json.dumps(members).encode())
    assert parsed.signatures[0].keyid == hint
    assert base64.b64decode(hint)


def test_a_bundle_holds_exactly_one_signature() -> None:
    """A bundle around two signatures is neither written nor read."""
    one = json.loads(envelope())["signatures"]
    with pytest.raises(VerificationFailed, match="exactly one"):
        bundle.make_bundle(envelope(signatures=one * 2), signer().public_key_der)
    two = make(dsseEnvelope=json.loads(envelope(signatures=one * 2)))
    with pytest.raises(VerificationFailed, match="exactly one"):
        bundle.parse_bundle(json.dumps(two).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.9"},
        {"mediaType": None},
        {"verificationMaterial": {}},
        {"verificationMaterial": None},
        {"verificationMaterial": {"publicKey": "x"}},
        {"dsseEnvelope": None},
        {"messageSignature": {"signature": "AAAA"}},
    ],
)
def test_malformed_bundles_are_refused(changes: dict[str, Any]) -> None:
    """Another version, no key, no content or two contents are refused."""
    with pytest.raises(VerificationFailed):
        bundle.parse_bundle(json.dumps(make(**changes)).encode())


def test_a_signed_message_is_not_an_attestation() -> None:
    """A bundle of a bare message signature is told apart, never taken for a statement."""
    members = make(dsseEnvelope=None, messageSignature={"signature": "AAAA"})
    with pytest.raises(bundle.NotAnAttestation):
        bundle.parse_bundle(json.dumps(members).encode())


@pytest.mark.parametrize("place", ["payload", "sig"])
def test_sig_27_both_forms_refuse_the_same(place: str) -> None:
    """A change of payload or signature fails as an envelope and as a bundle alike."""
    members = json.loads(envelope())
    if place == "payload":
        members["payload"] = base64.b64encode(b'{"a":2}').decode()
    else:
        broken = bytearray(base64.b64decode(members["signatures"][0]["sig"]))
        broken[-1] ^= 1
        members["signatures"][0]["sig"] = base64.b64encode(broken).decode()
    raw = json.dumps(members).encode()
    assert not public_key().signed(dsse.parse_envelope(raw))
    bundled = json.dumps(make(dsseEnvelope=members)).encode()
    assert not public_key().signed(bundle.parse_bundle(bundled))
