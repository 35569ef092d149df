"""The real Semgrep against files that hide, and stand-ins for a Semgrep that fails."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest

from secure_pipeline import events, strictjson
from secure_pipeline.errors import ConfigError, Inconclusive
from secure_pipeline.ports import AnalysisReport, AnalysisRequest
from secure_pipeline.tools.locate import LocatedTool, locate
from secure_pipeline.tools.process import Processes
from secure_pipeline.tools.rulepacks import load_rules, resolve_packs
from secure_pipeline.tools.semgrep import ListFiles, Semgrep
from secure_pipeline.tools.snapshot import walk

pytestmark = pytest.mark.integration

BAD = "import os\nos.system('ls ' + name)\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "repository"
    directory.mkdir()
    (directory / "bad.py").write_text(BAD)
    return directory


def request_for(root: Path, *packs: str) -> AnalysisRequest:
    names = packs or ("builtin:python",)
    return AnalysisRequest(root, resolve_packs(names, root), (), timedelta(minutes=5), 1 << 20)


@cache
def semgrep_tool() -> LocatedTool:
    return locate("semgrep")


def run(root: Path, *packs: str) -> AnalysisReport:
    semgrep = Semgrep(semgrep_tool(), Processes(threading.Event()))
    return semgrep.analyze(request_for(root, *packs), events.ignore)


def found(report: AnalysisReport) -> set[str]:
    return {f.location.path for f in report.findings if f.location}


def script_for(directory: Path, text: str, list_files: ListFiles = walk) -> Semgrep:
    """A Semgrep whose executable is a shell script."""
    path = directory / "bin" / "semgrep"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Semgrep(replace(semgrep_tool(), path=path), Processes(threading.Event()), list_files)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the real Semgrep writes for a repository that holds bad.py alone."""
    directory = tmp_path_factory.mktemp("recorded")
    repository = directory / "repository"
    repository.mkdir()
    (repository / "bad.py").write_text(BAD)
    report = directory / "report.json"
    real = semgrep_tool().path
    script = f'PATH={real.parent}:$PATH {real} "$@" > {report}; cat {report}; exit 1'
    assert found(script_for(directory, script).analyze(request_for(repository), events.ignore))
    return report


@pytest.fixture
def stand_in(recorded: Path, tmp_path: Path) -> Callable[[str], Semgrep]:
    """Makes a Semgrep that is a script, in which ``$REPORT`` is a real report about bad.py."""
    return lambda text: script_for(tmp_path, f"REPORT={recorded}\n{text}")


def test_scn_09_nothing_in_the_repository_hides_a_finding(root: Path) -> None:
    """Comments, ignore files and directories that Semgrep skips by default hide nothing."""
    (root / "bad.py").write_text("import os\nos.system('ls ' + name)  # nosemgrep\n")
    (root / "nosem.py").write_text(
        "import os\n# nosem: python-shell-command-from-variable\nos.system('a' + name)\n"
    )
    (root / ".semgrepignore").write_text("*.py\n**\n:include .gitignore\n")
    (root / ".gitignore").write_text("*.py\n")
    hidden = ["tests/t.py", "node_modules/m.py", "vendor/v.py", ".hidden/h.py", "a/b/.x.py"]
    for name in hidden:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(BAD)
    (root / "a" / ".semgrepignore").write_text("b\n")
    report = run(root)
    assert found(report) == {"bad.py", "nosem.py", *hidden}
    assert report.errors == ()
    assert ("a/.semgrepignore", ".semgrepignore") in {
        (path, path.rpartition("/")[2]) for path, reason in report.skipped if "no effect" in reason
    }


def test_scn_09_a_repository_in_git_hides_nothing_either(root: Path) -> None:
    """Git's own ignore rules change nothing, and nothing is written into the repository."""
    subprocess.run(["/usr/bin/git", "init", "-q", str(root)], check=True)
    (root / ".gitignore").write_text("bad.py\n")
    (root / ".git" / "info" / "exclude").write_text("*\n")
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert found(run(root)) == {"bad.py"}
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before


def test_variants_of_dockerfile_names_are_analysed(root: Path) -> None:
    """Dockerfile.dev, Containerfile and x.dockerfile are Dockerfiles whatever Semgrep thinks."""
    names = ["Dockerfile", "Dockerfile.dev", "Containerfile", "docker/claude.Dockerfile"]
    (root / "docker").mkdir()
    for name in names:
        (root / name).write_text("FROM debian:12\nUSER 65532\n")
    (root / "dockerfile_tool.py").write_text(BAD)
    report = run(root, "builtin:dockerfile", "builtin:python")
    assert found(report) == {*names, "bad.py", "dockerfile_tool.py"}
    assert len(report.findings) == len(names) + 2
    assert report.errors == ()


def test_cli_01_names_that_are_not_utf8_are_analysed_and_shown_escaped(root: Path) -> None:
    """A finding in a file whose name is not UTF-8 is reported, under a name that is text."""
    (root / "bad.py").unlink()
    with open(os.fsencode(root) + b"/n\xff.py", "w") as stream:
        stream.write(BAD)
    (root / "new\nline.py").write_text(BAD)
    (root / "n\\xff.py").write_text(BAD)
    (root / ("ü" * 120 + ".py")).write_text(BAD)
    report = run(root)
    names = sorted(f.location.path for f in report.findings if f.location)
    assert names == sorted(["n\\xff.py", "n\\\\xff.py", "new\\nline.py", "ü" * 120 + ".py"])
    assert report.errors == ()
    assert len({f.fingerprint for f in report.findings}) == len(names)
    strictjson.loads(report.raw)


def test_cli_01_the_c_locale_changes_nothing(root: Path) -> None:
    """Under LC_ALL=C the same files are found as anywhere."""
    (root / "ü.py").write_text(BAD)
    with open(os.fsencode(root) + b"/n\xff.py", "w") as stream:
        stream.write(BAD)
    script = (
        "import threading, sys\nfrom pathlib import Path\nfrom datetime import timedelta\n"
        "from secure_pipeline import events\nfrom secure_pipeline.ports import AnalysisRequest\n"
        "from secure_pipeline.tools.locate import locate\n"
        "from secure_pipeline.tools.process import Processes\n"
        "from secure_pipeline.tools.rulepacks import resolve_packs\n"
        "from secure_pipeline.tools.semgrep import Semgrep\n"
        "root = Path(sys.argv[1])\n"
        "request = AnalysisRequest(root, resolve_packs(['builtin:python'], root), (),"
        " timedelta(minutes=5), 1 << 20)\n"
        "report = Semgrep(locate('semgrep'), Processes(threading.Event()))"
        ".analyze(request, events.ignore)\n"
        "print(ascii(sorted(f.location.path for f in report.findings)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", script, str(root)],
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
        | {k: v for k, v in os.environ.items() if k == "SECURE_PIPELINE_TOOLS"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ast.literal_eval(done.stdout) == ["bad.py", "n\\xff.py", "ü.py"]


def test_links_and_special_files_are_skipped_aloud(
    root: Path, tmp_path: Path, recorded: Path
) -> None:
    """Links, FIFOs and what lies behind a linked directory are not read, and are listed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.py").write_text(BAD)
    (root / "link.py").symlink_to(outside / "secret.py")
    (root / "linked").symlink_to(outside)
    os.mkfifo(root / "pipe.py")
    names = ["bad.py", "link.py", "linked/secret.py", "pipe.py", "gone.py"]
    semgrep = script_for(tmp_path, f"cat {recorded}; exit 1", lambda root: names)
    report = semgrep.analyze(request_for(root), events.ignore)
    assert found(report) == {"bad.py"}
    assert dict(report.skipped) == {
        "link.py": "symbolic link",
        "linked/secret.py": "below a symbolic link",
        "pipe.py": "not a regular file",
        "gone.py": "not in the working tree",
    }


def test_a_file_that_does_not_parse_is_an_error(root: Path) -> None:
    """A syntax error makes the analysis incomplete and names the file of the repository."""
    (root / "broken.py").write_text("def (:\n  os.system(x)\n")
    report = run(root)
    assert any("broken.py" in error and "@source" not in error for error in report.errors)
    assert found(report) == {"bad.py"}


def test_the_report_holds_no_trace_of_the_canary(
    root: Path, stand_in: Callable[[str], Semgrep]
) -> None:
    """The seeded finding and the paths of the private copy are nowhere in the answer."""
    report = stand_in('cat "$REPORT"; exit 1').analyze(request_for(root), events.ignore)
    assert b"canary" not in report.raw
    assert b"@source" not in report.raw
    assert json.loads(report.raw)["paths"]["scanned"] == ["bad.py"]
    assert not any("canary" in f.rule for f in report.findings)


def test_rules_of_the_repository_are_added(root: Path) -> None:
    """A rule file of the repository runs beside the packs and changes the rules digest."""
    rule = "rules:\n  - {id: own, languages: [python], severity: LOW, message: m, pattern: print()}"
    (root / "rules.yaml").write_text(rule + "\n")
    (root / "p.py").write_text("print()\n")
    both = run(root, "builtin:python", "rules.yaml")
    assert found(both) == {"bad.py", "p.py"}
    assert both.rules_digest != load_rules(resolve_packs(["builtin:python"], root)).digest


def test_a_rule_that_semgrep_refuses_is_inconclusive(root: Path) -> None:
    """A pattern that does not parse cannot end in a clean answer."""
    (root / "rules.yaml").write_text(
        'rules:\n  - {id: own, languages: [python], severity: LOW, message: m, pattern: "def ("}\n'
    )
    try:
        report = run(root, "builtin:python", "rules.yaml")
    except Inconclusive:
        return
    assert report.errors


def test_a_rule_id_that_is_taken_is_refused(root: Path) -> None:
    """A repository cannot put its own rule in the place of a trusted one."""
    (root / "rules.yaml").write_text(
        "rules:\n  - {id: python-weak-hash, languages: [python], severity: LOW, message: m,"
        " pattern: x}\n"
    )
    with pytest.raises(ConfigError, match="defined twice"):
        run(root, "builtin:python", "rules.yaml")


FAILURES = {
    "killed": ("kill -9 $$", "SIGKILL"),
    "killed after the whole report": ('cat "$REPORT"; kill -9 $$', "SIGKILL"),
    "segmentation fault": ("kill -11 $$", "SIGSEGV"),
    "exit 0 with nothing": ("exit 0", "no complete report"),
    "exit 0 with an empty report": (
        'echo \'{"version":"1","results":[],"errors":[],"paths":{"scanned":[]},'
        '"skipped_rules":[]}\'',
        "seeded finding",
    ),
    "half a report": ('head -c 300 "$REPORT"; exit 1', "no complete report"),
    "two reports": ('cat "$REPORT" "$REPORT"', "no complete report"),
    "report of half the parts": ('echo \'{"version":"1","results":[]}\'', "lacks a part"),
    "exit 2": ('echo "Fatal error" >&2; exit 2', "exited with 2: Fatal error"),
    "unlisted exit with a good report": ('cat "$REPORT"; exit 9', "exited with 9"),
    "out of memory": ("exit 137", "exited with 137"),
    "canary suppressed": (
        'sed "s#@canary/canary.py#@canary/other.py#g" "$REPORT"; exit 1',
        "seeded finding in @canary/canary.py",
    ),
    "report about another file": (
        'sed "s#@source/bad.py#@source/other.py#g" "$REPORT"; exit 1',
        "not given",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_scn_05_a_semgrep_that_fails_is_never_a_clean_answer(
    case: str, root: Path, stand_in: Callable[[str], Semgrep]
) -> None:
    """Killed, out of memory, half a report, an unlisted exit code: INCONCLUSIVE, and why."""
    script, message = FAILURES[case]
    with pytest.raises(Inconclusive, match=message):
        stand_in(script).analyze(request_for(root), events.ignore)


def test_scn_05_a_file_dropped_in_silence_is_an_error(
    root: Path, stand_in: Callable[[str], Semgrep]
) -> None:
    """A Python file that was given and is in neither list makes the analysis incomplete."""
    (root / "clean.py").write_text("x = 1\n")
    report = stand_in('cat "$REPORT"; exit 1').analyze(request_for(root), events.ignore)
    assert report.errors == ("clean.py: not analysed, and no reason given",)


def test_scn_05_a_semgrep_that_hangs_is_inconclusive(
    root: Path, stand_in: Callable[[str], Semgrep]
) -> None:
    """A time-out gives no report."""
    request = replace(request_for(root), timeout=timedelta(milliseconds=300))
    with pytest.raises(Inconclusive, match="timed out"):
        stand_in("exec sleep 60").analyze(request, events.ignore)


def test_scn_04_semgrep_has_neither_network_nor_the_callers_environment(
    root: Path,
    tmp_path: Path,
    stand_in: Callable[[str], Semgrep],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The program sees no variable of the caller, no interface but loopback, no real home."""
    monkeypatch.setenv("SEMGREP_APP_TOKEN", "sentinel")
    seen = tmp_path / "seen"
    script = f'(env; echo; cat /proc/net/dev) > {seen}; cat "$REPORT"; exit 1'
    stand_in(script).analyze(request_for(root), events.ignore)
    variables, _, network = seen.read_text().partition("\n\n")
    assert "sentinel" not in variables
    assert str(Path.home()) not in variables.replace(str(semgrep_tool().path.parent), "")
    assert [line.split(":")[0].strip() for line in network.splitlines()[2:]] in ([], ["lo"])
