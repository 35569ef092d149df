"""The program's entry: whatever the surroundings are."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_cli_01_any_locale_shows_any_text(encoding: str) -> None:
    """An error with characters that the locale does not have is shown escaped, with its code."""
    ended = subprocess.run(
        [sys.executable, "-m", "secure_pipeline", "verify", "näme…"],
        env={"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": encoding, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        timeout=60,
    )
    assert ended.returncode == 2, ended.stderr
    text = ended.stderr.decode(encoding)
    assert text.startswith("error: ")
    assert "me" in text
    assert "Traceback" not in text
