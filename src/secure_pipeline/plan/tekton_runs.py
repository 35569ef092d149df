"""Runs to start from: identities of the stages, limits of the whole, places of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from secure_pipeline.plan.model import PROGRAM, Permission, Plan, Stage
from secure_pipeline.plan.tekton_around import COMMIT, FETCH_LIMIT, REF, ROLL_BACK, URL
from secure_pipeline.plan.tekton_pipelines import AROUND, BUILD, MEMORIES, ONLY_IMAGE, PROMOTE, WORK
from secure_pipeline.plan.tekton_tasks import USER, VERSION, remembers
from secure_pipeline.plan.tekton_text import duration, labelled

CLAIM = f"{PROGRAM}-promotions"
"""Of the volume that outlives runs."""
POLICY_FILE = "/workspace/policy/release.yaml"
KEY_FILE = "file:/workspace/keys/release.key"
TARGETS_PLACE = "/workspace/targets"
_FINAL = timedelta(minutes=15)
_POLICY = {"name": "policy", "configMap": {"name": f"{PROGRAM}-policy"}}
_KEYS = {"name": "keys", "secret": {"secretName": f"{PROGRAM}-key"}}
_TARGETS = {"name": "targets", "configMap": {"name": f"{PROGRAM}-targets"}}
_REGISTRY = {
    "name": "registry",
    "secret": {"secretName": f"{PROGRAM}-registry", "optional": True},
}
_MEMORIES = {"name": MEMORIES, "persistentVolumeClaim": {"claimName": CLAIM}}
_SIZE = "10Gi"


def build_run(plan: Plan) -> dict[str, Any]:
    """A PipelineRun of ``build``, with a volume that is made for it and ends with it."""
    own = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": _SIZE}}}
    parameters = {
        URL: "https://git.example/team/service.git",
        COMMIT: "0" * 40,
        REF: "refs/heads/main",
        "policy": POLICY_FILE,
        "key": KEY_FILE,
        "push": "registry.example/team/service",
    }
    workspaces = [{"name": WORK, "volumeClaimTemplate": {"spec": own}}, _POLICY, _KEYS, _REGISTRY]
    first = FETCH_LIMIT + AROUND
    return _run(BUILD, plan.stages, first, parameters, workspaces)


def promote_run(plan: Plan) -> dict[str, Any]:
    """A PipelineRun of ``promote``."""
    parameters = {
        "image": f"registry.example/team/service@sha256:{'0' * 64}",
        "target": "production",
        "policy": POLICY_FILE,
        "key": KEY_FILE,
        "targets": TARGETS_PLACE,
    }
    stages = [plan.stage(name) for name in ONLY_IMAGE]
    workspaces = [_MEMORIES, _POLICY, _KEYS, _TARGETS, _REGISTRY]
    return _run(PROMOTE, stages, timedelta(), parameters, workspaces)


def memory_claim() -> dict[str, Any]:
    """The claim of what promotions leave for later ones."""
    resources = {"requests": {"storage": "1Gi"}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": resources}
    return labelled("v1", "PersistentVolumeClaim", CLAIM, spec)


def _run(
    name: str,
    stages: Iterable[Stage],
    first: timedelta,
    parameters: Mapping[str, str],
    workspaces: list[dict[str, Any]],
) -> dict[str, Any]:
    longest: dict[str, timedelta] = {}
    own = []
    for stage in stages:
        before = max((longest.get(need, first) for need in stage.needs), default=first)
        longest[stage.name] = before + stage.timeout + AROUND
        if Permission.IDENTITY in stage.permissions:
            account = f"{PROGRAM}-{stage.name}"
            names = [stage.name, ROLL_BACK] if remembers(stage) else [stage.name]
            own += [{"pipelineTaskName": n, "serviceAccountName": account} for n in names]
    tasks = max(longest.values())
    security = {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    spec = {
        "pipelineRef": {"name": name},
        "params": [{"name": n, "value": v} for n, v in parameters.items()],
        "timeouts": {
            "pipeline": duration(tasks + _FINAL),
            "tasks": duration(tasks),
            "finally": duration(_FINAL),
        },
        "taskRunTemplate": {
            "serviceAccountName": PROGRAM,
            "podTemplate": {"enableServiceLinks": False, "securityContext": security},
        },
        "taskRunSpecs": own,
        "workspaces": workspaces,
    }
    made = labelled(VERSION, "PipelineRun", name, spec)
    made["metadata"] = {"generateName": f"{name}-", "labels": made["metadata"]["labels"]}
    return made
