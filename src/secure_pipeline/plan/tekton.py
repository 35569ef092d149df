"""The plan as Tekton runs it: a Task a stage, the Pipeline ``build``, a run to start from.

Steps have a command and no script, and a parameter only ever is one argument of its own or the
value of a variable: no shell reads any of them (CI-07). What a stage found goes to the next one
by results, which Tekton takes from the pod itself and nobody else can write; the files in the
workspace are held against them. Source: Tekton Pipelines 1.0, docs/tasks.md and pipelines.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from secure_pipeline.plan import tekton_access
from secure_pipeline.plan.model import PROGRAM, Permission, Plan, Stage
from secure_pipeline.plan.tekton_tasks import (
    HINTS,
    PLACES,
    REPORT,
    USER,
    VERSION,
    about,
    common_parameters,
    expected_results,
    optional_parameter,
    optional_workspaces,
    parameter,
    report_task,
    takes_image,
    task,
)
from secure_pipeline.plan.tekton_text import duration, labelled, text

IMAGE = f"registry.example/{PROGRAM}@sha256:{'0' * 64}"
"""Of the steps where a run names no other. Nothing is there: an overlay or a run says which."""


def render(plan: Plan, image: str = IMAGE) -> Mapping[str, str]:
    """Return texts by path below the repository; ``image`` is that of the steps."""
    files = {
        f"tekton/tasks/{stage.name}.yaml": text(about(stage), task(stage, image))
        for stage in plan.stages
    }
    files[f"tekton/tasks/{REPORT}.yaml"] = text(about(None), report_task(image))
    files["tekton/pipelines/build.yaml"] = text(
        ("All stages; what a stage needs ended well, or it does not start.",),
        pipeline(plan, image),
    )
    files["tekton/runs/build.yaml"] = text(
        ("A run to start from: kubectl create -f, with names of your own.",), run(plan)
    )
    resources = sorted(name.removeprefix("tekton/") for name in files if "/runs/" not in name)
    return {**files, **tekton_access.files(resources)}


def pipeline(plan: Plan, image: str) -> dict[str, Any]:
    """The Pipeline: every stage after what it needs, and the report at the end of any run."""
    variables = dict.fromkeys(name for stage in plan.stages for name in stage.variables)
    given: dict[str, str] = {}
    for stage in plan.stages:
        given |= optional_workspaces(stage)
    parameters = [
        *common_parameters(image),
        *(optional_parameter(parameter(name), f"Value of {name}.") for name in variables),
        optional_parameter("target", "Promotion target; without one nothing is promoted."),
    ]
    signing = next(s.name for s in plan.stages if Permission.REGISTRY in s.permissions)
    spec = {
        "description": "From a repository to a verified image, and to its traffic if asked to.",
        "params": parameters,
        "workspaces": [
            *({"name": name, "description": about} for name, about in PLACES.items()),
            *({"name": n, "description": d, "optional": True} for n, d in given.items()),
        ],
        "results": [
            {"name": name, "description": about, "value": f"$(tasks.{signing}.results.{name})"}
            for name, about in HINTS.items()
        ],
        "tasks": [_pipeline_task(stage, plan) for stage in plan.stages],
        "finally": [_final(plan)],
    }
    return labelled(VERSION, "Pipeline", "build", spec)


def _pipeline_task(stage: Stage, plan: Plan) -> dict[str, Any]:
    parameters = {
        "cli-image": "$(params.cli-image)",
        "config": "$(params.config)",
        "run": "$(context.pipelineRun.name)",
        **{n: f"$(params.{n})" for n in map(parameter, stage.variables)},
    }
    if takes_image(stage):
        maker = "sign" if "sign" in _before(stage, plan) else "build"
        parameters["image"] = f"$(tasks.{maker}.results.IMAGE)"
    if expected := expected_results(stage):
        words = (f"{need}=$(tasks.{need}.results.RESULT_DIGEST)" for need in expected)
        parameters["expect"] = " ".join(words)
    if "{target}" in stage.command:
        parameters["target"] = "$(params.target)"
    names = ["source", "state", *optional_workspaces(stage)]
    made: dict[str, Any] = {"name": stage.name, "taskRef": {"name": stage.name}}
    if stage.needs:
        made["runAfter"] = list(stage.needs)
    if "{target}" in stage.command:
        made["when"] = [{"input": "$(params.target)", "operator": "notin", "values": [""]}]
    return {
        **made,
        # Tekton's own pods need time too: the step's own limit comes first.
        "timeout": duration(stage.timeout + timedelta(minutes=5)),
        "params": [{"name": n, "value": v} for n, v in parameters.items()],
        "workspaces": [{"name": name, "workspace": name} for name in names],
    }


def _before(stage: Stage, plan: Plan) -> set[str]:
    found = set(stage.needs)
    for need in stage.needs:
        found |= _before(plan.stage(need), plan)
    return found


def _final(plan: Plan) -> dict[str, Any]:
    stages = [s.name for s in plan.stages if "{target}" not in s.command]
    return {
        "name": REPORT,
        "taskRef": {"name": REPORT},
        "timeout": "10m",
        "params": [
            {"name": "cli-image", "value": "$(params.cli-image)"},
            {"name": "config", "value": "$(params.config)"},
            {"name": "run", "value": "$(context.pipelineRun.name)"},
            {"name": "stages", "value": [f"{name}=$(tasks.{name}.status)" for name in stages]},
        ],
        "workspaces": [{"name": name, "workspace": name} for name in PLACES],
    }


def run(plan: Plan) -> dict[str, Any]:
    """A PipelineRun: identities of the stages, limits of the whole, places of its own."""
    longest: dict[str, timedelta] = {}
    for stage in plan.stages:
        before = max((longest[need] for need in stage.needs), default=timedelta())
        longest[stage.name] = before + stage.timeout + timedelta(minutes=5)
    tasks = max(longest.values())
    final = timedelta(minutes=15)
    own = [s for s in plan.stages if Permission.IDENTITY in s.permissions]
    claim = {"claimName": "secure-pipeline"}
    spec = {
        "pipelineRef": {"name": "build"},
        "params": [
            {"name": "policy", "value": "/workspace/policy/release.yaml"},
            {"name": "key", "value": "file:/workspace/keys/release.key"},
        ],
        "timeouts": {
            "pipeline": duration(tasks + final),
            "tasks": duration(tasks),
            "finally": duration(final),
        },
        "taskRunTemplate": {
            "serviceAccountName": PROGRAM,
            "podTemplate": {
                "enableServiceLinks": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": USER,
                    "runAsGroup": USER,
                    "fsGroup": USER,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            },
        },
        "taskRunSpecs": [
            {"pipelineTaskName": s.name, "serviceAccountName": f"{PROGRAM}-{s.name}"} for s in own
        ],
        "workspaces": [
            {"name": "source", "persistentVolumeClaim": claim, "subPath": "source"},
            {"name": "state", "persistentVolumeClaim": dict(claim), "subPath": "state"},
            {"name": "policy", "configMap": {"name": "secure-pipeline-policy"}},
            {"name": "keys", "secret": {"secretName": "secure-pipeline-key"}},
        ],
    }
    made = labelled(VERSION, "PipelineRun", "build", spec)
    made["metadata"] = {"generateName": "build-", "labels": made["metadata"]["labels"]}
    return made
