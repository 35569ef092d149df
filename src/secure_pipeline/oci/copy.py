"""Copy an image with all its evidence between registries and layouts, bytes as they are.

The image first, then what refers to it, then the tags that cosign uses, the caller's own tag last:
whoever sees that tag finds everything. What is there already is not sent again, and evidence that
others added at the destination stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.form import layers_form
from secure_pipeline.oci.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPE,
    MANIFEST_TYPES,
    Descriptor,
    Manifest,
    parse_manifest,
)
from secure_pipeline.oci.store import Source, Target
from secure_pipeline.oci.walk import ImageLimits, check_image

WORKERS = 4
"""Blobs on their way at the same time."""
SAY_BYTES = 16 << 20
"""Sent between two lines of progress."""
MAX_DEPTH = 3
"""Evidence about evidence about evidence."""
MAX_REFERRERS = 10_000
COSIGN_TAGS = ("sig", "att", "sbom")

OnProgress = Callable[[str], None]


@dataclass
class Copied:
    """What a copy did."""

    digest: Digest
    blobs: int = 0
    """Blobs sent."""
    present: int = 0
    """Blobs that were there already."""
    sent: int = 0
    """Bytes sent."""
    referrers: int = 0
    """Manifests that refer to the image or to one of its parts."""
    tags: list[str] = field(default_factory=list)
    """Tags written or found as they should be."""


def copy_image(
    source: Source,
    digest: Digest,
    target: Target,
    *,
    tag: str | None,
    on_progress: OnProgress,
) -> Copied:
    """Copy an image or index, its referrers and cosign's tags; compare them afterwards.

    Raises: VerificationFailed (missing, altered, or not the same afterwards), Inconclusive
    (limits), Unavailable.
    """
    work = _Copy(source, target, on_progress, Copied(digest))
    root = source.find(digest)
    # (1) the content, parts before what names them
    manifests = work.content(root)
    # (2) the evidence about the image and about each platform's part of it
    for descriptor in manifests:
        work.referrers(descriptor.digest, MAX_DEPTH)
        work.cosign_tags(descriptor.digest)
    # (3) the same at the destination, read back from there
    work.compare(root)
    # (4) the name under which people find it
    if tag:
        work.tag(root, tag)
    return work.copied


@dataclass(frozen=True)
class _Chunks:
    """A blob that can be read again from its beginning, should an upload have to start over."""

    source: Source
    blob: Descriptor

    def __iter__(self) -> Iterator[bytes]:
        return self.source.stream_blob(self.blob.digest, self.blob.size)


class _Copy:
    def __init__(
        self, source: Source, target: Target, on_progress: OnProgress, copied: Copied
    ) -> None:
        self.source = source
        self.target = target
        self.on_progress = on_progress
        self.copied = copied
        self._manifests = 0
        self._said = 0
        self._referring: dict[Digest, set[Digest]] = {}
        """Subject to the manifests that were copied because they refer to it."""
        self._tagged: dict[str, set[Digest]] = {}
        """cosign's tags to the layers that were copied."""

    def content(self, root: Descriptor) -> tuple[Descriptor, ...]:
        """Copy an image or an index with its images; return every manifest, the root first."""
        if root.media_type not in INDEX_TYPES:
            self._image(root, listed=True)
            return (root,)
        index = self.source.read_index(root)
        for child in index.manifests:
            if child.media_type not in MANIFEST_TYPES:
                raise Inconclusive(
                    f"an index of {child.media_type[:80]!r} cannot be copied",
                    where=str(root.digest),
                )
            self._image(child, listed=False)
        self.target.write_manifest(index.raw, root.media_type)
        return (root, *index.manifests)

    def _image(self, descriptor: Descriptor, *, listed: bool) -> Manifest:
        manifest = self.source.read_manifest(descriptor)
        self._blobs((manifest.config, *manifest.layers))
        self.target.write_manifest(manifest.raw, descriptor.media_type, listed=listed)
        return manifest

    def _blobs(self, blobs: Sequence[Descriptor]) -> None:
        """Send what is missing, several at a time; the first failure ends it."""
        unique = list({item.digest: item for item in blobs}.values())
        limits = ImageLimits()
        if len(unique) > limits.blobs or sum(item.size for item in unique) > limits.total:
            raise Inconclusive(
                f"more than {limits.blobs} blobs or {limits.total} bytes", where=self.source.name
            )
        with ThreadPoolExecutor(WORKERS) as workers:
            try:
                for item, sent in zip(unique, workers.map(self._blob, unique), strict=True):
                    self._count(item, sent)
            except BaseException:
                workers.shutdown(wait=False, cancel_futures=True)
                raise

    def _blob(self, blob: Descriptor) -> bool:
        if self.target.has_blob(blob.digest, blob.size):
            return False
        self.target.receive(blob.digest, blob.size, _Chunks(self.source, blob))
        return True

    def _count(self, blob: Descriptor, sent: bool) -> None:
        if not sent:
            self.copied.present += 1
            return
        self.copied.blobs += 1
        self.copied.sent += blob.size
        if self.copied.sent - self._said >= SAY_BYTES:
            self._said = self.copied.sent
            self.on_progress(f"{self.copied.blobs} blobs, {self.copied.sent / 1e6:.1f} MB sent")

    def referrers(self, subject: Digest, depth: int) -> None:
        """Copy every manifest that refers to the subject, with what refers to it in turn."""
        if depth == 0:
            return
        for descriptor in self.source.referrers(subject):
            self._manifests += 1
            if self._manifests > MAX_REFERRERS:
                raise Inconclusive(f"more than {MAX_REFERRERS} referrers", where=self.source.name)
            if descriptor.media_type not in MANIFEST_TYPES:
                raise Inconclusive(
                    f"a referrer of type {descriptor.media_type[:80]!r} cannot be copied",
                    where=str(descriptor.digest),
                )
            manifest = self._image(descriptor, listed=True)
            self.copied.referrers += manifest.subject is not None
            self._referring.setdefault(subject, set()).add(descriptor.digest)
            self.referrers(descriptor.digest, depth - 1)

    def cosign_tags(self, digest: Digest) -> None:
        """Add the layers of cosign's tags to those at the destination."""
        for tag in (f"sha256-{digest.hex}.{kind}" for kind in COSIGN_TAGS):
            tagged = self.source.tagged(tag)
            if tagged:
                manifest = self.source.read_manifest(tagged)
                self._blobs((manifest.config, *manifest.layers))
                change = partial(self._add, manifest)
                self.target.change_tag(tag, MANIFEST_TYPE, change)
                self.copied.tags.append(tag)
                self._tagged[tag] = _digests(manifest)

    def _add(self, wanted: Manifest, present: bytes | None) -> bytes | None:
        """The destination's manifest with the layers that it lacks; None if it lacks none."""
        if present is None:
            return wanted.raw
        have = parse_manifest(present, self.target.name)
        missing = [item for item in wanted.layers if item.digest not in _digests(have)]
        if not missing:
            return None
        form = layers_form([*have.layers, *missing], {**wanted.annotations, **have.annotations})
        for data, media_type in form.blobs:
            self.target.write_blob(data, media_type)
        return form.manifest

    def compare(self, root: Descriptor) -> None:
        """Read all that was copied back from the destination; a layout hashes its layers."""
        self.on_progress("comparing")
        checked = check_image(self.target, root.digest, layers=False)
        for _, manifest in checked.manifests:
            for blob in manifest.layers:
                if not self.target.has_blob(blob.digest, blob.size):
                    raise self._lost(f"layer {blob.digest}")
        for subject, referring in self._referring.items():
            listed = {item.digest for item in self.target.referrers(subject)}
            for digest in referring - listed:
                raise self._lost(f"referrer {digest}")
        for tag, layers in self._tagged.items():
            tagged = self.target.tagged(tag)
            if tagged is None or not layers <= _digests(self.target.read_manifest(tagged)):
                raise self._lost(f"part of {tag}")

    def tag(self, root: Descriptor, tag: str) -> None:
        """Write the caller's tag."""
        read = (
            self.source.read_index if root.media_type in INDEX_TYPES else self.source.read_manifest
        )
        self.target.write_manifest(read(root).raw, root.media_type, tag=tag)
        self.copied.tags.append(tag)

    def _lost(self, what: str) -> VerificationFailed:
        return VerificationFailed(f"{what} is not there after the copy", where=self.target.name)


def _digests(manifest: Manifest) -> set[Digest]:
    return {layer.digest for layer in manifest.layers}
