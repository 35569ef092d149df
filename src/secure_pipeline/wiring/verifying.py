"""Verify images of a layout or of a registry, with or without a repository at hand."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from secure_pipeline import config as configuration
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.config import Config
from secure_pipeline.data import data_path
from secure_pipeline.errors import UsageError
from secure_pipeline.events import OnEvent
from secure_pipeline.keys.verify import read_public_key
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.reference import ImageReference, in_registry
from secure_pipeline.oci.store import Source
from secure_pipeline.policy import document
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.ports import IdentityVerifier
from secure_pipeline.runs import RunStore
from secure_pipeline.stages import verify, verifyfile
from secure_pipeline.stages.result import StageResult
from secure_pipeline.wiring.handover import open_place
from secure_pipeline.wiring.keyless import Trust
from secure_pipeline.wiring.options import Options, World
from secure_pipeline.wiring.stores import Stores

AT_ONCE = 8
"""Images verified at the same time; most of it is waiting for a registry."""


@dataclass(frozen=True)
class VerifyTarget:
    """What ``verify`` was asked to look at; None where nothing was said."""

    image: str | None
    directory: Path | None
    layout: Path | None
    keys: tuple[Path, ...]
    layers: bool = False
    """Read and hash the layers of an image in a registry too; in a layout they always are."""
    trust: Trust = Trust()


@dataclass(frozen=True)
class Located:
    """An image and where it is."""

    image: ImageReference
    source: Source


def verify_image(
    target: VerifyTarget, options: Options, world: World, stores: Stores, on_event: OnEvent
) -> tuple[ImageReference, StageResult]:
    """Verify one image.

    Raises: UsageError, ConfigError, VerificationFailed, Unavailable.
    """
    inputs = verify_inputs(target, options, world, stores)
    return inputs.image, verify.verify(inputs, SystemClock(), on_event)


def verify_images(
    images: Sequence[str],
    target: VerifyTarget,
    options: Options,
    world: World,
    stores: Stores,
    on_event: OnEvent,
) -> Iterator[tuple[ImageReference, StageResult]]:
    """Verify several images against one policy, some at a time; results in their order.

    Raises: UsageError for a word that is no image, before anything is verified; like
    ``verify_image`` otherwise.
    """
    policy = load_policy(options)
    known = _Known(policy, operator_keys(target, world), target.trust.verifier(policy))
    every = [
        _inputs(locate(replace(target, image=image), options, world, stores), known, target)
        for image in images
    ]
    clock = SystemClock()
    with ThreadPoolExecutor(AT_ONCE) as workers:
        results = workers.map(lambda inputs: verify.verify(inputs, clock, on_event), every)
        yield from zip((inputs.image for inputs in every), results, strict=True)


def verify_file(
    path: Path, bundle: Path | None, target: VerifyTarget, options: Options, world: World,
    on_event: OnEvent,
) -> StageResult:  # fmt: skip
    """Verify one file by the bundle beside it, or by the one that is named.

    Raises: UsageError (no plain file), ConfigError, Unavailable.
    """
    path = world.directory / path
    if path.is_symlink() or not path.is_file():
        there = os.path.lexists(path)
        raise UsageError(
            "not a plain file" if there else "there is no such file",
            where=str(path),
            hint="secure-pipeline verify file PATH, the file itself and no link to it",
        )
    policy = load_policy(options)
    inputs = verifyfile.VerifyFileInputs(
        path=path,
        policy=policy,
        bundle=world.directory / bundle if bundle else None,
        operator_keys=operator_keys(target, world),
        operator_identity=target.trust.identity,
        identity_verifier=target.trust.verifier(policy),
    )
    return verifyfile.verify_file(inputs, SystemClock(), on_event)


def verify_inputs(
    target: VerifyTarget, options: Options, world: World, stores: Stores
) -> verify.VerifyInputs:
    """Resolve what ``verify`` was asked to look at. Raises: like ``verify_image``."""
    located = locate(target, options, world, stores)
    policy = load_policy(options)
    known = _Known(policy, operator_keys(target, world), target.trust.verifier(policy))
    inputs = _inputs(located, known, target)
    return replace(inputs, run_id=options.run)


def load_policy(options: Options) -> LoadedPolicy:
    """The trusted policy: the one named, or the built-in one. Raises: ConfigError."""
    return document.load(options.policy or data_path("policies") / "release.yaml")


def operator_keys(
    target: VerifyTarget, world: World
) -> tuple[tuple[bytes, document.Algorithm], ...]:
    """The public keys given on the command line. Raises: ConfigError."""
    keys = [read_public_key(_plain(world.directory, key)) for key in target.keys]
    return tuple((key.pem, key.algorithm) for key in keys)


def locate(target: VerifyTarget, options: Options, world: World, stores: Stores) -> Located:
    """Find the image that was asked for.

    Raises: UsageError, ConfigError, VerificationFailed.
    """
    if target.image == "layout":
        if target.directory is None:
            raise UsageError("no layout is named", hint="secure-pipeline verify layout DIRECTORY")
        return Located(_only_image(target.directory), Layout.open(target.directory))
    if target.directory is not None:
        raise UsageError("two images are named", hint="secure-pipeline verify layout DIRECTORY")
    reference = ImageReference.parse(target.image) if target.image else None
    if reference and (target.layout or in_registry(reference.name)):
        return Located(reference, stores.source(reference.name, target.layout))
    place = open_place(options, world)
    if reference is None:
        config = configuration.load(options.config or configuration.find(world.directory))
        reference = _latest_image(config, RunStore(place.runs), options.run)
    return Located(reference, Layout.open(target.layout or place.layout))


@dataclass(frozen=True)
class _Known:
    """Who is trusted."""

    policy: LoadedPolicy
    keys: tuple[tuple[bytes, document.Algorithm], ...]
    verifier: IdentityVerifier | None


def _inputs(located: Located, known: _Known, target: VerifyTarget) -> verify.VerifyInputs:
    return verify.VerifyInputs(
        source=located.source,
        image=located.image,
        policy=known.policy,
        operator_keys=known.keys,
        operator_identity=target.trust.identity,
        identity_verifier=known.verifier,
        layers=not located.source.remote or target.layers,
    )


def _latest_image(config: Config, store: RunStore, run_id: str | None) -> ImageReference:
    runs = [store.open(run_id)] if run_id else list(reversed(store.all()))
    for run in runs:
        stored = run.load("build")
        if stored and "digest" in stored.result.figures:
            return ImageReference.parse(f"{config.name}@{stored.result.figures['digest']}")
    raise UsageError("no run has an image yet", hint="secure-pipeline run")


def only_image(layout: Layout) -> Digest:
    """The one image of a layout that is no evidence. Raises: UsageError if there are several."""
    images = {
        item.digest
        for item in layout.manifests()
        if item.artifact_type is None and not (item.tag or "").startswith("sha256-")
    }
    if len(images) != 1:
        raise UsageError(
            f"the layout holds {len(images)} images",
            where=layout.name,
            hint="name one: secure-pipeline verify NAME@sha256:DIGEST --layout DIRECTORY",
        )
    return images.pop()


def _only_image(directory: Path) -> ImageReference:
    return ImageReference("image", only_image(Layout.open(directory)))


def _plain(directory: Path, key: Path) -> Path:
    return directory / str(key).removeprefix("file:")
