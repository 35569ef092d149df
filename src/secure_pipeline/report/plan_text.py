"""The plan as lines for people and as a document for programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from secure_pipeline.plan.model import Plan, Stage
from secure_pipeline.report.to_text import table


def lines(plan: Plan) -> list[str]:
    """The graph, one row a stage; then what each stage touches."""
    rows = [("STAGE", "AFTER", "GATE", "MAY", "SECRETS", "TOOLS", "IMAGE")]
    rows += [
        (
            stage.name,
            _words(stage.needs),
            "yes" if stage.gate else "-",
            _words(stage.permissions),
            _words(stage.secrets),
            _words(stage.tools),
            stage.image,
        )
        for stage in plan.stages
    ]
    text = table(rows)
    for stage in plan.stages:
        text += ["", f"{stage.name}: {' '.join(stage.command)}"]
        text += [f"  {line}" for line in table(_details(stage))]
    return text


def document(plan: Plan) -> dict[str, Any]:
    """The same, for ``--json``. Memory in MiB, disk in GiB, time in seconds."""
    return {"stages": [_stage(stage) for stage in plan.stages]}


def _details(stage: Stage) -> list[tuple[str, str]]:
    resources = stage.resources
    return [
        ("reads", _words(stage.reads)),
        ("writes", _words(stage.writes)),
        ("talks to", _words(stage.network)),
        ("variables", _words(stage.variables)),
        ("at most", f"{resources.cpu} CPU, {resources.memory} MiB, {resources.disk} GiB of disk, "
         f"{int(stage.timeout.total_seconds() // 60)} min"),
    ]  # fmt: skip


def _stage(stage: Stage) -> dict[str, Any]:
    return {
        "name": stage.name,
        "needs": list(stage.needs),
        "command": list(stage.command),
        "gate": stage.gate,
        "reads": list(stage.reads),
        "writes": list(stage.writes),
        "permissions": [p.value for p in stage.permissions],
        "network": [n.value for n in stage.network],
        "variables": list(stage.variables),
        "secrets": list(stage.secrets),
        "tools": list(stage.tools),
        "image": stage.image,
        "userNamespaces": stage.user_namespaces,
        "resources": {
            "cpu": stage.resources.cpu,
            "memory": stage.resources.memory,
            "disk": stage.resources.disk,
        },
        "timeout": int(stage.timeout.total_seconds()),
    }


def _words(words: Iterable[str]) -> str:
    return ", ".join(words) or "-"
