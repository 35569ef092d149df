"""The one place that reads the environment and chooses implementations for the ports."""

from __future__ import annotations

import os
import threading

from secure_pipeline.tools.locate import ToolStore, default_store
from secure_pipeline.tools.process import Processes


def tool_store() -> ToolStore:
    """Where tools are installed, as the environment says."""
    return ToolStore(default_store(os.environ))


def processes() -> Processes:
    """The runner of other programs for this process; nothing cancels it but an exception."""
    return Processes(threading.Event())
