"""Changing a tag that others change too, so that nobody's change is lost (SIG-29).

Registries have no transactions. What can be done: If-Match where an ETag is offered, as little
time as possible between reading and writing, and reading again after a pause longer than such a
window, writing again if the change is gone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from secure_pipeline.adapters.http import Cut
from secure_pipeline.adapters.registryclient import Fetched, RegistryClient
from secure_pipeline.errors import Unavailable
from secure_pipeline.oci.manifest import MAX_MANIFEST_BYTES
from secure_pipeline.oci.store import Change

_BUSY = (408, 409, 412, 429, 500, 502, 503, 504)
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')
_LEAST_PAUSE, _MOST_PAUSE = 0.03, 3.0
"""Seconds."""
_HOLDS = 3
"""Readings in a row that must show our change after we wrote it."""
_MAX_WRITES = 200


class TagChange:
    """One change of one tag."""

    def __init__(
        self,
        client: RegistryClient,
        tag: str,
        media_type: str,
        seconds: float,
        accept: Mapping[str, str],
    ) -> None:
        self._client = client
        self._tag = tag
        self._url = client.url(f"manifests/{tag}")
        self._media_type = media_type
        self._accept = accept
        self._deadline = client.transport.deadline(seconds)
        self._window = 0.0
        """Seconds that reading and writing took at the slowest."""
        self._writes = 0

    def until_it_holds(self, change: Change) -> bytes | None:
        """Return the tag's bytes in the end. Raises: like ``Repository.change_tag``."""
        held = 0
        while True:
            started = self._now()
            present = self._read()
            wanted = change(present.data if present else None)
            if wanted is None:
                held += 1
                if self._writes == 0 or held >= _HOLDS:
                    return present.data if present else None
            else:
                held = 0
                self._write(wanted, present)
                self._window = max(self._window, self._now() - started)
            self._pause()

    def _read(self) -> Fetched | None:
        return self._client.fetch(
            self._url, headers=self._accept, limit=MAX_MANIFEST_BYTES, deadline=self._deadline
        )

    def _write(self, data: bytes, over: Fetched | None) -> None:
        """Write once: a repeated request could undo what others wrote in between."""
        self._writes += 1
        headers = {"Content-Type": self._media_type}
        etag = over.headers.get("ETag", "") if over else ""
        if _STRONG_ETAG.fullmatch(etag):
            headers["If-Match"] = etag
        try:
            with self._client.send(
                "PUT",
                self._url,
                push=True,
                headers=headers,
                body=data,
                deadline=self._deadline,
                retry=False,
            ) as answer:
                if answer.status in (200, 201):
                    return
                failure = self._client.unexpected(answer, f"tag {self._tag} was not written")
                if answer.status not in _BUSY:
                    raise failure
        except Cut as error:
            failure = error
        self._give_up_if_late(failure)

    def _pause(self) -> None:
        """Wait longer than others take between reading and writing, each a different time."""
        transport = self._client.transport
        base = min(max(2 * self._window, _LEAST_PAUSE), _MOST_PAUSE)
        wait = base * (0.5 + transport.jitter())
        self._give_up_if_late(
            Unavailable(
                f"others keep overwriting it, also after {self._writes} tries",
                where=f"{self._client.place.name}:{self._tag}",
                hint="run it again",
            ),
            wait,
        )
        transport.sleep(wait)

    def _give_up_if_late(self, failure: Unavailable, wait: float = 0.0) -> None:
        if self._writes >= _MAX_WRITES or self._now() + wait >= self._deadline:
            raise failure

    def _now(self) -> float:
        return self._client.transport.clock.monotonic()
