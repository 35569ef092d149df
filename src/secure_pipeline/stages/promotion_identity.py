"""Whether a slot runs the image that is promoted, by what its runtime says (CAN-15, REG-05)."""

from __future__ import annotations

from collections.abc import Callable

from secure_pipeline.canary.controller import Identity
from secure_pipeline.errors import PipelineError, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.oci.store import Source
from secure_pipeline.policy.decision import Outcome, Rule, unsure
from secure_pipeline.ports import ContainerKind, RunningContainer, Runtime
from secure_pipeline.stages.running_image import RULE, Running, belongs

Identify = Callable[[], Identity]
_SAME = {Outcome.ALLOW: True, Outcome.DENY: False, Outcome.UNDETERMINED: None}


def identify(runtime: Runtime, source: Source, image: ImageReference) -> Identity:
    """Compare every container that serves with the image; one that differs is enough.

    Containers that end, start or help (init, sidecar, ephemeral) serve nothing and do not count.
    """
    try:
        serving = [c for c in runtime.containers() if _serves(c)]
    except PipelineError as error:
        return Identity(None, str(error))
    if not serving:
        return Identity(None, "no container serves there")
    rules = [(container.place, _belongs(container, source, image)) for container in serving]
    for outcome in (Outcome.DENY, Outcome.UNDETERMINED):
        for place, rule in rules:
            if rule.outcome is outcome:
                return Identity(_SAME[outcome], f"{place}: {rule.why}")
    return Identity(True, f"{len(serving)} containers run {image.digest}")


def described(runtime: Runtime) -> str | None:
    """What serves there in the runtime's words: a name with digest, or a digest; None if unclear.

    Raises: what the runtime raises.
    """
    found = {
        (container.names or (container.image,))[0]
        for container in runtime.containers()
        if _serves(container)
    }
    return found.pop() if len(found) == 1 else None


def _serves(container: RunningContainer) -> bool:
    return container.running and container.kind is ContainerKind.MAIN


def _belongs(container: RunningContainer, source: Source, image: ImageReference) -> Rule:
    try:
        digest = Digest.parse(container.image.rpartition("@")[2])
    except VerificationFailed:
        return unsure(RULE, f"the runtime names no image ({container.image[:80]!r})")
    running = Running(digest, container.image_is_config, container.platform)
    return belongs(source, image.digest, running)
