"""Static analysis by Semgrep: offline, on a private copy, with a finding that must be found.

Semgrep can end with 0 and a report in which files are missing, so the answer is believed
only together with a canary: files with one known finding each, marked ``nosemgrep``, beside
the copy of the repository (SCN-05, SCN-09).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from secure_pipeline.errors import Inconclusive, Unavailable
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.ports import AnalysisReport, AnalysisRequest
from secure_pipeline.tools import snapshot
from secure_pipeline.tools.locate import LocatedTool
from secure_pipeline.tools.process import Command, Outcome, Processes
from secure_pipeline.tools.rulepacks import RuleSet, load_rules
from secure_pipeline.tools.semgrep_report import (
    MAX_REPORT_BYTES,
    SemgrepReport,
    findings,
    parse_report,
    without,
)

MATCH_SECONDS = 30
MATCH_MEMORY_MIB = 2_000
_SOURCE = "@source/"
_CANARY = "@canary/"
_CANARY_RULE = "secure-pipeline.canary"
_CANARY_RULES = """
rules:
  - id: secure-pipeline.canary
    languages: [python]
    severity: CRITICAL
    message: The seeded finding.
    pattern: secure_pipeline_canary(...)
  - id: secure-pipeline.canary-dockerfile
    languages: [dockerfile]
    severity: CRITICAL
    message: The seeded finding.
    pattern: RUN secure-pipeline-canary
  - id: secure-pipeline.canary-yaml
    languages: [yaml]
    severity: CRITICAL
    message: The seeded finding.
    patterns:
      - pattern-regex: secure-pipeline-canary.*
      - pattern: "secure-pipeline-canary: $X"
"""
_CANARIES = {
    "canary.py": "secure_pipeline_canary('x')  # nosemgrep\n",
    "Dockerfile": "FROM scratch\n# nosemgrep\nRUN secure-pipeline-canary\n",
    "canary.yaml": "secure-pipeline-canary: x  # nosemgrep\n",
}

ListFiles = Callable[[Path], Iterable[str]]


class Semgrep:
    """Implements ports.Analyzer."""

    def __init__(
        self,
        tool: LocatedTool,
        processes: Processes,
        list_files: ListFiles = snapshot.walk,
        jobs: int | None = None,
    ) -> None:
        """``list_files`` yields the relative paths of the files that are source.

        ``jobs``: files analysed at once; by default the number of CPUs of this process.
        """
        self._tool = tool
        self._processes = processes
        self._list_files = list_files
        self._jobs = jobs or len(os.sched_getaffinity(0))

    def analyze(self, request: AnalysisRequest, on_event: OnEvent) -> AnalysisReport:
        """Analyse the files of ``request.root`` with the rules of ``request.packs``.

        Raises: ConfigError for broken rules; Unavailable if Semgrep cannot start; Inconclusive
        when it crashed, timed out, left no whole report or missed the canary.
        """
        rules = load_rules(request.packs)
        with tempfile.TemporaryDirectory(prefix="secure-pipeline-analyze-") as directory:
            work = Path(directory)
            _prepare(work, rules)
            on_event(Progress("analyze", "copying the sources"))
            copy = snapshot.take(
                request.root,
                self._list_files(request.root),
                work / _SOURCE,
                exclude=request.exclude,
                max_size=request.max_file_size,
            )
            on_event(Progress("analyze", f"{len(copy.names)} files against {len(rules.ids)} rules"))
            outcome = self._run(work, request, rules)
            report = _accept(outcome)
            _check_canary(report)
            return self._report(report, rules, copy)

    def _run(self, work: Path, request: AnalysisRequest, rules: RuleSet) -> Outcome:
        configs = [f"--config=rules/{n}.yaml" for n in range(len(rules.files) + 1)]
        return self._processes.run(
            Command(
                argv=(
                    str(self._tool.path), "scan", "--json", "--error", "--metrics=off",
                    "--disable-version-check", "--disable-nosem", "--no-git-ignore",
                    "--no-rewrite-rule-ids", "--oss-only", "--verbose", f"--jobs={self._jobs}",
                    f"--timeout={MATCH_SECONDS}", "--timeout-threshold=1",
                    f"--max-memory={MATCH_MEMORY_MIB}", "--max-target-bytes=0",
                    *configs, _SOURCE, _CANARY,
                ),
                cwd=work,
                env=_environment(self._tool.path, work),
                timeout=request.timeout.total_seconds(),
                output_limit=MAX_REPORT_BYTES,
                network=False,
            )
        )  # fmt: skip

    def _report(
        self, report: SemgrepReport, rules: RuleSet, copy: snapshot.Snapshot
    ) -> AnalysisReport:
        scanned = {p.removeprefix(_SOURCE) for p in report.scanned if p.startswith(_SOURCE)}
        own = tuple(match for match in report.matches if match.path.startswith(_SOURCE))
        return AnalysisReport(
            tool=self._tool.identity,
            rules_digest=rules.digest,
            rules_count=len(rules.ids),
            findings=findings(own, copy.names, copy.root, _SOURCE),
            scanned=tuple(sorted({copy.names[name] for name in scanned if name in copy.names})),
            skipped=tuple(sorted(copy.skipped)),
            errors=(
                *(_in_repository(error) for error in report.errors),
                *copy.missing(rules.languages),
                *_unexplained(report, rules, copy, scanned),
            ),
            raw=without(report.document, copy.names, _SOURCE),
        )


def _prepare(work: Path, rules: RuleSet) -> None:
    """Lay out rules, canary and an empty home; own ignore files switch the built-in list off."""
    for name in ("rules", "home", "tmp", _SOURCE, _CANARY):
        (work / name).mkdir()
    for name in (_SOURCE, _CANARY):
        (work / name / ".semgrepignore").write_bytes(b"")
    for number, content in enumerate([_CANARY_RULES.encode(), *(f.content for f in rules.files)]):
        (work / "rules" / f"{number}.yaml").write_bytes(content)
    for name, text in _CANARIES.items():
        (work / _CANARY / name).write_text(text)


def _environment(executable: Path, work: Path) -> dict[str, str]:
    """Nothing of the caller's: no token, no settings, no proxy, no place to write in the store."""
    home = str(work / "home")
    return {
        "PATH": f"{executable.parent}:/usr/bin:/bin",
        "HOME": home,
        "XDG_CONFIG_HOME": home,
        "XDG_CACHE_HOME": home,
        "SEMGREP_SETTINGS_FILE": f"{home}/settings.yml",
        "SEMGREP_LOG_FILE": f"{home}/semgrep.log",
        "TMPDIR": str(work / "tmp"),
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
    }


def _accept(outcome: Outcome) -> SemgrepReport:
    """Believe only a process that ended by itself with a listed code and a whole report."""
    if outcome.returncode == 127 and not outcome.stdout:
        raise Unavailable(f"{outcome.describe()}: {outcome.tail(1)}")
    if outcome.timed_out or outcome.truncated or outcome.returncode < 0:
        raise Inconclusive(outcome.describe(), hint="raise 'analyze.timeout' or exclude files")
    if outcome.returncode not in (0, 1):
        raise Inconclusive(f"{outcome.describe()}: {_first_error(outcome)}")
    return parse_report(outcome.stdout)


def _first_error(outcome: Outcome) -> str:
    try:
        errors = parse_report(outcome.stdout).errors
    except Inconclusive:
        errors = ()
    return errors[0] if errors else outcome.tail(1) or "no message"


def _check_canary(report: SemgrepReport) -> None:
    expected = {f"{_CANARY}{name}" for name in _CANARIES}
    found = {m.path for m in report.matches if m.rule.startswith(_CANARY_RULE)}
    if missed := sorted(expected - found):
        raise Inconclusive(
            f"semgrep missed the seeded finding in {', '.join(missed)}: its answer proves nothing"
        )


def _unexplained(
    report: SemgrepReport, rules: RuleSet, copy: snapshot.Snapshot, scanned: set[str]
) -> Iterable[str]:
    """Files that were given and then dropped without an error: silence is not cleanliness."""
    failed = {path for path, reason in report.skipped if "error" in reason}
    for path, reason in report.skipped:
        if path.startswith(_SOURCE) and path not in failed:
            yield f"{_in_repository(path)}: not analysed: {reason}"
    seen = scanned | {path.removeprefix(_SOURCE) for path in failed}
    accounted = {shown for name, shown in copy.names.items() if name in seen}
    for shown in sorted(set(copy.names.values()) - accounted):
        if snapshot.concerns(shown, rules.everywhere & snapshot.KNOWN):
            yield f"{shown}: not analysed, and no reason given"


def _in_repository(text: str) -> str:
    return text.replace(_SOURCE, "")
