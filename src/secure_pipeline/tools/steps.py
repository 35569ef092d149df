"""The commands that an installation runs: logged, limited, in an environment of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.errors import Unavailable
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.files import write_atomic
from secure_pipeline.tools.process import Command, Outcome, Processes

STEP_SECONDS = 3600.0
_PASSED_ON = (
    *("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("GOPROXY", "GOSUMDB", "GOPRIVATE", "GONOPROXY", "GONOSUMDB"),
    *("GOCACHE", "GOMODCACHE", "GOPATH", "GOENV"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"),
    *("PIP_CERT", "PIP_CLIENT_CERT", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT"),
    *("PIP_CONFIG_FILE", "PIP_CACHE_DIR"),
)


def build_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of the environment that installing may see: no tokens and no flags.

    It says where packages come from; what comes is checked against pinned hashes.
    """
    return {name: environment[name] for name in _PASSED_ON if environment.get(name)}


@dataclass(frozen=True)
class Steps:
    """Runs the commands of installations into the store at ``root``."""

    root: Path
    processes: Processes
    environment: Mapping[str, str]
    """As build_environment() gives it."""
    path: str
    """Directories to find programs in."""
    on_event: OnEvent

    def run(
        self,
        name: str,
        argv: list[str],
        *,
        cwd: Path,
        environment: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Run one command for the tool ``name``, keeping its output in logs/NAME.log.

        Raises: Unavailable with the end of the log and where the whole log is.
        """
        outcome = self.processes.run(
            Command(
                argv=tuple(argv),
                cwd=cwd,
                env={
                    "PATH": self.path,
                    "LC_ALL": "C.UTF-8",
                    **self.environment,
                    **(environment or {}),
                },
                timeout=STEP_SECONDS,
            ),
            lambda line: self.say(name, line, detail=True),
        )
        log = self.root / "logs" / f"{name}.log"
        write_atomic(log, outcome.stdout + outcome.stderr)
        if not outcome.ok:
            tail = "".join(f"\n  {line}" for line in outcome.tail().splitlines())
            raise Unavailable(
                f"installing {name} failed: {outcome.describe()}{tail}",
                hint=f"the whole log is {log}",
            )
        return outcome

    def say(self, name: str, text: str, *, detail: bool = False) -> None:
        """Report progress of the installation of ``name``."""
        self.on_event(Progress(f"tools {name}", text, detail))
