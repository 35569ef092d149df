"""From an image's layers back to the lines of the Dockerfile that made them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from secure_pipeline.dockerfile.parser import Dockerfile, Instruction
from secure_pipeline.oci.history import ImageLayer

_LAYERED = ("RUN", "COPY", "ADD", "WORKDIR")
_SHELL = re.compile(r"(?:\|\d+ .*?)?/bin/(?:ba)?sh -c (?:#\(nop\) +)?", re.DOTALL)
_NOP = re.compile(r"/bin/(?:ba)?sh -c #\(nop\)\s+", re.DOTALL)


def layer_lines(
    layers: Sequence[ImageLayer], dockerfile: Dockerfile, target: str | None = None
) -> dict[str, int]:
    """Return the line for each layer's digest, as far as the history tells.

    Layers are matched from the last to the first, each with the next instruction above the
    one before. What lies below the lowest match came with the base image: the line of FROM.
    """
    chain = _chain(dockerfile, target)
    lines: dict[str, int] = {}
    position, lowest = len(chain), len(layers)
    for number in range(len(layers) - 1, -1, -1):
        found = _find(layers[number].created_by, chain[:position])
        if found is not None:
            position, lowest = found, number
            lines[str(layers[number].descriptor.digest)] = chain[found].line
    if not lines and any(item.keyword in _LAYERED for item in chain):
        return {}
    for layer in layers[:lowest]:
        lines[str(layer.descriptor.digest)] = chain[0].line
    return lines


def _chain(dockerfile: Dockerfile, target: str | None) -> list[Instruction]:
    """All instructions of the target stage and of the stages it is FROM, first to last."""
    names = {stage.name: stage for stage in dockerfile.stages if stage.name}
    stage = dockerfile.stages[-1]
    if target is not None:
        stage = names.get(target.lower()) or stage
    chain = list(stage.instructions)
    while (below := names.get(stage.image.lower())) and below.index < stage.index:
        stage = below
        chain = [*stage.instructions, *chain]
    return chain


def _find(created_by: str | None, chain: Sequence[Instruction]) -> int | None:
    made = _read(created_by or "")
    if made is None:
        return None
    for number in range(len(chain) - 1, -1, -1):
        if _same(made, chain[number]):
            return number
    return None


def _read(created_by: str) -> tuple[str, str] | None:
    """Keyword and arguments of a history entry as BuildKit, Docker and buildah write them."""
    text = created_by.strip().removesuffix("# buildkit").strip()
    if nop := _NOP.match(text):
        keyword, _, rest = text[nop.end() :].partition(" ")
    elif _SHELL.match(text):
        return "RUN", _squeeze(_SHELL.sub("", text, count=1))
    else:
        keyword, _, rest = text.partition(" ")
        rest = _SHELL.sub("", rest, count=1) if keyword == "RUN" else rest
    return (keyword, _squeeze(rest)) if keyword in _LAYERED else None


def _same(made: tuple[str, str], instruction: Instruction) -> bool:
    keyword, rest = made
    if keyword != instruction.keyword:
        return False
    arguments = _plain(instruction.arguments)
    if keyword in ("COPY", "ADD"):
        return _same_place(rest.rpartition(" ")[2], arguments.rpartition(" ")[2])
    return rest == arguments or (keyword == "WORKDIR" and rest.endswith(f"/{arguments}"))


def _same_place(made: str, written: str) -> bool:
    """Compare destinations; a builder may have made a relative one absolute."""
    absolute, relative = made.rstrip("/"), written.removeprefix("./").rstrip("/")
    if relative in ("", "."):
        return True
    return absolute == relative or (
        not relative.startswith("/") and absolute.endswith(f"/{relative}")
    )


def _plain(arguments: str) -> str:
    """The words of the JSON form, or the arguments as they are."""
    if arguments.lstrip().startswith("["):
        try:
            return " ".join(str(word) for word in json.loads(arguments))
        except ValueError:
            return _squeeze(arguments)
    return _squeeze(arguments)


def _squeeze(text: str) -> str:
    return " ".join(text.split())
