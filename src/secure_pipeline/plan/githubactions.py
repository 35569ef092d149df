"""Composite actions: one a stage, for this repository's workflows and for any other's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from secure_pipeline.plan.githubyaml import PINS, dump
from secure_pipeline.plan.model import ENGINE, POLICY, PROGRAM, RUN, Plan, Stage

ACTIONS = ".github/actions"
PLACE = "secure-pipeline-state"
"""Below the runner's temporary directory: runs as files, on their way from job to job."""
PYTHON = "3.11"
HAND_OVER_VARIABLES = (
    *("SECURE_PIPELINE_HAND_OVER", "SECURE_PIPELINE_TARGET", "SECURE_PIPELINE_HAND_OVER_WAIT"),
    *("SECURE_PIPELINE_HAND_OVER_CA", POLICY),
)
"""What ``hand-over`` reads that is no secret: the listener's address first."""
HAND_OVER_SECRET = "SECURE_PIPELINE_HAND_OVER_SECRET"
SYSTEM_TOOLS = ("buildah",)
"""What the runner brings and the program only looks for."""
_DIRECTORY = "${{ inputs.directory }}"
_DIRECTORY_INPUT = {
    "directory": {
        "description": "Directory of secure-pipeline.yaml.", "required": False, "default": ".",
    }
}  # fmt: skip
_ENDED = "${{ always() && steps.stage.outcome != 'skipped' }}"

INSTALL = """\
#!/bin/sh
# Install secure-pipeline from the repository of this action, with each requirement by its hash,
# and the tools that are named. Written by 'secure-pipeline plan --render github'.
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
home=${RUNNER_TEMP:?}/secure-pipeline-program
if [ ! -x "$home/bin/secure-pipeline" ]; then
    python3 -m venv "$home"
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \\
        -r "$root/requirements/runtime.txt" -r "$root/requirements/build.txt"
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \\
        --no-build-isolation "$root"
fi
# Only the program: the interpreter beside it must not be the one that runs the project's tests.
mkdir -p "$home/path"
ln -sf ../bin/secure-pipeline "$home/path/secure-pipeline"
echo "$home/path" >> "${GITHUB_PATH:?}"
[ $# = 0 ] || "$home/bin/secure-pipeline" tools install "$@"
"""


def render_actions(plan: Plan) -> Mapping[str, str]:
    """Texts by path."""
    files = {
        f"{ACTIONS}/setup/install.sh": INSTALL,
        f"{ACTIONS}/setup/action.yml": dump(_setup()),
    }
    for stage in plan.stages:
        files[f"{ACTIONS}/{stage.name}/action.yml"] = dump(_action(plan, stage))
    files[f"{ACTIONS}/hand-over/action.yml"] = dump(_hand_over_action())
    return files


def handed(plan: Plan, stage: Stage) -> tuple[str, ...]:
    """The stages whose state a stage takes over: its needs, but those that another one brings.

    What verify left is nothing, so what comes after it takes what came before it.
    """
    needs = tuple(n for n in stage.needs if plan.stage(n).writes)
    for need in stage.needs:
        if not plan.stage(need).writes:
            needs += handed(plan, plan.stage(need))
    brought = {name for need in needs for name in _before(plan, need)}
    return tuple(need for need in dict.fromkeys(needs) if need not in brought)


def _before(plan: Plan, name: str) -> set[str]:
    needs = plan.stage(name).needs
    return set(needs).union(*(_before(plan, need) for need in needs))


def input_name(variable: str) -> str:
    """``SECURE_PIPELINE_KEY`` is the input ``key``, ``VAULT_ADDR`` is ``vault-addr``."""
    return variable.removeprefix("SECURE_PIPELINE_").lower().replace("_", "-")


def _setup() -> dict[str, Any]:
    return {
        "name": "secure-pipeline: setup",
        "description": "Install secure-pipeline, with each requirement by its hash.",
        "runs": {"using": "composite", "steps": _install(())},
    }


def _action(plan: Plan, stage: Stage) -> dict[str, Any]:
    outputs = {
        "image": {"description": "NAME@sha256:DIGEST.", "value": "${{ steps.pack.outputs.image }}"},
        "state": {
            "description": "Digest of what this stage hands over.",
            "value": "${{ steps.pack.outputs.state }}",
        },
    }
    return {
        "name": f"secure-pipeline: {stage.name}",
        "description": f"Run '{' '.join(stage.command)}' on a checkout.",
        "inputs": _inputs(plan, stage),
        **({"outputs": outputs} if stage.writes and stage.name != "promote" else {}),
        "runs": {"using": "composite", "steps": _steps(plan, stage)},
    }


def _hand_over_action() -> dict[str, Any]:
    variables = (*HAND_OVER_VARIABLES, HAND_OVER_SECRET)
    step = {
        "name": "hand-over",
        "shell": "bash",
        "working-directory": _DIRECTORY,
        "env": {"IMAGE": "${{ inputs.image }}", **_environment(variables)},
        "run": f'{PROGRAM} hand-over "$IMAGE"',
    }
    return {
        "name": "secure-pipeline: hand-over",
        "description": "Let a cluster promote an image, and wait for the verdict that it signs.",
        "inputs": {
            **_DIRECTORY_INPUT,
            "image": {"description": "HOST/NAME@sha256:DIGEST to promote.", "required": True},
            **_variable_inputs(variables),
        },
        "runs": {"using": "composite", "steps": [*_install(()), step]},
    }


def _variable_inputs(variables: Iterable[str]) -> dict[str, Any]:
    return {
        input_name(variable): {
            "description": f"{variable}, as the program reads it.",
            "required": False,
            "default": "",
        }
        for variable in variables
    }


def _environment(variables: Iterable[str]) -> dict[str, str]:
    return {variable: f"${{{{ inputs.{input_name(variable)} }}}}" for variable in variables}


def _inputs(plan: Plan, stage: Stage) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "run": {"description": "Id that all stages of one run share.", "required": True},
        **_DIRECTORY_INPUT,
    }
    for need in handed(plan, stage):
        inputs[f"{need}-state"] = {
            "description": f"The output 'state' of {need}.",
            "required": True,
        }
    for word in _placeholders(stage):
        inputs[word] = {"description": f"What to {stage.name}, or where to.", "required": True}
    return {**inputs, **_variable_inputs((*stage.variables, *stage.secrets))}


def _steps(plan: Plan, stage: Stage) -> list[dict[str, Any]]:
    steps = _install(tuple(t for t in stage.tools if t not in SYSTEM_TOOLS))
    for need in handed(plan, stage):
        steps += _take(need)
    steps.append(_run_stage(stage))
    if stage.name == "promote":
        return steps
    shown = f" {stage.name}" if stage.writes else ""
    steps.append(
        {
            "name": "Say what was found",
            "if": _ENDED,
            "shell": "bash",
            "working-directory": _DIRECTORY,
            "env": {RUN: "${{ inputs.run }}"},
            "run": f'{PROGRAM} summary{shown} --file "$GITHUB_STEP_SUMMARY"',
        }
    )
    if stage.name == "analyze":
        steps.append(_keep_sarif())
    return steps + (_hand_over(stage) if stage.writes else [])


def _install(tools: tuple[str, ...]) -> list[dict[str, Any]]:
    words = "".join(f" {tool}" for tool in tools)
    folder = "$GITHUB_ACTION_PATH/../setup"
    return [
        {
            "name": "Set up Python",
            "uses": str(PINS["actions/setup-python"]),
            "with": {"python-version": PYTHON},
        },
        {
            "name": "Install secure-pipeline",
            "shell": "bash",
            "run": f'sh "{folder}/install.sh"{words}',
        },
    ]


def _run_stage(stage: Stage) -> dict[str, Any]:
    words = " ".join(f'"${w.strip("{}").upper()}"' if w[0] == "{" else w for w in stage.command)
    environment = {RUN: "${{ inputs.run }}", ENGINE: "github"}
    environment |= _environment((*stage.variables, *stage.secrets))
    for word in _placeholders(stage):
        environment[word.upper()] = f"${{{{ inputs.{word} }}}}"
    if stage.name == "sign":
        environment["SECURE_PIPELINE_RESULTS"] = f"${{{{ runner.temp }}}}/{PLACE}/results"
    return {
        "name": stage.name,
        "id": "stage",
        "shell": "bash",
        "working-directory": _DIRECTORY,
        "env": environment,
        "run": words,
    }


def _placeholders(stage: Stage) -> tuple[str, ...]:
    return tuple(word.strip("{}") for word in stage.command if word.startswith("{"))


def _take(need: str) -> list[dict[str, Any]]:
    return [
        {
            "name": f"Fetch what {need} left",
            "uses": str(PINS["actions/download-artifact"]),
            "with": {
                "name": f"${{{{ inputs.run }}}}-{need}",
                "path": f"${{{{ runner.temp }}}}/{PLACE}",
            },
        },
        {
            "name": f"Take over what {need} left",
            "shell": "bash",
            "working-directory": _DIRECTORY,
            "env": {"DIGEST": f"${{{{ inputs.{need}-state }}}}"},
            "run": f'{PROGRAM} state unpack "$RUNNER_TEMP/{PLACE}/{need}.tar" --digest "$DIGEST"',
        },
    ]


def _hand_over(stage: Stage) -> list[dict[str, Any]]:
    more = ' --results "$RUNNER_TEMP/' + PLACE + '/results"' if stage.name == "sign" else ""
    return [
        {
            "name": "Pack",
            "id": "pack",
            "shell": "bash",
            "working-directory": _DIRECTORY,
            "env": {RUN: "${{ inputs.run }}"},
            "run": f'{PROGRAM} state pack "$RUNNER_TEMP/{PLACE}/{stage.name}.tar"{more}'
            ' --outputs "$GITHUB_OUTPUT"',
        },
        {
            "name": "Hand over",
            "uses": str(PINS["actions/upload-artifact"]),
            "with": {
                "name": f"${{{{ inputs.run }}}}-{stage.name}",
                "path": f"${{{{ runner.temp }}}}/{PLACE}/{stage.name}.tar",
                "if-no-files-found": "error",
                "retention-days": 7,
                "compression-level": 0,
                "overwrite": True,
            },
        },
    ]


def _keep_sarif() -> dict[str, Any]:
    report = ".secure-pipeline/runs/${{ inputs.run }}/reports/analyze/findings.sarif"
    return {
        "name": "Keep the findings",
        "if": _ENDED,
        "uses": str(PINS["actions/upload-artifact"]),
        "with": {
            "name": "${{ inputs.run }}-sarif",
            "path": f"{_DIRECTORY}/{report}",
            "if-no-files-found": "ignore",
            "include-hidden-files": True,
            "retention-days": 7,
            "overwrite": True,
        },
    }
