"""nginx through one file that it includes, and a socket on which its workers tell what is in it.

Open-source nginx has no API: weights are configuration, and come into force by a reload. So the
file that holds the upstream also holds a tiny server, and whoever asks that server is answered
by a running worker with the weights that this very worker uses.
https://nginx.org/en/docs/http/ngx_http_upstream_module.html; docs/how-to/routers.md.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import stat
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from secure_pipeline import shape
from secure_pipeline.adapters.unixsocket import check_path, exchange
from secure_pipeline.adapters.weights import shares, split
from secure_pipeline.canary.target import NginxRouter
from secure_pipeline.errors import ConfigError, Unavailable, VerificationFailed
from secure_pipeline.files import read_bounded, write_atomic
from secure_pipeline.ports import Clock, Routing

MAX_WEIGHT = 10_000
MAX_FILE = 64 << 10
MAX_ANSWER = 64 << 10
IN_A_ROW = 5
"""Answers with the new weights before they count as in force. nginx ends old workers 0.1 s after
new ones have begun, and any of them may take a connection until then."""
PAUSE_SECONDS = 0.1
"""Between two of these answers."""
READS = 3
"""Answers of workers that one ``read`` compares."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}\Z")
_PATH = re.compile(r"/[A-Za-z0-9_./-]+\Z")
_QUESTION = b"GET / HTTP/1.0\r\nHost: secure-pipeline\r\n\r\n"


class Control(Protocol):
    """What nginx's command line does."""

    def check(self) -> None:
        """Check the configuration on disk. Raises: Unavailable with nginx's message."""

    def reload(self) -> None:
        """Ask the running nginx to take it. Raises: Unavailable."""


class Nginx:
    """The two servers of one upstream. Implements ports.Router."""

    def __init__(
        self,
        config: NginxRouter,
        control: Control,
        clock: Clock,
        *,
        timeout: float = 5.0,
        settle: float = 20.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``timeout``: seconds for the answers of one ``read``; ``settle``: for a reload.

        Raises: ConfigError.
        """
        _check(config)
        self._config = config
        self._file = Path(config.file)
        self._socket = config.read_back.removeprefix("unix:")
        self._control = control
        self._clock = clock
        self._timeout = timeout
        self._settle = settle
        self._sleep = sleep

    def set(self, canary: str, share: Fraction) -> None:
        """See ports.Router. Raises: Unavailable, with the old file in place if nginx refuses."""
        if canary not in self._config.servers:
            raise ValueError(f"no slot {canary}")
        mine, others = split(share, MAX_WEIGHT)
        weights = {slot: mine if slot == canary else others for slot in self._config.servers}
        self._check_directory()
        old = self._bytes() if self._file.exists() else None
        write_atomic(self._file, render(self._config, weights))
        try:
            self._control.check()
        except BaseException:
            self._restore(old)
            raise
        self._control.reload()
        self._wait(weights)

    def read(self) -> Routing:
        """See ports.Router. A file that differs counts too: any reload brings it into force."""
        due = self._clock.monotonic() + self._timeout
        running = [self._ask(due) for _ in range(READS)]
        written = parse(self._bytes(), self._config)
        found = [shares(weights) for weights in (*running, written)]
        greatest = {slot: max(each[slot] for each in found) for slot in written}
        said = {_words(weights): None for weights in running}
        words = f"upstream {self._config.upstream}: {' or '.join(said)}"
        if any(weights != written for weights in running):
            words += f"; {self._file.name} has {_words(written)}"
        return Routing(greatest, words)

    def _wait(self, wanted: Mapping[str, int]) -> None:
        """Wait until workers, several times in a row, tell the new weights."""
        due = self._clock.monotonic() + self._settle
        row, last = 0, "no answer"
        while row < IN_A_ROW:
            left = due - self._clock.monotonic()
            if left <= 0:
                raise Unavailable(
                    f"nginx did not take the new weights within {self._settle:g} s: {last}",
                    where=str(self._file),
                    hint="nginx's error log says why",
                )
            try:
                told = self._ask(self._clock.monotonic() + min(left, self._timeout))
            except Unavailable as error:
                row, last = 0, str(error)
            else:
                row, last = row + 1 if told == wanted else 0, _words(told)
            if row < IN_A_ROW:
                self._sleep(PAUSE_SECONDS)

    def _ask(self, due: float) -> dict[str, int]:
        """What one running worker uses. Raises: Unavailable."""
        self._check_directory()
        try:
            answer = exchange(self._socket, _QUESTION, clock=self._clock, due=due, limit=MAX_ANSWER)
        except Unavailable as error:
            # A stale socket: nginx removes it when it ends, but not when it is killed.
            left = os.path.exists(self._socket)
            hint = f"start nginx; if it cannot bind, first remove {self._socket}" if left else None
            raise Unavailable(error.message, where=error.where, hint=hint) from None
        try:
            return parse_answer(answer, self._config)
        except VerificationFailed as error:
            raise Unavailable(
                f"nginx does not tell its weights: {error}",
                where=self._socket,
                hint=f"nginx must include {self._file} in its http block",
            ) from None

    def _check_directory(self) -> None:
        """Who can put a socket there can say anything about weights."""
        directory = os.path.dirname(self._socket)
        hint = f"install -d -m 700 {directory}"
        try:
            found = os.stat(directory)
        except OSError as error:
            raise Unavailable(str(error.strerror), where=directory, hint=hint) from None
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise Unavailable(
                "the read-back socket's directory must be this user's, and only this user's",
                where=directory,
                hint=hint,
            )

    def _bytes(self) -> bytes:
        try:
            return read_bounded(self._file, MAX_FILE)
        except ConfigError as error:
            raise Unavailable(error.message, where=error.where) from None

    def _restore(self, old: bytes | None) -> None:
        if old is None:
            self._file.unlink(missing_ok=True)
        else:
            write_atomic(self._file, old)


def render(config: NginxRouter, weights: Mapping[str, int]) -> bytes:
    """The whole file. ``weights``: slot to 0 to MAX_WEIGHT, not all 0.

    ``max_fails=0``: a server that fails keeps its share instead of giving it to the other.
    """
    told = {
        slot: {"server": address, "weight": weights[slot]}
        for slot, address in config.servers.items()
    }
    lines = [f"    server {told[slot]['server']} {_parameters(weights[slot])};" for slot in told]
    return f"""\
# Written by secure-pipeline promote, which overwrites it.
upstream {config.upstream} {{
    zone {config.upstream} 64k;
{chr(10).join(lines)}
}}
server {{
    listen {config.read_back};
    access_log off;
    location / {{
        default_type application/json;
        return 200 '{json.dumps(told)}';
    }}
}}
""".encode()


def parse(data: bytes, config: NginxRouter) -> dict[str, int]:
    """The weights in a file that is exactly as ``render`` writes it but for comments and spaces.

    Raises: Unavailable for any other.
    """
    text = _plain(data.decode("utf-8", "replace"))
    weights = {}
    for slot, address in config.servers.items():
        line = rf"server {re.escape(address)} (?:weight=([0-9]{{1,5}}) max_fails=0|down);"
        found = re.search(line, text)
        weights[slot] = int(found[1] or 0) if found else 0
    if text != _plain(render(config, weights).decode()) or max(weights.values()) > MAX_WEIGHT:
        raise Unavailable(
            "it is not as promote writes it, so nobody knows what a reload would do",
            where=config.file,
            hint="docs/how-to/routers.md shows the file to begin with",
        )
    return weights


def parse_answer(answer: bytes, config: NginxRouter) -> dict[str, int]:
    """The weights that a worker tells. Raises: VerificationFailed."""
    where = "its answer"
    head, separator, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    if not separator or not re.match(r"HTTP/1\.[01] 200 ", lines[0]):
        raise VerificationFailed("no answer with status 200", where=where)
    lengths = [line[15:].strip() for line in lines if line.lower().startswith("content-length:")]
    if lengths != [str(len(body))]:
        raise VerificationFailed("not whole", where=where)
    told = shape.parse_object(body, where, limit=MAX_ANSWER)
    if set(told) != set(config.servers):
        raise VerificationFailed("other slots than the target's", where=where)
    weights = {}
    for slot, address in config.servers.items():
        entry = shape.member(told, slot, dict, where)
        if shape.member(entry, "server", str, where) != address:
            raise VerificationFailed(f"slot {slot} has another server", where=where)
        weights[slot] = shape.member(entry, "weight", int, where)
        if not 0 <= weights[slot] <= MAX_WEIGHT:
            raise VerificationFailed(f"slot {slot} has no weight", where=where)
    return weights


def _check(config: NginxRouter) -> None:
    """Only plain values: whatever is written here becomes nginx's configuration."""
    if not _NAME.match(config.upstream):
        raise ConfigError(f"{config.upstream[:100]!r} is no name of an upstream")
    kind, _, path = config.read_back.partition(":")
    if kind != "unix" or not _PATH.match(path):
        raise ConfigError(f"read-back {config.read_back[:200]!r} is not unix:/PATH")
    check_path(path)
    if not os.path.isabs(config.file):
        raise ConfigError("nginx's file needs an absolute path", where=config.file)
    for address in config.servers.values():
        _check_address(address)


def _check_address(address: str) -> None:
    kind, _, rest = address.partition(":")
    if kind == "unix" and _PATH.match(rest):
        return check_path(rest)
    host, _, port = address.rpartition(":")
    try:
        literal = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        # nginx gives each address of a name the whole weight, and asks only when it starts.
        raise ConfigError(
            f"server {address[:200]!r} is no IP address with a port",
            hint="a name may have several addresses, and each would get the slot's weight",
        ) from None
    written = f"[{literal}]" if literal.version == 6 else str(literal)
    if host != written or not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise ConfigError(f"server {address[:200]!r} is not ADDRESS:PORT")
    return None


def _parameters(weight: int) -> str:
    return f"weight={weight} max_fails=0" if weight else "down"


def _plain(text: str) -> str:
    """Without comments, and with one space for any number."""
    return " ".join(re.sub(r"(?m)^[ \t]*#.*$", "", text).split())


def _words(weights: Mapping[str, int]) -> str:
    return ", ".join(f"{slot} weight {weight}" for slot, weight in weights.items())
