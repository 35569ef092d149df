"""A change of a layout's index.json, before it is written."""

from __future__ import annotations

from collections.abc import Sequence

from secure_pipeline.errors import VerificationFailed
from secure_pipeline.oci.manifest import Descriptor, Index


class IndexEdit:
    """A pending change of index.json."""

    def __init__(self, index: Index, where: str) -> None:
        self.entries = list(index.manifests)
        self.changed = False
        self._where = where

    def add(self, descriptor: Descriptor) -> None:
        """List a descriptor unless it is listed exactly so."""
        if descriptor not in self.entries:
            self.entries.append(descriptor)
            self.changed = True

    def tagged(self, tag: str) -> Descriptor | None:
        """Return what the tag names now."""
        return under_tag(self.entries, tag, self._where)

    def replace(self, tag: str, descriptor: Descriptor) -> None:
        """Make the tag name this descriptor."""
        wanted = descriptor.tagged(tag)
        if self.tagged(tag) != wanted:
            self.entries = [item for item in self.entries if item.tag != tag] + [wanted]
            self.changed = True


def under_tag(entries: Sequence[Descriptor], tag: str, where: str) -> Descriptor | None:
    """Return what a tag names. Raises: VerificationFailed if it names two things."""
    found = [item for item in entries if item.tag == tag]
    if len(found) > 1:
        raise VerificationFailed(f"tag {tag!r} is listed {len(found)} times", where=where)
    return found[0] if found else None
