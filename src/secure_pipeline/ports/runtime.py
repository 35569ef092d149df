"""What runs, as its runtime describes it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class ContainerKind(Enum):
    """What a container is in its workload."""

    MAIN = "container"
    INIT = "init"
    SIDECAR = "sidecar"
    """An init container that keeps running beside the main ones (Kubernetes 1.28)."""
    EPHEMERAL = "ephemeral"


@dataclass(frozen=True)
class RunningContainer:
    """One container as its runtime describes it, never as a specification does (REG-06)."""

    place: str
    """Where it runs: ``docker://NAME`` or ``k8s://NAMESPACE/POD#CONTAINER``."""
    id: str
    """The runtime's own id of the container."""
    kind: ContainerKind
    running: bool
    """False for one that ended, such as an init container."""
    asked: str
    """The image as it was asked for; only for messages."""
    image: str
    """What the runtime says it runs: ``sha256:<hex>`` of a config, a manifest or an index, with
    or without ``name@`` before it and ``docker-pullable://`` and the like cut off (REG-05)."""
    names: tuple[str, ...] = ()
    """``name@sha256:<hex>`` under which the runtime pulled it, if it says."""
    platform: str | None = None
    """os/arch[/variant] of the machine, if the runtime says."""
    read_only: bool = False
    """Its root file system cannot be written."""
    started: str = ""
    """When it started, as the runtime says; a restart changes it."""
    image_is_config: bool = False
    """``image`` is certainly the digest of a config, as in Docker's own image store."""


@dataclass(frozen=True)
class ChangedFile:
    """One file of the container's writable layer that can be executed."""

    path: str
    change: str
    """'added', 'changed' or 'deleted'."""


class Runtime(Protocol):
    """A container runtime or an orchestrator."""

    def containers(self) -> tuple[RunningContainer, ...]:
        """All containers of what was asked for; never empty.

        Raises: UsageError (there is none of that name), Unavailable (no answer, no permission).
        """

    def drift(self, container: RunningContainer) -> tuple[ChangedFile, ...] | None:
        """Executables that differ from the image, sorted by path; None if it cannot be seen.

        Raises: Unavailable; Inconclusive over a limit.
        """
