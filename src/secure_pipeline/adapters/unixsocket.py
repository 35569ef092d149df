"""One question and one answer over a Unix socket, within a deadline and a size."""

from __future__ import annotations

import os
import socket

from secure_pipeline.errors import ConfigError, Unavailable
from secure_pipeline.ports import Clock

MAX_PATH = 107
"""Bytes of the path of a Unix socket (unix(7): 108 with the NUL at its end)."""
_BLOCK = 1 << 16


def check_path(path: str) -> None:
    """Refuse a path that no socket can have. Raises: ConfigError."""
    if not os.path.isabs(path):
        raise ConfigError("the path of a socket must be absolute", where=path)
    if len(os.fsencode(path)) > MAX_PATH:
        raise ConfigError(
            f"the path of a socket has at most {MAX_PATH} bytes; this has {len(os.fsencode(path))}",
            where=path,
        )


def exchange(path: str, question: bytes, *, clock: Clock, due: float, limit: int) -> bytes:
    """Connect, send, and return everything until the other side ends the connection.

    ``due``: on the clock's monotonic scale, for all of it.
    Raises: Unavailable (nobody listens, it is late, more than ``limit`` bytes).
    """

    def hurry() -> None:
        left = due - clock.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)

    answer = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            hurry()
            connection.connect(path)
            connection.sendall(question)
            while True:
                hurry()
                block = connection.recv(_BLOCK)
                if not block:
                    return bytes(answer)
                answer += block
                if len(answer) > limit:
                    raise Unavailable(f"an answer of over {limit} bytes", where=path)
    except (TimeoutError, BlockingIOError):
        raise Unavailable("no whole answer in time", where=path) from None
    except OSError as error:
        raise Unavailable(
            f"nobody answers: {error.strerror or type(error).__name__}", where=path
        ) from error
