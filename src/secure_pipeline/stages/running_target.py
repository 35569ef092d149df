"""What ``verify running`` is asked to look at."""

from __future__ import annotations

import re
from dataclasses import dataclass

from secure_pipeline.errors import UsageError

_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_HINT = "write docker://NAME, docker:// for all, or k8s://NAMESPACE[/KIND/NAME]"


@dataclass(frozen=True)
class DockerTarget:
    """Containers of a Docker engine."""

    name: str | None
    """Name or id; None for all that run."""


@dataclass(frozen=True)
class KubernetesTarget:
    """Containers of a Kubernetes namespace, or of one workload in it."""

    namespace: str
    kind: str | None = None
    """As kubectl spells it; set exactly when ``name`` is."""
    name: str | None = None


RunningTarget = DockerTarget | KubernetesTarget


def parse_target(text: str) -> RunningTarget:
    """Parse ``docker://[NAME]`` or ``k8s://NAMESPACE[/KIND/NAME]``.

    Raises: UsageError.
    """
    scheme, separator, rest = text.partition("://")
    if separator and scheme == "docker":
        if rest and not _CONTAINER.fullmatch(rest):
            raise UsageError(f"{rest[:80]!r} cannot be a container's name", hint=_HINT)
        return DockerTarget(rest or None)
    if separator and scheme == "k8s":
        words = rest.split("/")
        if len(words) in (1, 3) and all(_WORD.fullmatch(word) for word in words):
            return KubernetesTarget(*words)
        raise UsageError(f"{text[:120]!r} names no namespace or workload", hint=_HINT)
    raise UsageError(f"{text[:120]!r} is nothing that runs", hint=_HINT)
