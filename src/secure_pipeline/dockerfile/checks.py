"""What a Dockerfile may not do: the rules of the build gate, as pure functions.

Rules are named in the trusted policy, which may switch one off with a reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from secure_pipeline.dockerfile.images import (
    PINNED,
    ImageUse,
    Kind,
    assignments,
    global_arguments,
    image_uses,
)
from secure_pipeline.dockerfile.parser import Dockerfile, Instruction, Stage
from secure_pipeline.dockerfile.secrets import secret_name, secret_shape
from secure_pipeline.dockerfile.words import BadWord, expand, split_words, variable_names

UNPINNED_BASE = "unpinned-base"
ADD_WITHOUT_CHECKSUM = "add-without-checksum"
SECRET_ARGUMENT = "secret-argument"
SECRET_IN_CONTEXT = "secret-in-context"

_REMOTE = re.compile(r"(?:[a-z][a-z0-9+.-]*://|git@|[^/\s]+@[^/\s]+:)", re.IGNORECASE)
_CHECKSUM = re.compile(r"(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z|[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Refusal:
    """A rule that is broken, and where."""

    rule: str
    line: int | None
    """Line of the Dockerfile; None for the configuration or the context."""
    message: str
    """Never holds a secret value."""
    hint: str
    subject: str
    """What identifies it when lines move."""


def check(
    dockerfile: Dockerfile,
    args: Mapping[str, str],
    bases: Collection[str],
    platform: str = "linux/amd64",
) -> tuple[Refusal, ...]:
    """All refusals, in the order of the file.

    Raises: ConfigError where the Dockerfile cannot be understood.
    """
    found = [
        *_unpinned(dockerfile, image_uses(dockerfile, args, bases, platform)),
        *_remote_adds(dockerfile, args, platform),
        *_secret_arguments(dockerfile),
        *_secret_build_args(args),
    ]
    return tuple(sorted(found, key=lambda item: item.line or 0))


def _unpinned(dockerfile: Dockerfile, uses: tuple[ImageUse, ...]) -> Iterator[Refusal]:
    for use in uses:
        if use.kind is Kind.UNPINNED:
            shown = use.reference[:120]
            resolved = "" if use.written == use.reference else f" (from {use.written[:80]})"
            yield Refusal(
                UNPINNED_BASE,
                use.line,
                f"{use.place.value} {shown!r}{resolved} is no digest, stage or named base",
                "write NAME@sha256:…, or name an OCI layout under 'build.bases'",
                shown,
            )
    syntax, line = dockerfile.directives.get("syntax", ("", 0))
    if syntax and not PINNED.match(syntax):
        yield Refusal(
            UNPINNED_BASE,
            line,
            f"syntax={syntax[:80]} would load a program that is no digest",
            "remove the directive, or write NAME@sha256:…",
            "syntax",
        )


def _remote_adds(
    dockerfile: Dockerfile, args: Mapping[str, str], platform: str
) -> Iterator[Refusal]:
    for stage in dockerfile.stages:
        for instruction, variables in _with_variables(dockerfile, stage, args, platform):
            if instruction.keyword != "ADD" or _has_checksum(instruction):
                continue
            for source in _add_sources(instruction, dockerfile.escape):
                if message := _remote(source, variables, dockerfile.escape):
                    yield Refusal(
                        ADD_WITHOUT_CHECKSUM,
                        instruction.line,
                        f"ADD {source[:100]} {message}",
                        "add --checksum=sha256:…, or COPY a file of the context",
                        source[:200],
                    )


def _remote(source: str, variables: Mapping[str, str], escape: str) -> str | None:
    """Say why a source of ADD counts as remote, or None (BLD-05)."""
    try:
        value = expand(source, variables, escape)
    except BadWord:
        return "cannot be read, so it may be remote"
    if _REMOTE.match(value):
        return "is remote and has no --checksum"
    unknown = source.startswith("$") and variable_names(source) - set(variables)
    return "begins with a variable that may be remote" if unknown else None


def _has_checksum(instruction: Instruction) -> bool:
    value = instruction.flags.get("checksum", "")
    return bool(_CHECKSUM.match(value) or _COMMIT.match(value))


def _add_sources(instruction: Instruction, escape: str) -> list[str]:
    if instruction.arguments.startswith("["):
        try:
            items = json.loads(instruction.arguments)
        except (ValueError, RecursionError):
            items = None
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            return items[:-1]
    try:
        return split_words(instruction.arguments, escape)[:-1]
    except BadWord:
        return instruction.arguments.split()[:-1]


def _with_variables(
    dockerfile: Dockerfile, stage: Stage, args: Mapping[str, str], platform: str
) -> Iterator[tuple[Instruction, dict[str, str]]]:
    """The stage's instructions with the variables that each of them sees."""
    outer = global_arguments(dockerfile, args, platform)
    values: dict[str, str] = {}
    for instruction in stage.instructions:
        yield instruction.trigger or instruction, values
        if instruction.keyword not in ("ARG", "ENV"):
            continue
        for name, value in assignments(dockerfile, instruction):
            if instruction.keyword == "ARG" and name in args:
                values = {**values, name: args[name]}
            elif value is not None:
                values = {**values, name: _lenient(value, values, dockerfile.escape)}
            elif name in outer:
                values = {**values, name: outer[name]}


def _lenient(text: str, values: Mapping[str, str], escape: str) -> str:
    try:
        return expand(text, values, escape)
    except BadWord:
        return text


def _secret_arguments(dockerfile: Dockerfile) -> Iterator[Refusal]:
    for outer in dockerfile.instructions:
        instruction = outer.trigger or outer
        if instruction.keyword in ("ARG", "ENV"):
            yield from _secret_names(dockerfile, instruction)
        bodies = "\n".join(heredoc.content for heredoc in instruction.heredocs)
        if shape := secret_shape(f"{instruction.text}\n{bodies}"):
            yield Refusal(
                SECRET_ARGUMENT,
                instruction.line,
                f"{instruction.keyword} contains {shape}, which stays in the image's history",
                "use RUN --mount=type=secret and 'build.secrets'; then revoke the value",
                f"{instruction.keyword} {shape}",
            )


def _secret_names(dockerfile: Dockerfile, instruction: Instruction) -> Iterator[Refusal]:
    for name, value in assignments(dockerfile, instruction):
        empty = instruction.keyword == "ENV" and (value or "").strip("\"'") == ""
        if secret_name(name) and not empty:
            yield Refusal(
                SECRET_ARGUMENT,
                instruction.line,
                f"{instruction.keyword} {name[:80]} looks like a secret: anyone with the image "
                "can read it",
                "use RUN --mount=type=secret and 'build.secrets'",
                f"{instruction.keyword} {name[:80]}",
            )


def _secret_build_args(args: Mapping[str, str]) -> Iterator[Refusal]:
    for name, value in args.items():
        shape = secret_shape(value[: 1 << 16])
        if secret_name(name) or shape:
            yield Refusal(
                SECRET_ARGUMENT,
                None,
                f"build argument {name[:80]} {'is ' + shape if shape else 'looks like a secret'}: "
                "anyone with the image can read it",
                "use RUN --mount=type=secret and 'build.secrets'",
                f"build.args.{name[:80]}",
            )
