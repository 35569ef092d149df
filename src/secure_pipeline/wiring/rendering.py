"""Which engines the plan is rendered for, and what renders it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any

from secure_pipeline.errors import UsageError
from secure_pipeline.oci.reference import ImageReference, in_registry
from secure_pipeline.plan.model import Plan

RENDERERS = {"github": "secure_pipeline.plan.github", "tekton": "secure_pipeline.plan.tekton"}
"""Engine to the module whose ``render(plan)`` gives texts by path; looked up when asked for."""
_TAKES = {"toolkit": "github", "image": "tekton"}
"""Option to the engine that it is for."""


def render(
    engine: str, plan: Plan, toolkit: str | None = None, image: str | None = None
) -> Mapping[str, str]:
    """The engine's files: text by path below the repository.

    ``toolkit``: for GitHub, whose actions to use. ``image``: for Tekton, that of the steps.
    Raises: UsageError for an engine that is not known or does not take what is given, and for
    an image without registry and digest.
    """
    module = _module(engine)
    options = {n: v for n, v in (("toolkit", toolkit), ("image", image)) if v is not None}
    for name in options:
        if _TAKES[name] != engine:
            raise UsageError(f"{engine} takes no {name}", hint=f"leave --{name} out")
    if image is not None and not in_registry(ImageReference.parse(image).name):
        raise UsageError(f"{image[:120]!r} names no registry", hint="HOST/NAME@sha256:DIGEST")
    files: Mapping[str, str] = module.render(plan, **options)
    for path in files:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError(f"{path} is outside the repository")
    return files


def _module(engine: str) -> Any:
    name = RENDERERS.get(engine)
    if name is not None:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    raise UsageError(
        f"{engine[:80]!r} is no engine that the plan is rendered for",
        hint=f"--render {' or '.join(RENDERERS)}",
    )
