"""Signatures over an image itself: cosign's, in its old form and in its new one.

Old: layers of simple-signing JSON under the tag ``sha256-<hex>.sig``, each with its signature in
an annotation. New: a bundle whose statement is of the type ``SIGN``. Both say the same, so the
old form is read as such a statement.
Source: cosign specs/SIGNATURE_SPEC.md; containers/image, containers-signature(5).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from secure_pipeline import shape
from secure_pipeline.attestations import dsse, legacy
from secure_pipeline.attestations.attachments import READERS, Attachment, Limits, check_spots
from secure_pipeline.attestations.forms import ATT_SIGNATURE
from secure_pipeline.attestations.predicates import SIGN
from secure_pipeline.attestations.statement import Statement, Subject, parse_statement
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.manifest import MAX_MANIFEST_BYTES, Descriptor
from secure_pipeline.oci.store import Source

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
MAX_PAYLOAD_BYTES = 1 << 20
_TYPES = ("cosign container image signature", SIGN)


@dataclass(frozen=True)
class SimpleSigning(dsse.Envelope):
    """A signed payload without an envelope around it."""

    @property
    def message(self) -> bytes:
        """The payload itself is what the signature covers."""
        return self.payload


def sig_tag(image: Digest) -> str:
    """Return the tag that holds an image's signatures in the older layout."""
    return f"sha256-{image.hex}.sig"


def collect_signatures(
    source: Source, image: Digest, limits: Limits | None = None
) -> tuple[Attachment, ...]:
    """Return the image's signatures in the older layout; nothing about them is checked yet.

    Raises: VerificationFailed if one is malformed or altered, Inconclusive over a limit,
    Unavailable.
    """
    tagged = source.tagged(sig_tag(image))
    if tagged is None:
        return ()
    manifest = source.read_manifest(tagged)
    source.read_blob(manifest.config.digest, MAX_MANIFEST_BYTES, manifest.config.size)
    layers = [item for item in manifest.layers if item.media_type == SIMPLE_SIGNING]
    check_spots(layers, limits or Limits(each=MAX_PAYLOAD_BYTES), image)
    with ThreadPoolExecutor(READERS) as readers:
        return tuple(readers.map(lambda layer: _open(source, tagged.digest, layer), layers))


def read_statement(attachment: Attachment) -> Statement:
    """Parse what was signed, once the signature was checked.

    Raises: VerificationFailed.
    """
    if isinstance(attachment.envelope, SimpleSigning):
        return _simple(attachment.envelope.payload)
    return parse_statement(attachment.envelope.payload)


def _open(source: Source, manifest: Digest, layer: Descriptor) -> Attachment:
    where = str(layer.digest)
    payload = source.read_blob(layer.digest, MAX_PAYLOAD_BYTES, layer.size)
    signature = dsse.strict_base64(layer.annotations.get(ATT_SIGNATURE, ""), ATT_SIGNATURE, where)
    signed = SimpleSigning(
        SIMPLE_SIGNING, payload, (dsse.EnvelopeSignature("", signature),), payload
    )
    keyless = legacy.of_message(layer.annotations, payload, signature, where)
    if keyless is None:
        return Attachment("sig", signed, manifest)
    return Attachment("sig", signed, manifest, keyless.certificate, keyless.proof)


def _simple(payload: bytes) -> Statement:
    """Read simple-signing JSON as the statement that it stands for."""
    where = "simple signing"
    value = shape.parse_object(payload, where, limit=MAX_PAYLOAD_BYTES)
    critical = shape.member(value, "critical", dict, where)
    kind = shape.member(critical, "type", str, where)
    if kind not in _TYPES:
        raise VerificationFailed(f"type {kind[:80]!r} is no image signature", where=where)
    image = shape.member(critical, "image", dict, where)
    digest = Digest.parse(shape.member(image, "docker-manifest-digest", str, where))
    identity = shape.optional(critical, "identity", dict, where) or {}
    name = shape.optional(identity, "docker-reference", str, where) or ""
    return Statement(SIGN, value, (Subject(name, {"sha256": digest.hex}),), payload)
