"""What rendered files say the stages are, read back from their text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from secure_pipeline.plan.github import HAND_OVER
from secure_pipeline.plan.model import Plan
from secure_pipeline.plan.tekton_around import FETCH


@dataclass(frozen=True)
class Read:
    """A stage as an engine will run it."""

    name: str
    needs: frozenset[str]
    """All stages that must have ended well before, directly or not."""
    command: tuple[str, ...]
    stops: bool
    """Its failure stops what needs it."""


def of_plan(plan: Plan) -> list[Read]:
    """The stages of the plan, in its order."""
    needs = {stage.name: stage.needs for stage in plan.stages}
    return [Read(s.name, _all(s.name, needs), s.command, True) for s in plan.stages]


def of_github(files: Mapping[str, str], workflow: str) -> list[Read]:
    """The jobs of a workflow, with the script that their action runs.

    But not the one in which another engine runs the last stage.
    """
    jobs = yaml.safe_load(files[workflow])["jobs"]
    needs = {name: tuple(job.get("needs", ())) for name, job in jobs.items()}
    return [_job(files, name, job, needs) for name, job in jobs.items() if name != HAND_OVER]


def of_tekton(files: Mapping[str, str]) -> list[Read]:
    """The tasks of the Pipeline, with the arguments of their step.

    But not the one that brings the source: elsewhere the engine has it before a job begins.
    """
    spec = yaml.safe_load(files["tekton/pipelines/build.yaml"])["spec"]
    tasks = [task for task in spec["tasks"] if task["name"] != FETCH]
    needs = {t["name"]: tuple(n for n in t.get("runAfter", ()) if n != FETCH) for t in tasks}
    found = []
    for task in tasks:
        name = task["name"]
        (step,) = yaml.safe_load(files[f"tekton/tasks/{name}.yaml"])["spec"]["steps"]
        words = [*step.get("command", ()), *step.get("args", ())]
        command = [re.sub(r"\$\(params\.(\w+)\)", r"{\1}", word) for word in words]
        stops = task.get("onError", "stopAndFail") == "stopAndFail" and "onError" not in step
        found.append(Read(name, _all(name, needs), tuple(command), stops))
    return found


def _job(
    files: Mapping[str, str], name: str, job: dict[str, Any], needs: Mapping[str, tuple[str, ...]]
) -> Read:
    (step,) = (step for step in job["steps"] if step.get("id") == "stage")
    path = re.fullmatch(r"(?:\$/|[^@]*?/)(\.github/actions/\w+)(?:@[0-9a-f]{40})?", step["uses"])
    assert path, step["uses"]
    action = yaml.safe_load(files[f"{path[1]}/action.yml"])
    (script,) = (s for s in action["runs"]["steps"] if s.get("id") == "stage")
    words = [
        re.sub(r'"\$(\w+)"', lambda m: f"{{{m[1].lower()}}}", w) for w in script["run"].split()
    ]
    stops = not any(_goes_on(item) for item in (job, step, script))
    return Read(name, _all(name, needs), tuple(words), stops)


def _goes_on(item: Mapping[str, Any]) -> bool:
    always = re.search(r"always\(\)|cancelled\(\)|failure\(\)", str(item.get("if", "")))
    return bool(always) or item.get("continue-on-error", False) is not False


def _all(name: str, needs: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    return frozenset(needs[name]).union(*(_all(need, needs) for need in needs[name]))


def inside(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a document."""
    if isinstance(value, dict):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        yield from inside(item)
