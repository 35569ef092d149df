"""Images with their evidence in every state that readers may come upon, by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from fakes.beside import Beside
from fakes.mutations import FixedSigner
from fakes.signatures import ssh_fingerprint
from secure_pipeline.attestations import bundle, dsse
from secure_pipeline.attestations.predicates import TEST_RESULT
from secure_pipeline.attestations.statement import STATEMENT_V01
from secure_pipeline.oci.digest import Digest

KIND = TEST_RESULT
OTHER = FixedSigner(2002)


@dataclass(frozen=True)
class Scene:
    """How an image's evidence is made and where it is put."""

    build: Callable[[Beside], None]
    registry: str = "api"
    """``api``: with the referrers API; ``tag``: without it."""
    fallback: bool = True
    """Whether the fallback tag is written where there is no API."""


def _plain(site: Beside) -> bytes:
    return site.envelope(site.statement(KIND))


def _bundle(site: Beside) -> None:
    site.put_bundle(site.wrapped(_plain(site)))


def _att(site: Beside) -> None:
    site.put_layer(_plain(site), KIND)


def _both(site: Beside) -> None:
    site.put(_plain(site), KIND)


def _nothing(site: Beside) -> None:
    pass


def _too_many(site: Beside) -> None:
    for number in range(1001):
        site.put_layer(site.envelope(site.statement(KIND, number=number)), KIND)


def _with_key_id(keyid: Callable[[bytes], str]) -> Callable[[Beside], bytes]:
    def make(site: Beside) -> bytes:
        return site.envelope(site.statement(KIND), keyid=keyid(site.signer.public_key_der))

    return make


def _another_image(site: Beside) -> bytes:
    return site.envelope(site.statement(KIND, Digest.of(b"another")))


def _two_subjects(site: Beside) -> bytes:
    subjects = json.loads(site.statement(KIND))["subject"]
    other = {"name": "other", "digest": {"sha256": "a" * 64}}
    return site.envelope(site.statement(KIND, subject=[other, *subjects]))


def _unknown_member(site: Beside) -> bytes:
    return site.envelope(site.statement(KIND, extra=1))


def _older_statement(site: Beside) -> bytes:
    return site.envelope(site.statement(KIND, _type=STATEMENT_V01))


def _two_signatures(site: Beside) -> bytes:
    return site.envelope(site.statement(KIND), signers=2)


def _another_key(site: Beside) -> bytes:
    payload = site.statement(KIND)
    sig = OTHER.sign(dsse.pae(dsse.PAYLOAD_TYPE, payload))
    return dsse.serialise(dsse.PAYLOAD_TYPE, payload, (dsse.EnvelopeSignature("", sig),))


def _as_bundle(make: Callable[[Beside], bytes]) -> Scene:
    return Scene(lambda site: site.put_bundle(site.wrapped(make(site))))


def _as_att(make: Callable[[Beside], bytes]) -> Scene:
    return Scene(lambda site: site.put_layer(make(site), KIND))


def _image_signature(site: Beside) -> None:
    """A bundle that signs the image and attests nothing, with the attestation in the ``.att``."""
    message = {
        "messageDigest": {"algorithm": "SHA2_256", "digest": "AAAA"},
        "signature": "AAAA",
    }
    document = json.loads(site.wrapped(_plain(site), messageSignature=message))
    del document["dsseEnvelope"]
    site.put_bundle(json.dumps(document).encode())
    _att(site)


def _beside_att(data: bytes) -> Callable[[Beside], None]:
    def build(site: Beside) -> None:
        site.put_bundle(data)
        _att(site)

    return build


def _one_good_of_three(site: Beside) -> None:
    site.put_bundle(site.wrapped(_another_key(site)))
    site.put_bundle(site.wrapped(_another_image(site)))
    _bundle(site)


def _fingerprint_or_hint(hint: bool) -> Callable[[bytes], str]:
    return dsse.key_id if hint else ssh_fingerprint


SCENES: dict[str, Scene] = {
    "bundle": Scene(_bundle),
    ".att": Scene(_att),
    "both": Scene(_both),
    "nothing": Scene(_nothing),
    "bundle, no API": Scene(_bundle, "tag"),
    "both, no API": Scene(_both, "tag"),
    "bundle, no API and no fallback tag": Scene(_bundle, "tag", fallback=False),
    "both, no API and no fallback tag": Scene(_both, "tag", fallback=False),
    ".att with 1001 layers": Scene(_too_many),
    "bundle, key id of another form": _as_bundle(_with_key_id(_fingerprint_or_hint(True))),
    "bundle, key id as cosign computes it": _as_bundle(_with_key_id(_fingerprint_or_hint(False))),
    ".att, key id of another form": _as_att(_with_key_id(_fingerprint_or_hint(True))),
    "bundle about another image": _as_bundle(_another_image),
    ".att about another image": _as_att(_another_image),
    "bundle about two images": _as_bundle(_two_subjects),
    ".att about two images": _as_att(_two_subjects),
    "bundle by another key": _as_bundle(_another_key),
    ".att by another key": _as_att(_another_key),
    "bundle, one good of three": Scene(_one_good_of_three),
    "bundle with two signatures": _as_bundle(_two_signatures),
    ".att with two signatures": _as_att(_two_signatures),
    "bundle, unknown member in the statement": _as_bundle(_unknown_member),
    ".att, unknown member in the statement": _as_att(_unknown_member),
    "bundle, statement v0.1": _as_bundle(_older_statement),
    ".att, statement v0.1": _as_att(_older_statement),
    "bundle with an unknown member": Scene(
        lambda site: site.put_bundle(site.wrapped(_plain(site), extra=1))
    ),
    "bundle with an unknown member, good .att": Scene(
        lambda site: (site.put_bundle(site.wrapped(_plain(site), extra=1)), _att(site))[1]
    ),
    "bundle that signs only the image, good .att": Scene(_image_signature),
    "bundle that is no JSON, good .att": Scene(_beside_att(b"not JSON")),
    "bundle that is an empty object, good .att": Scene(_beside_att(b"{}")),
    "bundle without an artifact type": Scene(
        lambda site: site.put_bundle(site.wrapped(_plain(site)), artifact_type=None)
    ),
    "bundle whose layer has another media type": Scene(
        lambda site: site.put_bundle(site.wrapped(_plain(site)), layer_type="application/json")
    ),
    "bundle in the media type of version 0.3 with a parameter": Scene(
        lambda site: site.put_bundle(
            site.wrapped(_plain(site), mediaType=f"{_BASE}+json;version=0.3")
        )
    ),
    ".att, layer of another media type": Scene(
        lambda site: site.put_layer(_plain(site), KIND, media_type="application/json")
    ),
    ".att, layer without the signature annotation": Scene(
        lambda site: site.put_layer(_plain(site), KIND, annotations={"predicateType": KIND})
    ),
}
_BASE = bundle.MEDIA_TYPE.partition(".v0.3")[0]
