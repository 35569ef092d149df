"""Whether what a runtime runs belongs to a build: from bytes, never from names (REG-05).

A runtime names an image by the digest of its config, of its manifest or of an index. The
build is named by its root: the index, or the manifest of an image for one platform. Index and
manifest are fetched and hashed, and lead from one to the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secure_pipeline.errors import Inconclusive, Unavailable, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.image import MAX_CONFIG_BYTES, fits, parse_config
from secure_pipeline.oci.manifest import (
    CONFIG_TYPE,
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Manifest,
    Platform,
)
from secure_pipeline.oci.store import NotThere, Source
from secure_pipeline.policy.decision import Rule, allow, unsure, wrong

RULE = "image"
MAX_PLATFORMS = 64
_CONFIG_TYPES = (CONFIG_TYPE, "application/vnd.docker.container.image.v1+json")
_ATTESTATION = Platform("unknown", "unknown")


@dataclass(frozen=True)
class Running:
    """What a runtime says that it runs."""

    digest: Digest
    """Of a config, a manifest or an index."""
    is_config: bool
    """True if the runtime knows that it is a config's."""
    platform: str | None
    """os/arch[/variant] of the machine."""


def belongs(source: Source, root: Digest, running: Running) -> Rule:
    """Decide whether what runs is the image of this build for this machine.

    Denied: the bytes prove that it is another one. Undetermined: the build's bytes are not to
    be had, or nothing tells what the runtime's digest is of.
    """
    try:
        descriptor = source.find(root)
    except NotThere as error:
        return unsure(RULE, f"{root} is not to be had: {error}", hint="push it again")
    except VerificationFailed as error:
        return wrong(RULE, str(error))
    except (Inconclusive, Unavailable) as error:
        return unsure(RULE, str(error), hint=error.hint)
    try:
        return _Build(source, descriptor, running).decide()
    except VerificationFailed as error:
        return wrong(RULE, str(error))
    except (Inconclusive, Unavailable) as error:
        return unsure(RULE, str(error), hint=error.hint)


class _Build:
    """One root, read as far as it takes to decide."""

    def __init__(self, source: Source, root: Descriptor, running: Running) -> None:
        self.source = source
        self.root = root
        self.running = running
        self.name = f"{source.name}@{root.digest}"

    def decide(self) -> Rule:
        digest, platform = self.running.digest, self.running.platform or "this machine"
        # (1) the images that this machine could run: one by one from the root's bytes (REG-04)
        listed = self._platforms(self.root)
        images = self._for_machine(listed)
        # (2) the runtime names the root: exactly one of its images must be for this machine
        if digest == self.root.digest:
            if len(images) != 1:
                return self._not_one(len(images))
            self._manifest(images[0])
            return allow(RULE, f"runs {self.name}")
        # (3) it names the manifest of one of them
        if any(digest == image.digest for image in images):
            return allow(RULE, f"runs manifest {digest}, for {platform} in {self.name}")
        # (4) it names the config of one of them
        if any(digest == self._manifest(image).config.digest for image in images):
            return allow(RULE, f"runs config {digest}, for {platform} in {self.name}")
        if any(digest == image.digest for image in listed):
            return wrong(RULE, f"runs {digest}, which in {self.name} is not for {platform}")
        return self._other(images)

    def _other(self, images: Sequence[Descriptor]) -> Rule:
        """Nothing of this build has the digest: another image, or an unknown index of it."""
        digest = self.running.digest
        different = wrong(RULE, f"runs {digest}, which is not {self.name} nor a part of it")
        if self.running.is_config:
            return different
        # (5) an index or manifest that the store has can be read
        try:
            found = self.source.find(digest)
        except NotThere:
            return unsure(
                RULE,
                f"cannot tell what {digest} is: no part of {self.name}, and not to be had",
                hint="pass --image with the build that it must be, or --layout",
            )
        inside = {image.digest for image in self._for_machine(self._platforms(found))}
        if len(inside) == 1 and inside <= {image.digest for image in images}:
            return allow(RULE, f"runs {digest}, which holds the same manifest as {self.name}")
        return different

    def _not_one(self, count: int) -> Rule:
        platform = self.running.platform
        if count == 0:
            return wrong(RULE, f"{self.name} has no image for {platform or 'any platform'}")
        machine = platform or "a machine of which the runtime does not tell the platform"
        return unsure(RULE, f"{self.name} has {count} images for {machine}")

    def _platforms(self, descriptor: Descriptor) -> tuple[Descriptor, ...]:
        """The images of an index, each once, without BuildKit's attestations (REG-07)."""
        if descriptor.media_type not in INDEX_TYPES:
            return (descriptor,)
        listed = self.source.read_index(descriptor).manifests
        images = {item.digest: item for item in listed if item.platform != _ATTESTATION}
        if len(images) > MAX_PLATFORMS:
            raise Inconclusive(
                f"{len(images)} images in one index; the limit is {MAX_PLATFORMS}",
                where=str(descriptor.digest),
            )
        return tuple(images.values())

    def _for_machine(self, images: Sequence[Descriptor]) -> list[Descriptor]:
        """Those for this machine; for an image alone there is no choice."""
        wanted = self.running.platform
        if wanted is None or images == (self.root,):
            return list(images)
        return [image for image in images if fits(self._platform(image), wanted)]

    def _platform(self, image: Descriptor) -> Platform:
        if image.platform and image.platform.os:
            return image.platform
        config = self._manifest(image).config
        data = self.source.read_blob(config.digest, MAX_CONFIG_BYTES, config.size)
        return parse_config(data, str(config.digest))[1]

    def _manifest(self, image: Descriptor) -> Manifest:
        if image.media_type not in MANIFEST_TYPES:
            raise Inconclusive(f"{image.media_type[:80]!r} is no image", where=str(image.digest))
        manifest = self.source.read_manifest(image)
        if manifest.config.media_type not in _CONFIG_TYPES or manifest.artifact_type:
            raise Inconclusive(f"{manifest.kind[:80]!r} is no image", where=str(image.digest))
        return manifest
