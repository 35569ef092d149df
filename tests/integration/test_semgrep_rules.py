"""Every rule of every pack against the real Semgrep: it fires where it should and only there."""

from __future__ import annotations

import re
import shutil
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from secure_pipeline import events
from secure_pipeline.ports import AnalysisRequest
from secure_pipeline.tools.locate import locate
from secure_pipeline.tools.process import Processes
from secure_pipeline.tools.rulepacks import BUILTIN, load_rules, resolve_packs
from secure_pipeline.tools.semgrep import Semgrep

pytestmark = pytest.mark.integration

ASSETS = Path(__file__).parent.parent / "assets" / "semgrep"
_MARK = re.compile(r"#\s*(ruleid|ok):\s*([\w, -]+?)\s*$")


def marks(root: Path) -> dict[str, set[tuple[str, str, int]]]:
    """(rule, path, line) by mark; a mark is about the next line."""
    found: dict[str, set[tuple[str, str, int]]] = {"ruleid": set(), "ok": set()}
    for path in (p for p in root.rglob("*") if p.is_file()):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if match := _MARK.search(line):
                for rule in match[2].split(","):
                    found[match[1]].add((rule.strip(), str(path.relative_to(root)), number + 1))
    return found


@pytest.mark.parametrize("pack", BUILTIN)
def test_a_pack_reports_exactly_the_marked_lines(pack: str, tmp_path: Path) -> None:
    """All findings of a pack are its ruleid lines, and each rule has both kinds of example."""
    root = tmp_path / "repository"
    place = root / ".github" / "workflows" if pack == "github-actions" else root
    shutil.copytree(ASSETS / pack, place)
    packs = resolve_packs([f"builtin:{pack}"], root)
    request = AnalysisRequest(root, packs, (), timedelta(minutes=5), 1 << 20)
    report = Semgrep(locate("semgrep"), Processes(threading.Event())).analyze(
        request, events.ignore
    )
    expected = marks(root)
    found = {(f.rule, f.location.path, f.location.line) for f in report.findings if f.location}
    assert report.errors == ()
    assert found - expected["ruleid"] == set()
    assert expected["ruleid"] - found == set()
    ids = set(load_rules(packs).ids)
    assert {rule for rule, _, _ in expected["ruleid"]} == ids
    assert {rule for rule, _, _ in expected["ok"]} == ids
    assert len(ids) >= 12
