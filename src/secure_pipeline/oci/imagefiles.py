"""Plain files out of an image of a layout, each proven from the image's digest to its own bytes.

Only what every engine would see in the same way is taken: no link, no hard link, no sparse file,
nothing below a directory that is a link in some layer, no path that a layer has twice or both
adds and removes. What looks like a manifest is refused: signed by its digest it could pass for
the image that it names.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from secure_pipeline.errors import FindingsOverGate, Inconclusive, Unavailable, VerificationFailed
from secure_pipeline.files import CHUNK_BYTES, publish, sha256_bytes
from secure_pipeline.globs import matches
from secure_pipeline.oci.blobfile import incoming
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.history import unpacked
from secure_pipeline.oci.image import Image, read_image
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import INDEX_TYPES, MAX_MANIFEST_BYTES
from secure_pipeline.oci.rootfs import (
    WHITEOUT,
    Budget,
    Counted,
    Entry,
    Files,
    Kind,
    Layer,
    parents,
    read_layer,
    stacked,
    with_directories,
)

MAX_FILES = 256
MAX_FILE_BYTES = 1 << 30
"""Of one file."""
MAX_TOTAL_BYTES = 4 << 30
"""Of all files, those that a later layer replaces too."""
MAX_PLATFORMS = 16
BUNDLE_SUFFIX = ".sigstore.json"
_PATH = re.compile(r"(?:/[A-Za-z0-9._+!~@=-]+)+")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+!~@=-]{0,199}")


class FilesRefused(FindingsOverGate):
    """The image does not hold the files that were asked for, or not as plain files."""


@dataclass(frozen=True, order=True)
class ImageFile:
    """One plain file; its name alone is safe as the name of a file anywhere."""

    path: str
    """Absolute, in the image."""
    digest: Digest
    size: int

    def __post_init__(self) -> None:
        """Raises: VerificationFailed."""
        plain = _PATH.fullmatch(self.path) and posixpath.normpath(self.path) == self.path
        if not plain or not _NAME.fullmatch(self.name):
            raise VerificationFailed(f"{self.path[:200]!r} is no name for a file to sign")
        if self.name.endswith(BUNDLE_SUFFIX):
            raise VerificationFailed(f"{self.name[:200]!r} would be taken for a signature")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.path)

    def to_json(self) -> dict[str, Any]:
        """As the result of a build names it."""
        return {"path": self.path, "digest": str(self.digest), "size": self.size}


def take_files(
    layout: Layout, image: Digest, patterns: Sequence[str], into: Path | None = None
) -> tuple[ImageFile, ...]:
    """Return the plain files whose paths match, sorted by path; each pattern must match some.

    ``image`` is a manifest, or an index, whose images must then agree. ``*`` and ``?`` stay inside
    one name, ``**`` crosses directories. ``into`` is an empty directory that gets their content
    under their names; after an error it may hold anything.
    Raises: FilesRefused; VerificationFailed if a byte is not what its digest says; Inconclusive
    over a limit or for a layer that cannot be read; Unavailable.
    """
    descriptor = layout.find(image)
    listed = [descriptor]
    if descriptor.media_type in INDEX_TYPES:
        listed = list(layout.read_index(descriptor).manifests)
    if not 0 < len(listed) <= MAX_PLATFORMS:
        raise Inconclusive(f"{len(listed)} images; files are taken out of 1 to {MAX_PLATFORMS}")
    first, *others = (read_image(layout, item) for item in listed)
    files = _Picker(patterns, into).files(layout, first)
    if any(_Picker(patterns, None).files(layout, other) != files for other in others):
        raise FilesRefused("the files differ between the platforms", where=str(image))
    if into:
        _name(into, files)
    return files


def _name(into: Path, files: Sequence[ImageFile]) -> None:
    """Give contents that were put aside the names of the files, and drop all others."""
    try:
        for file in files:
            os.replace(into / _aside(file.path.lstrip("/")), into / file.name)
        for name in {path.name for path in into.iterdir()} - {file.name for file in files}:
            (into / name).unlink()
    except OSError as error:
        raise Unavailable(f"cannot write: {error.strerror}", where=str(into)) from error


def _aside(path: str) -> str:
    """Where a path's content lies until it is known whether it stays; no file's name."""
    return f".{sha256_bytes(path.encode('utf-8', 'surrogateescape'))}"


class _Picker:
    """The files of one image."""

    def __init__(self, patterns: Sequence[str], into: Path | None) -> None:
        self._patterns = patterns
        self._into = into
        self._sizes: dict[str, int] = {}
        """By the hex digest."""
        self._total = 0

    def files(self, layout: Layout, image: Image) -> tuple[ImageFile, ...]:
        """Read all layers from the lowest; what the last one leaves is what counts."""
        files: Files = {}
        budget = Budget()
        for descriptor, diff_id in zip(image.manifest.layers, image.diff_ids, strict=True):
            where = str(descriptor.digest)
            chunks = layout.stream_blob(descriptor.digest, descriptor.size)
            stream = unpacked(io.BufferedReader(_Chunks(chunks)), descriptor.media_type, where)
            counted = Counted(stream, budget)
            try:
                layer = read_layer(counted, budget, where, self._entry)
                digest = counted.finish()
            except (OSError, EOFError, zlib.error) as error:
                raise VerificationFailed(f"cannot be unpacked: {error}", where=where) from None
            if digest != diff_id.hex:
                raise VerificationFailed(
                    f"unpacks to sha256:{digest}, the configuration says {diff_id}", where=where
                )
            self._check_layer(files, layer)
            files = stacked(files, layer)
        return self._chosen(with_directories(files))

    def _chosen(self, files: Files) -> tuple[ImageFile, ...]:
        """The plain files among what matches. Raises: FilesRefused."""
        paths = sorted(path for path in files if self._wanted(path))
        chosen: list[ImageFile] = []
        for path in paths:
            entry = files[path]
            if entry.kind is Kind.DIRECTORY:
                continue
            if entry.kind is not Kind.FILE:
                raise FilesRefused(f"/{path} is no plain file: {entry.kind.value}")
            if any(files[parent].kind is not Kind.DIRECTORY for parent in parents(path)):
                raise FilesRefused(f"/{path} lies below something that is no directory")
            try:
                size = self._sizes[entry.code]
                chosen.append(ImageFile(f"/{path}", Digest(entry.code), size))
            except VerificationFailed as error:
                raise FilesRefused(error.message) from None
        for pattern in self._patterns:
            if not any(matches(file.path, pattern) for file in chosen):
                raise FilesRefused(f"no file of the image matches {pattern}")
        if len(chosen) > MAX_FILES:
            raise Inconclusive(f"{len(chosen)} files of the image match; the limit is {MAX_FILES}")
        if len({file.name for file in chosen}) != len(chosen):
            raise FilesRefused("two files that match have one name")
        return tuple(chosen)

    def _check_layer(self, below: Files, layer: Layer) -> None:
        """Refuse what engines put on top of each other in different ways."""
        for path in filter(self._wanted, layer.files):
            up = list(parents(path))
            if not layer.removed.isdisjoint((path, *up)):
                raise FilesRefused(f"one layer both adds and removes /{path}")
            for parent in up:
                here, under = layer.files.get(parent), below.get(parent)
                if under and under.kind is not Kind.DIRECTORY and here is None:
                    raise FilesRefused(f"/{path} is added below /{parent}, which is no directory")

    def _wanted(self, path: str) -> bool:
        return any(matches(f"/{path}", pattern) for pattern in self._patterns)

    def _entry(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, known: Files, path: str
    ) -> Entry:
        if member.isdir():
            return Entry(Kind.DIRECTORY)
        if member.issym():
            return Entry(Kind.LINK, target=member.linkname)
        whiteout = posixpath.basename(path).startswith(WHITEOUT)
        if whiteout or not self._wanted(path):
            return Entry(Kind.FILE if member.isreg() else Kind.OTHER)
        if path in known:
            raise FilesRefused(f"one layer has /{path} twice")
        above = (known[parent] for parent in parents(path) if parent in known)
        if any(entry.kind is not Kind.DIRECTORY for entry in above):
            raise FilesRefused(f"/{path} lies below something that is no directory")
        if not member.isreg() or member.issparse():
            return Entry(Kind.OTHER)
        content = cast(IO[bytes], archive.extractfile(member))
        return Entry(Kind.FILE, code=self._take(path, member.size, content))

    def _take(self, path: str, size: int, content: IO[bytes]) -> str:
        """Put a file's content aside and return its hex digest."""
        where = f"/{path[:200]}"
        self._total += size
        if size > MAX_FILE_BYTES or self._total > MAX_TOTAL_BYTES:
            limits = f"a file to sign has at most {MAX_FILE_BYTES} bytes, all {MAX_TOTAL_BYTES}"
            raise Inconclusive(limits, where=where)
        if size <= MAX_MANIFEST_BYTES:
            data = content.read()
            if _like_a_manifest(data):
                raise FilesRefused("looks like an image's manifest", where=where)
            content = io.BytesIO(data)
        hasher = hashlib.sha256()
        with incoming(self._into) if self._into else nullcontext() as new:
            while chunk := content.read(CHUNK_BYTES):
                hasher.update(chunk)
                if new:
                    new[0].write(chunk)
            if new and self._into:
                publish(*new, self._into / _aside(path))
        self._sizes[hasher.hexdigest()] = size
        return hasher.hexdigest()


class _Chunks(io.RawIOBase):
    """Chunks as a stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill at most the buffer; 0 at the end. Raises: what the chunks raise."""
        self._left = self._left or memoryview(next(self._chunks, b""))
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


def _like_a_manifest(data: bytes) -> bool:
    """Whether some reader of JSON could see a manifest or an index in it; Go ignores case."""
    if not data.lstrip(b" \t\r\n").startswith(b"{"):
        return False
    try:
        value = json.loads(data.decode("utf-8", "replace"), parse_int=float)
    except RecursionError:
        return True
    except ValueError:
        return False
    names = {name.casefold() for name in value}
    return {"config", "layers"} <= names or not names.isdisjoint({"manifests", "fslayers"})
