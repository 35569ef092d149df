"""Start-up loads nothing heavy: seen in the modules of a fresh interpreter, not in times."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from secure_pipeline.cli.main import app

HEAVY = (
    "requests docker hvac sigstore cryptography nacl pydantic yaml rich http urllib3 ssl asyncio"
)
SHOW = """
import contextlib, io, json, sys
heavy, lines = set(sys.argv[1].split()), json.loads(sys.argv[2])
results = []
for line in lines:
    sys.argv = ["secure-pipeline", *line]
    code, text = None, io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            {program}
    except SystemExit as end:
        code = end.code
    results.append([line, code, text.getvalue(), sorted(heavy & set(sys.modules))])
print(json.dumps(results))
"""
PROGRAM = "from secure_pipeline.cli.main import main; main()"


def commands() -> Iterator[list[str]]:
    """Every registered command and group, as typed."""
    queue: list[tuple[list[str], Any]] = [([], typer.main.get_command(app))]
    for words, command in queue:
        yield words
        for name, child in getattr(command, "commands", {}).items():
            queue.append(([*words, name], child))


def start(lines: list[list[str]], program: str = PROGRAM) -> list[tuple[list[str], int, str, Any]]:
    """Run command lines one after another in one fresh interpreter.

    Gives for each: the line, the exit code, what it wrote, the heavy modules loaded by then.
    """
    ended = subprocess.run(
        [sys.executable, "-c", SHOW.format(program=program), HEAVY, json.dumps(lines)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return [tuple(result) for result in json.loads(ended.stdout)]


@pytest.mark.parametrize("line", ["--version", "--help"])
def test_version_and_help_load_nothing_heavy(line):
    """What is typed first, before anything works, succeeds without any heavy module."""
    ((_, code, text, heavy),) = start([[line]])
    assert (code, heavy) == (0, [])
    assert text


def test_help_of_every_command_loads_nothing_heavy():
    """The help of every registered command and group succeeds without any heavy module."""
    results = start([[*words, "--help"] for words in commands()])
    assert len(results) > 10
    assert [(line, code, heavy) for line, code, _, heavy in results if code or heavy] == []
    assert all(text.startswith("Usage: ") for _, _, text, _ in results)


def test_every_command_is_looked_at():
    """The list of commands comes from the program: the stages and the groups are in it."""
    found = {tuple(words) for words in commands()}
    stages = {(name,) for name in ("analyze", "test", "build", "scan", "sign", "verify", "run")}
    assert stages | {("tools",), ("tools", "install"), ("base", "debian")} <= found


@pytest.mark.parametrize(
    ("program", "module"),
    [
        (f"import yaml; {PROGRAM}", "yaml"),
        (f"import secure_pipeline.config; {PROGRAM}", "yaml"),
        (PROGRAM.replace("main()", "import requests; main()"), "requests"),
    ],
)
def test_a_heavy_module_would_be_seen(program, module):
    """A program that loads one of them, directly or through ours, is told apart."""
    ((*_, heavy),) = start([["--version"]], program)
    assert module in heavy
