"""The verdict on an image: what fails, what cannot be told, what is set aside."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fakes.database import NOON, FixedClock
from fakes.images import Layer, blob, build_image, build_index, debian
from fakes.scanner import DATABASE, FakeScanner, secret, vulnerability
from secure_pipeline.attestations import predicates
from secure_pipeline.config import BuildConfig, ScanConfig
from secure_pipeline.errors import ConfigError, VerificationFailed
from secure_pipeline.events import Event, Progress
from secure_pipeline.findings import Finding, Ignored, Kind, Severity
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.document import PolicyException, ScanGate
from secure_pipeline.ports import ScanReport
from secure_pipeline.stages.result import StageResult, Verdict
from secure_pipeline.stages.scan import ScanInputs, scan

NAME = "registry.example/team/app"
ENTRIES = [debian(), Layer({"app/main.py": b"x"}, created_by="COPY main.py /app/ # buildkit")]


class Bench:
    """An image in a layout and everything that judges it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.image = build_image(root / "image", ENTRIES)
        self.events: list[Event] = []

    def scan(
        self, *findings: Finding, report: dict[str, Any] | None = None, **inputs: Any
    ) -> StageResult:
        values: dict[str, Any] = {
            "layout": self.root / "image",
            "image": ImageReference(NAME, self.image.digest),
            "config": ScanConfig(),
            "gate": ScanGate(),
            "exceptions": (),
            "today": date(2026, 3, 1),
            "root": self.root,
        }
        scanner = FakeScanner(findings, report or {})
        inputs_ = ScanInputs(**(values | inputs))
        return scan(inputs_, scanner, FixedClock(), self.events.append)

    @property
    def lines(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Progress)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def exception(rule: str = "CVE-2024-0001", **changes: Any) -> PolicyException:
    values = {"id": rule, "reason": "not reachable in this image", "expires": date(2026, 12, 31)}
    return PolicyException(**(values | changes))


def openvex(path: Path, rule: str = "CVE-2024-0001") -> Path:
    statement = {
        "vulnerability": {"name": rule},
        "products": [{"@id": "pkg:deb/debian/openssl"}],
        "status": "not_affected",
        "justification": "component_not_present",
    }
    document = {"@context": "https://openvex.dev/ns/v0.2.0", "statements": [statement]}
    path.write_text(json.dumps(document))
    return path


def report_text(result: StageResult, name: str = "scan.txt") -> bytes:
    (found,) = [item.content for item in result.reports if item.name == name]
    return found


def predicate(result: StageResult, kind: str) -> dict[str, Any]:
    (found,) = [item.predicate for item in result.evidence if item.predicate_type == kind]
    return dict(found)


def test_a_clean_image_passes_with_all_evidence(bench: Bench) -> None:
    """PASS gives the two vulnerability statements, both bills of materials, and reports."""
    result = bench.scan()
    assert result.verdict is Verdict.PASS
    assert result.code == 0
    kinds = [item.predicate_type for item in result.evidence]
    assert kinds == [
        predicates.VULNS,
        predicates.COSIGN_VULN,
        predicates.CYCLONEDX,
        predicates.SPDX,
    ]
    assert [item.name for item in result.reports] == [
        "trivy.json",
        "sbom.cdx.json",
        "sbom.spdx.json",
        "scan.txt",
        "scan.sarif",
    ]


@pytest.mark.parametrize(
    ("severity", "gate", "verdict"),
    [
        (Severity.HIGH, Severity.HIGH, Verdict.FAIL),
        (Severity.CRITICAL, Severity.HIGH, Verdict.FAIL),
        (Severity.MEDIUM, Severity.HIGH, Verdict.PASS),
        (Severity.MEDIUM, Severity.MEDIUM, Verdict.FAIL),
        (Severity.LOW, Severity.CRITICAL, Verdict.PASS),
        (Severity.UNKNOWN, Severity.CRITICAL, Verdict.FAIL),
    ],
)
def test_scn_10_the_gate_is_by_severity_and_unknown_never_passes(
    bench: Bench, severity: Severity, gate: Severity, verdict: Verdict
) -> None:
    """Findings at or above the gate fail with exit code 10; UNKNOWN is above every gate."""
    result = bench.scan(vulnerability(severity=severity), gate=ScanGate(severity=gate))
    assert result.verdict is verdict
    assert result.code == (10 if verdict is Verdict.FAIL else 0)
    if severity is Severity.UNKNOWN:
        assert any("unknown severity" in line for line in bench.lines)


def test_a_failing_scan_is_evidence_too(bench: Bench) -> None:
    """A refused image gets its statement, with every finding and the verdict."""
    value = predicate(bench.scan(vulnerability()), predicates.VULNS)
    (entry,) = value["scanner"]["result"]
    assert entry["id"] == "CVE-2024-0001"
    assert entry["severity"] == [{"method": "trivy", "score": "high"}]
    assert entry["annotations"][0]["package"] == "openssl"
    assert entry["annotations"][0]["fixed"] == "3.0.18-1"
    assert value["secure-pipeline"]["verdict"] == "FAIL"


def test_secrets_count_as_high_at_least(bench: Bench) -> None:
    """A secret rated low still fails a gate at high."""
    result = bench.scan(secret(severity=Severity.LOW))
    assert result.verdict is Verdict.FAIL
    assert bench.scan(secret(), gate=ScanGate(severity=Severity.CRITICAL)).code == 10


def test_misconfiguration_counts_by_severity(bench: Bench) -> None:
    """A failing check of the image's settings gates like any finding."""
    finding = replace(secret(severity=Severity.HIGH), kind=Kind.MISCONFIGURATION, rule="DS-0002")
    assert bench.scan(finding).verdict is Verdict.FAIL
    assert bench.scan(replace(finding, severity=Severity.LOW)).verdict is Verdict.PASS


def test_scn_09_an_exception_sets_aside_aloud(bench: Bench) -> None:
    """A policy exception lets the image pass, and is named with its reason everywhere."""
    result = bench.scan(vulnerability(), exceptions=(exception(),))
    assert result.verdict is Verdict.PASS
    assert result.findings[0].ignored is Ignored.EXCEPTION
    assert result.figures["ignored"] == {"exception": 1}
    assert any("not reachable in this image" in line for line in bench.lines)
    assert b"not reachable" in report_text(result)


def test_scn_09_an_expired_exception_counts_no_more(bench: Bench) -> None:
    """The day after its last day an exception ignores nothing and says so."""
    result = bench.scan(vulnerability(), exceptions=(exception(expires=date(2026, 2, 28)),))
    assert result.verdict is Verdict.FAIL
    assert any("expired on 2026-02-28" in line for line in bench.lines)


def test_scn_10_unfixed_count_unless_the_policy_says_so_and_then_aloud(bench: Bench) -> None:
    """fixed-only sets aside what has no fix, with the number in figures and notes."""
    unfixed = vulnerability(fixed=None)
    assert bench.scan(unfixed).verdict is Verdict.FAIL
    result = bench.scan(unfixed, gate=ScanGate(fixed_only=True))
    assert result.verdict is Verdict.PASS
    assert result.figures["ignored"] == {"unfixed": 1}
    assert result.figures["unfixed"] == 1
    assert any("without a fix" in line for line in bench.lines)


def test_fixed_only_is_not_for_secrets(bench: Bench) -> None:
    """A secret has no fixed version and counts all the same."""
    assert bench.scan(secret(), gate=ScanGate(fixed_only=True)).verdict is Verdict.FAIL


def test_vex_of_the_policy_sets_aside(bench: Bench) -> None:
    """A document that the policy names counts; the evidence says which one it was."""
    openvex(bench.root / "trusted.json")
    gate = ScanGate(vex=("trusted.json",))
    result = bench.scan(vulnerability(), gate=gate, policy_directory=bench.root)
    assert result.verdict is Verdict.PASS
    assert result.findings[0].ignored is Ignored.VEX
    (entry,) = predicate(result, predicates.VULNS)["scanner"]["result"]
    assert entry["annotations"][0]["vex"] == "trusted.json"
    assert any("VEX that the policy names" in line for line in bench.lines)


def test_scn_09_vex_of_the_repository_changes_nothing_and_is_told(bench: Bench) -> None:
    """The author of a change cannot excuse the change: the finding counts, the excuse is said."""
    openvex(bench.root / "own.json")
    result = bench.scan(vulnerability(), config=ScanConfig(vex=("own.json",)))
    assert result.verdict is Verdict.FAIL
    assert result.figures["vex_unheeded"] == 1
    assert any("1 findings it excuses still count" in line for line in bench.lines)


def test_a_vex_file_that_is_missing_is_an_error(bench: Bench) -> None:
    """A policy that names a file which is not there is not weakened in silence."""
    with pytest.raises(ConfigError):
        bench.scan(gate=ScanGate(vex=("missing.json",)), policy_directory=bench.root)


def changed(**changes: Any) -> dict[str, Any]:
    return {"database": replace(DATABASE, **changes)}


@pytest.mark.parametrize(
    ("report", "gate", "words"),
    [
        ({"os": None}, {}, "operating system of the image is unknown"),
        ({"packages": 0}, {}, "nothing was scanned"),
        ({"uncovered": ("alpine 3.19 (4 packages)",)}, {}, "no advisories for alpine 3.19"),
        ({"artifact_digest": "sha256:" + "0" * 64}, {}, "another image"),
        ({"artifact_digest": ""}, {}, "another image"),
        (changed(updated=NOON - timedelta(hours=25)), {}, "25 h old"),
        (changed(updated=NOON - timedelta(days=9)), {}, "9 days old"),
        (changed(updated=NOON + timedelta(hours=1)), {}, "in the future"),
        (changed(demonstration=True), {}, "demonstration database"),
        ({}, {"database": "sha256:" + "9" * 64}, "the policy names sha256:999"),
    ],
)
def test_scn_02_what_proves_nothing_is_inconclusive(
    bench: Bench, report: dict[str, Any], gate: dict[str, Any], words: str
) -> None:
    """Doubt about image, system or database is exit code 14 with its reason and no evidence."""
    result = bench.scan(report=report, gate=ScanGate(**gate))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.code == 14
    assert any(words in reason for reason in result.reasons)
    assert "undecided" in result.summary
    assert result.evidence == ()


def test_scn_01_findings_beside_a_doubt_still_fail(bench: Bench) -> None:
    """What was found is found; the doubt is a further reason."""
    result = bench.scan(vulnerability(), report={"os": None})
    assert result.verdict is Verdict.FAIL
    assert len(result.reasons) == 2


def test_scn_03_the_pinned_database_is_accepted(bench: Bench) -> None:
    """A policy that pins the database's digest accepts exactly that one."""
    result = bench.scan(gate=ScanGate(database=DATABASE.digest))
    assert result.verdict is Verdict.PASS
    own = predicate(result, predicates.VULNS)["secure-pipeline"]
    assert own["databaseDigest"] == DATABASE.digest


def test_the_demonstration_database_is_named_everywhere(bench: Bench) -> None:
    """Where the policy accepts it, summary, figures, notes, report and evidence name it."""
    database = changed(demonstration=True, source="demonstration database")
    gate = ScanGate(allow_demonstration_database=True)
    result = bench.scan(report=database, gate=gate)
    assert result.verdict is Verdict.PASS
    assert "demonstration database" in result.summary
    assert result.figures["database"]["demonstration"] is True
    assert any("demonstration database" in line for line in bench.lines)
    assert b"demonstration database" in report_text(result)
    value = predicate(result, predicates.VULNS)
    assert "demonstration-database" in value["scanner"]["db"]["uri"]
    assert value["secure-pipeline"]["demonstrationDatabase"] is True


def test_end_of_life_is_told(bench: Bench) -> None:
    """A system past its end of life is in figures and notes."""
    result = bench.scan(report={"os_end_of_life": True})
    assert result.figures["os_end_of_life"] is True
    assert any("end of life" in line for line in bench.lines)


def test_findings_name_the_line_of_the_dockerfile(bench: Bench) -> None:
    """A finding in a layer gets the line of the instruction that made the layer."""
    (bench.root / "Dockerfile").write_text("FROM debian\n# the app\nCOPY main.py /app/\n")
    manifest = json.loads(blob(bench.root / "image", bench.image.digest).read_bytes())
    layers = [item["digest"] for item in manifest["layers"]]
    findings = [vulnerability(layer=layers[0]), vulnerability("CVE-2", layer=layers[1])]
    result = bench.scan(*findings, build=BuildConfig())
    assert [item.dockerfile_line for item in result.findings] == [1, 3]
    assert "Dockerfile line 1" in result.reasons[0]
    (run,) = json.loads(report_text(result, "scan.sarif"))["runs"]
    places = [item["locations"][0]["physicalLocation"] for item in run["results"]]
    assert {(p["artifactLocation"]["uri"], p["region"]["startLine"]) for p in places} == {
        ("Dockerfile", 1),
        ("Dockerfile", 3),
    }


def test_reg_07_an_index_is_scanned_platform_by_platform(bench: Bench) -> None:
    """Every image of an index is scanned; BuildKit's attestation beside them is none."""
    platforms = {"linux/amd64": ENTRIES, "linux/arm64": [debian({"tar": "1.34"})]}
    index = build_index(bench.root / "image", platforms)
    result = bench.scan(vulnerability(), image=ImageReference(NAME, index.digest))
    assert result.figures["platforms"] == ["linux/amd64", "linux/arm64"]
    assert len(result.findings) == 2
    assert "sbom-linux-arm64.cdx.json" in [item.name for item in result.reports]
    kinds = [item.predicate_type for item in result.evidence]
    assert kinds.count(predicates.VULNS) == 1
    assert kinds.count(predicates.CYCLONEDX) == 2


def test_reg_02_an_altered_blob_is_refused(bench: Bench) -> None:
    """A layout with an altered configuration has no verdict but exit code 11."""
    path = blob(bench.root / "image", bench.image.digest)
    path.write_bytes(path.read_bytes().replace(b"schemaVersion", b"schemaversion"))
    with pytest.raises(VerificationFailed):
        bench.scan()


def test_figures_are_json(bench: Bench) -> None:
    """Figures and evidence are documents that can be written and signed."""
    result = bench.scan(vulnerability(), secret(), exceptions=(exception(),))
    json.dumps(result.figures, allow_nan=False)
    for item in result.evidence:
        json.dumps(dict(item.predicate), allow_nan=False)
    assert result.figures["severities"] == {"critical": 1, "high": 1}
    assert result.figures["kinds"] == {"secret": 1, "vulnerability": 1}
    assert result.figures["layers"] == 2
    assert result.figures["database"]["age_hours"] == 6.0


def test_times_are_those_of_the_scan(bench: Bench) -> None:
    """Start and end in the evidence are the scanner's own."""
    start = datetime(2026, 3, 1, 11, tzinfo=UTC)
    result = bench.scan(report={"started": start})
    metadata = predicate(result, predicates.VULNS)["metadata"]
    assert metadata["scanStartedOn"] == "2026-03-01T11:00:00Z"
    assert metadata["scanFinishedOn"] == "2026-03-01T12:00:00Z"


def test_terminal_commands_in_names_do_nothing(bench: Bench) -> None:
    """A package name with control characters cannot write to the reader's terminal."""
    result = bench.scan(vulnerability(package="a\x1b[31mb\nc"))
    text = report_text(result).decode()
    assert "\x1b" not in text
    assert "a?[31mb?c" in text


def test_the_same_finding_twice_is_two_lines(bench: Bench) -> None:
    """Findings are never dropped between scanner and result."""

    def double(report: ScanReport) -> ScanReport:
        return replace(report, findings=report.findings * 2)

    scanner = FakeScanner((vulnerability(),), edit=double)
    inputs = ScanInputs(
        layout=bench.root / "image",
        image=ImageReference(NAME, bench.image.digest),
        config=ScanConfig(),
        gate=ScanGate(),
        exceptions=(),
        today=date(2026, 3, 1),
        root=bench.root,
    )
    assert len(scan(inputs, scanner, FixedClock(), bench.events.append).findings) == 2
