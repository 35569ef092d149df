"""The builds that a container may be: what the operator names, a layout holds, or it came from.

A name only says where to look. That a container is one of these is proven from bytes
(``running_image``), and evidence counts by its signatures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from secure_pipeline.errors import Inconclusive, UsageError
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.oci.store import Source
from secure_pipeline.ports import RunningContainer
from secure_pipeline.stages.running import MAX_NAMES, Candidate

MAX_IMAGES = 1000
"""Images of one layout."""
_UNNAMED = "image"

Candidates = Callable[[RunningContainer], Sequence[Candidate]]
OpenSource = Callable[[str], Source]


def named(images: Sequence[ImageReference], open_source: OpenSource) -> Candidates:
    """Every container has to be one of these builds."""
    candidates = [_candidate(image, open_source) for image in images]
    return lambda container: candidates


def listed(layout: Layout, images: Sequence[ImageReference] = ()) -> Candidates:
    """Every container has to be a build of this layout, one of ``images`` if there are any.

    Raises: VerificationFailed for a malformed layout, Inconclusive over a limit.
    """
    if images:
        return named(images, lambda name: layout)
    digests = list(
        dict.fromkeys(item.digest for item in layout.manifests() if _is_image(layout, item))
    )
    if len(digests) > MAX_IMAGES:
        raise Inconclusive(
            f"{len(digests)} images; the limit is {MAX_IMAGES}",
            where=str(layout.path),
            hint="name the build: --image NAME@sha256:DIGEST",
        )

    def of(container: RunningContainer) -> list[Candidate]:
        names = {image.digest: image.name for image in _pulled(container)}
        return [
            Candidate(ImageReference(names.get(digest, _UNNAMED), digest), lambda: layout)
            for digest in digests
        ]

    return of


def pulled(open_source: OpenSource) -> Candidates:
    """A container is what its runtime pulled, wherever that came from."""

    def of(container: RunningContainer) -> list[Candidate]:
        return [_candidate(image, open_source) for image in _pulled(container)]

    return of


def _pulled(container: RunningContainer) -> list[ImageReference]:
    found = []
    for name in container.names[:MAX_NAMES]:
        repository, _, digest = name.rpartition("@")
        try:
            found.append(ImageReference.parse(f"{repository}@{digest}"))
        except UsageError:
            continue
    return list(dict.fromkeys(found))


def _candidate(image: ImageReference, open_source: OpenSource) -> Candidate:
    return Candidate(image, lambda: open_source(image.name))


def _is_image(layout: Layout, descriptor: Descriptor) -> bool:
    """Leave evidence out; some writers do not say in the index that it is none."""
    if descriptor.artifact_type or (descriptor.tag or "").endswith(".att"):
        return False
    if descriptor.media_type in INDEX_TYPES:
        return True
    return (
        descriptor.media_type in MANIFEST_TYPES and layout.read_manifest(descriptor).subject is None
    )
