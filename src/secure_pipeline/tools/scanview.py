"""A private layout with one image, every byte of it checked, for a scanner to look at.

The scanner cannot read anything else of the layout there, nor be led to another image
(SCN-11). Layers are hard links. A twin of the image is added whose history has no empty
layers, because Trivy takes what lies below an old CMD for a base image and looks for no
secrets there (BLD-01).
"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secure_pipeline import shape
from secure_pipeline.errors import Inconclusive, Unavailable
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.history import MAX_CONFIG_BYTES, ImageLayer, check_unpacked, image_layers
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import (
    CONFIG_TYPE,
    MANIFEST_TYPE,
    MAX_ENTRIES,
    MAX_MANIFEST_BYTES,
    Descriptor,
    parse_manifest,
)

MAX_UNPACKED_BYTES = 32 << 30
_THREADS = 2


@dataclass(frozen=True)
class View:
    """The private layout."""

    path: Path
    digest: Digest
    """Of the image's manifest."""
    config: Descriptor
    layers: tuple[ImageLayer, ...]
    twin: Digest
    """Manifest of the same layers and settings, with no empty layer in the history."""
    unpacked: int
    """Bytes of all layers unpacked."""

    def single(self, layer: ImageLayer) -> Digest:
        """Add an image of this layer alone; return its manifest's digest."""
        return _add(Layout.open(self.path), (layer,), {})


def open_view(source: Path, digest: str, target: Path, limit: int = MAX_UNPACKED_BYTES) -> View:
    """Make the private layout ``target`` for one manifest of the layout ``source``.

    Raises: VerificationFailed if a byte is not what its digest says, Inconclusive if the
    unpacked image exceeds ``limit`` bytes, Unavailable if the disk refuses.
    """
    wanted = Digest.parse(digest)
    original, view = Layout.open(source), Layout.create(target)
    # (1) the manifest and the configuration, read with their digests checked
    manifest = parse_manifest(original.read_blob(wanted, MAX_MANIFEST_BYTES), digest)
    config = original.read_blob(manifest.config.digest, MAX_CONFIG_BYTES, manifest.config.size)
    layers = image_layers(manifest, config, str(manifest.config.digest))
    # (2) the layers, linked first and then checked, so that what is checked is what is scanned
    for layer in layers:
        _link(source, target, layer.descriptor.digest)
        view.check_blob(layer.descriptor.digest, layer.descriptor.size)
    unpacked = _check_layers(target, layers, limit)
    # (3) the image itself and its twin
    view.write_blob(config, manifest.config.media_type)
    descriptor = view.write_blob(manifest.raw, manifest.media_type)
    view.add_manifest(descriptor)
    twin = _add(view, layers, _without_empty_layers(config))
    return View(target, wanted, manifest.config, layers, twin, unpacked)


def _check_layers(target: Path, layers: tuple[ImageLayer, ...], limit: int) -> int:
    def check(layer: ImageLayer) -> int:
        return check_unpacked(_blob(target, layer.descriptor.digest), layer, limit)

    with ThreadPoolExecutor(_THREADS) as pool:
        total = sum(pool.map(check, layers))
    if total > limit:
        raise Inconclusive(f"the image unpacks to more than {limit} bytes", where=str(target))
    return total


def _link(source: Path, target: Path, digest: Digest) -> None:
    origin, place = _blob(source, digest), _blob(target, digest)
    if place.exists():
        return
    try:
        try:
            os.link(origin, place, follow_symlinks=False)
        except OSError:
            shutil.copyfile(origin, place, follow_symlinks=False)
    except OSError as error:
        raise Unavailable(f"cannot link or copy: {error.strerror}", where=str(origin)) from error


def _without_empty_layers(config: bytes) -> dict[str, Any]:
    value = shape.parse_object(config, "config", limit=MAX_CONFIG_BYTES)
    history = shape.objects(value, "history", "config", limit=MAX_ENTRIES)
    for entry in history:
        entry.pop("empty_layer", None)
    return {**value, "history": history}


def _add(view: Layout, layers: tuple[ImageLayer, ...], settings: dict[str, Any]) -> Digest:
    """Write and list an image of these layers."""
    document = {
        **settings,
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
    }
    written = view.write_blob(_json(document), CONFIG_TYPE)
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": written.to_json(),
        "layers": [layer.descriptor.to_json() for layer in layers],
    }
    descriptor = view.write_blob(_json(body), MANIFEST_TYPE)
    view.add_manifest(descriptor)
    return descriptor.digest


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _blob(layout: Path, digest: Digest) -> Path:
    return layout / "blobs" / "sha256" / digest.hex
