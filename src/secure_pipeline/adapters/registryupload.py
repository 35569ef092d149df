"""Blobs into a registry: whole when small, else in parts that are resumed (distribution 1.1)."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlencode

from secure_pipeline.adapters.http import Answer, Cut, shown
from secure_pipeline.adapters.registryclient import RegistryClient
from secure_pipeline.errors import Unavailable, VerificationFailed
from secure_pipeline.oci.digest import Digest

MAX_PART = 64 << 20
"""Bytes: the largest part that a registry may demand."""
_CANCEL_SECONDS = 10.0
_OCTETS = {"Content-Type": "application/octet-stream"}
_TAKEN = (202, 204)
"""204 is what some registries said before 1.1."""
_BUSY = (408, 416, 429, 500, 502, 503, 504)


class Lost(Unavailable):
    """An upload broke off, and the registry does not say how much of it arrived."""


class Uploads:
    """Uploads into one repository."""

    def __init__(self, client: RegistryClient, *, part: int, tries: int) -> None:
        self._client = client
        self._part = part
        self._tries = tries

    def has(self, digest: Digest, size: int, deadline: float | None = None) -> bool:
        """Whether the registry says that it has a blob of this size. Raises: Unavailable."""
        url = self._client.url(f"blobs/{digest}")
        with self._client.send("HEAD", url, deadline=deadline) as answer:
            if answer.status == 404:
                return False
            if answer.status != 200:
                raise self._client.unexpected(answer, f"cannot ask for blob {digest}")
            return answer.length in (None, size)

    def whole(self, data: bytes, deadline: float) -> Digest:
        """Send a small blob in one piece, again where that failed. Raises: Unavailable."""
        digest = Digest.of(data)
        for attempt in range(self._tries):
            try:
                url, _ = self._begin(deadline)
                with self._put(url, digest, data, deadline) as answer:
                    if answer.status == 201:
                        return digest
                    failure = self._client.unexpected(answer, f"blob {digest} was not taken")
                    if answer.status not in (*_BUSY, 404):
                        raise failure
            except Cut as error:
                failure = error
            self._pause(attempt, failure, deadline)
            if self.has(digest, len(data), deadline):
                return digest
        raise failure

    def stream(self, digest: Digest, size: int, chunks: Iterable[bytes], deadline: float) -> None:
        """Send a blob in parts, never holding more than one.

        An upload that broke off is resumed. Where the registry cannot do that, it is begun
        anew if ``chunks`` can be iterated again (it is no iterator).
        Raises: VerificationFailed if digest or size is another; Lost; Unavailable; what
        ``chunks`` raises.
        """
        for attempt in range(self._tries):
            try:
                self._stream(digest, size, iter(chunks), deadline)
                return
            except Lost as error:
                if iter(chunks) is chunks or attempt == self._tries - 1:
                    raise
                self._pause(attempt, error, deadline)

    def _stream(self, digest: Digest, size: int, chunks: Iterator[bytes], deadline: float) -> None:
        url, least = self._begin(deadline)
        hasher, sent = hashlib.sha256(), 0
        try:
            for part in _parts(chunks, max(self._part, least)):
                hasher.update(part)
                if sent + len(part) > size:
                    raise VerificationFailed(f"expected {size} bytes of {digest}, found more")
                url = self._send(url, sent, part, deadline)
                sent += len(part)
            check(digest, size, hasher.hexdigest(), sent)
        except BaseException:
            self._cancel(url)
            raise
        self._finish(url, digest, size, deadline)

    def mount(self, digest: Digest, source: str, deadline: float) -> bool:
        """Take a blob over from another repository of the registry; False if it declines.

        Raises: Unavailable.
        """
        query = urlencode({"mount": str(digest), "from": source})
        also = (f"repository:{source}:pull",)
        with self._post(query, deadline, also) as answer:
            if answer.status == 201:
                return True
            if answer.status != 202:
                raise self._client.unexpected(answer, f"blob {digest} was not mounted")
            url = self._location(answer)
        self._cancel(url)
        return False

    def _begin(self, deadline: float) -> tuple[str, int]:
        """Start an upload: where to send it, and the least bytes of a part."""
        with self._post("", deadline) as answer:
            if answer.status != 202:
                raise self._client.unexpected(answer, "no upload could be started")
            text = answer.headers.get("OCI-Chunk-Min-Length", "0")
            least = int(text) if re.fullmatch(r"[0-9]{1,18}", text) else 0
            if least > MAX_PART:
                raise Unavailable(
                    f"wants parts of {least} bytes; limit {MAX_PART}", where=shown(answer.url)
                )
            return self._location(answer), least

    def _post(self, query: str, deadline: float, also: tuple[str, ...] = ()) -> Answer:
        url = self._client.url("blobs/uploads/") + (f"?{query}" if query else "")
        return self._client.send("POST", url, push=True, also=also, deadline=deadline, retry=True)

    def _put(self, url: str, digest: Digest, data: bytes, deadline: float) -> Answer:
        whole = f"{url}{'&' if '?' in url else '?'}{urlencode({'digest': str(digest)})}"
        return self._client.send(
            "PUT", whole, push=True, headers=_OCTETS, body=data, deadline=deadline
        )

    def _send(self, url: str, start: int, part: bytes, deadline: float) -> str:
        """Send one part and return where the next one goes."""
        offset, end = start, start + len(part)
        for attempt in range(self._tries):
            headers = {**_OCTETS, "Content-Range": f"{offset}-{end - 1}"}
            failure: Unavailable
            try:
                body = part[offset - start :]
                with self._client.send(
                    "PATCH", url, push=True, headers=headers, body=body, deadline=deadline
                ) as answer:
                    if answer.status in _TAKEN and _received(answer, end) in (None, end):
                        return self._location(answer)
                    failure = self._client.unexpected(answer, "a part was not taken")
                    if answer.status not in (*_TAKEN, *_BUSY):
                        raise failure
            except Cut as error:
                failure = error
            self._pause(attempt, failure, deadline)
            url, offset = self._status(url, start, end, failure, deadline)
            if offset == end:
                return url
        raise failure

    def _status(
        self, url: str, start: int, end: int, failure: Unavailable, deadline: float
    ) -> tuple[str, int]:
        """Ask how much of an upload arrived, after a failure."""
        with self._client.send("GET", url, push=True, deadline=deadline) as answer:
            offset = _received(answer, end) if answer.status in (200, 204) else None
            if offset is None or not start <= offset <= end:
                raise Lost(
                    f"an upload broke off ({failure.message}) and cannot be resumed",
                    where=failure.where,
                    hint="run it again",
                ) from failure
            moved = self._location(answer) if answer.headers.get("Location") else url
            return moved, offset

    def _finish(self, url: str, digest: Digest, size: int, deadline: float) -> None:
        for attempt in range(self._tries):
            try:
                with self._put(url, digest, b"", deadline) as answer:
                    if answer.status == 201:
                        return
                    failure = self._client.unexpected(answer, f"blob {digest} was not taken")
                    if answer.status not in (*_BUSY, 404):
                        raise failure
            except Cut as error:
                failure = error
            self._pause(attempt, failure, deadline)
            if self.has(digest, size, deadline):
                return
        raise failure

    def _pause(self, attempt: int, failure: Unavailable, deadline: float) -> None:
        wait = self._client.transport.backoff(attempt)
        if self._client.transport.clock.monotonic() + wait >= deadline:
            raise failure
        self._client.transport.sleep(wait)

    def _cancel(self, url: str) -> None:
        """Tell the registry to forget an upload; it would do so by itself in time."""
        with contextlib.suppress(Unavailable):
            deadline = self._client.transport.deadline(_CANCEL_SECONDS)
            self._client.send("DELETE", url, push=True, deadline=deadline).close()

    def _location(self, answer: Answer) -> str:
        location = answer.headers.get("Location")
        if not location:
            raise Unavailable("told no place to upload to", where=shown(answer.url))
        return self._client.transport.join(answer.url, location)


def check(digest: Digest, size: int, found: str, length: int) -> None:
    """Compare what a stream was with what it should be. Raises: VerificationFailed."""
    if length != size:
        raise VerificationFailed(f"expected {size} bytes of {digest}, found {length}")
    if found != digest.hex:
        raise VerificationFailed(f"expected {digest}, found sha256:{found}")


def _parts(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Regroup a stream into parts of ``size`` bytes, the last one shorter."""
    kept = bytearray()
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            taken = view[: size - len(kept)]
            kept += taken
            view = view[len(taken) :]
            if len(kept) == size:
                yield bytes(kept)
                kept.clear()
    if kept:
        yield bytes(kept)


def _received(answer: Answer, expected: int) -> int | None:
    """Bytes that an upload has, from its Range; ``0-0`` means none, or one where that was sent."""
    match = re.fullmatch(r"(?:bytes=)?0-([0-9]{1,18})", answer.headers.get("Range", ""))
    if not match:
        return None
    last = int(match[1])
    return last + 1 if last or expected == 1 else 0
