"""Writing images into a layout and choosing one of a layout by platform."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secure_pipeline import shape
from secure_pipeline.errors import ConfigError, Inconclusive, Unavailable, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import (
    CONFIG_TYPE,
    INDEX_TYPE,
    INDEX_TYPES,
    MANIFEST_TYPE,
    MANIFEST_TYPES,
    Descriptor,
    Manifest,
    Platform,
)

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
MAX_CONFIG_BYTES = 4 << 20
MAX_LAYER_BYTES = 32 << 30
"""Bytes of one layer when unpacked."""
_CONFIG_TYPES = (CONFIG_TYPE, "application/vnd.docker.container.image.v1+json")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Image:
    """One image of a layout."""

    descriptor: Descriptor
    manifest: Manifest
    diff_ids: tuple[Digest, ...]
    platform: Platform

    @property
    def size(self) -> int:
        """Bytes of manifest, config and layers."""
        blobs = (self.descriptor, self.manifest.config, *self.manifest.layers)
        return sum(blob.size for blob in blobs)


def read_image(layout: Layout, descriptor: Descriptor) -> Image:
    """Read the manifest and the config of an image.

    Raises: VerificationFailed, Inconclusive.
    """
    manifest = layout.read_manifest(descriptor)
    where = str(manifest.config.digest)
    data = layout.read_blob(manifest.config.digest, MAX_CONFIG_BYTES, manifest.config.size)
    diff_ids, platform = parse_config(data, where)
    if len(diff_ids) != len(manifest.layers):
        raise VerificationFailed("layers and diff_ids differ in number", where=where)
    return Image(descriptor, manifest, diff_ids, platform)


def parse_config(data: bytes, where: str) -> tuple[tuple[Digest, ...], Platform]:
    """Return diff ids and platform of an image config.

    Raises: VerificationFailed.
    """
    config = shape.parse_object(data, where, limit=MAX_CONFIG_BYTES)
    rootfs = shape.member(config, "rootfs", dict, where)
    items = shape.member(rootfs, "diff_ids", list, where)
    platform = Platform(
        os=shape.member(config, "os", str, where),
        architecture=shape.member(config, "architecture", str, where),
        variant=shape.optional(config, "variant", str, where) or None,
    )
    return tuple(Digest.parse(str(item)) for item in items), platform


def choose(layout: Layout, platform: str) -> Image:
    """Return the one image of a layout for ``platform`` (``os/arch`` or ``os/arch/variant``).

    Raises: ConfigError if there is none, or more than one.
    """
    found: dict[Digest, Image] = {}
    for descriptor in _manifests(layout):
        if descriptor.digest in found:
            continue
        if layout.read_manifest(descriptor).config.media_type in _CONFIG_TYPES:
            image = read_image(layout, descriptor)
            if fits(image.platform, platform):
                found[descriptor.digest] = image
    if len(found) != 1:
        raise ConfigError(
            f"the layout holds {len(found)} images for {platform}; one is needed",
            where=str(layout.path),
            hint="make it with 'secure-pipeline base debian --output DIR'",
        )
    return next(iter(found.values()))


def _manifests(layout: Layout) -> list[Descriptor]:
    found: list[Descriptor] = []
    for descriptor in layout.manifests():
        if descriptor.media_type in INDEX_TYPES:
            found += layout.read_index(descriptor).manifests
        else:
            found.append(descriptor)
    return [item for item in found if item.media_type in MANIFEST_TYPES and not item.artifact_type]


def fits(platform: Platform, wanted: str) -> bool:
    """Tell whether a platform is the one that ``os/arch`` or ``os/arch/variant`` asks for."""
    short = f"{platform.os}/{platform.architecture}"
    return wanted in (str(platform), short) or str(platform) == wanted.removesuffix("/v8")


def write_image(
    layout: Layout,
    config: bytes,
    layers: Sequence[Descriptor],
    annotations: Mapping[str, str] | None = None,
) -> Descriptor:
    """Write config and manifest of an image whose layers are in place; list it nowhere yet.

    Raises: VerificationFailed if a layer is not there; Unavailable.
    """
    for layer in layers:
        layout.check_blob(layer.digest, layer.size)
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": layout.write_blob(config, CONFIG_TYPE).to_json(),
        "layers": [_plain(layer).to_json() for layer in layers],
    }
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    return layout.write_blob(_json(document), MANIFEST_TYPE)


def write_index(layout: Layout, images: Sequence[Image]) -> Descriptor:
    """Write an index of images, one a platform, in the order given; list it nowhere yet."""
    manifests = [
        Descriptor(
            image.descriptor.media_type,
            image.descriptor.digest,
            image.descriptor.size,
            platform=image.platform,
        ).to_json()
        for image in images
    ]
    document = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}
    return layout.write_blob(_json(document), INDEX_TYPE)


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _plain(layer: Descriptor) -> Descriptor:
    return Descriptor(layer.media_type, layer.digest, layer.size)


def store_file(layout: Layout, source: Path, media_type: str, digest: Digest | None) -> Descriptor:
    """Copy a file into the layout, hashing what is written; ``digest`` is what it must be.

    Raises: VerificationFailed if the content is another; Unavailable if the disk refuses.
    """
    try:
        with source.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            found = layout.store(iter(lambda: stream.read(_CHUNK), b""), digest, size)
    except OSError as error:
        raise Unavailable(f"cannot read: {error.strerror}", where=str(source)) from error
    return Descriptor(media_type, found, size)


def unpacked_digest(path: Path, limit: int = MAX_LAYER_BYTES) -> Digest:
    """The digest of a gzip-compressed file's content: a layer's diff id.

    Raises: VerificationFailed if it is no gzip; Inconclusive over ``limit`` bytes.
    """
    hasher = hashlib.sha256()
    inflate = zlib.decompressobj(wbits=31)
    total = 0
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                while chunk:
                    data = inflate.decompress(chunk, _CHUNK)
                    hasher.update(data)
                    total += len(data)
                    if total > limit:
                        raise Inconclusive(f"unpacks to over {limit} bytes", where=str(path))
                    chunk = inflate.unconsumed_tail
                    if inflate.eof:
                        chunk = inflate.unused_data
                        inflate = zlib.decompressobj(wbits=31) if chunk else inflate
    except zlib.error as error:
        raise VerificationFailed(f"not gzip: {error}", where=str(path)) from None
    if not inflate.eof:
        raise VerificationFailed("the compressed data ends early", where=str(path))
    return Digest(hasher.hexdigest())


class LayerWriter:
    """Compresses a tar stream into a blob file: the same bytes in give the same bytes out."""

    def __init__(self, directory: Path) -> None:
        handle, name = tempfile.mkstemp(dir=directory, prefix="layer-")
        self.path = Path(name)
        self._file = os.fdopen(handle, "wb")
        # wbits=31 writes a gzip header without name and time.
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
        self._unpacked = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Take the next bytes of the tar stream."""
        self._unpacked.update(data)
        self._file.write(self._deflate.compress(data))

    def close(self) -> Digest:
        """Finish the file and return the diff id."""
        with self._file as stream:
            stream.write(self._deflate.flush())
        return Digest(self._unpacked.hexdigest())
