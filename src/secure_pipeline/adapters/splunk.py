"""Splunk's HTTP Event Collector (HEC), as its documentation describes it.

"Getting Data In: HTTP Event Collector" and "About HTTP Event Collector Indexer
Acknowledgment": a 200 only says that the data looks valid. Whether it is indexed is told by
``/services/collector/ack``, once, for numbers that count from 0 on each channel. They are kept
in memory: after a restart they begin again, so a number given twice means that nothing is
known about the first one.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from secure_pipeline import strictjson
from secure_pipeline.adapters.http import Answer, Grant, HttpLimits, Origin, Transport, shown
from secure_pipeline.audit.sink import Busy, LedgerEvent, Lost, Refused, TooLarge, within
from secure_pipeline.errors import ConfigError, Inconclusive, Unavailable
from secure_pipeline.files import canonical_json

EVENT, ACK, HEALTH = (f"/services/collector/{name}" for name in ("event", "ack", "health"))
SOURCE = "secure-pipeline"
SOURCETYPE = "secure-pipeline:ledger"
MAX_EVENT = 64 << 10
"""Bytes of one entry; a larger one is sent as a note with its digest."""
_ANSWER = 256 << 10
LIMITS = HttpLimits(total=30.0)
"""Of one request."""
_TOKEN = re.compile(r"[!-~]{8,200}\Z")

_WORDS = {
    1: "the token is disabled",
    2: "it wants a token",
    3: "it does not accept the form of the authorization",
    4: "the token is not known there",
    5: "it saw no data",
    6: "it cannot read the data",
    7: "the token may not write to this index",
    8: "internal error",
    9: "it is busy",
    10: "it wants a channel",
    11: "it does not know the channel",
    12: "an event is missing",
    13: "an event is empty",
    14: "acknowledgement is switched off for this token",
    15: "it cannot index the fields or the time",
    18: "its queues are full",
    19: "its acknowledgement service does not answer",
    20: "its queues are full and its acknowledgement service does not answer",
    23: "it is shutting down",
    24: "its queue is full",
    25: "it keeps as many acknowledgements as it can",
    26: "its queue is nearly full",
    27: "it keeps nearly as many acknowledgements as it can",
    28: "it wants a channel",
}
"""Splunk's table of codes, in our words: what a service says itself may hold a secret."""
_BUSY = (9, 18, 19, 20, 23, 24, 25)
_TOKEN_CODES = (1, 2, 3, 4, 21, 22)
_NO_ACK_HINT = "switch on 'indexer acknowledgment' for the token, or accept less with --without-ack"


@dataclass(frozen=True)
class SplunkAddress:
    """Where a collector is and how it is spoken to."""

    base: str
    """``https://HOST:8088``; ``http`` only for this machine."""
    token: str = field(repr=False)
    index: str | None = None
    """The token's own by default."""
    host: str = "-"
    """The name of the machine that the entries come from."""

    def __post_init__(self) -> None:
        if not _TOKEN.match(self.token):
            raise ConfigError(
                "the token is not one of a collector", hint="one line, without 'Splunk '"
            )


class SplunkClient:
    """Speaks to one collector; knows no acknowledgements."""

    def __init__(self, address: SplunkAddress, transport: Transport) -> None:
        """Raises: Unavailable if the address is none, or plain http to another machine."""
        transport.check(address.base)
        self._address = address
        self._transport = transport
        self._grant = Grant(Origin.of(address.base), f"Splunk {address.token}")
        self.where = shown(address.base)

    def encode(self, event: LedgerEvent) -> bytes:
        """One event. The entry is a string, so that ``_raw`` is exactly what was hashed."""
        event = within(event, MAX_EVENT)
        about = {
            "host": self._address.host,
            "source": SOURCE,
            "sourcetype": SOURCETYPE,
            "event": event.data.decode("utf-8"),
            "fields": {
                "entry_id": event.id,
                "ledger": event.ledger,
                "sequence": str(event.sequence),
                "whole": "true" if event.whole else "false",
            },
        }
        if self._address.index is not None:
            about["index"] = self._address.index
        return b'{"time":' + _epoch(event.time).encode() + b"," + canonical_json(about)[1:]

    def post(
        self, path: str, body: bytes, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Send one request, never repeated here; give the status and the JSON object answered.

        Raises: Unavailable (whether it was taken is not known).
        """
        with self._transport.request(
            "POST",
            self._address.base + path,
            headers={"Content-Type": "application/json", **(headers or {})},
            body=body,
            grant=self._grant,
            retry=False,
            follow=False,
        ) as answer:
            found = _object(answer)
            if found is None and answer.status == 200:
                raise Unavailable("answered something that is no collector's", where=self.where)
            return answer.status, found or {}

    def alive(self) -> None:
        """Ask for its health, without the token. Raises: Unavailable."""
        with self._transport.request(
            "GET",
            self._address.base + HEALTH,
            retry=False,
            follow=False,
        ) as answer:
            if answer.status != 200:
                raise Unavailable(self.words(answer.status, _object(answer)), where=self.where)

    def words(self, status: int, found: dict[str, Any] | None) -> str:
        """What an answer means, in our own words."""
        code = _code(found or {})
        return f"{_WORDS.get(code, 'refused')} (status {status}, code {code})"

    def failure(self, status: int, found: dict[str, Any], first: int | None = None) -> Exception:
        """The error that an answer to a batch stands for."""
        code, text = _code(found), self.words(status, found)
        if status in (429, 503) or code in _BUSY:
            return Busy(text, where=self.where)
        if status == 413:
            return TooLarge(text, where=self.where)
        if code in _TOKEN_CODES or status in (401, 403):
            return Refused(text, where=self.where, hint="check the token: --token-file FILE")
        if code == 7:
            return ConfigError(text, where=self.where, hint="name another one with --index")
        if code == 14:
            return Inconclusive(text, where=self.where, hint=_NO_ACK_HINT)
        if code in (10, 11, 28):
            return Lost(text, where=self.where)
        if 300 <= status < 400:
            return Refused(f"redirects (status {status}), which is not followed", where=self.where)
        if status in (404, 405):
            return Refused(f"is no collector (status {status})", where=self.where)
        if code in (5, 6, 12, 13, 15):
            return Inconclusive(text + _which(found), where=self.where)
        return Unavailable(text, where=self.where)


class SplunkSink:
    """A collector whose token has acknowledgement switched on (``audit.sink.Sink``)."""

    def __init__(self, client: SplunkClient, channel: Callable[[], uuid.UUID] = uuid.uuid4) -> None:
        """``channel`` makes the identifiers of channels, which are never used twice."""
        self._client = client
        self._make = channel
        self.renew()

    def renew(self) -> None:
        """Begin a new channel: what a crashed collector remembers of the old one is not asked."""
        self._channel = str(self._make())
        self._given: set[int] = set()
        """Numbers that are not acknowledged yet."""
        self._highest = -1

    def encode(self, event: LedgerEvent) -> bytes:
        """One event of a batch."""
        return self._client.encode(event)

    def send(self, parts: Sequence[bytes]) -> Hashable:
        """Send concatenated events (no array) and return the number that was given."""
        status, found = self._client.post(EVENT, b"\n".join(parts), self._headers())
        if status != 200 or _code(found) != 0:
            raise self._client.failure(status, found)
        number = found.get("ackId")
        if number is None:
            raise Inconclusive(
                "took the entries and will not acknowledge them",
                where=self._client.where,
                hint=_NO_ACK_HINT,
            )
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise Lost("gave no number for the acknowledgement", where=self._client.where)
        if self._given and number <= self._highest:
            raise Lost("its acknowledgements began again", where=self._client.where)
        self._highest = number  # with nothing given out, whatever it begins with is right
        self._given.add(number)
        return number

    def settled(self, tickets: Sequence[Hashable]) -> frozenset[Hashable]:
        """Which numbers are indexed. A number is told once, then forgotten there."""
        asked = [item for item in tickets if item in self._given]
        body = canonical_json({"acks": asked})
        status, found = self._client.post(ACK, body, self._headers())
        acks = found.get("acks")
        if status != 200 or not isinstance(acks, dict):
            raise self._poll_failure(status, found)
        done = {item for item in asked if acks.get(str(item)) is True}
        self._given -= {item for item in done if isinstance(item, int)}
        return frozenset(done)

    def _poll_failure(self, status: int, found: dict[str, Any]) -> Exception:
        if status == 200:
            return Unavailable("answered no acknowledgements", where=self._client.where)
        return self._client.failure(status, found)

    def _headers(self) -> dict[str, str]:
        return {"X-Splunk-Request-Channel": self._channel}


class SplunkAcceptor:
    """A collector whose token gives no acknowledgements (``audit.sink.Acceptor``)."""

    def __init__(self, client: SplunkClient) -> None:
        self._client = client

    def encode(self, event: LedgerEvent) -> bytes:
        """One event of a batch."""
        return self._client.encode(event)

    def accept(self, parts: Sequence[bytes]) -> None:
        """Send concatenated events; what comes back says only that they look valid."""
        status, found = self._client.post(EVENT, b"\n".join(parts))
        if status == 400 and _code(found) in (10, 28):
            raise ConfigError(
                "acknowledges with this token",
                where=self._client.where,
                hint="leave out --without-ack",
            )
        if status != 200 or _code(found) != 0:
            raise self._client.failure(status, found)

    def alive(self) -> None:
        """Ask for its health. Raises: Unavailable."""
        self._client.alive()


def _object(answer: Answer) -> dict[str, Any] | None:
    """The JSON object of an answer, None if it is none. Raises: Unavailable if it breaks off."""
    try:
        value = strictjson.loads(answer.read(_ANSWER), limit=_ANSWER)
    except strictjson.InvalidJson:
        return None
    except Inconclusive as error:
        raise Unavailable(error.message, where=error.where) from error
    return value if isinstance(value, dict) else None


def _code(found: dict[str, Any]) -> int:
    """Splunk's code of an answer; -1 if it has none."""
    code = found.get("code")
    return code if isinstance(code, int) and not isinstance(code, bool) else -1


def _which(found: dict[str, Any]) -> str:
    number = found.get("invalid-event-number")
    return f", at event {number} of the batch" if isinstance(number, int) else ""


def _epoch(time: datetime) -> str:
    """Seconds since 1970 with three decimals; never in powers of ten, which it refuses (15)."""
    return f"{time.timestamp():.3f}"
