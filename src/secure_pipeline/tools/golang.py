"""Build a program from its pinned Go module.

go.sum proves the sources, GOTOOLCHAIN names the compiler, and the flags make the result
the same everywhere, so that its digest can be pinned as well.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

from secure_pipeline.errors import Unavailable
from secure_pipeline.files import locked, sha256_file
from secure_pipeline.tools.pins import GoModule, Pins, this_platform
from secure_pipeline.tools.steps import Steps
from secure_pipeline.tools.virtualenv import pip_install

_USERS_CHOICE = (
    *("GOPROXY", "GOSUMDB", "GOPRIVATE", "GONOPROXY", "GONOSUMDB"),
    *("GOCACHE", "GOMODCACHE"),
)
_LEAST_GO = (1, 21)
"""The first version that fetches the toolchain GOTOOLCHAIN names."""
_LOCAL = {"GOTOOLCHAIN": "local"}


def build_go(name: str, module: GoModule, executable: Path, pins: Pins, steps: Steps) -> None:
    """Compile ``module`` to ``executable``. Raises: Unavailable with the compiler's words."""
    go = find_go(pins, steps)
    environment = _environment(go, name, module, pins, steps)
    commands = [
        [
            *(go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false"),
            *("-ldflags", module.ldflags, "-o", str(executable), module.package),
        ]
    ]
    if this_platform() not in module.executables:
        # No digest is pinned here, so at least prove the unpacked modules against go.sum.
        commands.insert(0, [go, "mod", "verify"])
    steps.say(name, "compiling; the first time takes minutes")
    for command in commands:
        steps.run(name, command, cwd=module.directory, environment=environment)


def find_go(pins: Pins, steps: Steps) -> str:
    """Path of a ``go`` that can fetch the pinned toolchain; installed if there is none.

    Raises: Unavailable if it cannot be installed.
    """
    found = shutil.which("go", path=steps.path)
    if found and os.path.isabs(found) and _version(found, steps) >= _LEAST_GO:
        return found
    lock = sha256_file(pins.go_bootstrap)
    directory = steps.root / f"go-{lock[:16]}"
    with locked(steps.root / "locks" / "go"):
        if not (directory / "complete").exists():
            steps.say("go", "no Go on this machine: installing the pinned one")
            _bootstrap(directory, pins, steps)
    return str(directory / "go" / "bin" / "go")


def _bootstrap(directory: Path, pins: Pins, steps: Steps) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    helper = directory / "environment"
    steps.run("go", [sys.executable, "-I", "-m", "venv", str(helper)], cwd=Path("/"))
    options = ["--target", str(directory), "--no-compile"]
    pip_install("go", helper / "bin" / "python", pins.go_bootstrap, options, steps)
    shutil.rmtree(helper)
    (directory / "complete").touch()


def _version(go: str, steps: Steps) -> tuple[int, ...]:
    try:
        outcome = steps.run("go", [go, "version"], cwd=Path("/"), environment=_LOCAL)
    except Unavailable:
        return ()
    match = re.search(rb"go version go(\d+)\.(\d+)", outcome.stdout)
    return tuple(int(part) for part in match.groups()) if match else ()


def _environment(go: str, name: str, module: GoModule, pins: Pins, steps: Steps) -> dict[str, str]:
    """Where modules come from is the user's choice; how they are compiled is not.

    Settings that ``go env -w`` stored are read for the first and shut out for the second.
    """
    outcome = steps.run(
        name, [go, "env", "-json", *_USERS_CHOICE], cwd=Path("/"), environment=_LOCAL
    )
    try:
        settings = {str(key): str(value) for key, value in json.loads(outcome.stdout).items()}
    except (ValueError, AttributeError) as error:
        raise Unavailable("'go env' gave no JSON", where=go) from error
    system, architecture = this_platform().split("/")
    return {
        **settings,
        "GOENV": "off",
        "GOWORK": "off",
        "GOTOOLCHAIN": pins.go_toolchain,
        "GOOS": system,
        "GOARCH": architecture,
        "CGO_ENABLED": "0",
        **module.environment,
    }
