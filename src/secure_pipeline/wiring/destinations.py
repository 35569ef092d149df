"""Where the ledger can be delivered to, as the operator's command line and environment say."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from secure_pipeline.errors import UsageError
from secure_pipeline.files import read_bounded

if TYPE_CHECKING:
    from secure_pipeline.adapters.http import Transport
    from secure_pipeline.audit.sink import Acceptor, Sink

TO = "SECURE_PIPELINE_AUDIT_TO"
TOKEN = "SECURE_PIPELINE_AUDIT_TOKEN"
TOKEN_FILE = "SECURE_PIPELINE_AUDIT_TOKEN_FILE"
_CA = "SECURE_PIPELINE_AUDIT_CA"
_INDEX = "SECURE_PIPELINE_AUDIT_INDEX"
_WITHOUT_ACK = "SECURE_PIPELINE_AUDIT_WITHOUT_ACK"
WINDOW = 30.0
"""Seconds that a destination without acknowledgements must be healthy after taking a batch."""
_PORTS = {"splunk+https": 8088, "splunk+http": 8088, "syslog+tls": 6514, "syslog+tcp": 601}
_KINDS = (*_PORTS, "https", "http")
_HINT = "splunk+https://HOST:8088, https://HOST/PATH or syslog+tls://HOST:6514"
_TOKEN_BYTES = 8 << 10


@dataclass(frozen=True)
class ShipOptions:
    """Where entries are delivered to, as the operator says; None where nothing was said."""

    to: str | None = None
    token_file: Path | None = None
    ca: Path | None = None
    index: str | None = None
    without_ack: bool = False
    window: float = WINDOW
    deadline: float = 120.0
    """Seconds for one delivery."""
    begin: int | None = None
    """Deliver the present ledger from this number on, also what was acknowledged."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> ShipOptions:
        """What the environment says alone."""
        ca, file = environment.get(_CA), environment.get(TOKEN_FILE)
        return cls(
            to=environment.get(TO) or None,
            token_file=Path(file) if file else None,
            ca=Path(ca) if ca else None,
            index=environment.get(_INDEX) or None,
            without_ack=environment.get(_WITHOUT_ACK, "").lower() in ("1", "true", "yes"),
        )


def open_sink(ship: ShipOptions, environment: Mapping[str, str]) -> tuple[Sink, str]:
    """The destination, and its address without secrets.

    Raises: UsageError, ConfigError, Unavailable (plain http to another machine).
    """
    if not ship.to:
        raise UsageError("no destination is named", hint=f"--to {_HINT}")
    parts = _address(ship.to)
    kind, _, transport = parts.scheme.partition("+")
    if kind == "syslog":
        return _syslog(ship, parts)
    token = _token(ship, environment)
    if kind == "splunk":
        return _splunk(ship, f"{transport}://{parts.netloc}", token, environment)
    return _http(ship, parts.geturl(), token, environment)


def _address(text: str) -> SplitResult:
    """Take an address apart. Raises: UsageError; never shows what may be a secret."""
    try:
        parts = urlsplit(text)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        raise UsageError("--to is no address", hint=_HINT) from None
    if parts.scheme not in _KINDS or not parts.hostname:
        raise UsageError("--to is no address of a known kind", hint=_HINT)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            "--to may hold no user and no query, which everyone can see",
            hint=f"--token-file FILE, or {TOKEN} in the environment",
        )
    if parts.scheme in _PORTS:
        if parts.path not in ("", "/"):
            raise UsageError(f"--to {parts.scheme}:// takes a host and a port", hint=_HINT)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return parts._replace(netloc=f"{host}:{port}", path="")
    return parts


def _token(ship: ShipOptions, environment: Mapping[str, str]) -> str | None:
    if ship.token_file is not None:
        data = read_bounded(ship.token_file, _TOKEN_BYTES)
        return data.decode("ascii", "replace").strip()
    return environment.get(TOKEN) or None


def _splunk(
    ship: ShipOptions, base: str, token: str | None, environment: Mapping[str, str]
) -> tuple[Sink, str]:
    from secure_pipeline.adapters.splunk import (
        SplunkAcceptor,
        SplunkAddress,
        SplunkClient,
        SplunkSink,
    )

    if token is None:
        raise UsageError(
            "no token is named", hint=f"--token-file FILE, or {TOKEN} in the environment"
        )
    if ship.index is not None and not re.fullmatch(r"[a-z0-9_][a-z0-9_-]{0,79}", ship.index):
        raise UsageError("--index is no name of an index", hint="--index pipeline_audit")
    address = SplunkAddress(base, token, ship.index, os.uname().nodename)
    client = SplunkClient(address, _transport(ship, environment))
    name = f"splunk+{base}" + (f" index {ship.index}" if ship.index else "")
    if ship.without_ack:
        return _confirming(SplunkAcceptor(client), ship), name
    return SplunkSink(client), name


def _http(
    ship: ShipOptions, url: str, token: str | None, environment: Mapping[str, str]
) -> tuple[Sink, str]:
    from secure_pipeline.adapters.httpsink import HttpAcceptor, HttpAddress, HttpClient, HttpSink

    client = HttpClient(HttpAddress(url, token), _transport(ship, environment))
    if ship.without_ack:
        return _confirming(HttpAcceptor(client), ship), url
    return HttpSink(client), url


def _syslog(ship: ShipOptions, parts: SplitResult) -> tuple[Sink, str]:
    from secure_pipeline.adapters.clock import SystemClock
    from secure_pipeline.adapters.syslog import SyslogAddress, SyslogReceiver

    tls = parts.scheme == "syslog+tls"
    address = SyslogAddress(
        str(parts.hostname), int(parts.port or 0), tls, ship.ca, os.uname().nodename
    )
    if not ship.without_ack:
        raise UsageError(
            "syslog acknowledges nothing: what was read there may never be stored",
            where=address.text,
            hint="accept that with --without-ack, or use a collector that acknowledges",
        )
    return _confirming(SyslogReceiver(address, SystemClock()), ship), address.text


def _confirming(acceptor: Acceptor, ship: ShipOptions) -> Sink:
    from secure_pipeline.audit.sink import Confirming

    return Confirming(acceptor, ship.window, time.monotonic)


def _transport(ship: ShipOptions, environment: Mapping[str, str]) -> Transport:
    from secure_pipeline.adapters.clock import SystemClock
    from secure_pipeline.adapters.http import Transport
    from secure_pipeline.adapters.splunk import LIMITS
    from secure_pipeline.wiring.stores import proxies_of

    return Transport(SystemClock(), ca=ship.ca, proxies=proxies_of(environment), limits=LIMITS)
