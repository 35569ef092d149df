"""What lies beside an image, as clients of a registry come upon it.

Read once and judged by every reader's rules; nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from secure_pipeline.attestations import bundle
from secure_pipeline.attestations.forms import MAX_ATTACHMENTS, att_tag
from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.interop.model import Answer
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.manifest import INDEX_TYPES, MANIFEST_TYPES, Descriptor, Manifest
from secure_pipeline.oci.store import Source

MAX_REFERRERS = 1100
"""With more there is no answer."""
READERS = 8
"""Manifests or blobs that are read at the same time."""
MAX_TOTAL = 512 << 20
"""Bytes of all that is read."""
BUNDLE_PREFIX = "application/vnd.dev.sigstore.bundle"


@runtime_checkable
class Discovery(Protocol):
    """A store that can say what its referrers API alone lists."""

    def first_listed(self, subject: Digest) -> tuple[Descriptor, ...] | None:
        """Return the API's first page; None where the registry has no such API.

        Raises: VerificationFailed, Inconclusive, Unavailable.
        """


@dataclass(frozen=True)
class Referrer:
    """A manifest that refers to the image."""

    listed: Descriptor
    """As the list says, which is all that some readers look at."""
    manifest: Manifest | None
    """None for an index, or one that cannot be read."""
    layer: bytes | None
    """The first layer; None if there is none, or it is too large or cannot be read."""
    seen: bool
    """Whether a client finds it that asks the API for one page, and the tag only without API."""

    @property
    def layer_type(self) -> str:
        """Media type of the first layer, or nothing."""
        layers = self.manifest.layers if self.manifest else ()
        return layers[0].media_type if layers else ""


@dataclass(frozen=True)
class AttLayer:
    """One layer of the ``.att`` manifest."""

    listed: Descriptor
    data: bytes | None
    """None if it is too large or cannot be read, or there are too many."""


@dataclass(frozen=True)
class Sight:
    """Everything beside one image."""

    image: Descriptor
    referrers: tuple[Referrer, ...]
    api: Answer
    """Whether the registry has the referrers API; a layout is no registry."""
    att: tuple[AttLayer, ...] | None
    """None where the tag is missing."""
    signed: bool
    """Whether the tag ``sha256-….sig`` is there."""

    @property
    def is_index(self) -> bool:
        """Whether the digest is that of a list of platforms."""
        return self.image.media_type in INDEX_TYPES

    @property
    def seen(self) -> tuple[Referrer, ...]:
        """The referrers that clients find."""
        return tuple(item for item in self.referrers if item.seen)


def look(source: Source, digest: Digest) -> Sight:
    """Read what is beside an image, bounded.

    What cannot be read counts as there and unreadable: readers pass such things over.
    Raises: VerificationFailed if the image is not there; Inconclusive over a limit; Unavailable.
    """
    image = source.find(digest)
    seen, api = _seen_by_clients(source, digest)
    listed = _few(source.referrers(digest))
    tagged = source.tagged(att_tag(digest))
    with ThreadPoolExecutor(READERS) as readers:
        manifests = list(readers.map(lambda item: _manifest(source, item), listed))
        firsts = [found.layers[0] if found and found.layers else None for found in manifests]
        layers = _att_layers(source, tagged)
        # Over the limit no reader looks at any of them.
        wanted: list[Descriptor | None] = list(layers if len(layers) <= MAX_ATTACHMENTS else ())
        _check_total([*firsts, *wanted])
        blobs = list(readers.map(lambda item: _blob(source, item), [*firsts, *wanted]))
    attached = blobs[len(firsts) :] or [None] * len(layers)
    return Sight(
        image=image,
        referrers=tuple(
            Referrer(item, manifest, blob, seen is None or item.digest in seen)
            for item, manifest, blob in zip(listed, manifests, blobs[: len(firsts)], strict=True)
        ),
        api=api,
        att=tuple(map(AttLayer, layers, attached)) if tagged else None,
        signed=source.tagged(f"sha256-{digest.hex}.sig") is not None,
    )


def _seen_by_clients(source: Source, digest: Digest) -> tuple[set[Digest] | None, Answer]:
    """The digests that a client's list holds; None for all, where the tag is the only list."""
    if not isinstance(source, Discovery):
        return None, Answer.UNKNOWN
    listed = source.first_listed(digest)
    if listed is None:
        return None, Answer.NO
    return {item.digest for item in listed}, Answer.YES


def _few(items: tuple[Descriptor, ...]) -> tuple[Descriptor, ...]:
    if len(items) > MAX_REFERRERS:
        raise Inconclusive(f"{len(items)} referrers; at most {MAX_REFERRERS} are read")
    return items


def _att_layers(source: Source, tagged: Descriptor | None) -> tuple[Descriptor, ...]:
    manifest = _manifest(source, tagged) if tagged else None
    return manifest.layers if manifest else ()


def _manifest(source: Source, listed: Descriptor) -> Manifest | None:
    if listed.media_type not in MANIFEST_TYPES:
        return None
    try:
        return source.read_manifest(listed)
    except (VerificationFailed, Inconclusive):
        return None


def _check_total(wanted: Iterable[Descriptor | None]) -> None:
    total = sum(item.size for item in wanted if item and item.size <= bundle.MAX_BUNDLE_BYTES)
    if total > MAX_TOTAL:
        raise Inconclusive(f"evidence of {total} bytes; at most {MAX_TOTAL} are read")


def _blob(source: Source, layer: Descriptor | None) -> bytes | None:
    if layer is None or layer.size > bundle.MAX_BUNDLE_BYTES:
        return None
    try:
        return source.read_blob(layer.digest, bundle.MAX_BUNDLE_BYTES, layer.size)
    except (VerificationFailed, Inconclusive):
        return None
