"""Write the generated pages: command help, configuration, exit codes, JSON Schemas.

``make docs`` writes them; tests/test_docs.py compares them with what the program says.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import typing
from datetime import timedelta
from pathlib import Path
from typing import Any

from secure_pipeline.canary.target import Target
from secure_pipeline.config import Config
from secure_pipeline.documents import schema
from secure_pipeline.errors import ExitCode
from secure_pipeline.policy.document import Policy

ROOT = Path(__file__).resolve().parent.parent
HELP_BEGIN, HELP_END = "<!-- help: written by make docs -->\n", "<!-- /help -->"

MEANINGS = {
    ExitCode.PASS: "positive proof of success",
    ExitCode.BUG: "a bug in the program",
    ExitCode.USAGE: "wrong arguments or flags",
    ExitCode.CONFIG: "a configuration, policy or Dockerfile is wrong",
    ExitCode.UNAVAILABLE: "a tool or service is missing or failed; a retry may help",
    ExitCode.FINDINGS: "findings over the gate, failed tests, a failed build step",
    ExitCode.VERIFICATION: "evidence or content is proven wrong",
    ExitCode.DENIED: "the policy forbids it",
    ExitCode.ROLLED_BACK: "the canary was rolled back",
    ExitCode.INCONCLUSIVE: "neither success nor failure could be shown",
    ExitCode.INTERRUPTED: "Ctrl-C or SIGTERM",
}


def pages() -> dict[Path, str]:
    """Every generated file with the text it must have."""
    reference = ROOT / "docs/reference"
    readme = ROOT / "README.md"
    return {
        reference / "commands.md": _commands(),
        reference / "config.md": _document_page(
            Config,
            "secure-pipeline.yaml",
            "What a repository says about itself. Nothing here can weaken the policy's gates.",
        ),
        reference / "policy-keys.md": _document_page(
            Policy,
            "Policy keys",
            "The trusted policy, named by the operator with `--policy` or "
            "`SECURE_PIPELINE_POLICY`.",
        ),
        reference / "target-keys.md": _document_page(
            Target,
            "Target keys",
            "A promotion target, named by the operator with `promote --to`.",
        ),
        reference / "target.schema.json": _json(schema(Target, "secure-pipeline promotion target")),
        reference / "exit-codes.md": _exit_codes(),
        reference / "config.schema.json": _json(schema(Config, "secure-pipeline.yaml")),
        reference / "policy.schema.json": _json(schema(Policy, "secure-pipeline policy")),
        readme: _with_help(readme.read_text()),
    }


def command_names() -> list[tuple[str, ...]]:
    """Every command and subcommand, in the order of the help."""
    import typer.main

    from secure_pipeline.cli.main import app

    names: list[tuple[str, ...]] = []

    def walk(command: Any, path: tuple[str, ...]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            names.append((*path, name))
            walk(inner, (*path, name))

    walk(typer.main.get_command(app), ())
    return names


def help_of(*words: str) -> str:
    """What ``secure-pipeline WORDS --help`` prints, 90 columns wide."""
    environment = {**os.environ, "COLUMNS": "90", "TERM": "dumb", "NO_COLOR": "1"}
    environment = {k: v for k, v in environment.items() if not k.startswith("SECURE_PIPELINE_")}
    program = "from secure_pipeline.cli.main import main; import sys; sys.argv[0] = sys.argv[0]"
    return subprocess.run(
        [sys.executable, "-c", f"{program}; main()", *words, "--help"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.replace("Usage: -c", "Usage: secure-pipeline")


def _commands() -> str:
    text = "# Commands\n\nWritten by `make docs` from the program itself.\n"
    for words in [(), *command_names()]:
        title = " ".join(("secure-pipeline", *words))
        text += f"\n## {title}\n\n```text\n{help_of(*words).strip()}\n```\n"
    return text


def _with_help(readme: str) -> str:
    before, _, rest = readme.partition(HELP_BEGIN)
    _, _, after = rest.partition(HELP_END)
    return f"{before}{HELP_BEGIN}```text\n{help_of().strip()}\n```\n{HELP_END}{after}"


def _exit_codes() -> str:
    rows = "".join(f"| {int(code)} | {MEANINGS[code]} |\n" for code in ExitCode)
    return (
        "# Exit codes\n\nThe codes are an API. What is not positive proof of success is not 0.\n\n"
        f"| code | meaning |\n|---|---|\n{rows}"
    )


def _document_page(kind: Any, title: str, about: str) -> str:
    text = f"# {title}\n\n{about}\n\nWritten by `make docs` from the types that read the file.\n"
    return text + "".join(_sections(kind, ""))


def _sections(kind: Any, path: str) -> list[str]:
    hints = typing.get_type_hints(kind)
    rows = ["\n| key | type | default | |\n|---|---|---|---|\n"]
    inner: list[str] = []
    for spec in dataclasses.fields(kind):
        name = spec.name.rstrip("_").replace("_", "-")
        hint = hints[spec.name]
        doc = spec.metadata.get("doc", "")
        rows.append(f"| `{name}` | {_type(hint)} | {_default(spec)} | {doc} |\n")
        for nested in _nested(hint):
            place = f"{path}.{name}" if path else name
            inner += [f"\n## {place}\n\n{(nested.__doc__ or '').splitlines()[0]}\n"]
            inner += _sections(nested, place)
    return [*rows, *inner]


def _nested(hint: Any) -> list[Any]:
    candidates = [hint, *typing.get_args(hint)]
    return [c for c in candidates if dataclasses.is_dataclass(c)]


def _type(hint: Any) -> str:
    arguments = [a for a in typing.get_args(hint) if a not in (type(None), Ellipsis)]
    origin = typing.get_origin(hint)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is not None and len(arguments) == 2:
        return "mapping"
    if arguments:
        return _type(arguments[0])
    if dataclasses.is_dataclass(hint):
        return "mapping"
    if hasattr(hint, "__members__"):
        return " \\| ".join(f"`{member.value}`" for member in hint)
    names = {"str": "text", "int": "number", "float": "number", "bool": "true or false"}
    return {"timedelta": "duration", "Size": "size", "Percent": "share"}.get(
        hint.__name__, names.get(hint.__name__, hint.__name__)
    )


def _default(spec: Any) -> str:
    if spec.default is dataclasses.MISSING:
        return "" if spec.default_factory is not dataclasses.MISSING else "required"
    value = getattr(spec.default, "value", spec.default)
    if value is None or dataclasses.is_dataclass(value):
        return ""
    if isinstance(value, timedelta):
        return f"`{_duration(value)}`"
    if type(value).__name__ == "Size":
        for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
            if value % (1 << power) == 0:
                return f"`{value >> power}{unit}`"
    if isinstance(value, tuple):
        texts = [item for item in value if isinstance(item, str)]
        return f"`[{', '.join(texts)}]`" if texts else ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _duration(value: timedelta) -> str:
    if value.microseconds:
        return f"{round(value.total_seconds() * 1000)}ms"
    total = int(value.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if total % size == 0:
            return f"{total // size}{unit}"
    return f"{total}s"


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


def main() -> None:
    """Write every page that differs."""
    for path, text in pages().items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
