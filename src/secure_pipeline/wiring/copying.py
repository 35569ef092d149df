"""Copy an image with its evidence between a layout and a registry, in any direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.errors import UsageError, VerificationFailed
from secure_pipeline.oci.copy import Copied, copy_image
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.reference import ImageReference, check_tag, in_registry
from secure_pipeline.oci.store import Source, Target
from secure_pipeline.wiring.stores import Stores
from secure_pipeline.wiring.verifying import only_image

LAYOUT = "layout:"


@dataclass(frozen=True)
class Destination:
    """Where an image is copied to."""

    target: Target
    name: str
    """``host/repository``, or ``layout:DIR``."""
    tag: str | None


def copy_to(
    place: Destination, source: Source, digest: Digest, on_progress: Callable[[str], None]
) -> tuple[str, Copied]:
    """Copy an image; return its new name by digest, and what it took.

    Raises: VerificationFailed, Inconclusive, Unavailable.
    """
    copied = copy_image(source, digest, place.target, tag=place.tag, on_progress=on_progress)
    return f"{place.name}@{digest}", copied


def parse_destination(text: str, stores: Stores) -> Destination:
    """Open where an image goes. Raises: UsageError, Unavailable."""
    if text.startswith(LAYOUT):
        directory, tag = _tagged(text.removeprefix(LAYOUT))
        if not directory:
            raise UsageError("no directory is named", hint="write layout:DIRECTORY")
        return Destination(Layout.create(Path(directory)), f"{LAYOUT}{directory}", tag)
    name, tag = _tagged(text)
    if "@" in text or not in_registry(name):
        raise UsageError(
            f"{text[:120]!r} is neither HOST/NAME[:TAG] nor layout:DIRECTORY[:TAG]",
            hint="the digest stays what it is; name only where it goes",
        )
    return Destination(stores.repository(name), name, tag)


def open_source(text: str, stores: Stores) -> tuple[Source, Digest]:
    """Open ``HOST/NAME@sha256:…`` or ``layout:DIR[@sha256:…]``.

    Raises: UsageError, ConfigError, VerificationFailed, Unavailable.
    """
    if not text.startswith(LAYOUT):
        reference = ImageReference.parse(text)
        return stores.source(reference.name, None), reference.digest
    directory, at, digest = text.removeprefix(LAYOUT).partition("@")
    layout = Layout.open(Path(directory))
    if not at:
        return layout, only_image(layout)
    try:
        return layout, Digest.parse(digest)
    except VerificationFailed as error:
        raise UsageError(error.message, hint="write layout:DIRECTORY@sha256:DIGEST") from None


def _tagged(text: str) -> tuple[str, str | None]:
    """Split ``NAME:TAG``; a colon before a slash belongs to a port or a directory."""
    name, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        return text, None
    return name, check_tag(tag)
