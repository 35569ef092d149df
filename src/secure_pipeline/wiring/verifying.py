"""Verify an image of a layout, with or without a repository at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from secure_pipeline import config as configuration
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.config import Config
from secure_pipeline.data import data_path
from secure_pipeline.errors import UsageError
from secure_pipeline.events import OnEvent
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.place import Place
from secure_pipeline.policy import document
from secure_pipeline.runs import RunStore
from secure_pipeline.stages import verify
from secure_pipeline.stages.result import StageResult
from secure_pipeline.wiring.binding import Options, World, public_key
from secure_pipeline.wiring.opening import STATE


@dataclass(frozen=True)
class VerifyTarget:
    """What ``verify`` was asked to look at; None where nothing was said."""

    image: str | None
    directory: Path | None
    layout: Path | None
    keys: tuple[Path, ...]


def verify_image(
    target: VerifyTarget, options: Options, world: World, on_event: OnEvent
) -> tuple[ImageReference, StageResult]:
    """Verify an image of a layout, with or without a repository at hand.

    Raises: UsageError, ConfigError, VerificationFailed.
    """
    loaded = document.load(options.policy or data_path("policies") / "release.yaml")
    layout, reference = _target(target, options, world)
    inputs = verify.VerifyInputs(
        source=Layout.open(layout),
        image=reference,
        policy=loaded,
        operator_keys=tuple(public_key(_plain(world.directory, key)) for key in target.keys),
        run_id=options.run,
    )
    return reference, verify.verify(inputs, SystemClock(), on_event)


def _target(target: VerifyTarget, options: Options, world: World) -> tuple[Path, ImageReference]:
    if target.image == "layout":
        if target.directory is None:
            raise UsageError("no layout is named", hint="secure-pipeline verify layout DIRECTORY")
        return target.directory, _only_image(target.directory)
    if target.directory is not None:
        raise UsageError("two images are named", hint="secure-pipeline verify layout DIRECTORY")
    reference = ImageReference.parse(target.image) if target.image else None
    if target.layout and reference:
        return target.layout, reference
    path = (options.config or configuration.find(world.directory)).absolute()
    place = Place(path.parent, (options.state or path.parent / STATE).absolute())
    if reference is None:
        reference = _latest_image(configuration.load(path), RunStore(place.runs), options.run)
    return target.layout or place.layout, reference


def _latest_image(config: Config, store: RunStore, run_id: str | None) -> ImageReference:
    runs = [store.open(run_id)] if run_id else list(reversed(store.all()))
    for run in runs:
        stored = run.load("build")
        if stored and "digest" in stored.result.figures:
            return ImageReference.parse(f"{config.name}@{stored.result.figures['digest']}")
    raise UsageError("no run has an image yet", hint="secure-pipeline run")


def _only_image(directory: Path) -> ImageReference:
    """The one image of a layout that is no evidence. Raises: UsageError if there are several."""
    images = {
        str(item.digest)
        for item in Layout.open(directory).manifests()
        if item.artifact_type is None and not (item.tag or "").endswith(".att")
    }
    if len(images) != 1:
        raise UsageError(
            f"the layout holds {len(images)} images",
            where=str(directory),
            hint="name one: secure-pipeline verify NAME@sha256:DIGEST --layout DIRECTORY",
        )
    return ImageReference("image", Digest.parse(images.pop()))


def _plain(directory: Path, key: Path) -> Path:
    return directory / str(key).removeprefix("file:")
