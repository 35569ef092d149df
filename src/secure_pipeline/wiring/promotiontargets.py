"""The real router, metrics, runtimes and health addresses of a promotion target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.healthcheck import HealthCheck
from secure_pipeline.canary import target as targets
from secure_pipeline.canary.controller import Identity
from secure_pipeline.canary.target import (
    LoadedTarget,
    NginxRouter,
    RouterConfig,
    ServiceAccess,
    Target,
)
from secure_pipeline.errors import ConfigError, PipelineError, Unavailable, UsageError
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.oci.store import Source
from secure_pipeline.ports import Metrics, Router, Runtime
from secure_pipeline.stages.promotion_identity import described, identify
from secure_pipeline.stages.running_target import parse_target
from secure_pipeline.tools.locate import SYSTEM_PATH, search
from secure_pipeline.tools.nginx import NginxCommand
from secure_pipeline.tools.process import Processes
from secure_pipeline.wiring.options import World
from secure_pipeline.wiring.running import cluster_config, open_runtime

Identifier = Callable[[str, ImageReference], Identity]
TARGETS_VARIABLE = "SECURE_PIPELINE_TARGETS"
"""Directory of target files, so that ``--to production`` is enough."""


def find_target(text: str, world: World) -> LoadedTarget:
    """Load the target that ``--to`` names: a file, or a name in the operator's directory.

    Never one of the repository under test. Raises: UsageError, ConfigError.
    """
    if "/" in text or text.endswith((".yaml", ".yml")):
        return targets.load(world.directory / text)
    directory = world.environment.get(TARGETS_VARIABLE)
    if not directory:
        raise UsageError(
            f"{text[:80]!r} is no file, and {TARGETS_VARIABLE} names no directory of targets",
            hint=f"--to {text[:80]}.yaml",
        )
    return targets.load(Path(directory) / f"{text}.yaml")


class Place:
    """Everything that a target names. Only the router has to open: an abort needs nothing more."""

    def __init__(self, target: Target, world: World, processes: Processes) -> None:
        """Raises: UsageError, ConfigError, Unavailable if the router cannot be opened."""
        self.target = target
        self.router = open_router(target.router, world, processes)
        self._world = world
        self._clock = SystemClock()
        self._health = HealthCheck(self._clock)

    @cached_property
    def metrics(self) -> Metrics:
        """What scrapes both slots. Raises: ConfigError."""
        from secure_pipeline.adapters.prometheus import Prometheus

        alerts = self.target.alertmanager
        return Prometheus(
            self._access(self.target.prometheus),
            self._clock,
            alertmanager=self._access(alerts) if alerts else None,
        )

    @cached_property
    def _runtimes(self) -> dict[str, Runtime]:
        return {
            name: open_runtime(parse_target(slot.runtime), self._world.environment)
            for name, slot in self.target.slots.items()
            if slot.runtime is not None
        }

    def identifier(self, source: Callable[[ImageReference], Source]) -> Identifier | None:
        """What compares a slot with an image; None if the target says why it need not be."""
        if self.target.identity_unchecked is not None:
            return None

        def of(slot: str, image: ImageReference) -> Identity:
            try:
                return identify(self._runtimes[slot], source(image), image)
            except PipelineError as error:
                return Identity(None, str(error))

        return of

    def described(self, slot: str) -> str | None:
        """What runs in a slot, in its runtime's words; None if it cannot be told."""
        try:
            return described(self._runtimes[slot]) if slot in self._runtimes else None
        except PipelineError:
            return None

    def healthy(self, slot: str) -> bool | None:
        """Whether a slot can serve; None if the target names no address for it."""
        url = self.target.slots[slot].health
        return None if url is None else self._health.healthy(url)

    def _access(self, access: ServiceAccess) -> ServiceAccess:
        """Its files, named from the working directory."""

        def absolute(name: str | None) -> str | None:
            return None if name is None else str(self._world.directory / name)

        return replace(
            access,
            ca=absolute(access.ca),
            token_file=absolute(access.token_file),
            password_file=absolute(access.password_file),
        )


def open_router(config: RouterConfig, world: World, processes: Processes) -> Router:
    """The one router that a target names. Raises: ConfigError, Unavailable."""
    clock = SystemClock()
    if config.haproxy is not None:
        from secure_pipeline.adapters.haproxy import Haproxy

        return Haproxy(config.haproxy, clock)
    if config.nginx is not None:
        from secure_pipeline.adapters.nginx import Nginx

        return Nginx(config.nginx, nginx_command(config.nginx, world, processes), clock)
    assert config.gateway_api is not None
    from secure_pipeline.adapters.gateway_api import GatewayApiRouter

    return GatewayApiRouter(config.gateway_api, cluster_config(world.environment), clock)


def nginx_command(config: NginxRouter, world: World, processes: Processes) -> NginxCommand:
    """The program of nginx. Raises: ConfigError (no command), Unavailable (no such program)."""
    if not config.command:
        raise ConfigError("the command of nginx is empty", where="router.nginx")
    name, *arguments = config.command
    path = f"{world.path}:{SYSTEM_PATH}"
    program = Path(name) if "/" in name else search(name, path)
    if program is None or not program.is_absolute() or not program.is_file():
        raise Unavailable(f"there is no program {name[:200]!r}", where="router.nginx.command")
    return NginxCommand(program, arguments, processes)
