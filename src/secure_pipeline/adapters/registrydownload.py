"""Blobs from a registry: hashed while they come, resumed where the connection broke (REG-02)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from secure_pipeline.adapters.http import Answer, Cut, shown
from secure_pipeline.adapters.registryclient import RegistryClient
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.oci.digest import Digest

PROGRESS = 1 << 20
"""Bytes after which a broken connection does not count against the tries any more."""


def stream_blob(
    client: RegistryClient, digest: Digest, size: int, *, tries: int, deadline: float
) -> Iterator[bytes]:
    """Yield a blob; the last piece comes only if digest and size are right.

    Raises: VerificationFailed (missing, other bytes, other size); Unavailable.
    """
    hasher, offset, held = hashlib.sha256(), 0, b""
    begun, failures = 0, 0
    while True:
        try:
            for chunk in _rest(client, digest, size, offset, deadline):
                hasher.update(chunk)
                offset += len(chunk)
                if held:
                    yield held
                held = chunk
            if offset == size:
                break
            raise Cut(f"ended after {offset} of {size} bytes", where=_where(client, digest))
        except Cut:
            failures = 1 if offset - begun >= PROGRESS else failures + 1
            begun = offset
            wait = client.transport.backoff(failures)
            if failures >= tries or client.transport.clock.monotonic() + wait >= deadline:
                raise
            client.transport.sleep(wait)
    if hasher.hexdigest() != digest.hex:
        raise VerificationFailed(
            f"expected {digest}, found sha256:{hasher.hexdigest()}", where=_where(client, digest)
        )
    if held:
        yield held


def _rest(
    client: RegistryClient, digest: Digest, size: int, offset: int, deadline: float
) -> Iterator[bytes]:
    """Yield what follows ``offset``, never more than up to ``size``."""
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    url = client.url(f"blobs/{digest}")
    with client.send("GET", url, headers=headers, deadline=deadline) as answer:
        skip = _skip(client, answer, digest, size, offset)
        seen = offset - skip
        for chunk in answer.chunks():
            seen += len(chunk)
            if seen > size:
                raise VerificationFailed(
                    f"expected {size} bytes, found more", where=_where(client, digest)
                )
            wanted = chunk[skip:]
            skip -= len(chunk) - len(wanted)
            if wanted:
                yield wanted


def _skip(client: RegistryClient, answer: Answer, digest: Digest, size: int, offset: int) -> int:
    """Bytes of the answer that are known already, after checking what it announces."""
    where = _where(client, digest)
    if answer.status == 404:
        raise VerificationFailed(f"{digest} is not in {client.place.name}")
    if answer.status == 200:
        if answer.length not in (None, size):
            raise VerificationFailed(f"expected {size} bytes, found {answer.length}", where=where)
        return offset
    if answer.status == 206 and offset:
        said = answer.headers.get("Content-Range", "")
        if re.fullmatch(rf"bytes {offset}-[0-9]+/({size}|\*)", said):
            return 0
        raise VerificationFailed(f"sent {said[:60]!r}, not what follows {offset}", where=where)
    if answer.status == 416:
        raise VerificationFailed(f"expected {size} bytes, found at most {offset}", where=where)
    raise client.unexpected(answer, f"blob {digest} cannot be read")


def _where(client: RegistryClient, digest: Digest) -> str:
    return shown(client.url(f"blobs/{digest}"))
