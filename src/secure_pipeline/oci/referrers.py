"""Referrers without a registry: the fallback tag and how its index is kept (OCI distribution 1.1).

A registry that has no referrers API leaves the list to its clients: an index under the tag
``sha256-<hex>``, read, changed and written by each of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from secure_pipeline import shape
from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.manifest import (
    INDEX_TYPE,
    MAX_ENTRIES,
    MAX_MANIFEST_BYTES,
    Descriptor,
    Index,
    Manifest,
    parse_index,
)


def fallback_tag(subject: Digest) -> str:
    """The tag under which clients list what refers to ``subject``."""
    return f"sha256-{subject.hex}"


def entry(document: Manifest | Index, descriptor: Descriptor) -> Descriptor:
    """Describe a manifest with a subject as the list must: its kind and all its annotations."""
    kind = document.kind if isinstance(document, Manifest) else document.artifact_type
    return Descriptor(
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        artifact_type=kind,
        annotations=dict(document.annotations),
    )


def listed(data: bytes, where: str) -> tuple[Descriptor, ...]:
    """Read a list of referrers: a page of the API, or the index under the fallback tag.

    Raises: VerificationFailed if it is no index; Inconclusive if it is too long.
    """
    try:
        return parse_index(data, where).manifests
    except VerificationFailed:
        items = shape.parse_object(data, where, limit=MAX_MANIFEST_BYTES).get("manifests")
        if isinstance(items, list) and len(items) > MAX_ENTRIES:
            raise Inconclusive(f"more than {MAX_ENTRIES} referrers", where=where) from None
        raise


def merge(present: bytes | None, added: Descriptor, where: str) -> bytes | None:
    """Return the list's index with ``added`` in it exactly once, or None if it is so already.

    Members and entries of others are kept as they are.
    Raises: VerificationFailed if ``present`` is no index; Inconclusive over a limit.
    """
    base: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX_TYPE}
    entries: list[Descriptor] = []
    if present is not None:
        entries = list(listed(present, where))
        base |= shape.parse_object(present, where, limit=MAX_MANIFEST_BYTES)
    same = [item for item in entries if item.digest == added.digest]
    if same == [added]:
        return None
    entries = [item for item in entries if item.digest != added.digest] + [added]
    base["manifests"] = [item.to_json() for item in entries]
    data = json.dumps(base, ensure_ascii=False, separators=(",", ":")).encode()
    if len(entries) > MAX_ENTRIES or len(data) > MAX_MANIFEST_BYTES:
        raise Inconclusive(
            f"the list of referrers would exceed {MAX_ENTRIES} entries"
            f" or {MAX_MANIFEST_BYTES} bytes",
            where=where,
        )
    return data


def union(lists: Iterable[Iterable[Descriptor]], where: str) -> tuple[Descriptor, ...]:
    """Join lists of referrers, each manifest once; of two descriptions the first stays (REG-09).

    Raises: VerificationFailed for one digest with two sizes or types; Inconclusive over the
    limit.
    """
    found: dict[Digest, Descriptor] = {}
    for item in (item for items in lists for item in items):
        first = found.setdefault(item.digest, item)
        if (first.media_type, first.size) != (item.media_type, item.size):
            raise VerificationFailed(f"{item.digest} is listed in two ways", where=where)
        if len(found) > MAX_ENTRIES:
            raise Inconclusive(f"more than {MAX_ENTRIES} referrers", where=where)
    return tuple(found.values())
