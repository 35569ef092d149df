"""Which store a command means: an OCI layout on this machine, or a repository of a registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.dockerconfig import DockerConfig, HelperPrograms
from secure_pipeline.adapters.registry import Repository, open_repository
from secure_pipeline.errors import UsageError
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.reference import in_registry
from secure_pipeline.oci.store import Source
from secure_pipeline.tools.process import Processes
from secure_pipeline.wiring.options import RegistryOptions

_HELPER_VARIABLES = ("HOME", "PATH", "USER", "LANG", "DBUS_SESSION_BUS_ADDRESS", "GNUPGHOME")
_HELPER_PREFIXES = ("XDG_", "AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "ECR_")
"""What credential helpers of the session and of clouds read; nothing of the pipeline's own."""


class Stores:
    """Opens stores; each repository once, so that its logins and connections are kept."""

    def __init__(
        self, environment: Mapping[str, str], options: RegistryOptions, processes: Processes
    ) -> None:
        self._options = options
        directory = environment.get("DOCKER_CONFIG") or f"{environment.get('HOME') or '/'}/.docker"
        helpers = HelperPrograms(
            processes,
            tuple(environment.get("PATH", "").split(":")),
            {
                name: value
                for name, value in environment.items()
                if name in _HELPER_VARIABLES or name.startswith(_HELPER_PREFIXES)
            },
        )
        self._credentials = DockerConfig(Path(directory), helpers)
        self._proxies = proxies_of(environment)
        self._open: dict[str, Repository] = {}

    def repository(self, name: str) -> Repository:
        """Open ``host[:port]/path``. Raises: UsageError, ConfigError."""
        if name not in self._open:
            self._open[name] = open_repository(
                name,
                credentials=self._credentials,
                ca=self._options.ca,
                plain_http=self._options.plain_http,
                realms=self._options.realms,
                proxies=self._proxies,
                clock=SystemClock(),
            )
        return self._open[name]

    def source(self, name: str, layout: Path | None) -> Source:
        """The layout that was named, or the registry that the image's name begins with.

        Raises: UsageError if it is neither.
        """
        if layout is not None:
            return Layout.open(layout)
        if not in_registry(name):
            raise UsageError(
                f"{name!r} names no registry",
                hint=f"write its host, as in docker.io/library/{name}; or give --layout DIR",
            )
        return self.repository(name)


def proxies_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Proxies by scheme, and under ``no`` the hosts without; lower-case names win, as in curl."""
    named = sorted(name for name in environment if name.lower().endswith("_proxy"))
    found = {name.lower().removesuffix("_proxy"): environment[name] for name in named}
    return {scheme: value for scheme, value in found.items() if value}
