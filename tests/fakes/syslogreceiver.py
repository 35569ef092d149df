"""A syslog receiver on loopback: octet counting, RFC 5424, TLS if it is given a certificate."""

from __future__ import annotations

import re
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from fakes.authority import Authority

_MESSAGE = re.compile(
    rb"<(?P<pri>[0-9]{1,3})>1 (?P<time>\S+) (?P<host>\S+) (?P<app>\S+) - (?P<msgid>\S+) "
    rb'\[(?P<sd>[!-~]+@[0-9]+(?: [a-z]+="(?:[^"\\\]]|\\["\\\]])*")*)\] (?P<text>.*)\Z',
    re.DOTALL,
)


@dataclass
class Receiver:
    """What came, and how it behaves."""

    messages: list[dict[str, str]] = field(default_factory=list)
    broken: list[bytes] = field(default_factory=list)
    """What was no message, or only a part of one."""
    port: int = 0
    leave_after: int | None = None
    """Bytes after which it goes away without reading the rest."""

    def take(self, data: bytes) -> None:
        while data:
            count, space, rest = data.partition(b" ")
            if not space or not count.isdigit() or len(rest) < int(count):
                self.broken.append(data)
                return
            found = _MESSAGE.fullmatch(rest[: int(count)])
            if found is None:
                self.broken.append(rest[: int(count)])
            else:
                groups = {name: text.decode() for name, text in found.groupdict().items()}
                groups.update(re.findall(r'([a-z]+)="((?:[^"\\]|\\.)*)"', groups["sd"]))
                self.messages.append(groups)
            data = rest[int(count) :]


@contextmanager
def receiving(tls: Authority | None = None) -> Iterator[Receiver]:
    """Listen on a port of 127.0.0.1."""
    receiver = Receiver()
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            stream = self.request
            stream.settimeout(20)
            with suppress(OSError):
                if context is not None:
                    stream = context.wrap_socket(stream, server_side=True)
                data = b""
                while chunk := stream.recv(1 << 10):
                    data += chunk
                    if receiver.leave_after is not None and len(data) > receiver.leave_after:
                        return
                receiver.take(data)
                if isinstance(stream, ssl.SSLSocket):
                    stream.unwrap()

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
