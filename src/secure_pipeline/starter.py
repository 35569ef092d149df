"""A first secure-pipeline.yaml, written by looking at the repository."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline import strictjson
from secure_pipeline.config import FILE_NAME, Config
from secure_pipeline.documents import decode, parse_yaml
from secure_pipeline.errors import ConfigError, UsageError
from secure_pipeline.files import read_bounded, write_atomic

_MAX_LOOK_BYTES = 1 << 20
_DOCKERFILES = ("Dockerfile", "Containerfile", "docker/Dockerfile", "build/Dockerfile")
_CI = {
    ".github/workflows": "GitHub Actions",
    ".tekton": "Tekton (Pipelines as Code)",
    "tekton": "Tekton",
    ".gitlab-ci.yml": "GitLab CI",
    "Jenkinsfile": "Jenkins",
}


@dataclass(frozen=True)
class TestGuess:
    """A test command that the repository seems to have."""

    reason: str
    command: tuple[str, ...]
    junit: str
    coverage: str | None


@dataclass(frozen=True)
class Starter:
    """What was found; None where nothing was."""

    name: str
    dockerfile: str | None
    test: TestGuess | None
    ci: tuple[str, ...]


def look(root: Path) -> Starter:
    """Look at a repository without running anything in it."""
    return Starter(
        name=_name(root),
        dockerfile=_dockerfile(root),
        test=_python(root) or _node(root) or _go(root),
        ci=tuple(word for path, word in _CI.items() if (root / path).exists()),
    )


def write(root: Path, *, force: bool = False) -> tuple[Path, Starter]:
    """Write the file and return it with what was found.

    Raises: UsageError if one is there already and ``force`` is not set.
    """
    path = root / FILE_NAME
    if path.exists() and not force:
        raise UsageError("there is a configuration already", where=str(path), hint="use --force")
    starter = look(root)
    text = render(starter)
    decode(Config, parse_yaml(text.encode(), str(path)))
    write_atomic(path, text.encode())
    return path, starter


def render(starter: Starter) -> str:
    """The text of the file."""
    lines = [
        "# What secure-pipeline does with this repository. Every key: docs/reference/config.md",
        "version: 1",
        f"name: {starter.name}",
        "",
    ]
    if starter.test:
        lines += _render_test(starter.test)
    else:
        lines += [
            "# No test runner was recognised. Without tests a run is not conclusive:",
            "# test:",
            "#   command: [./run-tests]",
            "#   junit: reports/junit.xml",
        ]
    lines += ["", "build:"]
    if starter.dockerfile is None:
        lines.append("  # No Dockerfile was found: write one (base images by digest).")
    lines.append(f"  dockerfile: {starter.dockerfile or 'Dockerfile'}")
    return "\n".join(lines) + "\n"


def _render_test(test: TestGuess) -> list[str]:
    lines = [
        f"# {test.reason}",
        "test:",
        f"  command: [{', '.join(test.command)}]",
        f"  junit: {test.junit}",
        "  pass-environment: [PATH]",
    ]
    if test.coverage:
        lines += ["  coverage:", f"    file: {test.coverage}", "    minimum: 80"]
    return lines


def _name(root: Path) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", root.resolve().name.lower()).strip("-")
    return name or "image"


def _dockerfile(root: Path) -> str | None:
    for candidate in _DOCKERFILES:
        if (root / candidate).is_file():
            return candidate
    found = sorted(root.glob("*.Dockerfile")) + sorted(root.glob("docker/*.Dockerfile"))
    return str(found[0].relative_to(root)) if found else None


def _text(path: Path) -> str:
    try:
        return read_bounded(path, _MAX_LOOK_BYTES).decode("utf-8", "replace")
    except ConfigError:
        return ""


def _python(root: Path) -> TestGuess | None:
    marks = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt")
    tests = any((root / d).is_dir() for d in ("tests", "test"))
    if not tests or not any((root / m).is_file() for m in marks):
        return None
    described = "".join(_text(root / m) for m in (*marks, "tox.ini", "requirements-dev.txt"))
    command: tuple[str, ...] = ("python3", "-m", "pytest", "--junitxml=reports/junit.xml")
    if "pytest-cov" not in described:
        return TestGuess("Python tests were found.", command, "reports/junit.xml", None)
    package = _python_package(root)
    cov = f"--cov={package}" if package else "--cov"
    command += (cov, "--cov-report=xml:reports/coverage.xml")
    return TestGuess(
        "Python tests with pytest-cov were found.", command, "reports/junit.xml",
        "reports/coverage.xml",
    )  # fmt: skip


def _python_package(root: Path) -> str | None:
    try:
        name = tomllib.loads(_text(root / "pyproject.toml"))["project"]["name"]
    except (tomllib.TOMLDecodeError, KeyError, TypeError):
        return None
    package = re.sub(r"[^A-Za-z0-9_]", "_", str(name)).lower()
    return package if any((root / p / package).is_dir() for p in (".", "src")) else None


def _node(root: Path) -> TestGuess | None:
    try:
        package = strictjson.loads(read_bounded(root / "package.json", _MAX_LOOK_BYTES))
    except (ConfigError, strictjson.InvalidJson):
        return None
    script = package.get("scripts", {}).get("test") if isinstance(package, dict) else None
    if not script:
        return None
    return TestGuess(
        "package.json has a test script; node's own runner writes JUnit.",
        ("node", "--test", "--test-reporter=junit", "--test-reporter-destination=junit.xml"),
        "junit.xml",
        None,
    )


def _go(root: Path) -> TestGuess | None:
    if not (root / "go.mod").is_file():
        return None
    return TestGuess(
        "go.mod was found; gotestsum writes JUnit.",
        ("gotestsum", "--junitfile", "reports/junit.xml", "./..."),
        "reports/junit.xml",
        None,
    )
