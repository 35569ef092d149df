"""The files of an image out of what an engine saves (``docker save``), proven by digests.

Names in the archive are not looked at, because engines arrange it in several ways: whatever
has the image's digest is its manifest or config, and whatever has a layer's diff id is that
layer.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from dataclasses import dataclass, field
from typing import IO, Any, cast

from secure_pipeline import shape
from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.files import sha256_bytes
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.image import MAX_CONFIG_BYTES, parse_config
from secure_pipeline.oci.manifest import parse_manifest
from secure_pipeline.oci.rootfs import (
    Budget,
    Counted,
    Files,
    Layer,
    Readable,
    read_layer,
    stacked,
    with_directories,
)

MAX_SMALL_BYTES = 64 << 20
"""Bytes of all documents of one archive together."""
_BLOCK = 1 << 18
_GZIP = b"\x1f\x8b"
_USTAR = slice(257, 262)


@dataclass
class _Archive:
    """What was found, by hex SHA-256."""

    layers: dict[str, Layer] = field(default_factory=dict)
    """By the digest of the unpacked tar."""
    documents: dict[str, bytes] = field(default_factory=dict)
    size: int = 0


def read_image(stream: Readable, image: Digest, budget: Budget) -> Files:
    """Return the files of the image with this digest, of its config or its manifest.

    Raises: Inconclusive if the archive does not hold it whole, is malformed or over a limit.
    """
    where = str(image)
    found = _read(stream, budget, where)
    try:
        # (1) the config: has the digest itself, or is the one that the manifest names
        config = _config(found, image)
        diff_ids, _ = parse_config(config, where)
    except VerificationFailed as error:
        raise Inconclusive(f"the saved image is not understood: {error}", where=where) from None
    # (2) its layers from the lowest, each with its own digest
    files: Files = {}
    for diff_id in diff_ids:
        if diff_id.hex not in found.layers:
            raise Inconclusive(f"the saved image lacks layer {diff_id}", where=where)
        files = stacked(files, found.layers[diff_id.hex])
    return with_directories(files)


def _config(found: _Archive, image: Digest) -> bytes:
    document = found.documents.get(image.hex)
    if document is None:
        raise VerificationFailed("nothing in it has the image's digest")
    if "rootfs" in shape.parse_object(document, str(image), limit=MAX_CONFIG_BYTES):
        return document
    config = parse_manifest(document, str(image)).config.digest
    if config.hex not in found.documents:
        raise VerificationFailed(f"config {config} is missing")
    return found.documents[config.hex]


def _read(stream: Readable, budget: Budget, where: str) -> _Archive:
    found = _Archive()
    try:
        with tarfile.open(fileobj=cast(Any, stream), mode="r|", bufsize=_BLOCK) as archive:
            while (member := archive.next()) is not None:
                budget.charge(members=1)
                if member.isreg():
                    content = cast(io.BufferedReader, archive.extractfile(member))
                    _take(found, content, member.size, budget, where)
                archive.members.clear()  # type: ignore[attr-defined]
    except (tarfile.TarError, ValueError, EOFError, OSError, zlib.error) as error:
        raise Inconclusive(f"the saved image is malformed: {error}", where=where) from None
    return found


def _take(
    found: _Archive, content: io.BufferedReader, size: int, budget: Budget, where: str
) -> None:
    head = content.peek(512)
    if head.startswith(_GZIP):
        _layer(found, cast(IO[bytes], gzip.GzipFile(fileobj=content)), budget, where)
    elif head[_USTAR] == b"ustar" or (head and not head.strip(b"\0")):
        _layer(found, content, budget, where)
    elif size <= MAX_CONFIG_BYTES:
        found.size += size
        if found.size > MAX_SMALL_BYTES:
            raise Inconclusive(f"documents of over {MAX_SMALL_BYTES} bytes", where=where)
        data = content.read()
        found.documents[sha256_bytes(data)] = data


def _layer(found: _Archive, content: IO[bytes], budget: Budget, where: str) -> None:
    counted = Counted(content, budget)
    layer = read_layer(counted, budget, where)
    found.layers[counted.finish()] = layer
