"""The Tasks around the stages: the source before them, what has to be done after them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from secure_pipeline.plan.model import PROGRAM, RUN, STATE, Stage
from secure_pipeline.plan.tekton_tasks import (
    PLACES,
    SOURCE,
    STATE_PLACE,
    TEMPORARY,
    VERSION,
    image_parameter,
    optional_parameter,
    resources,
    security,
    task,
)
from secure_pipeline.plan.tekton_text import duration, labelled

FETCH, REPORT, ROLL_BACK = "fetch", "report", "roll-back"
GIT = "git"
GIT_MEANING = (
    "Access to the source: credentials, ca.crt, or ssh-privatekey and known_hosts; a Secret."
)
URL, COMMIT, REF = "source-url", "commit", "source-ref"
FETCH_LIMIT = timedelta(minutes=15)
"""More than the command itself takes (--timeout)."""


def source_parameters() -> list[dict[str, Any]]:
    """Where the source is from; nothing where the workspace has it already."""
    return [
        optional_parameter(URL, "Address of the source; empty if it is in the workspace already."),
        optional_parameter(COMMIT, "Commit of the source: 40 or 64 hex digits."),
        optional_parameter(REF, "Branch or tag that has to have the commit: refs/heads/NAME."),
    ]


def fetch_task(image: str) -> dict[str, Any]:
    """The Task that brings the source at a commit, byte for byte."""
    environment = {
        "SECURE_PIPELINE_SOURCE": f"$(params.{URL})",
        "SECURE_PIPELINE_COMMIT": f"$(params.{COMMIT})",
        "SECURE_PIPELINE_SOURCE_REF": f"$(params.{REF})",
        "SECURE_PIPELINE_SOURCE_DIRECTORY": f"$(workspaces.{SOURCE}.path)",
        "SECURE_PIPELINE_SOURCE_CREDENTIALS": f"$(workspaces.{GIT}.path)",
    }
    spec = {
        "description": "Brings the source at a commit, and nothing that is not of that commit.",
        "params": [image_parameter(image), *source_parameters()],
        "workspaces": [
            {"name": SOURCE, "description": "Where to: empty, or that source already."},
            {"name": GIT, "description": GIT_MEANING, "optional": True, "readOnly": True},
        ],
        **_one_step(FETCH, [], environment, FETCH_LIMIT),
    }
    return labelled(VERSION, "Task", FETCH, spec)


def report_task(image: str) -> dict[str, Any]:
    """The Task that writes the dashboard from what is there and from what Tekton says."""
    environment = {RUN: "$(params.run)", STATE: f"$(workspaces.{STATE_PLACE}.path)"}
    spec = {
        "description": "Writes the dashboard of a run; whether the run passed is not its matter.",
        "params": [
            image_parameter(image),
            {"name": "run", "description": "Id of the run."},
            {"name": "stages", "type": "array", "description": "STAGE=STATUS, as Tekton says."},
        ],
        "workspaces": [{"name": STATE_PLACE, "description": PLACES[STATE_PLACE]}],
        **_one_step(REPORT, ["$(params.stages[*])"], environment, timedelta(minutes=5)),
    }
    return labelled(VERSION, "Task", REPORT, spec)


def roll_back(promote: Stage) -> Stage:
    """What ends a promotion whose own step is gone: the same rights, no image, and not long."""
    return replace(
        promote,
        name=ROLL_BACK,
        command=(PROGRAM, promote.name, "--settle", "--to", "{target}"),
        timeout=timedelta(minutes=10),
    )


def roll_back_task(promote: Stage, image: str) -> dict[str, Any]:
    """The Task that takes traffic back where a promotion was left unfinished."""
    made = task(roll_back(promote), image)
    made["spec"]["description"] = "Rolls back what a promotion left; passes if that is nothing."
    return made


def _one_step(
    name: str, words: list[str], environment: Mapping[str, str], limit: timedelta
) -> dict[str, Any]:
    """A command of the program with no right at all."""
    step = {
        "name": name,
        "image": "$(params.cli-image)",
        "command": [PROGRAM],
        "args": [name, *words],
        "env": [
            {"name": variable, "value": value}
            for variable, value in {"HOME": TEMPORARY, **environment}.items()
        ],
        "timeout": duration(limit),
        "computeResources": resources(1, 1024),
        "securityContext": security(),
        "volumeMounts": [{"name": "tmp", "mountPath": TEMPORARY}],
    }
    volume = {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}
    return {"steps": [step], "volumes": [volume]}
