"""A client for the Redis serialization protocol (RESP2), with limits on time and size.

Specification: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import socket
import time
from typing import Any
from urllib.parse import unquote, urlsplit

MAX_REPLY_BYTES = 1 << 20
_MAX_LINE_BYTES = 4096
_MAX_ITEMS = 1024
_MAX_DEPTH = 4


class RespError(Exception):
    """The connection failed, or what came back is not RESP. The connection is of no more use."""


class ReplyError(Exception):
    """The server answered with an error."""


class Connection:
    """One connection; every call has a deadline for all of its reads and writes together."""

    def __init__(self, url: str, timeout: float) -> None:
        """Connect, authenticate and select the database.

        ``url`` is redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]. ``timeout`` is in seconds.
        Raises: RespError, ReplyError; ValueError for a wrong URL.
        """
        address, login = parse_url(url)
        self._timeout = timeout
        self._buffer = bytearray()
        try:
            self._socket = socket.create_connection(address, timeout)
        except OSError as error:
            raise RespError(f"cannot connect: {error}") from error
        try:
            if login:
                self.call(*login)
        except BaseException:
            self.close()
            raise

    def call(self, *commands: tuple[str | bytes | int, ...]) -> list[Any]:
        """Send all commands in one write and give their replies in order.

        Raises: RespError; ReplyError for the first error among the replies.
        """
        deadline = time.monotonic() + self._timeout
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(b"".join(map(_encode, commands)))
            replies = [self._reply(deadline, 0) for _ in commands]
        except OSError as error:
            raise RespError(f"connection failed: {error}") from error
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise reply
        return replies

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _reply(self, deadline: float, depth: int) -> Any:
        line = self._line(deadline)
        kind, text = line[:1], line[1:]
        if kind == b"+":
            return text
        if kind == b"-":
            return ReplyError(text.decode("utf-8", "replace"))
        if kind == b":":
            return _integer(text)
        if kind == b"$":
            length = _length(text, MAX_REPLY_BYTES)
            return None if length is None else self._take(length + 2, deadline)[:-2]
        if kind == b"*" and depth < _MAX_DEPTH:
            count = _length(text, _MAX_ITEMS)
            return (
                None if count is None else [self._reply(deadline, depth + 1) for _ in range(count)]
            )
        raise RespError("not a RESP reply")

    def _line(self, deadline: float) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _MAX_LINE_BYTES:
                raise RespError("a line of the reply is too long")
            self._receive(deadline)
        return self._take(end + 2, deadline)[:-2]

    def _take(self, size: int, deadline: float) -> bytes:
        while len(self._buffer) < size:
            self._receive(deadline)
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _receive(self, deadline: float) -> None:
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        data = self._socket.recv(1 << 16)
        if not data:
            raise RespError("the server closed the connection")
        self._buffer += data


def parse_url(url: str) -> tuple[tuple[str, int], list[tuple[str, ...]]]:
    """Split a redis:// URL into the address and the commands that log in.

    Raises: ValueError, which never repeats the URL: it may hold a password.
    """
    try:
        parts = urlsplit(url)
        port = 6379 if parts.port is None else parts.port
    except ValueError:
        raise ValueError("the port or host of the Redis URL is wrong") from None
    database = parts.path.strip("/")
    if parts.scheme != "redis" or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("the Redis URL must be redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]")
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError("the database of the Redis URL must be a number")
    login: list[tuple[str, ...]] = []
    if parts.password is not None:
        user = [unquote(parts.username)] if parts.username else []
        login.append(("AUTH", *user, unquote(parts.password)))
    if database:
        login.append(("SELECT", database))
    return (parts.hostname, port), login


def _encode(command: tuple[str | bytes | int, ...]) -> bytes:
    words = [w if isinstance(w, bytes) else str(w).encode() for w in command]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def _integer(text: bytes) -> int:
    if not text.removeprefix(b"-").isdigit() or len(text) > 20:
        raise RespError("not a number in a RESP reply")
    return int(text)


def _length(text: bytes, most: int) -> int | None:
    length = _integer(text)
    if length > most or length < -1:
        raise RespError("a RESP reply is larger than the limit")
    return None if length == -1 else length
