"""A container runtime that is told what runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from secure_pipeline.errors import PipelineError, Unavailable, UsageError
from secure_pipeline.ports import ChangedFile, ContainerKind, RunningContainer


@dataclass
class FakeRuntime:
    """Runs what is in ``running``; ``listings`` overrides what each next listing says."""

    running: list[RunningContainer] = field(default_factory=list)
    changed: Mapping[str, tuple[ChangedFile, ...] | PipelineError | None] = field(
        default_factory=dict
    )
    """By container id."""
    listings: list[list[RunningContainer] | PipelineError] = field(default_factory=list)
    """Used up one a listing."""

    def containers(self) -> tuple[RunningContainer, ...]:
        found = self.listings.pop(0) if self.listings else self.running
        if isinstance(found, PipelineError):
            raise found
        if not found:
            raise UsageError("nothing runs", hint="start something")
        return tuple(found)

    def drift(self, container: RunningContainer) -> tuple[ChangedFile, ...] | None:
        if container not in self.running:
            raise Unavailable("the container is gone", where=container.place)
        found = self.changed.get(container.id, ())
        if isinstance(found, PipelineError):
            raise found
        return found


def container(image: str, name: str = "web", **changes: object) -> RunningContainer:
    """A container that runs an image."""
    values: dict[str, object] = {
        "place": f"docker://{name}",
        "id": f"id-{name}",
        "kind": ContainerKind.MAIN,
        "running": True,
        "asked": "registry.example/app:v1",
        "image": image,
        "platform": "linux/amd64",
        "started": "2026-03-01T11:00:00Z",
    }
    return RunningContainer(**(values | changes))  # type: ignore[arg-type]
