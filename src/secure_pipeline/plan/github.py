"""The plan as workflows of GitHub Actions.

``ci.yml`` runs on pull requests and on main, ``release.yml`` on tags, ``pipeline.yml`` is called
by workflows of other repositories. All three are made of the same jobs, one a stage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secure_pipeline.errors import UsageError
from secure_pipeline.plan.githubactions import (
    ACTIONS,
    HAND_OVER_SECRET,
    HAND_OVER_VARIABLES,
    handed,
    input_name,
    render_actions,
)
from secure_pipeline.plan.githubyaml import PINS, dump
from secure_pipeline.plan.model import Permission, Plan, Stage

WORKFLOWS = ".github/workflows"
RUNNER = "ubuntu-24.04"
RUN_ID = "gh-${{ github.run_id }}"
"""The same in each attempt, so that a failed job can be run again."""
CHECKED_EARLY = ("analyze", "test")
"""What a pull request is worth: no stage that needs a right or a secret."""
HAND_OVER = "hand-over"
"""The job in which a cluster promotes, in place of ``promote``, which does it from the runner."""
ENVIRONMENTS = {"sign": "release", "promote": "production", HAND_OVER: "production"}
"""Where people decide, and where the secrets are."""
_HERE = "$/"
"""The repository of the workflow itself at the commit that runs, with nothing checked out; also
for a workflow that another repository calls (github.blog changelog of 2026-07-30)."""
_TOOLKIT = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")
_CHECKOUT = str(PINS["actions/checkout"])
_OPERATOR = (
    "SECURE_PIPELINE_POLICY_REPOSITORY", "SECURE_PIPELINE_POLICY_COMMIT",
    "SECURE_PIPELINE_REGISTRY", "SECURE_PIPELINE_REGISTRY_USER", "SECURE_PIPELINE_TARGET",
)  # fmt: skip
"""Variables that the workflows read besides those of the stages."""
_REGISTRY_PASSWORD = "SECURE_PIPELINE_REGISTRY_PASSWORD"


@dataclass(frozen=True)
class _Source:
    """Where a workflow finds actions, values and secrets."""

    action: str
    """What comes before ``STAGE`` in ``uses``."""
    commit: str = ""
    """What comes after it."""
    called: bool = False
    """It is called by another repository: values are inputs."""

    def uses(self, stage: str) -> str:
        return f"{self.action}/{stage}{self.commit}"

    def value(self, variable: str) -> str:
        """The name of a value in an expression."""
        return f"inputs.{input_name(variable)}" if self.called else f"vars.{variable}"

    def secret(self, variable: str) -> str:
        """The name of a secret in an expression."""
        return f"secrets.{input_name(variable) if self.called else variable}"


def render(plan: Plan, toolkit: str | None = None) -> Mapping[str, str]:
    """Texts by path.

    ``toolkit``: OWNER/NAME@COMMIT of the repository whose actions are used; without it they are
    rendered too, with the workflow that others call. Raises: UsageError.
    """
    if toolkit is None:
        own = _Source(f"{_HERE}{ACTIONS}")
        called = _Source(f"{_HERE}{ACTIONS}", called=True)
        return {
            f"{WORKFLOWS}/ci.yml": dump(_ci(plan, own)),
            f"{WORKFLOWS}/release.yml": dump(_release(plan, own)),
            f"{WORKFLOWS}/pipeline.yml": dump(_pipeline(plan, called)),
            **render_actions(plan),
        }
    if not _TOOLKIT.fullmatch(toolkit):
        raise UsageError(
            f"{toolkit[:120]!r} is no repository at a commit", hint="OWNER/NAME@ and 40 hex digits"
        )
    repository, _, commit = toolkit.partition("@")
    theirs = _Source(f"{repository}/{ACTIONS}", f"@{commit}")
    return {
        f"{WORKFLOWS}/ci.yml": dump(_ci(plan, theirs)),
        f"{WORKFLOWS}/release.yml": dump(_release(plan, theirs)),
    }


def _ci(plan: Plan, source: _Source) -> dict[str, Any]:
    jobs = {name: _job(plan, plan.stage(name), source) for name in CHECKED_EARLY}
    return {
        "name": "ci",
        "on": {"pull_request": None, "push": {"branches": ["main"]}},
        "permissions": {},
        "concurrency": {
            "group": "ci-${{ github.event.pull_request.number || github.ref }}",
            "cancel-in-progress": True,
        },
        "jobs": {**jobs, "sarif": _sarif()},
    }


def _release(plan: Plan, source: _Source) -> dict[str, Any]:
    return {
        "name": "release",
        "on": {"push": {"tags": ["v*"]}},
        "permissions": {},
        "concurrency": {"group": "release-${{ github.ref }}", "cancel-in-progress": False},
        "jobs": _jobs(plan, source),
    }


def _jobs(plan: Plan, source: _Source) -> dict[str, Any]:
    jobs = {stage.name: _job(plan, stage, source) for stage in plan.stages}
    return {**jobs, HAND_OVER: _hand_over(source)}


def _pipeline(plan: Plan, source: _Source) -> dict[str, Any]:
    variables = [*_OPERATOR, *(v for stage in plan.stages for v in stage.variables)]
    variables += HAND_OVER_VARIABLES
    secrets = [_REGISTRY_PASSWORD, *(s for stage in plan.stages for s in stage.secrets)]
    secrets.append(HAND_OVER_SECRET)
    return {
        "name": "pipeline",
        "on": {"workflow_call": {
            "inputs": {
                input_name(v): {
                    "description": v, "type": "string", "required": False, "default": "",
                }
                for v in dict.fromkeys(variables)
            },
            "secrets": {
                input_name(s): {"description": s, "required": False} for s in dict.fromkeys(secrets)
            },
            "outputs": {"image": {
                "description": "The signed image.", "value": "${{ jobs.sign.outputs.image }}",
            }},
        }},
        "permissions": {},
        "concurrency": {"group": "pipeline-${{ github.ref }}", "cancel-in-progress": False},
        "jobs": _jobs(plan, source),
    }  # fmt: skip


def _job(plan: Plan, stage: Stage, source: _Source) -> dict[str, Any]:
    job: dict[str, Any] = {"name": stage.name}
    if stage.needs:
        job["needs"] = list(dict.fromkeys((*stage.needs, *handed(plan, stage))))
    if stage.name == "promote":
        target, listener = (
            source.value(f"SECURE_PIPELINE_{name}") for name in ("TARGET", "HAND_OVER")
        )
        job["if"] = f"${{{{ {target} != '' && {listener} == '' }}}}"
    job |= {
        "runs-on": RUNNER,
        "timeout-minutes": int(stage.timeout.total_seconds() // 60),
        "permissions": _permissions(stage),
    }
    if stage.name in ENVIRONMENTS:
        job["environment"] = ENVIRONMENTS[stage.name]
    if stage.writes and stage.name != "promote":
        job["outputs"] = {
            name: f"${{{{ steps.stage.outputs.{name} }}}}" for name in ("state", "image")
        }
    pushes = Permission.REGISTRY in stage.permissions
    login = [_login(source)] if pushes else []
    job["steps"] = [*_checkouts(source), *login, _stage(plan, stage, source)]
    return job


def _hand_over(source: _Source) -> dict[str, Any]:
    """Verified here, promoted there: the listener gets the image, the job waits for the verdict."""
    values = {
        "directory": "source",
        "image": "${{ needs.sign.outputs.image }}",
        **{input_name(v): f"${{{{ {source.value(v)} }}}}" for v in HAND_OVER_VARIABLES},
        input_name(HAND_OVER_SECRET): f"${{{{ {source.secret(HAND_OVER_SECRET)} }}}}",
    }
    step = {"name": HAND_OVER, "uses": source.uses(HAND_OVER), "with": values}
    return {
        "name": HAND_OVER,
        "needs": ["verify", "sign"],
        "if": f"${{{{ {source.value('SECURE_PIPELINE_HAND_OVER')} != '' }}}}",
        "runs-on": RUNNER,
        "timeout-minutes": 360,
        "permissions": {"contents": "read", "packages": "read"},
        "environment": ENVIRONMENTS[HAND_OVER],
        "steps": [*_checkouts(source), _login(source), step],
    }


def _permissions(stage: Stage) -> dict[str, str]:
    rights = {
        Permission.SOURCE: {"contents": "read"},
        Permission.IDENTITY: {"id-token": "write"},
        Permission.REGISTRY: {"packages": "write"},
        Permission.ROUTER: {},
    }
    return {name: value for p in stage.permissions for name, value in rights[p].items()}


def _checkouts(source: _Source) -> list[dict[str, Any]]:
    """The source and the operator's policy, beside each other: a policy inside would be source."""
    return [
        {
            "name": "Check out the source",
            "uses": _CHECKOUT,
            "with": {"path": "source", "persist-credentials": False},
        },
        {
            "name": "Check out the policy",
            "if": f"${{{{ {source.value('SECURE_PIPELINE_POLICY_REPOSITORY')} != '' }}}}",
            "uses": _CHECKOUT,
            "with": {
                "repository": f"${{{{ {source.value('SECURE_PIPELINE_POLICY_REPOSITORY')} }}}}",
                "ref": f"${{{{ {source.value('SECURE_PIPELINE_POLICY_COMMIT')} }}}}",
                "path": "policy",
                "persist-credentials": False,
            },
        },
    ]


def _login(source: _Source) -> dict[str, Any]:
    registry = source.value("SECURE_PIPELINE_REGISTRY")
    user, password = (
        source.value("SECURE_PIPELINE_REGISTRY_USER"), source.secret(_REGISTRY_PASSWORD),
    )  # fmt: skip
    return {
        "name": "Log in to the registry",
        "if": f"${{{{ {registry} != '' }}}}",
        "uses": str(PINS["docker/login-action"]),
        "with": {
            "registry": f"${{{{ {registry} }}}}",
            "username": f"${{{{ {user} || github.actor }}}}",
            "password": f"${{{{ {password} || github.token }}}}",
        },
    }


def _stage(plan: Plan, stage: Stage, source: _Source) -> dict[str, Any]:
    values = {"run": RUN_ID, "directory": "source"}
    for need in handed(plan, stage):
        values[f"{need}-state"] = f"${{{{ needs.{need}.outputs.state }}}}"
    if stage.name == "promote":
        values["image"] = "${{ needs.sign.outputs.image }}"
        values["target"] = f"${{{{ {source.value('SECURE_PIPELINE_TARGET')} }}}}"
    for variable in stage.variables:
        values[input_name(variable)] = f"${{{{ {source.value(variable)} }}}}"
    for variable in stage.secrets:
        values[input_name(variable)] = f"${{{{ {source.secret(variable)} }}}}"
    return {"name": stage.name, "id": "stage", "uses": source.uses(stage.name), "with": values}


def _sarif() -> dict[str, Any]:
    """The one job that may write findings; from a fork it could not, and has no need to."""
    return {
        "name": "sarif",
        "needs": ["analyze"],
        "if": "${{ !cancelled() && needs.analyze.result != 'skipped'"
        " && github.event.pull_request.head.repo.fork != true }}",
        "runs-on": RUNNER,
        "timeout-minutes": 10,
        "permissions": {"security-events": "write", "actions": "read"},
        "steps": [
            {
                "name": "Fetch the findings",
                "uses": str(PINS["actions/download-artifact"]),
                "with": {"name": f"{RUN_ID}-sarif", "path": "sarif"},
            },
            {
                "name": "Show the findings",
                "uses": str(PINS["github/codeql-action/upload-sarif"]),
                "with": {"sarif_file": "sarif/findings.sarif", "category": "secure-pipeline"},
            },
        ],
    }
