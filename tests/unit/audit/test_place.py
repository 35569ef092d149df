"""Where the ledger lies, and who writes to it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from secure_pipeline.errors import UsageError
from secure_pipeline.tools.locate import ToolStore
from secure_pipeline.tools.process import Processes
from secure_pipeline.wiring.auditing import Audit, AuditRequest, ledger_path, os_user
from secure_pipeline.wiring.options import Options, World
from secure_pipeline.wiring.stores import Stores


def world(directory: Path, **environment: str) -> World:
    return World(environment, "", ToolStore(directory / "tools"), directory)


def test_the_ledger_lies_where_the_most_specific_word_says(tmp_path):
    """--ledger, then --state, then the configuration's state, then the user's own."""
    here = world(tmp_path, HOME="/home/builder")
    assert ledger_path(Options(), here) == Path(
        "/home/builder/.local/state/secure-pipeline/ledger.jsonl"
    )
    own = world(tmp_path, HOME="/home/builder", XDG_STATE_HOME="/state")
    assert ledger_path(Options(), own) == Path("/state/secure-pipeline/ledger.jsonl")
    (tmp_path / "secure-pipeline.yaml").touch()
    assert ledger_path(Options(), own) == tmp_path / ".secure-pipeline/ledger.jsonl"
    assert ledger_path(Options(state=Path("/s")), own) == Path("/s/ledger.jsonl")
    named = Options(state=Path("/s"), ledger=Path("book"))
    assert ledger_path(named, own) == tmp_path / "book"


def test_an_os_user_is_never_verified(monkeypatch):
    """Nobody but this machine vouches for a user; one without a name has its number."""
    assert not os_user().verified
    assert f"uid={os.getuid()}" in os_user().id
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    assert os_user().id.startswith("unknown@")


def test_anchors_without_a_key_are_no_anchors(tmp_path):
    """The built-in policy trusts nobody: the operator has to name the key."""
    here = world(tmp_path, HOME=str(tmp_path))
    options = Options(ledger=tmp_path / "l")
    stores = Stores(here.environment, options.registry, Processes(threading.Event()))
    with pytest.raises(UsageError, match="no key"):
        Audit(options, here, stores).verify(AuditRequest((str(tmp_path / "heads"),), (), False))
