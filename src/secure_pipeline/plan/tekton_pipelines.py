"""The Pipelines: ``build``, from a source to a verified image, and ``promote``, from there on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from secure_pipeline.plan.model import Permission, Plan, Stage
from secure_pipeline.plan.tekton_around import (
    COMMIT,
    FETCH,
    FETCH_LIMIT,
    GIT,
    GIT_MEANING,
    REF,
    REPORT,
    ROLL_BACK,
    URL,
    roll_back,
    source_parameters,
)
from secure_pipeline.plan.tekton_tasks import (
    HINTS,
    MEMORY,
    SOURCE,
    STATE_PLACE,
    VERSION,
    config_parameter,
    expected_results,
    image_parameter,
    optional_parameter,
    optional_workspaces,
    parameter,
    reads_source,
    remembers,
    takes_image,
)
from secure_pipeline.plan.tekton_text import duration, labelled

BUILD, PROMOTE = "build", "promote"
WORK = "work"
"""Workspace of one run: the source, and what its stages leave for each other."""
MEMORIES = "promotions"
"""Workspace that outlives runs."""
AROUND = timedelta(minutes=5)
"""What Tekton's own pods need: the step's own limit comes first."""
TEST_IMAGE = "test-image"
_TEST_IMAGE_MEANING = "Image of the step test: the program, and what the project's tests need."
ONLY_IMAGE = ("verify", "promote")
"""Stages that need no more than an image in a registry."""
_WORK_MEANING = "A volume of this run alone: the source, and what the stages leave for each other."


def build_pipeline(plan: Plan, image: str) -> dict[str, Any]:
    """Every stage after what it needs, the source before them, the report at any end."""
    signing = next(s.name for s in plan.stages if Permission.REGISTRY in s.permissions)
    spec = {
        "description": "From a repository to a verified image, and to its traffic if asked to.",
        "params": [
            image_parameter(image),
            {**image_parameter(image), "name": TEST_IMAGE, "description": _TEST_IMAGE_MEANING},
            *source_parameters(),
            config_parameter(),
            *_variables(plan.stages),
            optional_parameter("target", "Promotion target; without one nothing is promoted."),
        ],
        "workspaces": [
            {"name": WORK, "description": _WORK_MEANING},
            {"name": MEMORIES, "description": MEMORY, "optional": True},
            {"name": GIT, "description": GIT_MEANING, "optional": True},
            *_given(plan.stages),
        ],
        "results": [
            {"name": name, "description": about, "value": f"$(tasks.{signing}.results.{name})"}
            for name, about in HINTS.items()
        ],
        "tasks": [_fetch(), *(_stage(stage, plan) for stage in plan.stages)],
        "finally": [_report(plan), _roll_back(plan)],
    }
    return labelled(VERSION, "Pipeline", BUILD, spec)


def promote_pipeline(plan: Plan, image: str) -> dict[str, Any]:
    """Verify and promote an image that is in a registry; there is no source and no other stage."""
    stages = [plan.stage(name) for name in ONLY_IMAGE]
    spec = {
        "description": "Moves traffic to an image of a registry that verifies.",
        "params": [
            image_parameter(image),
            {"name": "image", "description": "HOST/NAME@sha256:… in a registry."},
            {"name": "target", "description": "Name of the promotion target."},
            *_variables(stages),
        ],
        "workspaces": [{"name": MEMORIES, "description": MEMORY}, *_given(stages)],
        "tasks": [_alone(stage) for stage in stages],
        "finally": [_roll_back(plan)],
    }
    return labelled(VERSION, "Pipeline", PROMOTE, spec)


def _variables(stages: Iterable[Stage]) -> list[dict[str, Any]]:
    names = dict.fromkeys(name for stage in stages for name in stage.variables)
    return [optional_parameter(parameter(name), f"Value of {name}.") for name in names]


def _given(stages: Iterable[Stage]) -> list[dict[str, Any]]:
    given = {n: about for stage in stages for n, about in optional_workspaces(stage).items()}
    return [{"name": n, "description": about, "optional": True} for n, about in given.items()]


def _task(
    name: str,
    limit: timedelta,
    parameters: Mapping[str, Any],
    workspaces: list[dict[str, Any]],
    **more: Any,
) -> dict[str, Any]:
    return {
        "name": name,
        "taskRef": {"name": name},
        **more,
        "timeout": duration(limit + AROUND),
        "params": [
            {"name": n, "value": v}
            for n, v in {"cli-image": "$(params.cli-image)", **parameters}.items()
        ],
        "workspaces": workspaces,
    }


def _part(name: str) -> dict[str, Any]:
    """A directory of the run's own volume."""
    return {"name": name, "workspace": WORK, "subPath": name}


def _same(names: Iterable[str]) -> list[dict[str, Any]]:
    return [{"name": name, "workspace": name} for name in names]


def _fetch() -> dict[str, Any]:
    """Skipped where there is no address: what comes after it in order alone runs all the same."""
    return _task(
        FETCH,
        FETCH_LIMIT,
        {name: f"$(params.{name})" for name in (URL, COMMIT, REF)},
        [_part(SOURCE), *_same([GIT])],
        when=[{"input": f"$(params.{URL})", "operator": "notin", "values": [""]}],
    )


def _stage(stage: Stage, plan: Plan) -> dict[str, Any]:
    parameters = {"config": "$(params.config)"} if reads_source(stage) else {}
    parameters |= {"run": "$(context.pipelineRun.name)", **_own(stage)}
    if takes_image(stage):
        maker = "sign" if "sign" in _before(stage, plan) else "build"
        parameters["image"] = f"$(tasks.{maker}.results.IMAGE)"
    if expected := expected_results(stage):
        words = (f"{need}=$(tasks.{need}.results.RESULT_DIGEST)" for need in expected)
        parameters["expect"] = " ".join(words)
    more: dict[str, Any] = {"runAfter": list(stage.needs) or [FETCH]}
    if "target" in parameters:
        more["when"] = [{"input": "$(params.target)", "operator": "notin", "values": [""]}]
    if stage.name == "test":
        parameters["cli-image"] = f"$(params.{TEST_IMAGE})"
    places = [_part(SOURCE)] if reads_source(stage) else []
    places.append(_memory() if remembers(stage) else _part(STATE_PLACE))
    workspaces = [*places, *_same(optional_workspaces(stage))]
    return _task(stage.name, stage.timeout, parameters, workspaces, **more)


def _alone(stage: Stage) -> dict[str, Any]:
    """Evidence of any run will do; what is remembered names this one."""
    parameters = {"run": "$(context.pipelineRun.name)"} if remembers(stage) else {}
    parameters |= {**_own(stage), "image": "$(params.image)"}
    places = [_memory()] if remembers(stage) else []
    after = [need for need in stage.needs if need in ONLY_IMAGE]
    more = {"runAfter": after} if after else {}
    workspaces = [*places, *_same(optional_workspaces(stage))]
    return _task(stage.name, stage.timeout, parameters, workspaces, **more)


def _own(stage: Stage) -> dict[str, str]:
    """What a stage is told of the run's parameters under their own names."""
    names = [parameter(variable) for variable in stage.variables]
    if "{target}" in stage.command:
        names.append("target")
    return {name: f"$(params.{name})" for name in names}


def _memory() -> dict[str, Any]:
    return {"name": STATE_PLACE, "workspace": MEMORIES}


def _before(stage: Stage, plan: Plan) -> set[str]:
    found = set(stage.needs)
    for need in stage.needs:
        found |= _before(plan.stage(need), plan)
    return found


def _roll_back(plan: Plan) -> dict[str, Any]:
    """Only after a promotion that failed: one that never began has nothing to take back."""
    stage = roll_back(plan.stage(PROMOTE))
    parameters = {"run": "$(context.pipelineRun.name)", **_own(stage)}
    workspaces = [_memory(), *_same(optional_workspaces(stage))]
    status = f"$(tasks.{PROMOTE}.status)"
    when = [{"input": status, "operator": "in", "values": ["Failed"]}]
    return _task(ROLL_BACK, stage.timeout, parameters, workspaces, when=when)


def _report(plan: Plan) -> dict[str, Any]:
    stages = [s.name for s in plan.stages if "{target}" not in s.command]
    parameters = {
        "run": "$(context.pipelineRun.name)",
        "stages": [f"{name}=$(tasks.{name}.status)" for name in stages],
    }
    return _task(REPORT, timedelta(minutes=5), parameters, [_part(STATE_PLACE)])
