"""The builder that a run belongs to, and what the engine says about the run."""

from __future__ import annotations

import re
from collections.abc import Mapping

from secure_pipeline.errors import UsageError

VARIABLE = "SECURE_PIPELINE_BUILDER"
"""Set by the engine's definitions, not by the repository that they build."""
ENGINES = ("local", "github", "tekton")
_OWN = re.compile(r"https://[A-Za-z0-9.-]+(:\d{1,5})?(/[!-~]{0,200})?\Z")
_GITHUB = {
    "GITHUB_SERVER_URL": r"https?://[!-~]{1,200}",
    "GITHUB_REPOSITORY": r"[\w.-]{1,100}/[\w.-]{1,100}",
    "GITHUB_RUN_ID": r"[0-9]{1,20}",
    "GITHUB_RUN_ATTEMPT": r"[0-9]{1,10}",
    "GITHUB_WORKFLOW_REF": r"[^\x00-\x20\x7f]{1,1000}",
}
"""Variables that every step has, with what they look like."""


def builder_id(environment: Mapping[str, str]) -> str:
    """The builder.id of runs here: one a kind of engine, because each is trusted differently.

    Raises: UsageError.
    """
    named = environment.get(VARIABLE) or "local"
    if named in ENGINES:
        return f"https://secure-pipeline.dev/builder/{named}/v1"
    if not _OWN.match(named):
        raise UsageError(
            f"{VARIABLE}: {named[:120]!r} is no builder",
            hint=f"{', '.join(ENGINES)}, or an https:// URI of your own",
        )
    return named


def engine_facts(environment: Mapping[str, str]) -> dict[str, str]:
    """Where GitHub shows this attempt of the run, and the workflow; elsewhere nothing.

    Raises: UsageError for a variable of GitHub's that is missing or not what it should be.
    """
    if environment.get("GITHUB_ACTIONS") != "true":
        return {}
    found = {name: environment.get(name, "") for name in _GITHUB}
    for name, shape in _GITHUB.items():
        if not re.fullmatch(shape, found[name]) or not found[name].isprintable():
            raise UsageError(
                f"GITHUB_ACTIONS is true, but {name} is not what GitHub sets",
                hint="unset GITHUB_ACTIONS where no workflow runs",
            )
    server, repository, run, attempt, workflow = found.values()
    return {
        "run": f"{server}/{repository}/actions/runs/{run}/attempts/{attempt}",
        "workflow": workflow,
    }
