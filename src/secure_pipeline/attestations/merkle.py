"""Merkle trees of RFC 9162 section 2.1: SHA-256, leaves and nodes in separate domains.

The prefixes 0x00 and 0x01 keep an inner node from being passed off as a leaf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

ALGORITHM = "rfc9162-sha256"


def leaf_hash(data: bytes) -> bytes:
    """Hash one leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Return the tree head over the leaves' data; of none, the hash of nothing."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    return _root([leaf_hash(leaf) for leaf in leaves])


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the audit path of a leaf, nearest sibling first (section 2.1.3.1).

    Raises: IndexError if there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"no leaf {index} among {len(leaves)}")
    hashes = [leaf_hash(leaf) for leaf in leaves]
    path: list[bytes] = []
    while len(hashes) > 1:
        split = _split(len(hashes))
        if index < split:
            path.append(_root(hashes[split:]))
            hashes = hashes[:split]
        else:
            path.append(_root(hashes[:split]))
            hashes = hashes[split:]
            index -= split
    return tuple(reversed(path))


def verify_inclusion(
    data: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes
) -> bool:
    """Tell whether ``data`` is leaf ``index`` of the tree of ``size`` leaves (2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last, value = index, size - 1, leaf_hash(data)
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            value = _node(sibling, value)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            value = _node(value, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and value == expected


def _root(hashes: list[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    split = _split(len(hashes))
    return _node(_root(hashes[:split]), _root(hashes[split:]))


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """Return the largest power of two below ``size``."""
    return 1 << ((size - 1).bit_length() - 1)
