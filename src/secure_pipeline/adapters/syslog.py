"""Syslog over TLS: RFC 5424 messages, framed by octet counting (RFC 5425, 4.3; RFC 6587, 3.4.1).

Syslog acknowledges nothing. What can be known is that the receiver has read everything: each
batch has a connection of its own, which is ended from this side and then by the other.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

from secure_pipeline.adapters.http import is_loopback
from secure_pipeline.audit.sink import LedgerEvent, Refused, within
from secure_pipeline.errors import ConfigError, Unavailable
from secure_pipeline.ports import Clock

MAX_EVENT = 7 << 10
"""Bytes of one entry: receivers should take messages of 8192 (RFC 5425, 4.3.1)."""
_PRIORITY = 13 * 8 + 5
"""Facility 13 (log audit), severity 5 (notice)."""
_ENTERPRISE = 32473
"""The number for documentation and examples (RFC 5612): this program has none of its own."""
_BLOCK = 1 << 16
_SECONDS = 60.0
"""For one batch, from connecting to the end of the connection."""


@dataclass(frozen=True)
class SyslogAddress:
    """Where the receiver is."""

    host: str
    port: int
    tls: bool = True
    """False only for this machine."""
    ca: Path | None = None
    """PEM file of the authorities to trust instead of the usual ones."""
    origin: str = "-"
    """The name of the machine that the entries come from."""

    def __post_init__(self) -> None:
        if not self.tls and not is_loopback(self.host):
            raise ConfigError(
                "plain syslog is only used on this machine",
                where=self.text,
                hint=f"syslog+tls://{self.host}:6514",
            )

    @property
    def text(self) -> str:
        """The address as it is typed."""
        return f"syslog+{'tls' if self.tls else 'tcp'}://{self.host}:{self.port}"


class SyslogReceiver:
    """A receiver that reads and never answers (``audit.sink.Acceptor``)."""

    def __init__(self, address: SyslogAddress, clock: Clock, seconds: float = _SECONDS) -> None:
        """``seconds``: for one batch. Raises: ConfigError if the authorities cannot be read."""
        self._address = address
        self._clock = clock
        self._seconds = seconds
        self._context = _context(address.ca) if address.tls else None

    def encode(self, event: LedgerEvent) -> bytes:
        """One framed message: number, id and ledger as structured data, the entry as it is."""
        event = within(event, MAX_EVENT)
        values = {
            "ledger": event.ledger,
            "seq": str(event.sequence),
            "id": event.id,
            "whole": "true" if event.whole else "false",
        }
        data = " ".join(f'{name}="{_escaped(text)}"' for name, text in values.items())
        time = event.time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        host = re.sub(r"[^!-~]", "-", self._address.origin)[:255] or "-"
        head = f"<{_PRIORITY}>1 {time} {host} secure-pipeline - ledger "
        message = f"{head}[secure-pipeline@{_ENTERPRISE} {data}] ".encode("ascii") + event.data
        return f"{len(message)} ".encode() + message

    def accept(self, parts: Sequence[bytes]) -> None:
        """Send a batch and wait until the receiver has read it and ended the connection.

        Raises: Unavailable, then it is not known what was read; Refused (no trust).
        """
        due = self._clock.monotonic() + self._seconds
        try:
            with self._connect(due) as stream:
                for start in range(0, len(data := b"".join(parts)), _BLOCK):
                    self._within(stream, due)
                    stream.sendall(data[start : start + _BLOCK])
                self._end(stream, due)
        except ssl.SSLCertVerificationError as error:
            raise Refused(
                f"its certificate is not trusted: {error.verify_message}",
                where=self._address.text,
                hint="name the file of the authority that issued it: --audit-ca FILE",
            ) from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise Unavailable(f"not all was read: {reason}", where=self._address.text) from error

    def alive(self) -> None:
        """Connect and end the connection. Raises: Unavailable."""
        self.accept(())

    def _connect(self, due: float) -> socket.socket:
        left = max(0.001, min(10.0, due - self._clock.monotonic()))
        plain = socket.create_connection((self._address.host, self._address.port), timeout=left)
        if self._context is None:
            return plain
        try:
            return self._context.wrap_socket(plain, server_hostname=self._address.host)
        except BaseException:
            plain.close()
            raise

    def _within(self, stream: socket.socket, due: float) -> None:
        left = due - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError("not read within the deadline")
        stream.settimeout(left)

    def _end(self, stream: socket.socket, due: float) -> None:
        """End the sending side and wait for the other end. Raises: OSError."""
        self._within(stream, due)
        if isinstance(stream, ssl.SSLSocket):
            try:
                stream.unwrap().close()
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):  # it ends without a close_notify
                return
            return
        stream.shutdown(socket.SHUT_WR)
        if stream.recv(_BLOCK):
            raise ConnectionError("it answers, which syslog does not")


def _context(ca: Path | None) -> ssl.SSLContext:
    if ca is not None and not ca.is_file():
        raise ConfigError("no such file of certificate authorities", where=str(ca))
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
    except ssl.SSLError as error:
        raise ConfigError("holds no certificate authorities", where=str(ca)) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _escaped(text: str) -> str:
    """A value of structured data (RFC 5424, 6.3.3)."""
    return re.sub(r'(["\\\]])', r"\\\1", text)
