"""The last turns of each conversation, in Redis, shared by all replicas of the service."""

from __future__ import annotations

import json
import threading
from typing import Any

from inference_service.conversations import MAX_TURNS, StoreUnavailable, Turn
from inference_service.resp import Connection, ReplyError, RespError, parse_url

TIMEOUT_SECONDS = 2.0
EXPIRE_SECONDS = 24 * 3600
"""A conversation is forgotten after this long without a turn; it bounds their number."""
_MAX_IDLE = 32


class RedisStore:
    """A list of JSON documents for each context, newest first."""

    def __init__(self, url: str, timeout: float = TIMEOUT_SECONDS) -> None:
        """Connections are made when needed. Raises: ValueError for a wrong URL."""
        parse_url(url)
        self._url = url
        self._timeout = timeout
        self._idle: list[Connection] = []
        self._lock = threading.Lock()

    def turns(self, context_id: str) -> list[Turn]:
        """The turns of a context, oldest first. Raises: StoreUnavailable."""
        (items,) = self._call(("LRANGE", _key(context_id), 0, MAX_TURNS - 1))
        try:
            return [Turn(*_pair(json.loads(item))) for item in reversed(items)]
        except (TypeError, ValueError) as error:
            raise StoreUnavailable("a stored conversation cannot be read") from error

    def append(self, context_id: str, turn: Turn) -> int:
        """Add a turn and trim in one transaction, so that no reader sees a thirteenth."""
        key = _key(context_id)
        *_, results = self._call(
            ("MULTI",),
            ("LPUSH", key, json.dumps([turn.prompt, turn.answer])),
            ("LTRIM", key, 0, MAX_TURNS - 1),
            ("EXPIRE", key, EXPIRE_SECONDS),
            ("LLEN", key),
            ("EXEC",),
        )
        if not isinstance(results, list) or not all(isinstance(r, (int, bytes)) for r in results):
            raise StoreUnavailable("redis did not take the turn")
        return int(results[-1])

    def check(self) -> None:
        """Raise StoreUnavailable unless the server answers and takes commands."""
        self._call(("PING",))

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _call(self, *commands: tuple[str | bytes | int, ...]) -> list[Any]:
        connection: Connection | None = None
        try:
            connection = self._take()
            replies = connection.call(*commands)
        except (RespError, ReplyError) as error:
            # The state of this connection is unknown, and after a restart of the server
            # the idle ones are as dead as this one.
            if connection is not None:
                connection.close()
            self.close()
            raise StoreUnavailable(f"redis: {error}") from error
        self._give_back(connection)
        return replies

    def _take(self) -> Connection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return Connection(self._url, self._timeout)

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if len(self._idle) < _MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()


def _key(context_id: str) -> str:
    return f"inference:context:{context_id}"


def _pair(value: Any) -> tuple[str, str]:
    prompt, answer = value
    if not isinstance(prompt, str) or not isinstance(answer, str):
        raise TypeError("a turn is two strings")
    return prompt, answer
