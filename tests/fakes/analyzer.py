"""An analyser for unit tests: reports each line of a file that holds the word FINDING."""

from __future__ import annotations

from collections.abc import Callable

from secure_pipeline.errors import Inconclusive
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.files import canonical_json, sha256_bytes
from secure_pipeline.findings import Finding, Kind, Location, Severity
from secure_pipeline.globs import under
from secure_pipeline.ports import AnalysisReport, AnalysisRequest, ToolIdentity

WORD = b"FINDING"


class FakeAnalyzer:
    """Implements ports.Analyzer on .py files; ``change`` alters the report it gives back."""

    def __init__(
        self, change: Callable[[AnalysisReport], AnalysisReport] = lambda report: report
    ) -> None:
        self.requests: list[AnalysisRequest] = []
        self._change = change

    def analyze(self, request: AnalysisRequest, on_event: OnEvent) -> AnalysisReport:
        self.requests.append(request)
        on_event(Progress("analyze", "looking"))
        if request.timeout.total_seconds() <= 0.01:
            raise Inconclusive("timed out")
        findings: list[Finding] = []
        scanned: list[str] = []
        skipped: list[tuple[str, str]] = []
        errors: list[str] = []
        for path in sorted(p for p in request.root.rglob("*.py") if p.is_file()):
            name = str(path.relative_to(request.root))
            if any(under(name, pattern) for pattern in request.exclude):
                skipped.append((name, "excluded by the policy"))
            elif path.stat().st_size > request.max_file_size:
                skipped.append((name, f"larger than {request.max_file_size} bytes"))
                errors.append(f"{name}: not analysed: larger than {request.max_file_size} bytes")
            else:
                scanned.append(name)
                findings += _look(name, path.read_bytes())
        rules = b"".join(path.read_bytes() for path in request.packs)
        report = AnalysisReport(
            tool=ToolIdentity("fake", "1", f"sha256:{'0' * 64}"),
            rules_digest=f"sha256:{sha256_bytes(rules)}",
            rules_count=1,
            findings=tuple(findings),
            scanned=tuple(scanned),
            skipped=tuple(skipped),
            errors=tuple(errors),
            raw=b"{}",
        )
        return self._change(report)


def _look(name: str, content: bytes) -> list[Finding]:
    found: list[Finding] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if WORD in line:
            code = " ".join(line.decode().split())
            same = sum(f.message == code for f in found)
            found.append(
                Finding(
                    rule="contract-rule",
                    kind=Kind.CODE,
                    severity=Severity.HIGH,
                    message=code,
                    fingerprint=sha256_bytes(canonical_json([name, code, same])),
                    location=Location(name, number, number, 1),
                )
            )
    return found
