"""Writes the smallest bbolt file that has the given top-level buckets."""

from __future__ import annotations

import struct
from collections.abc import Sequence

PAGE = 4096


def bolt_file(buckets: Sequence[str], *, branch: bool = False) -> bytes:
    """Two meta pages, a free list and the buckets on one leaf, below a branch if asked."""
    leaf_page = 4 if branch else 3
    leaf = _leaf(leaf_page, sorted(buckets))
    pages = [_meta(0, 3, 0), _meta(1, 3, 1), _page(2, 0x10, 0, b"")]
    if branch:
        key = sorted(buckets)[0].encode()
        pages.append(_page(3, 1, 1, struct.pack("<IIQ", 16, len(key), leaf_page) + key))
    return b"".join(pages) + leaf


def _leaf(number: int, names: Sequence[str]) -> bytes:
    value = struct.pack("<QQ", 0, 0) + struct.pack("<QHHI", 0, 2, 0, 0)
    heads, data = b"", b""
    for index, name in enumerate(names):
        key = name.encode()
        position = 16 * (len(names) - index) + len(data)
        heads += struct.pack("<IIII", 1, position, len(key), len(value))
        data += key + value
    return _page(number, 2, len(names), heads + data)


def _page(number: int, kind: int, count: int, body: bytes) -> bytes:
    return (struct.pack("<QHHI", number, kind, count, 0) + body).ljust(PAGE, b"\0")


def _meta(number: int, root: int, transaction: int) -> bytes:
    body = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, PAGE, 0, root, 0, 2, 5, transaction)
    value = 0xCBF29CE484222325
    for byte in body:
        value = ((value ^ byte) * 0x100000001B3) % (1 << 64)
    return _page(number, 4, 0, body + struct.pack("<Q", value))
