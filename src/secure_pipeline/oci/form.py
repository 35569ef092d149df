"""Manifests of artifacts, as bytes with the small blobs they name; nothing is stored here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secure_pipeline.files import canonical_json
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.manifest import CONFIG_TYPE, MANIFEST_TYPE, Descriptor


@dataclass(frozen=True)
class Form:
    """One manifest and the small blobs that it names."""

    manifest: bytes
    blobs: tuple[tuple[bytes, str], ...]
    """(content, media type)."""


def layers_form(layers: Sequence[Descriptor], annotations: Mapping[str, str]) -> Form:
    """Return a manifest of layers as cosign writes it: its config lists them as diff ids."""
    config = canonical_json(
        {
            "architecture": "",
            "os": "",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [str(layer.digest) for layer in layers]},
        }
    )
    document = manifest_document(describe(config, CONFIG_TYPE), layers)
    if annotations:
        document["annotations"] = dict(annotations)
    return Form(canonical_json(document), ((config, CONFIG_TYPE),))


def describe(data: bytes, media_type: str) -> Descriptor:
    """Return the descriptor of bytes."""
    return Descriptor(media_type, Digest.of(data), len(data))


def manifest_document(config: Descriptor, layers: Sequence[Descriptor]) -> dict[str, Any]:
    """Return the members that every manifest has."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
