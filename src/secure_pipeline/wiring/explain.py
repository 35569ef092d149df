"""Explain an image of a layout or of a registry: found, read and judged as ``verify`` does it."""

from __future__ import annotations

from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.events import OnEvent
from secure_pipeline.stages.explain import Explanation, explain
from secure_pipeline.wiring.options import Options, World
from secure_pipeline.wiring.stores import Stores
from secure_pipeline.wiring.verifying import VerifyTarget, verify_inputs


def explain_image(
    target: VerifyTarget, options: Options, world: World, stores: Stores, on_event: OnEvent
) -> Explanation:
    """Explain one image. Raises: UsageError, ConfigError, VerificationFailed, Unavailable."""
    return explain(verify_inputs(target, options, world, stores), SystemClock(), on_event)
