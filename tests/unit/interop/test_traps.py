"""What is stricter in cosign, and that no document makes the rules fail."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.beside import Beside
from fakes.evidence import evidence, public_key
from fakes.mutations import FixedSigner, Origin, cases
from fakes.scenes import KIND
from fakes.signatures import ssh_fingerprint
from secure_pipeline.interop.pieces import Piece, of_layer, of_referrer
from secure_pipeline.interop.sight import AttLayer, Referrer
from secure_pipeline.interop.traps import TRAPS, bundle_traps, envelope_traps, openssh_fingerprint
from secure_pipeline.keys.verify import PublicKey
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.manifest import (
    CONFIG_TYPE,
    MANIFEST_TYPE,
    Descriptor,
    Manifest,
)
from secure_pipeline.policy.document import Algorithm

SIGNER = FixedSigner(7)
KEY = PublicKey("release", Algorithm.ECDSA_P256_SHA256, SIGNER.public_key_der)
ORIGIN = Origin(
    SIGNER,
    FixedSigner(8),
    Digest.of(b"image"),
    {kind: dict(item.predicate) for kind, item in evidence().items()},
)
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def referrer(data: bytes) -> Referrer:
    layer = Descriptor(BUNDLE, Digest.of(data), len(data))
    config = Descriptor(CONFIG_TYPE, Digest.of(b"{}"), 2)
    manifest = Manifest(MANIFEST_TYPE, config, (layer,), BUNDLE, None, {}, b"")
    listed = Descriptor(MANIFEST_TYPE, Digest.of(b"m"), 1, BUNDLE)
    return Referrer(listed, manifest, data, seen=True)


def layer(data: bytes) -> AttLayer:
    notes = {"dev.cosignproject.cosign/signature": "", "predicateType": KIND}
    return AttLayer(Descriptor("x", Digest.of(data), len(data), annotations=notes), data)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_make_the_rules_fail(data: bytes) -> None:
    """Whatever lies beside an image is a piece or none, never an exception."""
    assert isinstance(of_layer(layer(data)), Piece)
    of_referrer(referrer(data), KEY)


@pytest.mark.parametrize("form", ["bundle", "envelope"])
def test_no_near_miss_makes_the_rules_fail(form: str) -> None:
    """A thousand changed documents are judged, and those that are whole are seen as such."""
    whole = 0
    for case in cases(ORIGIN, form, 1000, 5):
        data = case.data
        piece = of_referrer(referrer(data), KEY) if form == "bundle" else of_layer(layer(data))
        whole += piece is not None and piece.statement is not None
    assert whole > 300


def traps_of(site: Beside, envelope: bytes, **changes: object) -> tuple[str, ...]:
    return bundle_traps(site.wrapped(envelope, **changes), site.signer.public_key_der)


def test_what_we_write_has_no_trap(site: Beside) -> None:
    """A bundle and an envelope as sign makes them are as strict as cosign wants them."""
    envelope = site.envelope(site.statement(KIND))
    assert traps_of(site, envelope) == ()
    assert envelope_traps(envelope) == ()


def test_each_trap_is_told(site: Beside) -> None:
    """Every difference that is written down is recognised by its name."""
    plain = site.envelope(site.statement(KIND))
    digest = {"sha256": site.image.hex}
    subjects = {
        "bundle-other-digest": {"name": "x", "digest": digest | {"dirHash": "h1:x"}},
        "subject-member-type": {"name": "x", "digest": digest, "uri": 5},
    }
    told = {
        "bundle-unknown-member": traps_of(site, plain, extra=1),
        "bundle-key-id": traps_of(site, site.envelope(site.statement(KIND), keyid="x")),
        "bundle-other-material": traps_of(
            site, plain, verificationMaterial={"publicKey": {}, "tlogEntries": []}
        ),
        "statement-unknown-member": traps_of(site, site.envelope(site.statement(KIND, extra=1))),
        **{
            name: traps_of(site, site.envelope(site.statement(KIND, subject=[subject])))
            for name, subject in subjects.items()
        },
    }
    assert told == {name: (name,) for name in TRAPS}


def test_the_fingerprint_is_openssh_s(site: Beside) -> None:
    """The key id that cosign computes is accepted as one."""
    der = site.signer.public_key_der
    assert openssh_fingerprint(der) == ssh_fingerprint(der)
    envelope = site.envelope(site.statement(KIND), keyid=openssh_fingerprint(der))
    assert traps_of(site, envelope) == ()
    assert json.loads(envelope)["signatures"][0]["keyid"].startswith("SHA256:")
    assert public_key().der == der
