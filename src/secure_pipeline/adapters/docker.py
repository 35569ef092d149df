"""Containers of a Docker engine, as the engine describes them (CASES REG-05, REG-06)."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from secure_pipeline import shape
from secure_pipeline.adapters.dockerengine import Engine, EngineAddress, Missing
from secure_pipeline.errors import Inconclusive, Unavailable, UsageError, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.reference import in_registry
from secure_pipeline.oci.rootfs import Budget, Files, changes, read_container
from secure_pipeline.oci.saved import read_image
from secure_pipeline.ports import ChangedFile, Clock, ContainerKind, RunningContainer

MAX_CONTAINERS = 1000
MAX_CHANGES = 1000
_KEPT_IMAGES = 4
_GRAPH_DRIVERS = frozenset(
    ("overlay2", "overlay", "fuse-overlayfs", "vfs", "btrfs", "zfs", "aufs", "devicemapper")
)
"""Stores in which an image's id is its config's digest; any other may be containerd's."""
_SHOWN = 10
_NAMED = re.compile(r"[^@\s]{1,512}@sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class _About:
    """What an engine says about itself."""

    platform: str
    ids_are_configs: bool


class DockerRuntime:
    """One container of an engine, or all that run. Implements ports.Runtime."""

    def __init__(self, name: str | None, *, address: EngineAddress, clock: Clock) -> None:
        """``name``: name or id of a container; None for all that run."""
        self._name = name
        self._engine = Engine(address, clock)
        self._images: OrderedDict[str, Files] = OrderedDict()

    def containers(self) -> tuple[RunningContainer, ...]:
        """The container asked for, or all that run; never empty.

        Raises: UsageError (there is none, or it does not run), Unavailable, Inconclusive.
        """
        with self._understood():
            about = self._about()
            ids = [self._name] if self._name is not None else self._running()
            found = [found for each in ids if (found := self._inspect(each, about))]
        if not found:
            raise self._none()
        if self._name is not None and not found[0].running:
            raise UsageError(
                "the container is not running",
                where=found[0].place,
                hint=f"docker start {self._name}",
            )
        return tuple(found)

    def drift(self, container: RunningContainer) -> tuple[ChangedFile, ...] | None:
        """Compare what the container has now with its image, by content.

        The engine's list of changes is not asked: it compares sizes and times. None if the
        engine no longer has the image. Volumes and other mounts are in neither.
        Raises: Unavailable (it is gone), Inconclusive over a limit.
        """
        budget = Budget()
        try:
            image = self._image(container.image, budget)
        except Missing:
            return None
        try:
            with self._engine.stream("containers", container.id, "export") as answer:
                now = read_container(answer, budget, container.place)
        except Missing:
            raise Unavailable("the container is gone", where=container.place) from None
        found = tuple(ChangedFile(*item) for item in changes(image, now))
        if len(found) > MAX_CHANGES:
            raise Inconclusive(
                f"{len(found)} executables differ from the image, {found[0].path} among them",
                where=container.place,
            )
        return found

    def _image(self, image: str, budget: Budget) -> Files:
        """The image's own files, kept for the next container of the same image."""
        digest = Digest.parse(image.rpartition("@")[2])
        if digest.hex not in self._images:
            with self._engine.stream("images", str(digest), "get") as answer:
                self._images[digest.hex] = read_image(answer, digest, budget)
            while len(self._images) > _KEPT_IMAGES:
                self._images.popitem(last=False)
        return self._images[digest.hex]

    def _running(self) -> list[str]:
        listed = self._engine.json("containers", "json")
        if not isinstance(listed, list):
            raise VerificationFailed("the list of containers is no list")
        if len(listed) > MAX_CONTAINERS:
            raise Inconclusive(
                f"{len(listed)} containers run; the limit is {MAX_CONTAINERS}",
                where=self._engine.where,
                hint="name some: docker://NAME",
            )
        return [shape.member(item, "Id", str, "a container") for item in map(_object, listed)]

    def _inspect(self, name: str, about: _About) -> RunningContainer | None:
        """One container; None if there is none of that name (any more)."""
        try:
            raw = _object(self._engine.json("containers", name, "json"))
        except Missing:
            return None
        where = f"docker://{shape.member(raw, 'Name', str, 'a container').lstrip('/')}"
        state = shape.member(raw, "State", dict, where)
        config = shape.member(raw, "Config", dict, where)
        host = shape.optional(raw, "HostConfig", dict, where) or {}
        # Engines with containerd's store (API 1.48) name the manifest beside the index.
        manifest = shape.optional(raw, "ImageManifestDescriptor", dict, where)
        image = shape.member(raw, "Image", str, where)
        return RunningContainer(
            place=where,
            id=shape.member(raw, "Id", str, where),
            kind=ContainerKind.MAIN,
            running=shape.member(state, "Running", bool, where),
            asked=shape.optional(config, "Image", str, where) or "",
            image=shape.member(manifest, "digest", str, where) if manifest else image,
            names=self._names(image, where),
            platform=about.platform,
            read_only=shape.optional(host, "ReadonlyRootfs", bool, where) is True,
            started=shape.optional(state, "StartedAt", str, where) or "",
            image_is_config=about.ids_are_configs and manifest is None,
        )

    def _names(self, image: str, where: str) -> tuple[str, ...]:
        try:
            raw = _object(self._engine.json("images", image, "json"))
        except Missing:
            return ()
        names = shape.optional(raw, "RepoDigests", list, where) or []
        found = [str(name) for name in names if _NAMED.fullmatch(str(name))]
        return tuple(dict.fromkeys(full_name(name) for name in found))

    def _about(self) -> _About:
        version = _object(self._engine.json("version"))
        info = _object(self._engine.json("info"))
        where = self._engine.where
        status = shape.optional(info, "DriverStatus", list, where) or []
        return _About(
            platform="/".join(shape.member(version, name, str, where) for name in ("Os", "Arch")),
            ids_are_configs=shape.optional(info, "Driver", str, where) in _GRAPH_DRIVERS
            and not any("containerd" in str(item) for item in status),
        )

    def _none(self) -> UsageError:
        if self._name is None:
            return UsageError(
                "no container runs", where=self._engine.where, hint="docker run, then try again"
            )
        with self._understood():
            listed = [_object(item) for item in self._engine.json("containers", "json")]
        names = [str(name).lstrip("/") for item in listed for name in item.get("Names") or ()]
        some = ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
        return UsageError(
            f"no container {self._name!r}",
            where=self._engine.where,
            hint=f"what runs: {some}" if some else "nothing runs there",
        )

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """An answer of another shape than the API's says nothing about containers."""
        try:
            yield
        except (VerificationFailed, Missing) as error:
            raise Inconclusive(
                f"cannot understand the engine: {error}", where=self._engine.where
            ) from None


def full_name(name: str) -> str:
    """A name as Docker shortens it, with the registry that it means.

    ``nginx`` is ``docker.io/library/nginx`` (distribution/reference).
    """
    if in_registry(name):
        return name
    return f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}"


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise VerificationFailed("not an object")
    return value
