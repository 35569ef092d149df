"""OCI descriptors, manifests and indexes (image-spec 1.1), parsed once, raw bytes kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from secure_pipeline import shape
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.oci.digest import Digest

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY_BYTES = b"{}"
REF_NAME = "org.opencontainers.image.ref.name"
MANIFEST_TYPES = (MANIFEST_TYPE, "application/vnd.docker.distribution.manifest.v2+json")
INDEX_TYPES = (INDEX_TYPE, "application/vnd.docker.distribution.manifest.list.v2+json")

MAX_MANIFEST_BYTES = 4 << 20
MAX_ENTRIES = 10_000


@dataclass(frozen=True)
class Platform:
    """What an image runs on."""

    os: str
    architecture: str
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@dataclass(frozen=True)
class Descriptor:
    """A typed, sized pointer to content."""

    media_type: str
    digest: Digest
    size: int
    """Bytes."""
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    source: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The members as they came, so that unknown ones survive a rewrite."""

    @property
    def tag(self) -> str | None:
        """The name under which index.json lists it."""
        return self.annotations.get(REF_NAME)

    def tagged(self, tag: str) -> Descriptor:
        """Return this descriptor under a tag."""
        return replace(self, annotations={**self.annotations, REF_NAME: tag})

    def to_json(self) -> dict[str, Any]:
        """Return the JSON members."""
        value: dict[str, Any] = {
            **self.source,
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.platform and "platform" not in value:
            members = vars(self.platform).items()
            value["platform"] = {name: item for name, item in members if item is not None}
        return value


@dataclass(frozen=True)
class Manifest:
    """An image manifest, or an artifact in that form."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str | None
    subject: Descriptor | None
    annotations: Mapping[str, str]
    raw: bytes

    @property
    def kind(self) -> str:
        """The artifact type, or the config's media type where there is none (OCI 1.1)."""
        return self.artifact_type or self.config.media_type


@dataclass(frozen=True)
class Index:
    """An image index."""

    manifests: tuple[Descriptor, ...]
    artifact_type: str | None
    subject: Descriptor | None
    annotations: Mapping[str, str]
    raw: bytes


def parse_descriptor(value: Mapping[str, Any], where: str) -> Descriptor:
    """Check one descriptor.

    Raises: VerificationFailed.
    """
    size = shape.member(value, "size", int, where)
    if size < 0:
        raise VerificationFailed(f"size is {size}", where=where)
    return Descriptor(
        media_type=shape.member(value, "mediaType", str, where),
        digest=Digest.parse(shape.member(value, "digest", str, where)),
        size=size,
        artifact_type=shape.optional(value, "artifactType", str, where) or None,
        annotations=shape.texts(value, "annotations", where),
        platform=_platform(shape.optional(value, "platform", dict, where), where),
        source=value,
    )


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Parse an image manifest; one that is also an index is refused.

    Raises: VerificationFailed.
    """
    value = _document(data, where)
    media_type = shape.optional(value, "mediaType", str, where) or MANIFEST_TYPE
    if media_type not in MANIFEST_TYPES or "manifests" in value:
        raise VerificationFailed("not an image manifest", where=where)
    return Manifest(
        media_type=media_type,
        config=parse_descriptor(shape.member(value, "config", dict, where), f"{where}: config"),
        layers=_descriptors(value, "layers", where),
        artifact_type=shape.optional(value, "artifactType", str, where) or None,
        subject=_subject(value, where),
        annotations=shape.texts(value, "annotations", where),
        raw=data,
    )


def parse_index(data: bytes, where: str) -> Index:
    """Parse an image index; one that is also a manifest is refused.

    Raises: VerificationFailed.
    """
    value = _document(data, where)
    media_type = shape.optional(value, "mediaType", str, where) or INDEX_TYPE
    if media_type not in INDEX_TYPES or "layers" in value or "config" in value:
        raise VerificationFailed("not an image index", where=where)
    shape.member(value, "manifests", list, where)
    return Index(
        manifests=_descriptors(value, "manifests", where),
        artifact_type=shape.optional(value, "artifactType", str, where) or None,
        subject=_subject(value, where),
        annotations=shape.texts(value, "annotations", where),
        raw=data,
    )


def _document(data: bytes, where: str) -> dict[str, Any]:
    value = shape.parse_object(data, where, limit=MAX_MANIFEST_BYTES)
    if shape.member(value, "schemaVersion", int, where) != 2:
        raise VerificationFailed("schemaVersion is not 2", where=where)
    return value


def _descriptors(value: Mapping[str, Any], name: str, where: str) -> tuple[Descriptor, ...]:
    items = shape.objects(value, name, where, limit=MAX_ENTRIES)
    return tuple(
        parse_descriptor(item, f"{where}: {name}[{number}]") for number, item in enumerate(items)
    )


def _subject(value: Mapping[str, Any], where: str) -> Descriptor | None:
    subject = shape.optional(value, "subject", dict, where)
    return parse_descriptor(subject, f"{where}: subject") if subject else None


def _platform(value: Mapping[str, Any] | None, where: str) -> Platform | None:
    if not value:
        return None
    return Platform(
        os=shape.optional(value, "os", str, where) or "",
        architecture=shape.optional(value, "architecture", str, where) or "",
        variant=shape.optional(value, "variant", str, where) or None,
    )
