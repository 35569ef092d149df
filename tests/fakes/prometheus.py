"""A real Prometheus of its own for a test; stopped, killed and restarted at will."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import requests

from fakes.authority import Authority
from secure_pipeline.canary.target import ServiceAccess

_SECONDS = 30


def free_port(host: str = "127.0.0.1") -> int:
    """A port of an address of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def program(name: str) -> str:
    """Path of a program of the system; it must be there."""
    found = shutil.which(name)
    assert found, f"{name} is missing: tools/system-packages test"
    return found


@dataclass
class Program:
    """A program that serves on a port; it may be started again after ``kill``."""

    command: Sequence[str]
    log: Path
    port: int
    environment: Mapping[str, str] | None = None
    process: subprocess.Popen[bytes] | None = None
    address: str = "127.0.0.1"

    def start(self) -> None:
        """Start it and wait until the port is open."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,  # a Ctrl-C of the test's program is not meant for it
            )
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                socket.create_connection((self.address, self.port), timeout=1).close()
                return
            except OSError:
                ended = self.process.poll() is not None
                if ended or time.monotonic() > deadline:
                    self.kill()
                    raise AssertionError(f"{self.command[0]}: {self.log.read_text()}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        """Let it hang: connections are taken by the system and never answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again after ``stop``."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a crash would; also when it is stopped or gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(_SECONDS)
            self.process = None

    def restart(self) -> None:
        """Kill it and start it on the same port and data."""
        self.kill()
        self.start()


@dataclass
class RealPrometheus(Program):
    """A Prometheus whose targets are scraped at a short interval."""

    url: str = ""
    directory: Path = Path()
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def access(self) -> ServiceAccess:
        """What a target says about it."""
        return ServiceAccess(self.url, timeout=timedelta(seconds=5))

    def query(self, expression: str) -> list[Any]:
        """The result of an instant query, as the API gives it."""
        answer = self.session.get(
            f"{self.url}/api/v1/query", params={"query": expression}, timeout=_SECONDS
        )
        answer.raise_for_status()
        return list(answer.json()["data"]["result"])

    def wait(self, expression: str, least: float = 1.0) -> float:
        """Wait until an expression's first sample is at least so much; give it."""
        deadline = time.monotonic() + _SECONDS
        while True:
            found = self.query(expression)
            if found and float(found[0]["value"][1]) >= least:
                return float(found[0]["value"][1])
            assert time.monotonic() < deadline, f"{expression} gives {found}"
            time.sleep(0.05)

    def wait_ready(self) -> None:
        """Wait until it answers queries."""
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                if self.session.get(f"{self.url}/-/ready", timeout=5).status_code == 200:
                    return
            except requests.RequestException:
                pass
            assert time.monotonic() < deadline, f"not ready: {self.log.read_text()}"
            time.sleep(0.05)

    def restart(self) -> None:
        super().restart()
        self.wait_ready()


Targets = Sequence[tuple[str, Mapping[str, str]]]
"""host:port of each target, and the labels that its series get."""


def configuration(
    targets: Targets, interval: str, rules: Path | None = None, alertmanager: str | None = None
) -> dict[str, Any]:
    """A configuration of Prometheus (JSON is YAML)."""
    scraped = [{"targets": [host], "labels": dict(labels)} for host, labels in targets]
    found: dict[str, Any] = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "scrape_configs": [
            {"job_name": "service", "scrape_timeout": interval, "static_configs": scraped}
        ],
    }
    if rules is not None:
        found["rule_files"] = [str(rules)]
    if alertmanager is not None:
        static = [{"targets": [alertmanager.removeprefix("http://")]}]
        found["alerting"] = {"alertmanagers": [{"static_configs": static}]}
    return found


@contextmanager
def prometheus(
    directory: Path,
    targets: Targets,
    *,
    rules: Mapping[str, str] | None = None,
    interval: str = "1s",
    alertmanager: str | None = None,
    authority: Authority | None = None,
    users: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
) -> Iterator[RealPrometheus]:
    """Run one until the block ends.

    ``rules``: name of an alert to its expression. ``alertmanager``: its URL. With ``authority``
    it speaks TLS; ``users``: name to the bcrypt hash of a password that it then wants.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rule_file = directory / "rules.json" if rules is not None else None
    if rule_file is not None and rules is not None:
        listed = [
            {"alert": name, "expr": text, "labels": {"severity": "page"}}
            for name, text in rules.items()
        ]
        rule_file.write_text(json.dumps({"groups": [{"name": "tests", "rules": listed}]}))
    config = directory / "prometheus.json"
    config.write_text(json.dumps(configuration(targets, interval, rule_file, alertmanager)))
    port = free_port(host)
    command = [
        # An alert that came before Alertmanager was known is told again, not a minute later.
        *(program("prometheus"), f"--config.file={config}"),
        *(f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address={host}:{port}"),
        "--rules.alert.resend-delay=1s",
    ]
    if authority is not None or users is not None:
        command.append(f"--web.config.file={_web(directory, authority, users)}")
    scheme = "https" if authority else "http"
    running = RealPrometheus(
        command,
        directory / "prometheus.log",
        port,
        address=host,
        url=f"{scheme}://{host}:{port}",
        directory=directory,
    )
    running.session.trust_env = False
    running.session.verify = str(authority.ca) if authority else True
    running.start()
    try:
        if users is None:
            running.wait_ready()
        yield running
    finally:
        running.kill()
        running.session.close()


def _web(directory: Path, authority: Authority | None, users: Mapping[str, str] | None) -> Path:
    """Prometheus's own configuration of TLS and users."""
    found: dict[str, Any] = {}
    if authority is not None:
        found["tls_server_config"] = {
            "cert_file": str(authority.certificate),
            "key_file": str(authority.key),
        }
    if users is not None:
        found["basic_auth_users"] = dict(users)
    path = directory / "web.json"
    path.write_text(json.dumps(found))
    return path
