"""Which other programs would read the evidence of an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.interop.readers import InteropReport, check_names, report
from secure_pipeline.interop.sight import look
from secure_pipeline.keys.verify import read_public_key
from secure_pipeline.wiring.options import Options, World
from secure_pipeline.wiring.stores import Stores
from secure_pipeline.wiring.verifying import VerifyTarget, locate


@dataclass(frozen=True)
class InteropRequest:
    """What ``interop`` was asked; None where nothing was said."""

    image: str | None
    layout: Path | None
    key: Path | None
    readers: tuple[str, ...]
    """Names; all of them if empty."""
    required: tuple[str, ...]
    """Names that are asked in any case."""


def interop_image(
    request: InteropRequest, options: Options, world: World, stores: Stores
) -> InteropReport:
    """Look beside one image and apply the readers' rules.

    Raises: UsageError, ConfigError, VerificationFailed, Inconclusive, Unavailable.
    """
    required = check_names(request.required)
    names = check_names((*request.readers, *required)) if request.readers else ()
    path = Path(str(request.key).removeprefix("file:")) if request.key else None
    key = read_public_key(world.directory / path) if path else None
    target = VerifyTarget(request.image, None, request.layout, ())
    located = locate(target, options, world, stores)
    return report(located.image, look(located.source, located.image.digest), key, names)
