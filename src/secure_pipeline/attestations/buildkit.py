"""Statements that BuildKit puts into an index, unsigned (docs/attestations/attestation-storage).

They prove nothing by themselves. Whoever signs the index signs these bytes too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from secure_pipeline.attestations.attachments import Limits, check_spots
from secure_pipeline.attestations.dsse import PAYLOAD_TYPE
from secure_pipeline.errors import Inconclusive
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_MANIFEST_BYTES,
    Descriptor,
)
from secure_pipeline.oci.store import Source

REFERENCE_TYPE = "vnd.docker.reference.type"
REFERENCE_DIGEST = "vnd.docker.reference.digest"
ATTESTATION = "attestation-manifest"
MAX_MANIFESTS = 200


@dataclass(frozen=True)
class Contained:
    """One statement inside an index."""

    payload: bytes
    manifest: Digest
    """Of the attestation manifest that holds it."""
    about: Digest
    """The image manifest of the same index that it has to be about."""


def collect_contained(
    source: Source, image: Digest, limits: Limits | None = None
) -> tuple[Contained, ...]:
    """Return the statements inside an index; none for the image of one platform.

    Every byte is reached from the index by digests. An attestation manifest that refers to
    nothing in its index is left out.
    Raises: VerificationFailed if one is malformed or altered, Inconclusive over a limit,
    Unavailable.
    """
    descriptor = source.find(image)
    if descriptor.media_type not in INDEX_TYPES:
        return ()
    children = source.read_index(descriptor).manifests
    spots = list(_spots(source, children))
    limits = limits or Limits()
    check_spots([layer for _, _, layer in spots], limits, image)
    return tuple(
        Contained(source.read_blob(layer.digest, limits.each, layer.size), manifest, about)
        for manifest, about, layer in spots
    )


def is_attestation(descriptor: Descriptor) -> bool:
    """Tell whether an entry of an index holds statements and no image."""
    return descriptor.annotations.get(REFERENCE_TYPE) == ATTESTATION


def _spots(
    source: Source, children: Sequence[Descriptor]
) -> Iterator[tuple[Digest, Digest, Descriptor]]:
    """Yield (attestation manifest, image manifest, layer with a statement)."""
    images = {str(child.digest): child.digest for child in children if not is_attestation(child)}
    attesting = [child for child in children if is_attestation(child)]
    if len(attesting) > MAX_MANIFESTS:
        raise Inconclusive(f"{len(attesting)} attestation manifests; limit {MAX_MANIFESTS}")
    for child in attesting:
        about = images.get(child.annotations.get(REFERENCE_DIGEST, ""))
        if about is None or child.media_type not in MANIFEST_TYPES:
            continue
        manifest = source.read_manifest(child)
        source.read_blob(manifest.config.digest, MAX_MANIFEST_BYTES, manifest.config.size)
        for layer in manifest.layers:
            if layer.media_type == PAYLOAD_TYPE:
                yield child.digest, about, layer
