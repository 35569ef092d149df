"""A second judge, in JavaScript: what we sign is read by a Sigstore that is not cosign's."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from fakes.evidence import StepClock, evidence, make_image, public_key, sign_inputs, signer
from fakes.jsjudge import FILES, SOURCE, JsJudge, install_judge
from fakes.mutations import FixedSigner, Origin, cases
from secure_pipeline.attestations import bundle, predicates
from secure_pipeline.attestations.attachments import bundle_spots
from secure_pipeline.attestations.statement import parse_statement
from secure_pipeline.errors import PipelineError
from secure_pipeline.events import ignore
from secure_pipeline.keys.verify import PublicKey
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.policy.document import Algorithm
from secure_pipeline.stages.result import Verdict
from secure_pipeline.stages.sign import sign

pytestmark = pytest.mark.integration

TYPES = {*evidence(), predicates.SEAL}
MAX = bundle.MAX_BUNDLE_BYTES


@pytest.fixture(scope="module")
def judge() -> JsJudge:
    return install_judge()


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "release.pub"
    path.write_bytes(public_key().pem)
    return path


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Predicate type to a bundle, as ``sign`` left them beside an image."""
    path = tmp_path_factory.mktemp("signed") / "layout"
    image = make_image(path)
    result = sign(sign_inputs(path, image), signer(), StepClock(), ignore)
    assert result.verdict is Verdict.PASS
    layout = Layout.open(path)
    found = bundle_spots(layout, layout.referrers(image.digest), image.digest)
    data = [layout.read_blob(layer.digest, MAX, layer.size) for _, layer in found]
    return {
        parse_statement(bundle.parse_bundle(item).payload).predicate_type: item for item in data
    }


def test_every_type_is_accepted(judge: JsJudge, key: Path, bundles: dict[str, bytes]) -> None:
    """Each predicate type verifies with the bare key, and the payload is the one we signed."""
    assert bundles.keys() == TYPES
    signed = [bundle.parse_bundle(data).payload for data in bundles.values()]
    assert judge.payloads(key, bundles.values()) == signed


def tampered(data: bytes) -> dict[str, bytes]:
    """The bundle with one thing wrong, by what that is."""

    def changed(**members: object) -> bytes:
        document = json.loads(data)
        document["dsseEnvelope"] |= members
        return json.dumps(document).encode()

    envelope = bundle.parse_bundle(data)
    sig = bytearray(envelope.signatures[0].sig)
    sig[-1] ^= 1
    one = json.loads(data)["dsseEnvelope"]["signatures"][0]
    return {
        "payload": changed(payload=base64.b64encode(envelope.payload + b" ").decode()),
        "payload type": changed(payloadType="text/plain"),
        "signature": changed(signatures=[{"keyid": "", "sig": base64.b64encode(sig).decode()}]),
        "two signatures": changed(signatures=[one, one]),
        "no signature": changed(signatures=[]),
        "another format": data.replace(b"bundle.v0.3+json", b"envelope.v0.3+json"),
    }


def ours(key: PublicKey, data: bytes) -> bytes | None:
    """The payload of a bundle that we accept as signed by the key."""
    try:
        envelope = bundle.parse_bundle(data)
    except PipelineError:
        return None
    return envelope.payload if key.signed(envelope) else None


def test_what_was_tampered_with_is_rejected(
    judge: JsJudge, key: Path, bundles: dict[str, bytes], tmp_path: Path
) -> None:
    """Damage of six kinds to each type, and a key that did not sign, are refused by both."""
    for data in bundles.values():
        damaged = tampered(data)
        assert judge.payloads(key, damaged.values()) == [None] * len(damaged)
        assert [ours(public_key(), item) for item in damaged.values()] == [None] * len(damaged)
    other = tmp_path / "other.pub"
    other.write_bytes(public_key(signer(1)).pem)
    assert set(judge.payloads(other, bundles.values())) == {None}


def test_we_accept_no_bundle_that_it_rejects(judge: JsJudge, tmp_path: Path) -> None:
    """Of 1,500 changed bundles none passes here and fails there, but for bad key material."""
    trusted = FixedSigner(1001)
    origin = Origin(
        trusted,
        FixedSigner(2002),
        Digest.of(b"the image"),
        {kind: dict(item.predicate) for kind, item in evidence().items()},
    )
    public = PublicKey("release", Algorithm.ECDSA_P256_SHA256, trusted.public_key_der)
    path = tmp_path / "release.pub"
    path.write_bytes(public.pem)
    made = list(cases(origin, "bundle", 1500, 20260301))
    verdicts = judge.payloads(path, [case.data for case in made])
    both = 0
    for case, theirs in zip(made, verdicts, strict=True):
        payload = ours(public, case.data)
        both += payload is not None and payload == theirs
        if payload is not None and theirs is None:
            assert "bundle: members" in case.steps, f"{case}\n{case.data[:2000]!r}"
        else:
            assert theirs is None or payload in (None, theirs), str(case)
    assert both > 300


def test_the_lock_pins_every_package() -> None:
    """Each package has an exact version and a strong digest, and no address to come from."""
    lock = json.loads((SOURCE / "package-lock.json").read_text())
    packages = [item for name, item in lock["packages"].items() if name]
    assert packages
    for item in packages:
        assert re.fullmatch(r"\d+\.\d+\.\d+", item["version"])
        assert item["integrity"].startswith("sha512-")
    assert all("resolved" not in item for item in packages)
    assert all("://" not in (SOURCE / name).read_text() for name in FILES)
