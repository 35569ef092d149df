"""What an image's configuration says about its layers, and the layers unpacked."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from secure_pipeline import shape
from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.files import CHUNK_BYTES
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.manifest import Descriptor, Manifest

MAX_CONFIG_BYTES = 8 << 20
MAX_LAYERS = 1000


@dataclass(frozen=True)
class ImageLayer:
    """A layer, packed and unpacked, and the instruction that made it."""

    descriptor: Descriptor
    diff_id: Digest
    """Digest of the unpacked tar file."""
    created_by: str | None
    """The builder's words for the instruction; None when the history does not say."""


def image_layers(manifest: Manifest, config: bytes, where: str) -> tuple[ImageLayer, ...]:
    """Match the manifest's layers with diff ids and history of its configuration.

    Raises: VerificationFailed if their numbers differ or a member is malformed.
    """
    value = shape.parse_object(config, where, limit=MAX_CONFIG_BYTES)
    rootfs = shape.member(value, "rootfs", dict, where)
    diff_ids = shape.member(rootfs, "diff_ids", list, where)
    if len(diff_ids) != len(manifest.layers) or len(diff_ids) > MAX_LAYERS:
        raise VerificationFailed(
            f"{len(manifest.layers)} layers, but {len(diff_ids)} diff ids", where=where
        )
    words = _created_by(value, where)
    if len(words) != len(diff_ids):
        words = [None] * len(diff_ids)
    return tuple(
        ImageLayer(descriptor, Digest.parse(str(diff_id)), text)
        for descriptor, diff_id, text in zip(manifest.layers, diff_ids, words, strict=True)
    )


def _created_by(config: dict[str, Any], where: str) -> list[str | None]:
    entries = shape.objects(config, "history", where, limit=100 * MAX_LAYERS)
    return [
        shape.optional(entry, "created_by", str, where)
        for entry in entries
        if not shape.optional(entry, "empty_layer", bool, where)
    ]


def check_unpacked(blob: Path, layer: ImageLayer, limit: int) -> int:
    """Unpack a layer in memory, piece by piece, and compare it with its diff id.

    Returns the unpacked size in bytes.
    Raises: VerificationFailed if it is another, Inconclusive if it is over ``limit`` bytes
    (REG-15) or packed in a way that cannot be read.
    """
    where = str(layer.descriptor.digest)
    hasher = hashlib.sha256()
    size = 0
    try:
        with blob.open("rb") as packed:
            stream = unpacked(packed, layer.descriptor.media_type, where)
            while chunk := stream.read(CHUNK_BYTES):
                size += len(chunk)
                if size > limit:
                    raise Inconclusive(f"unpacks to more than {limit} bytes", where=where)
                hasher.update(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise VerificationFailed(f"cannot be unpacked: {error}", where=where) from None
    if hasher.hexdigest() != layer.diff_id.hex:
        raise VerificationFailed(
            f"unpacks to sha256:{hasher.hexdigest()}, the configuration says {layer.diff_id}",
            where=where,
        )
    return size


def unpacked(packed: IO[bytes], media_type: str, where: str) -> IO[bytes]:
    """Return the tar stream of a layer; reading it may raise OSError, EOFError and zlib.error.

    Raises: Inconclusive if it is packed in a way that cannot be read.
    """
    if media_type.endswith(("+gzip", ".gzip")):
        return cast(IO[bytes], gzip.GzipFile(fileobj=packed))
    if media_type.endswith((".tar", "/tar")):
        return packed
    raise Inconclusive(
        f"layers of type {media_type[:80]!r} cannot be read",
        where=where,
        hint="build with gzip compression",
    )
