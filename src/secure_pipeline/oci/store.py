"""Where images and their evidence live: one interface over layouts and registries.

``Source`` reads, ``Target`` writes too. Implemented by ``oci.layout.Layout`` (a directory) and
``adapters.registry.Repository`` (one repository of a registry); both pass the same contract
suite. Whatever is read is hashed before it is returned (REG-02).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from secure_pipeline.errors import VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.manifest import Descriptor, Index, Manifest

Change = Callable[[bytes | None], bytes | None]
"""From a tag's manifest (None where there is none) to the new one; None to leave it as it is."""


class NotThere(VerificationFailed):
    """A store does not have what was asked for; other bytes in its place are a plain failure."""


class Source(Protocol):
    """Content by digest."""

    @property
    def name(self) -> str:
        """For messages: the directory, or ``host/repository``."""

    @property
    def remote(self) -> bool:
        """Whether reading costs a transfer; what is on this machine is hashed even if unneeded."""

    def find(self, digest: Digest) -> Descriptor:
        """Return media type and size of a manifest or index.

        Raises: NotThere; VerificationFailed if other bytes are; Unavailable.
        """

    def tagged(self, tag: str) -> Descriptor | None:
        """Return what a tag names now, by the digest of its bytes, or None.

        Raises: VerificationFailed, Unavailable.
        """

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """Return the manifests whose subject is this digest, each once, in no set order.

        ``artifact_type`` and annotations are as the store says and may be empty.
        Raises: VerificationFailed; Inconclusive over a limit; Unavailable.
        """

    def read_manifest(self, descriptor: Descriptor) -> Manifest:
        """Read an image manifest. Raises: VerificationFailed, Inconclusive, Unavailable."""

    def read_index(self, descriptor: Descriptor) -> Index:
        """Read an image index. Raises: VerificationFailed, Inconclusive, Unavailable."""

    def read_blob(self, digest: Digest, limit: int, size: int | None = None) -> bytes:
        """Return a blob of at most ``limit`` bytes.

        Raises: VerificationFailed (missing, other bytes, other size), Inconclusive over the
        limit, Unavailable.
        """

    def stream_blob(self, digest: Digest, size: int) -> Iterator[bytes]:
        """Yield a blob of any size in chunks; the last one comes only if digest and size agree.

        Raises: VerificationFailed, Unavailable.
        """

    def check_blob(self, digest: Digest, size: int) -> None:
        """Hash a blob of any size without keeping it. Raises: like ``stream_blob``."""


class Target(Source, Protocol):
    """Content that can be added to."""

    def has_blob(self, digest: Digest, size: int) -> bool:
        """Tell whether a blob is there already and need not be sent. Raises: Unavailable."""

    def write_blob(self, data: bytes, media_type: str) -> Descriptor:
        """Store bytes under their digest. Raises: Unavailable."""

    def receive(self, digest: Digest, size: int, chunks: Iterable[bytes]) -> None:
        """Store a blob of any size from a stream that must have this digest and size.

        Raises: VerificationFailed if it has not; Unavailable; what ``chunks`` raises.
        """

    def write_manifest(
        self, data: bytes, media_type: str, *, tag: str | None = None, listed: bool = True
    ) -> Descriptor:
        """Store a manifest or index whose parts are all there, under its digest and a tag.

        One with a subject is among ``referrers(subject)`` when this returns, whatever others
        write meanwhile. ``listed=False``: only a part of an index (matters for a layout).
        Raises: VerificationFailed if it is not there afterwards; Unavailable.
        """

    def change_tag(self, tag: str, media_type: str, change: Change) -> Descriptor | None:
        """Read, modify and write what a tag names, and read it again until the change holds.

        ``change`` may be called several times, always with the present bytes; the change holds
        when it returns None. Returns what the tag names in the end.
        Raises: Unavailable if others keep overwriting it; what ``change`` raises.
        """
