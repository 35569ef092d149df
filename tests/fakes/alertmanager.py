"""A real Alertmanager of its own for a test, on loopback."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests

from fakes.prometheus import Program, free_port, program
from secure_pipeline.canary.target import ServiceAccess

_SECONDS = 30


@dataclass
class RealAlertmanager(Program):
    """An Alertmanager that notifies nobody."""

    url: str = ""

    @property
    def access(self) -> ServiceAccess:
        """What a target says about it."""
        return ServiceAccess(self.url, timeout=timedelta(seconds=5))

    def post(self, labels: Mapping[str, str]) -> None:
        """Tell it that an alert fires, as a Prometheus of somebody else would."""
        self._post("alerts", [{"labels": dict(labels)}])

    def silence(self, labels: Mapping[str, str]) -> None:
        """Silence what has these labels for an hour."""
        now = datetime.now(UTC)
        matchers = [
            {"name": name, "value": text, "isRegex": False, "isEqual": True}
            for name, text in labels.items()
        ]
        document = {
            "matchers": matchers,
            "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(hours=1)).isoformat(),
            "createdBy": "a test",
            "comment": "a test",
        }
        self._post("silences", document)

    def wait(self, name: str, state: str) -> None:
        """Wait until an alert of this name is ``active`` or ``suppressed``."""
        deadline = time.monotonic() + _SECONDS
        while True:
            listed = self._session().get(f"{self.url}/api/v2/alerts", timeout=_SECONDS).json()
            found = [
                item["status"]["state"] for item in listed if item["labels"]["alertname"] == name
            ]
            if state in found:
                return
            assert time.monotonic() < deadline, f"{name} is {found}"
            time.sleep(0.05)

    def _post(self, path: str, document: object) -> None:
        answer = self._session().post(f"{self.url}/api/v2/{path}", json=document, timeout=_SECONDS)
        assert answer.status_code == 200, answer.text

    def _session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        return session


@contextmanager
def alertmanager(directory: Path) -> Iterator[RealAlertmanager]:
    """Run one until the block ends."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "alertmanager.json"
    route = {"receiver": "nobody", "group_wait": "1s"}
    config.write_text(json.dumps({"route": route, "receivers": [{"name": "nobody"}]}))
    port = free_port()
    running = RealAlertmanager(
        [
            program("prometheus-alertmanager"),
            f"--config.file={config}",
            f"--storage.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ],
        directory / "alertmanager.log",
        port,
        url=f"http://127.0.0.1:{port}",
    )
    running.start()
    try:
        yield running
    finally:
        running.kill()
