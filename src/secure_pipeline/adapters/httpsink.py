"""A plain HTTP collector of ledger entries: JSON Lines, one POST a batch.

Its answer is the acknowledgement, so 200, 201 and 204 must mean that the batch is stored for
good; 202 says "accepted" only (RFC 9110, 15.3.3) and counts for no more than that.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from secure_pipeline.adapters.http import Answer, Grant, Origin, Transport, shown
from secure_pipeline.audit.sink import Busy, LedgerEvent, Refused, TooLarge, within
from secure_pipeline.errors import ConfigError, Inconclusive, Unavailable
from secure_pipeline.files import canonical_json

MAX_EVENT = 64 << 10
"""Bytes of one entry; a larger one is sent as a note with its digest."""
_STORED = (200, 201, 204)
_TOKEN = re.compile(r"[!-~]{1,4096}\Z")


@dataclass(frozen=True)
class HttpAddress:
    """Where the collector is."""

    url: str
    """``https://HOST/PATH``; ``http`` only for this machine."""
    token: str | None = field(default=None, repr=False)
    """Sent as ``Authorization: Bearer``."""

    def __post_init__(self) -> None:
        if self.token is not None and not _TOKEN.match(self.token):
            raise ConfigError("the token is none", hint="one line of printable characters")


class HttpClient:
    """Speaks to one collector; knows no acknowledgements."""

    def __init__(self, address: HttpAddress, transport: Transport) -> None:
        """Raises: Unavailable if the address is none, or plain http to another machine."""
        transport.check(address.url)
        self._address = address
        self._transport = transport
        self._grant = (
            Grant(Origin.of(address.url), f"Bearer {address.token}") if address.token else None
        )
        self.where = shown(address.url)

    def encode(self, event: LedgerEvent) -> bytes:
        """One line; the entry is a string, so that its bytes are exactly what was hashed."""
        event = within(event, MAX_EVENT)
        line = {
            "entry_id": event.id,
            "ledger": event.ledger,
            "sequence": event.sequence,
            "whole": event.whole,
            "event": event.data.decode("utf-8"),
        }
        return canonical_json(line) + b"\n"

    def post(self, parts: Sequence[bytes]) -> int:
        """Send one batch and return its status, one of 2xx. Raises: as ``Sink.send``."""
        with self._request("POST", b"".join(parts)) as answer:
            if not 200 <= answer.status < 300:
                raise self._failure(answer)
            return answer.status

    def alive(self) -> None:
        """Ask whether it answers. Raises: Unavailable."""
        with self._request("HEAD", None) as answer:
            if not 200 <= answer.status < 300 and answer.status not in (404, 405):
                raise Unavailable(f"answered with status {answer.status}", where=self.where)

    def _request(self, method: str, body: bytes | None) -> Answer:
        return self._transport.request(
            method,
            self._address.url,
            headers={"Content-Type": "application/x-ndjson"},
            body=body,
            grant=self._grant,
            retry=False,
            follow=False,
        )

    def _failure(self, answer: Answer) -> Exception:
        """The error that a status stands for; what the answer says may hold secrets."""
        status, where = answer.status, self.where
        if status in (429, 503):
            return Busy(f"it is busy (status {status})", where=where, after=_after(answer))
        if status == 413:
            return TooLarge(f"too large for it (status {status})", where=where)
        if 300 <= status < 400:
            return Refused(f"redirects (status {status}), which is not followed", where=where)
        if status in (401, 403):
            hint = "check the token: --token-file FILE"
            return Refused(f"refused (status {status})", where=where, hint=hint)
        if status in (404, 405):
            return Refused(f"takes nothing here (status {status})", where=where)
        if 400 <= status < 500 and status != 408:
            return Inconclusive(f"does not take the entries (status {status})", where=where)
        return Unavailable(f"failed (status {status})", where=where)


class HttpSink:
    """A collector whose answer is the acknowledgement (``audit.sink.Sink``)."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._count = 0

    def encode(self, event: LedgerEvent) -> bytes:
        """One line."""
        return self._client.encode(event)

    def send(self, parts: Sequence[bytes]) -> Hashable:
        """Send one batch. Raises: Inconclusive if it is only accepted, not stored."""
        status = self._client.post(parts)
        if status not in _STORED:
            raise Inconclusive(
                f"accepts the entries without saying that they are stored (status {status})",
                where=self._client.where,
                hint="let it answer 200 once they are, or accept less with --without-ack",
            )
        self._count += 1
        return self._count

    def settled(self, tickets: Sequence[Hashable]) -> frozenset[Hashable]:
        """All: the answer said so."""
        return frozenset(tickets)

    def renew(self) -> None:
        """Nothing to give up."""


class HttpAcceptor:
    """A collector that accepts without storing first (``audit.sink.Acceptor``)."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def encode(self, event: LedgerEvent) -> bytes:
        """One line."""
        return self._client.encode(event)

    def accept(self, parts: Sequence[bytes]) -> None:
        """Send one batch."""
        self._client.post(parts)

    def alive(self) -> None:
        """Ask whether it answers. Raises: Unavailable."""
        self._client.alive()


def _after(answer: Answer) -> float:
    text = answer.headers.get("Retry-After", "")
    return float(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0.0
