"""The Redis client against answers that a real server never gives, and against silence."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from inference_service.resp import Connection, ReplyError, RespError, parse_url

Fake = Callable[..., str]


@pytest.fixture
def fake() -> Iterator[Fake]:
    """A server that answers anything with the given bytes; ``hold`` keeps the line open."""
    listeners: list[socket.socket] = []
    ended = threading.Event()

    def start(answer: bytes, hold: bool = False) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
                if hold:
                    ended.wait(20)

        threading.Thread(target=run, daemon=True).start()
        return f"redis://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    ended.set()
    for listener in listeners:
        listener.close()


def ask(url: str, timeout: float = 5) -> list:
    connection = Connection(url, timeout)
    try:
        return connection.call(("PING",))
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (b"+PONG\r\n", b"PONG"),
        (b":-7\r\n", -7),
        (b"$-1\r\n", None),
        (b"$0\r\n\r\n", b""),
        (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
        (b"*-1\r\n", None),
        (b"*2\r\n:1\r\n*1\r\n+x\r\n", [1, [b"x"]]),
    ],
)
def test_replies_of_every_kind(fake, answer, value):
    """Each kind of RESP2 reply is read as what it stands for."""
    assert ask(fake(answer)) == [value]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"$1048577\r\n",
        b"$-2\r\n",
        b"*1025\r\n",
        b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        b":1_0\r\n",
        b":" + b"9" * 21 + b"\r\n",
        b"$\r\n",
        b"+half",
        b"",
    ],
)
def test_replies_that_are_wrong_or_too_large(fake, answer):
    """Nonsense, hostile sizes and half a reply are errors, not values."""
    with pytest.raises(RespError):
        ask(fake(answer))


def test_a_line_without_end_is_cut(fake):
    """A line longer than any real one is refused while it is still coming."""
    with pytest.raises(RespError, match="too long"):
        ask(fake(b"+" + b"x" * 5000, hold=True))


def test_error_replies_are_raised(fake):
    """An error of the server is an error of the call, also behind a success."""
    connection = Connection(fake(b"+OK\r\n-ERR no\r\n"), 5)
    with pytest.raises(ReplyError, match="ERR no"):
        connection.call(("A",), ("B",))
    connection.close()


def test_silence_ends_at_the_deadline(fake):
    """A server that accepts and says nothing does not hold a request for ever."""
    with pytest.raises(RespError, match="timed out"):
        ask(fake(b"+hal", hold=True), timeout=0.1)


def test_refused_connection():
    """Nobody listening is an error of its own kind."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RespError, match="cannot connect"):
        Connection(f"redis://127.0.0.1:{port}", 1)


@pytest.mark.parametrize(
    ("url", "address", "login"),
    [
        ("redis://host", ("host", 6379), []),
        ("redis://[::1]:7/", ("::1", 7), []),
        ("redis://:p%40ss@h:1/2", ("h", 1), [("AUTH", "p@ss"), ("SELECT", "2")]),
        ("redis://me:word@h", ("h", 6379), [("AUTH", "me", "word")]),
    ],
)
def test_urls(url, address, login):
    """A URL gives the address and the commands that log in."""
    assert parse_url(url) == (address, login)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:6379",
        "http://hidden@h",
        "rediss://:hidden@h",
        "redis://",
        "redis://:hidden@h:port",
        "redis://:hidden@h:70000",
        "redis://[::1",
        "redis://h/x",
        "redis://h/²",
        "redis://h?db=1",
    ],
)
def test_wrong_urls_are_refused_without_being_repeated(url):
    """A URL may hold a password, so no error shows it."""
    with pytest.raises(ValueError, match="Redis URL") as caught:
        parse_url(url)
    assert "hidden" not in str(caught.value)
