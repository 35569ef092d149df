"""A whole place to promote in: signed release, two services, router, Prometheus, load, target."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fakes.evidence import NAME
from fakes.haproxy import haproxy
from fakes.inference import RunningService, inference
from fakes.load import Load, load
from fakes.nginx import nginx, program
from fakes.prometheus import RealPrometheus, prometheus
from fakes.release import REQUIRE, Release, policy
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.haproxy import Haproxy
from secure_pipeline.adapters.nginx import Nginx
from secure_pipeline.keys import local
from secure_pipeline.ports import Router
from secure_pipeline.tools.nginx import NginxCommand
from secure_pipeline.tools.process import Processes

PASSWORD = "only for tests"
STEPS = [
    {"share": "5%", "minimum": "1s", "deadline": "60s"},
    {"share": "25%", "minimum": "1s", "deadline": "60s"},
    {"share": "50%", "minimum": "1s", "deadline": "60s"},
]
ANALYSIS = {
    "interval": "500ms", "healthy-looks": 2, "minimum-tokens": 4, "false-advance": "20%",
    "stale-after": "10s",
}  # fmt: skip
RULES = {"latency": {"share": "10%"}, "errors": {"share": "1.5%"}}


@dataclass
class LivePlace:
    """Where ``promote`` is typed. Slot blue has all traffic, green runs the canary."""

    directory: Path
    router: Router
    router_config: Mapping[str, Any]
    url: str
    services: Mapping[str, RunningService]
    prometheus: RealPrometheus
    load: Load
    image: str
    settings: dict[str, Any] = field(default_factory=dict)
    """What a test wants otherwise in the target."""

    @property
    def target(self) -> Path:
        """The target's file, written anew from ``settings``."""
        slots = {
            slot: {"labels": {"slot": slot}, "health": f"{service.url}/readyz"}
            for slot, service in self.services.items()
        }
        document = {
            "version": 1,
            "name": "production",
            "slots": slots,
            "router": self.router_config,
            "prometheus": {"url": self.prometheus.url, "timeout": "2s"},
            "rules": RULES,
            "analysis": ANALYSIS,
            "steps": STEPS,
            "identity-unchecked": "the tests' services are plain processes",
            **self.settings,
        }
        path = self.directory / "target.yaml"
        path.write_text(json.dumps(document))
        return path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the program in this place."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return subprocess.Popen(
            [sys.executable, "-m", "secure_pipeline", *arguments],
            cwd=self.directory,
            env={
                **kept,
                "SECURE_PIPELINE_STATE": str(self.directory / "state"),
                "SECURE_PIPELINE_KEY_PASSWORD": PASSWORD,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def promote(self, *more: str, image: str | None = "") -> subprocess.Popen[str]:
        """Start ``promote`` of the release; ``image`` names another one, None leaves it out."""
        named = [] if image is None else [image or self.image]
        return self.start(
            "promote", *named, "--to", str(self.target), "--key", "file:promotion.key",
            "--layout", "image", "--policy", "policy.yaml", *more,
        )  # fmt: skip

    def ended(self, process: subprocess.Popen[str], timeout: float = 240) -> Ended:
        """Wait for its end."""
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            raise
        assert "Traceback" not in err, err
        return Ended(process.returncode, out, err)

    def run(self, *arguments: str) -> Ended:
        """Run another command with the place's layout and policy."""
        options = ("--layout", "image", "--policy", "policy.yaml")
        return self.ended(self.start(*arguments, *options))

    def share(self) -> float:
        """The canary's share that the router has in force."""
        return float(self.router.read().shares["green"])

    def state(self) -> dict[str, Any]:
        """What is on disk of a promotion under way; {} if none is."""
        path = self.directory / "state/promotions/production/current.json"
        return dict(json.loads(path.read_bytes())) if path.exists() else {}

    def until(self, true: Callable[[], bool], process: subprocess.Popen[str], what: str) -> None:
        """Wait for something while the program runs."""
        deadline = time.monotonic() + 90
        while not true():
            if process.poll() is not None:
                out, err = process.communicate()
                raise AssertionError(f"it ended before: {what}\n{out}\n{err}")
            assert time.monotonic() < deadline, f"not in time: {what}"
            time.sleep(0.02)


@dataclass(frozen=True)
class Ended:
    """How the program ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All that it said."""
        return f"exit {self.code}\n{self.out}\n{self.err}"


Front = Callable[[ExitStack, Path, Mapping[str, RunningService]], tuple[Router, Any, str]]


def behind_haproxy(
    stack: ExitStack, directory: Path, services: Mapping[str, RunningService]
) -> tuple[Router, Any, str]:
    """HAProxy in front of both."""
    ports = {slot: service.port for slot, service in services.items()}
    running = stack.enter_context(haproxy(directory, ports, check="/readyz"))
    config = running.target_router
    document = {
        "socket": config.socket, "backend": config.backend, "servers": dict(config.servers),
    }  # fmt: skip
    return Haproxy(config, SystemClock()), {"haproxy": document}, running.url


def behind_nginx(
    stack: ExitStack, directory: Path, services: Mapping[str, RunningService]
) -> tuple[Router, Any, str]:
    """A real nginx in front of both."""
    ports = {slot: service.port for slot, service in services.items()}
    running = stack.enter_context(nginx(directory / "front", ports))
    config = running.target_router
    document = {
        "file": config.file, "upstream": config.upstream, "servers": dict(config.servers),
        "read-back": config.read_back, "command": list(config.command),
    }  # fmt: skip
    control = NginxCommand(Path(program()), config.command[1:], Processes(threading.Event()))
    return Nginx(config, control, SystemClock()), {"nginx": document}, running.url


@contextmanager
def live_place(
    directory: Path,
    *,
    front: Front = behind_haproxy,
    rate: float = 60,
    alerts: Mapping[str, str] | None = None,
    **canary: float,
) -> Iterator[LivePlace]:
    """Everything running, with samples of both slots; ``canary`` are faults of ``inference``."""
    directory.mkdir(parents=True, exist_ok=True)
    release = Release(directory / "image")
    release.run(time=datetime.now(UTC))
    local.generate(directory / "promotion.key", PASSWORD)
    trusted = policy(directory, require=REQUIRE.replace(", max-age: 7d", ""))
    entry = "keys: [{id: promotion, public-key: promotion.pub, algorithm: ecdsa-p256-sha256}, "
    trusted.source.write_text(trusted.source.read_text().replace("keys: [", entry))
    with ExitStack() as stack:
        services = {
            "blue": stack.enter_context(inference(directory, "v1", token_delay_ms=2)),
            "green": stack.enter_context(inference(directory, "v2", token_delay_ms=2, **canary)),
        }
        router, config, url = front(stack, directory, services)
        scraped = [(service.host, {"slot": slot}) for slot, service in services.items()]
        metrics = stack.enter_context(
            prometheus(directory / "metrics", scraped, interval="500ms", rules=alerts)
        )
        sent = stack.enter_context(load(url, rate=rate, tokens=4, threads=16))
        metrics.wait('count(inference_tokens_total{slot="green"})')
        metrics.wait('sum(inference_tokens_total{slot="blue"})', 20)
        image = f"{NAME}@{release.image.digest}"
        yield LivePlace(directory, router, config, url, services, metrics, sent, image)
