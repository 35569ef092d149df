"""A Python program in an environment of its own, from hash-pinned wheels only."""

from __future__ import annotations

import sys
from pathlib import Path

from secure_pipeline.tools.environments import write_manifest
from secure_pipeline.tools.pins import PythonEnvironment
from secure_pipeline.tools.steps import Steps


def install_environment(
    name: str, environment: PythonEnvironment, directory: Path, steps: Steps
) -> str:
    """Fill ``directory`` with a virtual environment; return the sha256 of its list of files.

    pip leaves at the end, since nothing shall change the environment any more.
    Raises: Unavailable.
    """
    python = directory / "bin" / "python"
    steps.run(name, [sys.executable, "-I", "-m", "venv", str(directory)], cwd=directory)
    pip_install(name, python, environment.requirements, [], steps)
    pip_uninstall = ["-m", "pip", "uninstall", "--yes", "--quiet", "pip", "setuptools"]
    steps.run(name, [str(python), *pip_uninstall], cwd=directory)
    return write_manifest(directory)


def pip_install(
    name: str, python: Path, requirements: Path, options: list[str], steps: Steps
) -> None:
    """Install what ``requirements`` lists, each file by its hash. Raises: Unavailable.

    Only wheels are taken, so that no package's code runs while installing.
    """
    argv = [str(python), "-m", "pip", "install", "--require-hashes", "--no-deps", *options]
    argv += ["--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    steps.run(name, [*argv, "-r", str(requirements)], cwd=requirements.parent)
