"""Below http.py: sockets whose every wait ends with the deadline of the call."""

from __future__ import annotations

import http.client
import io
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from secure_pipeline.ports import Clock

BLOCK = 1 << 16
"""Bytes sent or read at once."""


class Body:
    """Bytes sent in blocks, so that a slow line is noticed between two of them."""

    def __init__(self, data: bytes, check: Callable[[], None]) -> None:
        self._data = data
        self._check = check

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[bytes]:
        view = memoryview(self._data)
        for start in range(0, len(view), BLOCK):
            self._check()
            yield bytes(view[start : start + BLOCK])


class _Timed(io.RawIOBase):
    """A socket's stream whose every wait ends with the call's deadline."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, left: Callable[[], float]) -> None:
        self._raw = raw
        self._sock = sock
        self._left = left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: Any, *arguments: Any, left: Callable[[], float], **more: Any) -> None:
        super().__init__(sock, *arguments, **more)
        self.fp = io.BufferedReader(_Timed(self.fp.detach(), sock, left))


class TimedAdapter(HTTPAdapter):
    """Connections whose answers are read against the deadline in ``due.at`` of the thread."""

    def __init__(self, clock: Clock, silence: float) -> None:
        self.due = threading.local()
        self._clock = clock
        self._silence = silence
        super().__init__(pool_maxsize=32)

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        """Make the pools, of our own connections."""
        super().init_poolmanager(*arguments, **more)
        self.poolmanager.pool_classes_by_scheme = self._pools()

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        """Like ``init_poolmanager``, through a proxy."""
        manager = super().proxy_manager_for(proxy, **more)
        manager.pool_classes_by_scheme = self._pools()
        return manager

    def _pools(self) -> dict[str, Any]:
        adapter = self

        def answer(sock: Any, *arguments: Any, **more: Any) -> _TimedResponse:
            left = partial(adapter._left, adapter.due.at)
            return _TimedResponse(sock, *arguments, left=left, **more)

        made = {"response_class": staticmethod(answer)}
        plain = type("_Plain", (HTTPConnection,), made)
        secure = type("_Secure", (HTTPSConnection,), made)
        return {
            "http": type("_PlainPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
            "https": type("_SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
        }

    def _left(self, due: float) -> float:
        left = due - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError("deadline")
        return min(left, self._silence)
