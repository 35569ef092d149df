"""Asking a cluster for its containers, as tests do."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.kubernetes import Cluster
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.kubeconfig import KubernetesConfig
from secure_pipeline.adapters.kubernetes import KubernetesRuntime
from secure_pipeline.errors import PipelineError, Unavailable
from secure_pipeline.ports import RunningContainer


def runtime(
    cluster: Cluster,
    namespace: str,
    kind: str | None = None,
    name: str | None = None,
    kubeconfig: Path | None = None,
) -> KubernetesRuntime:
    config = KubernetesConfig.from_kubeconfig(kubeconfig or cluster.kubeconfig)
    return KubernetesRuntime(namespace, kind, name, config=config, clock=SystemClock())


def by_container(found: tuple[RunningContainer, ...]) -> dict[str, list[RunningContainer]]:
    names: dict[str, list[RunningContainer]] = {}
    for item in found:
        names.setdefault(item.place.rpartition("#")[2], []).append(item)
    return names


def pods(found: tuple[RunningContainer, ...]) -> set[str]:
    return {item.place.rpartition("#")[0].rpartition("/")[2] for item in found}


def refused(asked: KubernetesRuntime, kind: type[PipelineError]) -> PipelineError:
    with pytest.raises(kind) as caught:
        asked.containers()
    assert caught.value.hint
    assert "\n" not in f"{caught.value}{caught.value.hint}"
    return caught.value


def answer_or_none(asked: KubernetesRuntime) -> tuple[RunningContainer, ...] | None:
    """The containers; None while the server does not allow it yet."""
    try:
        return asked.containers()
    except Unavailable:
        return None
