"""Provenance of a file out of an image: what stands beside the file, and where it came from.

A build type of its own keeps it apart: it speaks for no image, and an image's for no file
(docs/reference/build-type-file-v1.md).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secure_pipeline import shape
from secure_pipeline.attestations.predicates import NAMESPACE, PROVENANCE
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.imagefiles import ImageFile
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.stages.result import Evidence

BUILD_TYPE = f"{NAMESPACE}/build-type/file/v1"
_FILE = "file"
_IMAGE = "image"
_MAX_BYPRODUCTS = 10_000


@dataclass(frozen=True)
class Origin:
    """Where a file was taken from."""

    path: str
    """Absolute, in the image."""
    name: str
    digest: Digest
    """Of the image."""

    @property
    def image(self) -> str:
        """``name@sha256:…``."""
        return f"{self.name}@{self.digest}"


def file_provenance(built: Evidence, file: ImageFile, image: ImageReference) -> Evidence:
    """Make a file's provenance out of its image's, of which it keeps all dependencies."""
    predicate = copy.deepcopy(dict(built.predicate))
    definition, details = predicate["buildDefinition"], predicate["runDetails"]
    definition["buildType"] = BUILD_TYPE
    definition["externalParameters"][_FILE] = file.path
    holder = {
        "name": _IMAGE,
        "digest": {"sha256": image.digest.hex},
        "annotations": {"name": image.name},
    }
    details["byproducts"] = [holder, *details.get("byproducts", ())]
    return Evidence(PROVENANCE, predicate)


def is_of_file(predicate: Mapping[str, Any]) -> bool:
    """Tell whether provenance says of itself that it is about a file."""
    definition = shape.member(predicate, "buildDefinition", dict, PROVENANCE)
    return bool(shape.optional(definition, "buildType", str, PROVENANCE) == BUILD_TYPE)


def read_origin(predicate: Mapping[str, Any]) -> Origin:
    """Read what ``file_provenance`` wrote.

    Raises: VerificationFailed, for another build type too.
    """
    where = PROVENANCE
    if not is_of_file(predicate):
        raise VerificationFailed("it is about an image, not about a file", where=where)
    definition = shape.member(predicate, "buildDefinition", dict, where)
    parameters = shape.member(definition, "externalParameters", dict, where)
    details = shape.member(predicate, "runDetails", dict, where)
    items = shape.objects(details, "byproducts", where, limit=_MAX_BYPRODUCTS)
    holders = [item for item in items if item.get("name") == _IMAGE]
    if len(holders) != 1:
        raise VerificationFailed(f"{len(holders)} images that the file was in", where=where)
    annotations = shape.texts(holders[0], "annotations", where)
    return Origin(
        path=shape.member(parameters, _FILE, str, where),
        name=annotations.get("name", ""),
        digest=Digest(shape.texts(holders[0], "digest", where).get("sha256", "")),
    )
