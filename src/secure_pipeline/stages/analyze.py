"""Static analysis: the findings that count, and whether the answer is whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from secure_pipeline.attestations.predicates import TEST_RESULT
from secure_pipeline.config import AnalyzeConfig
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.files import canonical_json, sha256_bytes
from secure_pipeline.findings import Finding, Ignored, Severity
from secure_pipeline.policy import exceptions
from secure_pipeline.policy.baseline import baseline_document, read_baseline
from secure_pipeline.policy.document import AnalyzeGate, PolicyException
from secure_pipeline.policy.gates import analyze_severity
from secure_pipeline.ports import AnalysisReport, AnalysisRequest, Analyzer, Clock
from secure_pipeline.report.to_sarif import MEDIA_TYPE, to_sarif
from secure_pipeline.stages.result import Evidence, Report, StageResult, Verdict

STAGE = "analyze"
MAX_REASONS = 50
__all__ = ["AnalyzeInputs", "analyze", "baseline_document", "read_baseline"]


@dataclass(frozen=True)
class AnalyzeInputs:
    """What to analyse, and by whose rules."""

    root: Path
    """The repository; absolute."""
    packs: tuple[Path, ...]
    """Rule files of the policy's ``rules`` and the configuration's: see tools/rulepacks.py."""
    config: AnalyzeConfig
    gate: AnalyzeGate
    """Of the trusted policy; the configuration can only tighten it."""
    today: date
    """UTC; decides which exceptions are in force."""
    exceptions: tuple[PolicyException, ...] = ()
    """Of the trusted policy."""
    baseline: frozenset[str] = frozenset()
    """Fingerprints of the file that the policy names."""
    repository_baseline: frozenset[str] = frozenset()
    """Fingerprints of the file that the configuration names; only if the policy allows it."""

    @property
    def accepted(self) -> frozenset[str]:
        """Fingerprints that do not gate."""
        allowed = self.repository_baseline if self.gate.repository_may_ignore else frozenset()
        return self.baseline | allowed

    @property
    def exclude(self) -> tuple[str, ...]:
        """Globs of files that are not analysed (SCN-09: not the repository's word alone)."""
        allowed = self.config.exclude if self.gate.repository_may_ignore else ()
        return (*self.gate.exclude, *allowed)

    @property
    def without_effect(self) -> tuple[str, ...]:
        """What the repository asks to ignore and the policy does not allow, one line each."""
        if self.gate.repository_may_ignore:
            return ()
        asked = {"exclude": bool(self.config.exclude), "baseline": bool(self.config.baseline)}
        return tuple(
            f"'analyze.{key}' of the repository has no effect: the policy does not allow it"
            for key, given in asked.items()
            if given
        )


def analyze(
    inputs: AnalyzeInputs, analyzer: Analyzer, clock: Clock, on_event: OnEvent
) -> StageResult:
    """Analyse the repository.

    FAIL for any finding at the gate that nothing sets aside, also when the analysis is
    incomplete; INCONCLUSIVE when it is incomplete or nothing was analysed.
    Raises: Unavailable, Inconclusive, ConfigError, as the analyser does.
    """
    started, begun = clock.now(), clock.monotonic()
    for line in inputs.without_effect:
        on_event(Progress(STAGE, line))
    report = analyzer.analyze(
        AnalysisRequest(
            root=inputs.root,
            packs=inputs.packs,
            exclude=inputs.exclude,
            timeout=inputs.config.timeout,
            max_file_size=max(inputs.gate.max_file_size, inputs.config.max_file_size),
        ),
        on_event,
    )
    gate = analyze_severity(inputs.gate, inputs.config)
    account = exceptions.account(
        _baselined(report.findings, inputs.accepted), inputs.exceptions, inputs.today
    )
    for line in account.lines:
        on_event(Progress(STAGE, line))
    counting = [f for f in account.findings if f.ignored is None and f.severity.reaches(gate)]
    verdict, reasons = _judge(report, counting, gate)
    sarif = to_sarif(report.tool, account.findings, _incomplete(report))
    figures = _figures(report, account.findings, inputs, gate, sarif)
    return StageResult(
        stage=STAGE,
        verdict=verdict,
        summary=_summary(report, account.findings, counting, gate),
        started=started,
        finished=clock.now(),
        seconds=clock.monotonic() - begun,
        reasons=reasons,
        findings=account.findings,
        evidence=_evidence(report, counting, verdict, figures),
        reports=(
            Report("findings.sarif", MEDIA_TYPE, sarif),
            Report("semgrep.json", "application/json", report.raw),
            Report("baseline.json", "application/json", baseline_document(account.findings)),
        ),
        figures=figures,
    )


def _baselined(findings: Iterable[Finding], known: frozenset[str]) -> Iterable[Finding]:
    for finding in findings:
        if finding.fingerprint in known:
            finding = replace(finding, ignored=Ignored.BASELINE, reason="known in the baseline")
        yield finding


def _incomplete(report: AnalysisReport) -> tuple[str, ...]:
    nothing = () if report.scanned else ("no file was analysed by any rule",)
    return (*report.errors, *nothing)


def _judge(
    report: AnalysisReport, counting: list[Finding], gate: Severity
) -> tuple[Verdict, tuple[str, ...]]:
    """A proven finding fails whatever else is missing; both are said."""
    incomplete = _incomplete(report)
    reasons = [
        *(f"{f.severity.value} {f.rule} at {f.location}: {f.message}" for f in counting),
        *(f"incomplete: {text}" for text in incomplete),
    ]
    if counting:
        verdict = Verdict.FAIL
    elif incomplete:
        verdict = Verdict.INCONCLUSIVE
    else:
        verdict = Verdict.PASS
    return verdict, _bounded(reasons)


def _bounded(reasons: list[str]) -> tuple[str, ...]:
    if len(reasons) <= MAX_REASONS:
        return tuple(reasons)
    return (*reasons[: MAX_REASONS - 1], f"and {len(reasons) - MAX_REASONS + 1} more")


def _summary(
    report: AnalysisReport,
    findings: tuple[Finding, ...],
    counting: list[Finding],
    gate: Severity,
) -> str:
    ignored = Counter(f.ignored.value for f in findings if f.ignored)
    parts = [
        f"{len(counting)} findings at {gate.value} or above",
        f"{len(findings) - len(counting) - ignored.total()} below",
        *(f"{count} ignored by {why}" for why, count in sorted(ignored.items())),
        f"{len(report.scanned)} files analysed, {len(report.skipped)} skipped",
    ]
    if report.errors:
        parts.append(f"{len(report.errors)} errors")
    return ", ".join(parts)


def _figures(
    report: AnalysisReport,
    findings: tuple[Finding, ...],
    inputs: AnalyzeInputs,
    gate: Severity,
    sarif: bytes,
) -> dict[str, Any]:
    open_findings = [f for f in findings if f.ignored is None]
    return {
        "engine": report.tool.name,
        "engineVersion": report.tool.version,
        "rulesDigest": report.rules_digest,
        "rules": report.rules_count,
        "gate": gate.value,
        "findings": {s.value: sum(f.severity is s for f in open_findings) for s in Severity},
        "ignored": dict(sorted(Counter(f.ignored.value for f in findings if f.ignored).items())),
        "filesScanned": len(report.scanned),
        "filesSkipped": _by_reason(report.skipped),
        "errors": len(_incomplete(report)),
        "exclude": list(inputs.exclude),
        "baselineDigest": _set_digest(inputs.accepted),
        "withoutEffect": list(inputs.without_effect),
        "sarifSha256": sha256_bytes(sarif),
    }


def _by_reason(skipped: Iterable[tuple[str, str]]) -> dict[str, int]:
    return dict(sorted(Counter(reason for _, reason in skipped).items()))


def _set_digest(fingerprints: frozenset[str]) -> str | None:
    if not fingerprints:
        return None
    return f"sha256:{sha256_bytes(canonical_json(sorted(fingerprints)))}"


def _evidence(
    report: AnalysisReport,
    counting: list[Finding],
    verdict: Verdict,
    figures: Mapping[str, Any],
) -> tuple[Evidence, ...]:
    """An in-toto test result. An open question is no fact, so it leaves none."""
    if verdict is Verdict.INCONCLUSIVE:
        return ()
    predicate = {
        "result": "PASSED" if verdict is Verdict.PASS else "FAILED",
        "configuration": [
            {"name": STAGE, "digest": _digest_set(report.rules_digest)},
            {
                "name": report.tool.name,
                "digest": _digest_set(report.tool.digest),
                "annotations": {"version": report.tool.version},
            },
        ],
        "failedTests": sorted({f.rule for f in counting}),
        "secure-pipeline": {"verdict": verdict.value, "figures": dict(figures)},
    }
    return (Evidence(TEST_RESULT, predicate),)


def _digest_set(digest: str) -> dict[str, str]:
    algorithm, _, value = digest.partition(":")
    return {algorithm: value}
