"""One repository of a registry as a store (``oci.store.Target``; OCI distribution 1.1)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline import shape
from secure_pipeline.adapters.dockerconfig import Credentials
from secure_pipeline.adapters.http import HttpLimits, Origin, Transport
from secure_pipeline.adapters.registryauth import Authorizer
from secure_pipeline.adapters.registryclient import Fetched, Place, RegistryClient
from secure_pipeline.adapters.registrydownload import stream_blob
from secure_pipeline.adapters.registrylist import ListLimits, first_page, list_referrers, list_tags
from secure_pipeline.adapters.registrytags import TagChange
from secure_pipeline.adapters.registryupload import Uploads, check
from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.oci import referrers
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.manifest import (
    INDEX_TYPE,
    INDEX_TYPES,
    MANIFEST_TYPE,
    MANIFEST_TYPES,
    MAX_MANIFEST_BYTES,
    Descriptor,
    Index,
    Manifest,
    parse_index,
    parse_manifest,
)
from secure_pipeline.oci.store import Change, NotThere
from secure_pipeline.ports import Clock

_ACCEPT = {"Accept": ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))}
_TAG_READS = 5


@dataclass(frozen=True)
class RegistryLimits:
    """What work with a registry may cost."""

    http: HttpLimits = HttpLimits()
    blob_seconds: float = 3600.0
    """For the transfer of one blob."""
    part: int = 8 << 20
    """Bytes of a blob held in memory while sending."""
    tries: int = 8
    """Of one blob's transfer without progress."""
    lists: ListLimits = ListLimits()
    tag_seconds: float = 120.0
    """For changing one tag against others who change it too."""


def open_repository(
    name: str,
    *,
    credentials: Credentials,
    ca: Path | None = None,
    plain_http: bool = False,
    clock: Clock,
    realms: tuple[str, ...] = (),
    proxies: Mapping[str, str] | None = None,
    limits: RegistryLimits | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Repository:
    """Open ``host[:port]/path``; nothing is asked yet.

    ``ca``: PEM file of authorities to trust instead of the usual ones. http is spoken with
    ``plain_http``, and to a registry on this machine unless ``ca`` is given. ``realms``: token
    services (``host`` or ``host:port``) that may have the credentials besides the registry.
    ``proxies``: as ``urllib.request.getproxies_environment`` gives them.
    Raises: UsageError for another name; ConfigError if ``ca`` is missing.
    """
    limits = limits or RegistryLimits()
    place = Place.parse(name)
    transport = Transport(
        clock, ca=ca, plain_http=plain_http, proxies=proxies, limits=limits.http, sleep=sleep
    )
    scheme = "http" if plain_http or (place.loopback and ca is None) else "https"
    origin = Origin.of(f"{scheme}://{place.host}/")
    authorizer = Authorizer(transport, origin, place.key, credentials, realms)
    return Repository(RegistryClient(place, scheme, transport, authorizer), limits)


class Repository:
    """One repository of one registry; open one with ``open_repository``. Thread-safe."""

    def __init__(self, client: RegistryClient, limits: RegistryLimits) -> None:
        self._client = client
        self._limits = limits
        self._uploads = Uploads(client, part=limits.part, tries=limits.tries)
        self._kept = _Kept()

    @property
    def name(self) -> str:
        """``host/repository``."""
        return self._client.place.name

    @property
    def remote(self) -> bool:
        """Reading costs a transfer."""
        return True

    def find(self, digest: Digest) -> Descriptor:
        """Return media type and size of a manifest or index, read from its own bytes.

        Raises: NotThere; VerificationFailed if other bytes are; Unavailable.
        """
        data = self._by_digest(digest)
        self._kept.keep(digest, data)
        return describe(data, self._at(digest))

    def tagged(self, tag: str) -> Descriptor | None:
        """Return what a tag names now, by the digest of its bytes, or None.

        Raises: VerificationFailed, Unavailable.
        """
        found = self._get(tag)
        if found is None:
            return None
        descriptor = describe(found.data, f"{self.name}:{tag}")
        self._kept.keep(descriptor.digest, found.data)
        return descriptor

    def tags(self) -> tuple[str, ...]:
        """Return the names of all tags. Raises: VerificationFailed, Inconclusive, Unavailable."""
        return list_tags(self._client, self._limits.lists, f"{self.name}: tags")

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """Return what refers to a manifest: of the API and of the fallback tag (REG-09).

        Raises: VerificationFailed; Inconclusive over a limit; Unavailable.
        """
        where = f"{self.name}: referrers of {subject}"
        listed = list_referrers(self._client, subject, self._limits.lists, where)
        found = self._get(referrers.fallback_tag(subject))
        tag = referrers.listed(found.data, where) if found else ()
        return referrers.union((listed, tag), where)

    def first_listed(self, subject: Digest) -> tuple[Descriptor, ...] | None:
        """Return what clients see that read one page: None where there is no referrers API.

        Raises: VerificationFailed; Inconclusive over a limit; Unavailable.
        """
        return first_page(self._client, subject, f"{self.name}: referrers of {subject}")

    def read_manifest(self, descriptor: Descriptor) -> Manifest:
        """Read an image manifest through its descriptor.

        Raises: VerificationFailed, Inconclusive, Unavailable.
        """
        manifest = parse_manifest(self._described(descriptor), self._at(descriptor.digest))
        if manifest.media_type != descriptor.media_type:
            raise VerificationFailed(
                f"is {manifest.media_type}, its descriptor says {descriptor.media_type}",
                where=self._at(descriptor.digest),
            )
        return manifest

    def read_index(self, descriptor: Descriptor) -> Index:
        """Read an image index through its descriptor.

        Raises: VerificationFailed, Inconclusive, Unavailable.
        """
        return parse_index(self._described(descriptor), self._at(descriptor.digest))

    def read_blob(self, digest: Digest, limit: int, size: int | None = None) -> bytes:
        """Return a blob of at most ``limit`` bytes, checked before it is asked for.

        Raises: VerificationFailed (missing, other bytes, other size), Inconclusive over the
        limit, Unavailable.
        """
        if size is not None and size > limit:
            raise Inconclusive(f"blob of {size} bytes; limit {limit}", where=self._at(digest))
        if size is not None:
            return b"".join(self.stream_blob(digest, size))
        url = self._client.url(f"blobs/{digest}")
        found = self._client.fetch(url, limit=limit, deadline=self._blob_deadline())
        if found is None:
            raise self._missing(digest)
        self._check(digest, found.data)
        return found.data

    def stream_blob(self, digest: Digest, size: int) -> Iterator[bytes]:
        """Yield a blob of any size in chunks; the last one comes only if digest and size agree.

        Raises: VerificationFailed, Unavailable.
        """
        return stream_blob(
            self._client, digest, size, tries=self._limits.tries, deadline=self._blob_deadline()
        )

    def check_blob(self, digest: Digest, size: int) -> None:
        """Hash a blob of any size without keeping it. Raises: like ``stream_blob``."""
        for _ in self.stream_blob(digest, size):
            pass

    def has_blob(self, digest: Digest, size: int) -> bool:
        """Tell whether the registry says that it has a blob. Raises: Unavailable."""
        return self._uploads.has(digest, size)

    def write_blob(self, data: bytes, media_type: str) -> Descriptor:
        """Store bytes under their digest. Raises: Unavailable."""
        digest = Digest.of(data)
        if not self.has_blob(digest, len(data)):
            self._uploads.whole(data, self._blob_deadline())
        return Descriptor(media_type, digest, len(data))

    def receive(self, digest: Digest, size: int, chunks: Iterable[bytes]) -> None:
        """Store a blob of any size from a stream; one that fits in a part goes in one piece.

        ``chunks`` that can be iterated again are, if an upload broke off and cannot be resumed.
        Raises: VerificationFailed if digest or size is another; Unavailable; what ``chunks``
        raises.
        """
        deadline = self._blob_deadline()
        if size > self._limits.part:
            self._uploads.stream(digest, size, chunks, deadline)
            return
        kept = bytearray()
        for chunk in chunks:
            kept += chunk
            if len(kept) > size:
                raise VerificationFailed(f"expected {size} bytes of {digest}, found more")
        check(digest, size, Digest.of(bytes(kept)).hex, len(kept))
        self._uploads.whole(bytes(kept), deadline)

    def mount(self, digest: Digest, source: str) -> bool:
        """Take a blob over from another repository (its path) of the same registry.

        Returns False if the registry declines. Raises: Unavailable.
        """
        return self._uploads.mount(digest, source, self._blob_deadline())

    def write_manifest(
        self, data: bytes, media_type: str, *, tag: str | None = None, listed: bool = True
    ) -> Descriptor:
        """Store a manifest or index whose parts are all there, under its digest and a tag.

        One with a subject is among ``referrers(subject)`` when this returns: where the registry
        does not say that it took care of it, the fallback tag is kept.
        Raises: VerificationFailed if it is not there afterwards; Inconclusive; Unavailable.
        """
        # (1) under its digest, and read back
        digest = Digest.of(data)
        document = _parse(data, media_type, self._at(digest))
        handled = self._put(str(digest), data, media_type).get("OCI-Subject")
        descriptor = self.find(digest)
        # (2) among what refers to its subject
        if document.subject and handled != str(document.subject.digest):
            self._list(document.subject.digest, referrers.entry(document, descriptor))
        # (3) under its tag, and read back
        if tag is not None:
            self._put(tag, data, media_type)
            self._tag_holds(tag, digest)
        return descriptor

    def change_tag(self, tag: str, media_type: str, change: Change) -> Descriptor | None:
        """Read, modify and write what a tag names, and read it again until the change holds.

        Raises: Unavailable if others keep overwriting it; what ``change`` raises.
        """
        changing = TagChange(self._client, tag, media_type, self._limits.tag_seconds, _ACCEPT)
        data = changing.until_it_holds(change)
        return describe(data, f"{self.name}:{tag}") if data is not None else None

    def _list(self, subject: Digest, entry: Descriptor) -> None:
        tag = referrers.fallback_tag(subject)
        where = f"{self.name}:{tag}"
        self.change_tag(tag, INDEX_TYPE, lambda present: referrers.merge(present, entry, where))

    def _tag_holds(self, tag: str, digest: Digest) -> None:
        found: Descriptor | None = None
        for attempt in range(_TAG_READS):
            found = self.tagged(tag)
            if found and found.digest == digest:
                return
            self._client.transport.sleep(self._client.transport.backoff(attempt))
        names = found.digest if found else "nothing"
        raise VerificationFailed(f"names {names}, not {digest}", where=f"{self.name}:{tag}")

    def _put(self, reference: str, data: bytes, media_type: str) -> Mapping[str, str]:
        url = self._client.url(f"manifests/{reference}")
        headers = {"Content-Type": media_type}
        with self._client.send(
            "PUT", url, push=True, headers=headers, body=data, retry=True
        ) as answer:
            if answer.status not in (200, 201):
                raise self._client.unexpected(answer, "the manifest was not taken")
            return answer.headers

    def _get(self, reference: str) -> Fetched | None:
        url = self._client.url(f"manifests/{reference}")
        return self._client.fetch(url, headers=_ACCEPT, limit=MAX_MANIFEST_BYTES)

    def _by_digest(self, digest: Digest) -> bytes:
        found = self._get(str(digest))
        if found is None:
            raise self._missing(digest)
        self._check(digest, found.data)
        return found.data

    def _described(self, descriptor: Descriptor) -> bytes:
        where = self._at(descriptor.digest)
        if descriptor.size > MAX_MANIFEST_BYTES:
            raise Inconclusive(
                f"manifest of {descriptor.size} bytes; limit {MAX_MANIFEST_BYTES}", where=where
            )
        data = self._kept.get(descriptor.digest) or self._by_digest(descriptor.digest)
        if len(data) != descriptor.size:
            raise VerificationFailed(
                f"expected {descriptor.size} bytes, found {len(data)}", where=where
            )
        return data

    def _check(self, digest: Digest, data: bytes) -> None:
        """Hash what came; no header of the registry is asked (REG-02)."""
        found = Digest.of(data)
        if found != digest:
            raise VerificationFailed(f"expected {digest}, found {found}", where=self._at(digest))

    def _missing(self, digest: Digest) -> NotThere:
        return NotThere(f"{digest} is not in {self.name}")

    def _at(self, digest: Digest) -> str:
        return f"{self.name}@{digest}"

    def _blob_deadline(self) -> float:
        return self._client.transport.deadline(self._limits.blob_seconds)


class _Kept:
    """The last manifests that were read, to be read again by digest only: those bytes are those.

    Whether something is there, and what a tag names, is always asked of the registry.
    """

    def __init__(self, count: int = 256, each: int = 64 << 10) -> None:
        """``count``: how many; ``each``: bytes of the largest that is kept."""
        self._count = count
        self._each = each
        self._data: dict[Digest, bytes] = {}
        self._lock = threading.Lock()

    def get(self, digest: Digest) -> bytes | None:
        return self._data.get(digest)

    def keep(self, digest: Digest, data: bytes) -> None:
        if len(data) > self._each:
            return
        with self._lock:
            self._data[digest] = data
            while len(self._data) > self._count:
                del self._data[next(iter(self._data))]


def describe(data: bytes, where: str) -> Descriptor:
    """Describe a manifest or index by its own bytes; what a registry says of it is not asked.

    Raises: VerificationFailed.
    """
    value = shape.parse_object(data, where, limit=MAX_MANIFEST_BYTES)
    usual = INDEX_TYPE if "manifests" in value else MANIFEST_TYPE
    media_type = shape.optional(value, "mediaType", str, where) or usual
    return Descriptor(media_type, Digest.of(data), len(data))


def _parse(data: bytes, media_type: str, where: str) -> Manifest | Index:
    actual = describe(data, where).media_type
    if actual != media_type:
        raise VerificationFailed(f"is {actual[:80]}, not {media_type}", where=where)
    if media_type in INDEX_TYPES:
        return parse_index(data, where)
    return parse_manifest(data, where)
