"""The state directory and its runs, for commands that only read or move them."""

from __future__ import annotations

from dataclasses import dataclass

from secure_pipeline import config as configuration
from secure_pipeline.errors import UsageError
from secure_pipeline.place import Place
from secure_pipeline.runs import Run, RunStore
from secure_pipeline.wiring.options import STATE, Options, World


@dataclass(frozen=True)
class OpenedState:
    """A run and where it is."""

    place: Place
    run: Run
    image: str | None
    """``NAME@sha256:…`` of the image that the run built; None if it built none."""


def open_place(options: Options, world: World) -> Place:
    """Where things are; who names the state directory needs no configuration.

    Raises: ConfigError.
    """
    if options.state and not options.config:
        return Place(world.directory, options.state.absolute())
    path = (options.config or configuration.find(world.directory)).absolute()
    return Place(path.parent, (options.state or path.parent / STATE).absolute())


def open_state(options: Options, world: World) -> OpenedState:
    """The run that was named, or the latest. Raises: UsageError if there is none; ConfigError."""
    place = open_place(options, world)
    store = RunStore(place.runs)
    runs = [store.open(options.run)] if options.run else store.all()[-1:]
    if not runs:
        raise UsageError("there is no run yet", where=str(place.runs), hint="secure-pipeline run")
    stored = runs[0].load("build")
    digest = stored.result.figures.get("digest") if stored else None
    name = runs[0].header.name
    return OpenedState(place, runs[0], f"{name}@{digest}" if digest else None)
