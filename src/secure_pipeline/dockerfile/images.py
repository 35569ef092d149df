"""Which images a Dockerfile uses, and which of them every builder must be told exactly."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from secure_pipeline.dockerfile.parser import Dockerfile, Instruction, Stage
from secure_pipeline.dockerfile.words import BadWord, expand, split_words, unquote
from secure_pipeline.errors import ConfigError

PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:\[\]-]*@sha256:[0-9a-f]{64}\Z")
_PLATFORM_ARGS = ("TARGETPLATFORM", "TARGETOS", "TARGETARCH", "TARGETVARIANT")


class Kind(Enum):
    """What a name after FROM or from= turns out to be."""

    STAGE = "stage"
    SCRATCH = "scratch"
    BASE = "base"
    """A base of the configuration, kept in an OCI layout."""
    PINNED = "pinned"
    """An image of a registry, by digest."""
    UNPINNED = "unpinned"


class Place(Enum):
    """Where a name stands."""

    FROM = "FROM"
    COPY = "COPY --from"
    MOUNT = "RUN --mount from"


@dataclass(frozen=True)
class ImageUse:
    """One use of an image or stage."""

    place: Place
    line: int
    written: str
    """As in the file."""
    reference: str
    """With build arguments put in."""
    kind: Kind
    stage: int
    """Index of the stage that it belongs to."""


def global_arguments(
    dockerfile: Dockerfile, args: Mapping[str, str], platform: str = "linux/amd64"
) -> dict[str, str]:
    """Values that FROM sees: ARGs before it, overridden by build arguments, and the platform.

    Raises: ConfigError at the line of an ARG that cannot be read.
    """
    os_name, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    values = dict(zip(_PLATFORM_ARGS, (platform, os_name, architecture, variant), strict=True))
    for instruction in dockerfile.globals:
        for name, default in assignments(dockerfile, instruction):
            if name in args:
                values[name] = args[name]
            elif default is not None:
                values[name] = _expand(dockerfile, instruction.line, default, values)
    return values


def image_uses(
    dockerfile: Dockerfile,
    args: Mapping[str, str],
    bases: Collection[str],
    platform: str = "linux/amd64",
) -> tuple[ImageUse, ...]:
    """Every FROM, COPY --from and RUN --mount=…,from=, resolved (BLD-03).

    Raises: ConfigError for a FROM that is empty or cannot be read.
    """
    values = global_arguments(dockerfile, args, platform)
    uses: list[ImageUse] = []
    for stage in dockerfile.stages:
        earlier = {other.name for other in dockerfile.stages[: stage.index] if other.name}
        reference = _expand(dockerfile, stage.line, stage.image, values)
        if not reference:
            dockerfile.fail(
                stage.line, f"FROM {stage.image} is empty", "give the build argument a value"
            )
        kind = _kind(reference, earlier, 0, bases, allow_scratch=True)
        uses.append(ImageUse(Place.FROM, stage.line, stage.image, reference, kind, stage.index))
        for place, line, name in _sources(stage.instructions[1:]):
            kind = _kind(name, earlier, stage.index, bases, allow_scratch=False)
            uses.append(ImageUse(place, line, name, name, kind, stage.index))
    return tuple(uses)


def assignments(
    dockerfile: Dockerfile, instruction: Instruction
) -> Iterator[tuple[str, str | None]]:
    """Names and raw values of ARG, ENV and LABEL, whose values are not expanded here.

    Raises: ConfigError at the instruction's line.
    """
    try:
        words = split_words(instruction.arguments, dockerfile.escape)
    except BadWord as error:
        dockerfile.fail(instruction.line, f"{instruction.keyword}: {error}")
    if instruction.keyword != "ARG" and "=" not in words[0]:
        yield words[0], instruction.arguments.split(maxsplit=1)[1:][0] if words[1:] else None
        return
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            dockerfile.fail(instruction.line, f"{instruction.keyword}: a name is missing")
        yield unquote_name(name, dockerfile.escape), value if equals else None


def unquote_name(name: str, escape: str) -> str:
    """A name without the quotes it may stand in."""
    try:
        return unquote(name, escape)
    except BadWord:
        return name.strip("\"'")


def qualified(reference: str) -> str:
    """A registry reference with the host and path that docker would add to a short one."""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return reference
    return f"docker.io/{reference}" if slash else f"docker.io/library/{reference}"


def target_stage(dockerfile: Dockerfile, target: str | None) -> Stage:
    """The stage that is built: by name, by number, or the last.

    Raises: ConfigError if there is no such stage.
    """
    if target is None:
        return dockerfile.stages[-1]
    for stage in dockerfile.stages:
        if target.lower() in (stage.name, str(stage.index)):
            return stage
    names = ", ".join(stage.name or str(stage.index) for stage in dockerfile.stages)
    raise ConfigError(
        f"no stage is called {target[:80]!r}",
        where=dockerfile.source,
        hint=f"stages: {names[:300]}",
    )


def base_of(uses: tuple[ImageUse, ...], dockerfile: Dockerfile, stage: Stage) -> ImageUse:
    """The image that a stage stands on, through other stages."""
    by_stage = {use.stage: use for use in uses if use.place is Place.FROM}
    use = by_stage[stage.index]
    while use.kind is Kind.STAGE:
        use = by_stage[target_stage(dockerfile, use.reference).index]
    return use


def _expand(dockerfile: Dockerfile, line: int, text: str, values: Mapping[str, str]) -> str:
    try:
        return expand(text, values, dockerfile.escape)
    except BadWord as error:
        raise ConfigError(f"{text[:60]}: {error}", where=f"{dockerfile.source}:{line}") from None


def _sources(instructions: tuple[Instruction, ...]) -> Iterator[tuple[Place, int, str]]:
    for outer in instructions:
        instruction = outer.trigger or outer
        if instruction.keyword == "COPY" and "from" in instruction.flags:
            yield Place.COPY, instruction.line, instruction.flags["from"]
        for mount in instruction.mounts:
            for item in mount.split(","):
                key, _, value = item.partition("=")
                if key.strip().lower() == "from":
                    yield Place.MOUNT, instruction.line, value


def _kind(
    reference: str, earlier: set[str], index: int, bases: Collection[str], *, allow_scratch: bool
) -> Kind:
    if reference.lower() in earlier:
        return Kind.STAGE
    if reference.isascii() and reference.isdigit() and int(reference[:9]) < index:
        return Kind.STAGE
    if allow_scratch and reference == "scratch":
        return Kind.SCRATCH
    if reference in bases:
        return Kind.BASE
    return Kind.PINNED if PINNED.match(reference) else Kind.UNPINNED
