"""Kubernetes objects as the text of a file."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import yaml

from secure_pipeline.plan.model import PROGRAM

HEAD = "Written by 'secure-pipeline plan --render tekton'; change the plan, not this file."


def labelled(version: str, kind: str, name: str, spec: dict[str, Any] | None) -> dict[str, Any]:
    """An object of ours."""
    made: dict[str, Any] = {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": PROGRAM}},
    }
    return made if spec is None else {**made, "spec": spec}


def text(comment: Iterable[str], *values: dict[str, Any]) -> str:
    """YAML documents under a comment, each of its lines wrapped."""
    lines = [line for part in (HEAD, *comment) for line in textwrap.wrap(part, 96)]
    bodies = [
        yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
        for value in values
    ]
    return "".join(f"# {line}\n" for line in lines) + "---\n".join(bodies)


def duration(value: timedelta) -> str:
    """A duration as Kubernetes writes it: 1h30m0s."""
    minutes, seconds = divmod(int(value.total_seconds()), 60)
    return f"{minutes // 60}h{minutes % 60}m{seconds}s"


class _Dumper(yaml.SafeDumper):
    """Writes no anchors, lists further in than what has them, and several lines as a block."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _string(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _string)
