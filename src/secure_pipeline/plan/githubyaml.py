"""YAML as GitHub reads it: in the order it was written, with the version beside each pin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

HEADER = "# Written by 'secure-pipeline plan --render github'; a change here is lost.\n"
REASONS: Mapping[str, str] = {
    "security-events: write": "to show findings under code scanning",
    "actions: read": "to find the run that the findings belong to",
    "id-token: write": "to log in to Vault as this job, without a stored secret",
    "packages: write": "to push the image and its evidence",
    "packages: read": "to read the evidence beside the image",
}
"""Why a job has a right, said where it stands."""


@dataclass(frozen=True)
class Pin:
    """An action at a commit."""

    name: str
    commit: str
    version: str
    """The tag of the commit; only for people."""

    def __post_init__(self) -> None:
        """Raises: ValueError for anything but a whole commit."""
        if not re.fullmatch(r"[0-9a-f]{40}", self.commit):
            raise ValueError(f"{self.commit[:80]!r} is not 40 hex digits")
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)+", self.name):
            raise ValueError(f"{self.name[:80]!r} is not OWNER/NAME")

    def __str__(self) -> str:
        return f"{self.name}@{self.commit}"


PINS = {
    pin.name: pin
    for pin in (
        Pin("actions/checkout", "3d3c42e5aac5ba805825da76410c181273ba90b1", "v7.0.1"),
        Pin("actions/setup-python", "a309ff8b426b58ec0e2a45f0f869d46889d02405", "v6.2.0"),
        Pin("actions/upload-artifact", "043fb46d1a93c77aae656e7c1c64a875d1fc6a0a", "v7.0.1"),
        Pin("actions/download-artifact", "3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c", "v8.0.1"),
        Pin("docker/login-action", "650006c6eb7dba73a995cc03b0b2d7f5ca915bee", "v4.2.0"),
        Pin(
            "github/codeql-action/upload-sarif",
            "ff2f1c621b7f889edc0d3c761ac2e6a3f8cdb0dd",
            "v4.37.7",
        ),
    )
}
"""Every action of others that is used; docs/reference/pins.md says where the commits are from."""


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, and writes no anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump(document: Mapping[str, Any]) -> str:
    """The text of a file. Raises: ValueError for an expression in a script (CI-01)."""
    _check(document)
    text = yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, width=10_000)
    lines = [_with_comment(line) for line in text.splitlines()]
    return HEADER + "\n".join(lines).replace("\n'on':", "\non:") + "\n"


def _with_comment(line: str) -> str:
    if reason := REASONS.get(line.strip()):
        return f"{line} # {reason}"
    match = re.fullmatch(r"\s*-? ?uses: ([^@\s]+)@[0-9a-f]{40}", line)
    if match and (pin := PINS.get(match[1])):
        return f"{line} # {pin.version}"
    return line


def _check(value: Any) -> None:
    """Refuse to write what can be attacked: the rows CI-01, CI-02 and CI-03."""
    if isinstance(value, Mapping):
        if "${{" in str(value.get("run", "")):
            raise ValueError(f"an expression in a script: {value['run']!r}")
        uses = value.get("uses")
        if isinstance(uses, str) and not re.fullmatch(r"\$/\S+|[^@\s]+@[0-9a-f]{40}", uses):
            raise ValueError(f"not pinned: {uses!r}")
        for name in ("pull_request_target", "workflow_run"):
            if name in value:
                raise ValueError(f"{name} runs foreign code with this repository's rights")
        for name, inner in value.items():
            if name != "with":  # arguments of an action: what it is given, not what it runs
                _check(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check(inner)
