"""What a command line says, and what the environment does; loads nothing that takes time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.tools.locate import ToolStore

STATE = ".secure-pipeline"
"""Directory beside the configuration that holds runs, cache and images."""
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True)
class RegistryOptions:
    """What the operator says about registries."""

    ca: Path | None = None
    """PEM file of authorities to trust instead of the usual ones."""
    plain_http: bool = False
    """Speak http to registries that are not on this machine."""
    realms: tuple[str, ...] = ()
    """Token services that may have the credentials besides the registry itself."""


@dataclass(frozen=True)
class Options:
    """What a command line says; None where nothing was said."""

    config: Path | None = None
    policy: Path | None = None
    state: Path | None = None
    run: str | None = None
    key: str | None = None
    image: str | None = None
    database: str | None = None
    cache: bool = True
    registry: RegistryOptions = RegistryOptions()
    ledger: Path | None = None
    anchor: Path | None = None
    """File that signed heads of the ledger are kept in."""
    expect: tuple[str, ...] = ()
    """STAGE=sha256:DIGEST of results that earlier stages must have left, and no others."""


@dataclass(frozen=True)
class World:
    """What wiring read from the environment."""

    environment: Mapping[str, str]
    path: str
    store: ToolStore
    directory: Path
    """The working directory."""


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that name proxies, for programs that talk to others."""
    return {name: value for name, value in environment.items() if name.lower() in _PROXIES}
