"""From an image's digest down to its last byte."""

from __future__ import annotations

from dataclasses import dataclass

from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.image import MAX_CONFIG_BYTES
from secure_pipeline.oci.manifest import INDEX_TYPES, MANIFEST_TYPES, Descriptor, Manifest
from secure_pipeline.oci.store import Source


@dataclass(frozen=True)
class ImageLimits:
    """What a walk over one image may cost."""

    blobs: int = 20_000
    """Number of blobs."""
    total: int = 64 << 30
    """Bytes of all of them."""


@dataclass(frozen=True)
class CheckedImage:
    """An image whose bytes were hashed."""

    descriptor: Descriptor
    manifests: tuple[tuple[Descriptor, Manifest], ...]
    """One per platform; for an index in its order."""
    total: int
    """Bytes that the image has."""
    layers: bool
    """Whether its layers were hashed too."""


def check_image(
    source: Source, digest: Digest, limits: ImageLimits | None = None, *, layers: bool = True
) -> CheckedImage:
    """Hash an image from its manifest or index down to the last layer.

    Without ``layers`` only manifests and configs are read: they name the layers by digest, and
    whoever pulls one has to compare it.
    Raises: VerificationFailed (altered, missing, not listed), Inconclusive (limits), Unavailable.
    """
    descriptor = source.find(digest)
    walk = _Walk(source, limits or ImageLimits(), layers)
    # (1) the root: an index leads to one manifest per platform
    if descriptor.media_type in INDEX_TYPES:
        walk.charge(descriptor)
        found = source.read_index(descriptor).manifests
    else:
        found = (descriptor,)
    if not found:
        raise VerificationFailed("the index lists no image", where=str(digest))
    # (2) every manifest, its config and its layers, each by its own digest and size
    manifests = tuple((item, walk.manifest(item)) for item in found)
    return CheckedImage(descriptor, manifests, walk.total, layers)


class _Walk:
    """Counts what one walk costs."""

    def __init__(self, source: Source, limits: ImageLimits, layers: bool) -> None:
        self.source = source
        self.limits = limits
        self.layers = layers
        self.blobs = 0
        self.total = 0
        self.checked: set[tuple[Digest, int]] = set()

    def manifest(self, descriptor: Descriptor) -> Manifest:
        if descriptor.media_type not in MANIFEST_TYPES:
            raise VerificationFailed(
                f"{descriptor.media_type[:80]!r} where an image manifest should be",
                where=str(descriptor.digest),
            )
        self.charge(descriptor)
        manifest = self.source.read_manifest(descriptor)
        for blob in (manifest.config, *manifest.layers):
            if (blob.digest, blob.size) not in self.checked:
                self.charge(blob)
                if self.layers:
                    self.source.check_blob(blob.digest, blob.size)
                elif blob is manifest.config:
                    self.source.read_blob(blob.digest, MAX_CONFIG_BYTES, blob.size)
                self.checked.add((blob.digest, blob.size))
        return manifest

    def charge(self, descriptor: Descriptor) -> None:
        """Count a blob before it is read."""
        self.blobs += 1
        self.total += descriptor.size
        if self.blobs > self.limits.blobs or self.total > self.limits.total:
            raise Inconclusive(
                f"image exceeds {self.limits.blobs} blobs or {self.limits.total} bytes",
                where=str(descriptor.digest),
            )
