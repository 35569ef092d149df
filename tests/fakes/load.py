"""A bounded stream of requests to the sample service, through whatever stands before it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_SECONDS = 20


@dataclass
class Load:
    """Requests being sent. Without ``Connection: close`` a router would not share them out."""

    url: str
    rate: float
    """Requests a second, all threads together."""
    tokens: int
    """A request."""
    host: str | None = None
    """Name that is asked for, where it is not that of the URL."""
    counts: Counter[str] = field(default_factory=Counter)
    """Answers by the version that gave them; ``"500"`` and such by status; ``"none"``."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _sent: int = 0

    def start(self, threads: int) -> None:
        begun = time.monotonic()
        for number in range(threads):
            thread = threading.Thread(target=self._run, args=(begun, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Send no more, and wait for the answers."""
        self._ended.set()
        for thread in self._threads:
            thread.join(_SECONDS)

    @property
    def total(self) -> int:
        """Requests that have ended."""
        with self._lock:
            return self.counts.total()

    def wait(self, answers: int, version: str | None = None) -> None:
        """Wait for so many more answers, of a version if one is named."""
        deadline = time.monotonic() + 60
        goal = answers + (self.counts[version] if version else self.total)
        while (self.counts[version] if version else self.total) < goal:
            assert time.monotonic() < deadline, f"{dict(self.counts)} after a minute"
            time.sleep(0.02)

    def _run(self, begun: float, number: int) -> None:
        while True:
            with self._lock:
                due = begun + self._sent / self.rate
                # After a pause of this machine the requests missed are not sent all at once.
                self._sent = max(self._sent, int((time.monotonic() - begun - 1) * self.rate)) + 1
                name = f"c{number}-{self._sent}"
            if self._ended.wait(max(0.0, due - time.monotonic())):
                return
            found = self._ask(name)
            with self._lock:
                self.counts[found] += 1

    def _ask(self, name: str) -> str:
        body = json.dumps({"context_id": name, "prompt": "The wind", "max_tokens": self.tokens})
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if self.host:
            headers["Host"] = self.host
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=_SECONDS)
        try:
            connection.request("POST", "/v1/generate", body, headers)
            answer = connection.getresponse()
            data = answer.read(1 << 20)
            return str(json.loads(data)["version"]) if answer.status == 200 else str(answer.status)
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            return "none"
        finally:
            connection.close()


@contextmanager
def load(
    url: str, *, rate: float = 40, tokens: int = 4, threads: int = 8, host: str | None = None
) -> Iterator[Load]:
    """Send requests to ``url`` until the block ends, or ``stop``.

    A thread waits for its answer, so the rate is lower where answers are slow.
    """
    running = Load(url.rstrip("/"), rate, tokens, host)
    running.start(threads)
    try:
        yield running
    finally:
        running.stop()
