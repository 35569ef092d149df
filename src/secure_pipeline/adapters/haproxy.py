"""HAProxy through its runtime API: weights by ``set weight``, the read-back from ``show stat``.

https://docs.haproxy.org/2.6/management.html (9.1 the statistics, 9.3 the Unix socket commands).
docs/how-to/routers.md says what a backend needs.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from secure_pipeline.adapters.unixsocket import check_path, exchange
from secure_pipeline.adapters.weights import shares, split
from secure_pipeline.canary.target import HaproxyRouter
from secure_pipeline.errors import ConfigError, Unavailable
from secure_pipeline.ports import Clock, Routing

MAX_WEIGHT = 256
MAX_ANSWER = 8 << 20
"""Bytes; a line of the statistics has some 500."""
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,200}\Z")
_NUMBER = re.compile(r"[0-9]{1,9}\Z")
_SHOW = "show stat -1 6 -1"
"""All proxies; backends (2) and servers (4); all servers."""
_SHOWN = 10
_BACKEND, _SERVER = "1", "2"
_ADMIN = "give the stats socket 'level admin' in HAProxy's global section"


@dataclass(frozen=True)
class Server:
    """One server of the backend, as HAProxy sees it now."""

    name: str
    status: str
    """UP, DOWN, MAINT, DRAIN, NOLB, 'no check', with details behind some."""
    weight: int
    """As it was set, by whomever (an agent check sets it too)."""
    effective: int
    """Less than ``weight`` during a slow start."""
    backup: bool
    full: bool
    """At its ``maxconn``: round robin passes it over."""

    @property
    def up(self) -> bool:
        """Whether it takes requests."""
        return self.status == "no check" or self.status.split(" ")[0] == "UP"

    @property
    def counted(self) -> int:
        """Its weight against the other server's."""
        return self.effective if self.up and not self.full and not self.backup else 0

    def describe(self) -> str:
        """In HAProxy's words."""
        slow = f" (now {self.effective})" if self.effective != self.weight else ""
        more = (", backup" if self.backup else "") + (", full" if self.full else "")
        return f"{self.name} weight {self.weight}{slow} {self.status}{more}"


@dataclass(frozen=True)
class Backend:
    """The backend and all its servers."""

    algorithm: str
    mode: str
    cookie: str
    """Name of the cookie that ties clients to a server; '' without one."""
    servers: Mapping[str, Server]

    def reasons(self) -> list[str]:
        """Why weights do not decide the share of requests in it; empty if they do."""
        found = []
        if self.algorithm != "roundrobin":
            found.append(f"balance {self.algorithm} (needed: roundrobin)")
        if self.mode != "http":
            found.append(f"mode {self.mode} splits connections, not requests")
        if self.cookie:
            found.append(f"cookie {self.cookie} ties clients to a server")
        return found


class Haproxy:
    """The two servers of one backend. Implements ports.Router."""

    def __init__(self, config: HaproxyRouter, clock: Clock, timeout: float = 5.0) -> None:
        """``timeout``: seconds for one call. Raises: ConfigError."""
        check_path(config.socket)
        for name in (config.backend, *config.servers.values()):
            if not _NAME.match(name):
                raise ConfigError(f"{name[:100]!r} is no name of HAProxy")
        self._config = config
        self._clock = clock
        self._timeout = timeout

    def set(self, canary: str, share: Fraction) -> None:
        """See ports.Router. At no moment does the canary get more than before or than after.

        Raises: Unavailable also where weights would not decide the share, where the canary is not
        up, or where the baseline takes less than its weight: only 0 is asked for in every state.
        """
        due = self._clock.monotonic() + self._timeout
        server = self._config.servers[canary]
        (other,) = (name for slot, name in self._config.servers.items() if slot != canary)
        mine, others = split(share, MAX_WEIGHT)
        backend = self._backend(due)
        if share:
            self._refuse(backend, backend.servers[server], backend.servers[other], share)
        orders = [(server, mine), (other, others)]
        before = backend.servers[other].weight
        # More for the baseline comes first and less comes last; but where the baseline serves
        # already, a canary that has to go goes first.
        if before < others and (mine or not before):
            orders.reverse()
        for name, weight in orders:
            self._set_weight(name, weight, due)

    def read(self) -> Routing:
        """See ports.Router. Raises: Unavailable."""
        backend = self._backend(self._clock.monotonic() + self._timeout)
        slots = {slot: backend.servers[name] for slot, name in self._config.servers.items()}
        reasons = backend.reasons()
        weights = {slot: server.weight for slot, server in slots.items()}
        counted = {slot: 0 if reasons else server.counted for slot, server in slots.items()}
        words = [f"backend {self._config.backend}", *(s.describe() for s in slots.values())]
        strange = [server.describe() for server in self._strangers(backend)]
        return Routing(shares(weights, counted), ", ".join([*words, *strange, *reasons]))

    def _refuse(self, backend: Backend, canary: Server, baseline: Server, share: Fraction) -> None:
        where = f"{self._config.socket} {self._config.backend}"
        reasons = [
            *backend.reasons(),
            *(f"server {server.name} serves too" for server in self._strangers(backend)),
            *(f"server {each.name} is a backup" for each in (canary, baseline) if each.backup),
        ]
        if reasons:
            raise Unavailable(
                f"weights do not decide the share here: {'; '.join(reasons)}",
                where=where,
                hint="docs/how-to/routers.md shows a backend that can be steered",
            )
        if not canary.up:
            raise Unavailable(f"the canary cannot take traffic: {canary.describe()}", where=where)
        # All that the baseline leaves goes to the canary, which may have everything only at 1.
        if share < 1 and not (baseline.up and baseline.counted == baseline.weight):
            raise Unavailable(
                f"the canary would get more: {baseline.describe()} cannot take its share",
                where=where,
            )

    def _strangers(self, backend: Backend) -> list[Server]:
        """Servers that are no slot and might get requests."""
        slots = self._config.servers.values()
        return [
            server
            for name, server in backend.servers.items()
            if name not in slots and server.weight and not server.status.startswith("MAINT")
        ]

    def _set_weight(self, server: str, weight: int, due: float) -> None:
        command = f"set weight {self._config.backend}/{server} {weight}"
        answer = self._ask(command, due).decode("utf-8", "replace").strip()
        if answer:
            raise Unavailable(
                f"{command!r} was refused: {_line(answer)}",
                where=self._config.socket,
                hint=_ADMIN if answer == "Permission denied" else None,
            )

    def _backend(self, due: float) -> Backend:
        answer = self._ask(_SHOW, due)
        try:
            backend = parse(answer, self._config.backend)
            missing = set(self._config.servers.values()) - set(backend.servers)
            if missing:
                raise Unknown(
                    f"backend {self._config.backend} has no server {' or '.join(sorted(missing))}",
                    list(backend.servers),
                )
        except Unknown as error:
            raise Unavailable(str(error), where=self._config.socket, hint=error.hint) from None
        except ValueError as error:
            raise Unavailable(
                f"the statistics cannot be understood: {error}", where=self._config.socket
            ) from None
        if not backend.algorithm:
            raise Unavailable(
                "the socket does not tell how the backend balances",
                where=self._config.socket,
                hint=_ADMIN,
            )
        return backend

    def _ask(self, command: str, due: float) -> bytes:
        """One command. Every answer ends with an empty line: one that does not was cut off."""
        answer = exchange(
            self._config.socket,
            command.encode() + b"\n",
            clock=self._clock,
            due=due,
            limit=MAX_ANSWER,
        )
        if answer != b"\n" and not answer.endswith(b"\n\n"):
            raise Unavailable(f"{command!r} got no whole answer", where=self._config.socket)
        return answer


class Unknown(Exception):
    """There is no such backend or server; there are others."""

    def __init__(self, message: str, names: list[str]) -> None:
        super().__init__(message)
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        self.hint = f"there is: {', '.join(sorted(names)[:_SHOWN]) or 'nothing'}{more}"


def parse(answer: bytes, name: str) -> Backend:
    """Find one backend in the answer to ``show stat``.

    Raises: Unknown; ValueError for anything that is not the whole table as HAProxy writes it.
    """
    rows = _rows(answer)
    known = [row["pxname"] for row in rows if row["type"] == _BACKEND]
    lines = [row for row in rows if row["pxname"] == name and row["type"] == _BACKEND]
    if not lines:
        raise Unknown(f"there is no backend {name}", known)
    if len(lines) > 1:
        raise ValueError(f"two backends are called {name}")
    found = [_server(r) for r in rows if r["pxname"] == name and r["type"] == _SERVER]
    servers = {server.name: server for server in found}
    if len(servers) != len(found):
        raise ValueError("two servers have one name")
    row = lines[0]
    return Backend(row["algo"], row["mode"], row["cookie"], servers)


def _rows(answer: bytes) -> list[dict[str, str]]:
    """The table; each row with a value for each column of the header."""
    text = answer.decode("utf-8")  # UnicodeDecodeError is a ValueError
    if not text.startswith("# pxname,") or not text.endswith("\n\n"):
        raise ValueError("no table, or not all of it")
    try:
        header, *rows = csv.reader(io.StringIO(text[2:-1], newline=""), strict=True)
    except csv.Error as error:
        raise ValueError(str(error)) from None
    columns = [name for name in header if name]
    if len(set(columns)) != len(columns):
        raise ValueError("two columns have one name")
    needed = (
        *("pxname", "svname", "type", "status", "weight", "uweight", "bck"),
        *("qcur", "scur", "slim", "algo", "mode", "cookie"),
    )
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ValueError(f"no column {missing[0]}")
    if any(len(row) != len(header) for row in rows):
        raise ValueError("a row has another number of columns than the header")
    return [dict(zip(header, row, strict=True)) for row in rows]


def _server(row: Mapping[str, str]) -> Server:
    limit = _number(row, "slim") if row["slim"] else None
    weight, effective = (_number(row, name) for name in ("uweight", "weight"))
    if not row["status"] or not max(weight, effective) <= MAX_WEIGHT:
        raise ValueError(f"server {row['svname'][:100]!r} has no status, or no weight")
    return Server(
        name=row["svname"],
        status=row["status"],
        weight=weight,
        effective=effective,
        backup=row["bck"] != "0",
        full=bool(limit) and (_number(row, "scur") >= (limit or 0) or _number(row, "qcur") > 0),
    )


def _number(row: Mapping[str, str], name: str) -> int:
    if not _NUMBER.match(row[name]):
        raise ValueError(f"{name} is {row[name][:40]!r}")
    return int(row[name])


def _line(text: str) -> str:
    words = " ".join(text.split())[:300]
    return "".join(mark if mark.isprintable() else "?" for mark in words)
