"""A Dockerfile in which every image is the one that was checked.

The builder must not resolve a name again: a variable or a short name could lead elsewhere
(BLD-03). Lines keep their numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

from secure_pipeline.dockerfile.images import ImageUse, Kind, Place
from secure_pipeline.dockerfile.parser import Dockerfile, Instruction


def rewrite(dockerfile: Dockerfile, uses: tuple[ImageUse, ...], local: Mapping[str, str]) -> bytes:
    """Return the file with resolved names; ``local`` says how the builder knows each base.

    A ``# syntax=`` directive is neutralised: no program is loaded to read the file.
    Raises: ConfigError where a name cannot be replaced safely.
    """
    lines = dockerfile.text.split("\n")
    if "syntax" in dockerfile.directives:
        lines[dockerfile.directives["syntax"][1] - 1] = "#"
        _keep_escape_first(dockerfile, lines)
    instructions = {item.line: item for item in dockerfile.instructions}
    for use in uses:
        # Stage names ignore case here and in BuildKit, but not in every builder.
        name = use.reference.lower() if use.kind is Kind.STAGE else use.reference
        target = local.get(name, name)
        if use.place is Place.FROM:
            _replace_from(dockerfile, lines, instructions[use.line], use, target)
        elif target != use.written:
            _replace_source(dockerfile, lines, instructions[use.line], use, target)
    return "\n".join(lines).encode()


def _keep_escape_first(dockerfile: Dockerfile, lines: list[str]) -> None:
    """A plain comment ends the directives, so escape moves into the place of syntax."""
    if "escape" in dockerfile.directives:
        syntax, escape = (dockerfile.directives[name][1] - 1 for name in ("syntax", "escape"))
        first, other = min(syntax, escape), max(syntax, escape)
        lines[first], lines[other] = f"# escape={dockerfile.escape}", "#"


def _replace_from(
    dockerfile: Dockerfile, lines: list[str], item: Instruction, use: ImageUse, target: str
) -> None:
    stage = dockerfile.stages[use.stage]
    platform = f"--platform={stage.platform} " if stage.platform else ""
    alias = f" AS {stage.name}" if stage.name else ""
    lines[item.line - 1 : item.end_line] = [f"FROM {platform}{target}{alias}"] + [""] * (
        item.end_line - item.line
    )


def _replace_source(
    dockerfile: Dockerfile, lines: list[str], item: Instruction, use: ImageUse, target: str
) -> None:
    old, new = f"from={use.written}", f"from={target}"
    for number in range(item.line - 1, item.end_line):
        before, found, after = lines[number].partition(old)
        if found and (not after or after[0].isspace() or after[0] in ",\"'"):
            lines[number] = before + new + after
            return
    dockerfile.fail(item.line, f"write from={use.written[:80]} plainly, without quotes or breaks")
