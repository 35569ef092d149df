"""Reads the names of a bbolt file's buckets, to know what a vulnerability database covers.

A scanner finds nothing in a database that has no advisories for the image's system and
says nothing about it, so the names are read from the file itself. Format: bbolt v1
(page header 16 bytes; meta, branch and leaf pages), little endian.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from secure_pipeline.errors import Inconclusive

MAX_BUCKETS = 10_000
MAX_DEPTH = 16
_MAGIC = 0xED0CDAED
_VERSION = 2
_PAGE_SIZES = (4096, 8192, 16384, 32768, 65536)
_PAGE = struct.Struct("<QHHI")
_META = struct.Struct("<IIIIQQQQQQ")
_LEAF = struct.Struct("<IIII")
_BRANCH = struct.Struct("<IIQ")
_IS_BRANCH, _IS_LEAF = 1, 2
_IS_BUCKET = 1


def bucket_names(path: Path) -> frozenset[str]:
    """Return the names of the top-level buckets.

    Raises: Inconclusive if the file is missing or is no sound bbolt file.
    """
    try:
        with path.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        with closing(mapped):
            return frozenset(_Reader(mapped).buckets())
    except (OSError, ValueError, struct.error, IndexError) as error:
        raise Inconclusive(f"not a bbolt database: {error}", where=str(path)) from None


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.page_size, self.root = self._meta()
        self.seen = 0

    def _meta(self) -> tuple[int, int]:
        """Page size and root page of the newer of the two meta pages whose checksum holds."""
        best: tuple[int, int, int] | None = None
        for size in _PAGE_SIZES:
            for start in (_PAGE.size, size + _PAGE.size):
                if start + _META.size > len(self.data):
                    continue
                raw = self.data[start : start + _META.size]
                magic, version, page, _, root, _, _, _, transaction, check = _META.unpack(raw)
                sound = (magic, version, page) == (_MAGIC, _VERSION, size) and check == _fnv(raw)
                if sound and (best is None or transaction > best[0]):
                    best = (transaction, size, root)
        if best is None:
            raise ValueError("no valid meta page")
        return best[1:]

    def buckets(self) -> Iterator[str]:
        for flags, name in self._elements(self.root, 0):
            self.seen += 1
            if self.seen > MAX_BUCKETS:
                raise ValueError(f"more than {MAX_BUCKETS} buckets")
            if flags & _IS_BUCKET:
                yield name.decode("utf-8")

    def _elements(self, page: int, depth: int) -> Iterator[tuple[int, bytes]]:
        if depth > MAX_DEPTH:
            raise ValueError("pages nested too deep")
        start = page * self.page_size
        _, kind, count, _ = _PAGE.unpack_from(self.data, start)
        for number in range(count):
            at = start + _PAGE.size + 16 * number
            if kind == _IS_LEAF:
                flags, position, key_size, _ = _LEAF.unpack_from(self.data, at)
                yield flags, self._key(at + position, key_size)
            elif kind == _IS_BRANCH:
                yield from self._elements(_BRANCH.unpack_from(self.data, at)[2], depth + 1)
            else:
                raise ValueError(f"page {page} is of kind {kind}")

    def _key(self, start: int, size: int) -> bytes:
        key = self.data[start : start + size]
        if len(key) != size:
            raise ValueError("a key lies outside the file")
        return key


def _fnv(meta: bytes) -> int:
    """FNV-1a, 64 bits, over the meta page without its checksum."""
    value = 0xCBF29CE484222325
    for byte in meta[:-8]:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value
