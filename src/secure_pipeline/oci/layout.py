"""An OCI image layout directory: content by digest, and index.json as its commit point.

Content is hashed whenever it is read (REG-02). No symbolic link below the layout is
followed, neither for reading nor for writing (REG-14).
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from secure_pipeline import files, shape
from secure_pipeline.errors import Inconclusive, Unavailable, UsageError, VerificationFailed
from secure_pipeline.oci.blobfile import incoming, open_plain
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.indexedit import IndexEdit, under_tag
from secure_pipeline.oci.manifest import (
    INDEX_TYPE,
    MANIFEST_TYPES,
    MAX_MANIFEST_BYTES,
    Descriptor,
    Index,
    Manifest,
    parse_index,
    parse_manifest,
)
from secure_pipeline.oci.store import Change, NotThere

_LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
_CHUNK = 1 << 20


class Layout:
    """A layout on disk; open one with ``open`` or ``create``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """The directory."""
        return str(self.path)

    @property
    def remote(self) -> bool:
        """On this machine."""
        return False

    @classmethod
    def open(cls, path: Path) -> Layout:
        """Open an existing layout.

        Raises: UsageError if ``path`` is none, VerificationFailed if it is malformed.
        """
        layout = cls(path)
        if not (path / "oci-layout").is_file():
            raise UsageError(
                "not an OCI layout", where=str(path), hint="give the directory that build wrote"
            )
        marker = shape.parse_object(
            layout._read_file("oci-layout", 4096), layout._at("oci-layout"), limit=4096
        )
        if marker.get("imageLayoutVersion") != "1.0.0":
            raise VerificationFailed("unknown layout version", where=layout._at("oci-layout"))
        layout._require_plain_directories()
        layout.manifests()
        return layout

    @classmethod
    def create(cls, path: Path) -> Layout:
        """Open a layout, making an empty one first where there is none.

        Raises: Unavailable if the disk refuses; like ``open`` otherwise.
        """
        try:
            (path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"cannot write: {error.strerror}", where=str(path)) from error
        layout = cls(path)
        layout._require_plain_directories()
        with files.locked_directory(path):
            if not os.path.lexists(path / "index.json"):
                layout._write_index([])
            if not os.path.lexists(path / "oci-layout"):
                files.write_atomic(path / "oci-layout", _LAYOUT_FILE)
        return cls.open(path)

    def manifests(self) -> tuple[Descriptor, ...]:
        """Return what index.json lists, in its order.

        Raises: VerificationFailed.
        """
        return parse_index(self._index_bytes(), self._at("index.json")).manifests

    def find(self, digest: Digest) -> Descriptor:
        """Return the descriptor of a listed image.

        Raises: NotThere; VerificationFailed if it is listed with two sizes or types.
        """
        found = [item for item in self.manifests() if item.digest == digest]
        if not found:
            raise NotThere(f"{digest} is not in the layout", where=str(self.path))
        if len({(item.media_type, item.size) for item in found}) != 1:
            raise VerificationFailed(f"{digest} is listed in two ways", where=str(self.path))
        return found[0]

    def tagged(self, tag: str) -> Descriptor | None:
        """Return the descriptor listed under a tag, or None.

        Raises: VerificationFailed if two are.
        """
        return under_tag(self.manifests(), tag, self._at("index.json"))

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """Return the listed manifests whose subject is this digest, each once.

        Raises: VerificationFailed, Inconclusive.
        """
        return self.referrers_among(self.manifests(), subject)

    def referrers_among(
        self, entries: Iterable[Descriptor], subject: Digest
    ) -> tuple[Descriptor, ...]:
        """Return which of these entries have this subject: their manifests tell."""
        listed = {
            item.digest: item
            for item in entries
            if item.media_type in MANIFEST_TYPES and item.digest != subject
        }
        return tuple(item for item in listed.values() if self._refers(item, subject))

    def _refers(self, descriptor: Descriptor, subject: Digest) -> bool:
        found = self.read_manifest(descriptor).subject
        return found is not None and found.digest == subject

    def read_blob(self, digest: Digest, limit: int, size: int | None = None) -> bytes:
        """Return a blob's bytes after checking their digest, and size where one is given.

        Raises: VerificationFailed (missing, altered), Inconclusive if over ``limit`` bytes.
        """
        parts = []
        with self._open_blob(digest) as stream:
            actual = os.fstat(stream.fileno()).st_size
            if max(actual, size or 0) > limit:
                raise Inconclusive(
                    f"blob of {max(actual, size or 0)} bytes; limit {limit}", where=str(digest)
                )
            for chunk in self._hashed(stream, digest, size):
                parts.append(chunk)
        return b"".join(parts)

    def check_blob(self, digest: Digest, size: int) -> None:
        """Hash a blob of any size without keeping it.

        Raises: VerificationFailed naming expected and found digest or size.
        """
        for _ in self.stream_blob(digest, size):
            pass

    def stream_blob(self, digest: Digest, size: int) -> Iterator[bytes]:
        """Yield a blob's bytes; raises before the end if digest or size are others."""
        with self._open_blob(digest) as stream:
            yield from self._hashed(stream, digest, size)

    def has_blob(self, digest: Digest, size: int) -> bool:
        """Tell whether a blob is there and whole: every byte is hashed."""
        try:
            self.check_blob(digest, size)
        except VerificationFailed:
            return False
        return True

    def read_manifest(self, descriptor: Descriptor) -> Manifest:
        """Read an image manifest through its descriptor.

        Raises: VerificationFailed, Inconclusive.
        """
        data = self.read_blob(descriptor.digest, MAX_MANIFEST_BYTES, descriptor.size)
        manifest = parse_manifest(data, str(descriptor.digest))
        if manifest.media_type != descriptor.media_type:
            raise VerificationFailed(
                f"is {manifest.media_type}, its descriptor says {descriptor.media_type}",
                where=str(descriptor.digest),
            )
        return manifest

    def read_index(self, descriptor: Descriptor) -> Index:
        """Read an image index through its descriptor.

        Raises: VerificationFailed, Inconclusive.
        """
        data = self.read_blob(descriptor.digest, MAX_MANIFEST_BYTES, descriptor.size)
        return parse_index(data, str(descriptor.digest))

    def write_blob(self, data: bytes, media_type: str) -> Descriptor:
        """Store bytes under their digest; an altered blob in that place is replaced.

        Raises: Unavailable if the disk refuses.
        """
        digest = Digest.of(data)
        self._require_plain_directories()
        if not self.has_blob(digest, len(data)):
            files.write_atomic(self._blob_path(digest), data)
        return Descriptor(media_type, digest, len(data))

    def receive(self, digest: Digest, size: int, chunks: Iterable[bytes]) -> None:
        """Store a blob from a stream that must have this digest and size.

        Raises: like ``store``.
        """
        self.store(chunks, digest, size)

    def store(
        self, chunks: Iterable[bytes], digest: Digest | None = None, size: int | None = None
    ) -> Digest:
        """Store a blob from a stream, hashing what is written; return its digest.

        Raises: VerificationFailed if digest or size are others; Unavailable if the disk refuses.
        """
        self._require_plain_directories()
        with incoming(self.path / "blobs" / "sha256") as (stream, temporary):
            hasher = hashlib.sha256()
            for chunk in chunks:
                hasher.update(chunk)
                stream.write(chunk)
            found = Digest(hasher.hexdigest())
            if digest not in (None, found) or size not in (None, stream.tell()):
                expected = f"{digest or found} of {stream.tell() if size is None else size} bytes"
                raise VerificationFailed(
                    f"expected {expected}, found {found} of {stream.tell()} bytes", where=self.name
                )
            files.publish(stream, temporary, self._blob_path(found))
        return found

    def write_manifest(
        self, data: bytes, media_type: str, *, tag: str | None = None, listed: bool = True
    ) -> Descriptor:
        """Store a manifest; list it, as a referrer if it has a subject, and under a tag.

        Raises: VerificationFailed if it is malformed; Unavailable.
        """
        descriptor = self.write_blob(data, media_type)
        declared = shape.parse_object(data, str(descriptor.digest), limit=MAX_MANIFEST_BYTES)
        if declared.get("mediaType", media_type) != media_type:
            raise VerificationFailed(f"is not {media_type}", where=str(descriptor.digest))
        with self.edit() as edit:
            if listed:
                edit.add(self.listed(descriptor, data))
            if tag:
                edit.replace(tag, descriptor)
        return descriptor

    @staticmethod
    def listed(descriptor: Descriptor, data: bytes) -> Descriptor:
        """Return the entry of a manifest in index.json: that of a referrer says what it is.

        Raises: VerificationFailed.
        """
        if descriptor.media_type not in MANIFEST_TYPES:
            return descriptor
        manifest = parse_manifest(data, str(descriptor.digest))
        if manifest.subject is None:
            return descriptor
        return replace(descriptor, artifact_type=manifest.kind, annotations=manifest.annotations)

    def change_tag(self, tag: str, media_type: str, change: Change) -> Descriptor | None:
        """Read, modify and write what a tag names, while other writers wait.

        Raises: VerificationFailed, Unavailable; what ``change`` raises.
        """
        with self.edit() as edit:
            present = edit.tagged(tag)
            data = change(
                self.read_blob(present.digest, MAX_MANIFEST_BYTES, present.size)
                if present
                else None
            )
            if data is not None:
                edit.replace(tag, self.write_blob(data, media_type))
            return edit.tagged(tag)

    def add_manifest(self, descriptor: Descriptor) -> None:
        """List a manifest in index.json; one that is listed the same way stays once.

        Raises: VerificationFailed, Unavailable.
        """
        with self.edit() as edit:
            edit.add(descriptor)

    def replace(self, tag: str, descriptor: Descriptor) -> None:
        """List a manifest under a tag, in place of what was there.

        Raises: VerificationFailed, Unavailable.
        """
        with self.edit() as edit:
            edit.replace(tag, descriptor)

    @contextmanager
    def edit(self) -> Iterator[IndexEdit]:
        """Change index.json in one step; writers wait for each other (SIG-29).

        Whatever is read inside is still true when the change is written. Nothing is
        written if the block raises.
        """
        with files.locked_directory(self.path):
            where = self._at("index.json")
            data = self._index_bytes()
            edit = IndexEdit(parse_index(data, where), where)
            yield edit
            if edit.changed:
                self._write_index(edit.entries, shape.parse_object(data, where, limit=len(data)))

    def _at(self, name: str) -> str:
        return str(self.path / name)

    def _blob_path(self, digest: Digest) -> Path:
        return self.path / "blobs" / "sha256" / digest.hex

    def _index_bytes(self) -> bytes:
        return self._read_file("index.json", MAX_MANIFEST_BYTES)

    def _write_index(
        self, entries: list[Descriptor], base: dict[str, object] | None = None
    ) -> None:
        document = {"schemaVersion": 2, "mediaType": INDEX_TYPE, **(base or {})}
        document["manifests"] = [entry.to_json() for entry in entries]
        data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        if len(data) > MAX_MANIFEST_BYTES:
            raise Inconclusive(
                f"index.json would exceed {MAX_MANIFEST_BYTES} bytes",
                where=str(self.path),
                hint="start a new layout",
            )
        files.write_atomic(self.path / "index.json", data)

    def _require_plain_directories(self) -> None:
        for name in ("blobs", "blobs/sha256"):
            if not stat.S_ISDIR(self._lstat(self.path / name)):
                raise VerificationFailed("not a directory of the layout", where=self._at(name))

    def _lstat(self, path: Path) -> int:
        try:
            return path.lstat().st_mode
        except OSError as error:
            raise VerificationFailed(f"{error.strerror}", where=str(path)) from None

    def _read_file(self, name: str, limit: int) -> bytes:
        with open_plain(self.path / name) as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise Inconclusive(f"larger than {limit} bytes", where=self._at(name))
        return data

    def _open_blob(self, digest: Digest) -> BinaryIO:
        self._require_plain_directories()
        return open_plain(self._blob_path(digest))

    def _hashed(self, stream: BinaryIO, digest: Digest, size: int | None) -> Iterator[bytes]:
        """Yield chunks; raise at the end unless digest and size are the expected ones."""
        where = str(self._blob_path(digest))
        actual = os.fstat(stream.fileno()).st_size
        if size is not None and actual != size:
            raise VerificationFailed(f"expected {size} bytes, found {actual}", where=where)
        hasher = hashlib.sha256()
        remaining = actual
        while remaining and (chunk := stream.read(min(_CHUNK, remaining))):
            remaining -= len(chunk)
            hasher.update(chunk)
            yield chunk
        if hasher.hexdigest() != digest.hex:
            raise VerificationFailed(
                f"expected {digest}, found sha256:{hasher.hexdigest()}", where=where
            )
