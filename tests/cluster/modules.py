"""The Go modules that pinned programs were built from, for the definitions that lie in them."""

from __future__ import annotations

import json
from pathlib import Path

from secure_pipeline.events import ignore
from secure_pipeline.tools.golang import find_go
from secure_pipeline.wiring import tool_installer


def module_directory(tool: str, module: str) -> Path:
    """Where the sources of a module are, in the version that ``tool`` was built with."""
    installer = tool_installer(ignore)
    pinned = installer.pins[tool].go
    assert pinned is not None
    go = find_go(installer.pins, installer.steps)
    command = [go, "mod", "download", "-json", module]
    said = installer.steps.run("go", command, cwd=pinned.directory).stdout
    return Path(json.loads(said)["Dir"])
