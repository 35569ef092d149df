"""``verify`` of what other pipelines sign with a key: forms, subjects, seals, gates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes.evidence import NOON, signer
from fakes.foreign import (
    COSIGN_VULN,
    SIGN,
    SLSA_V02,
    SLSA_V1,
    TEAM,
    TEST,
    VULNS,
    Foreign,
    open_policy,
    provenance,
    requiring,
    vulnerabilities,
)
from fakes.release import Release, passed, policy, refused, rules
from secure_pipeline.attestations import bundle, dsse
from secure_pipeline.errors import ExitCode
from secure_pipeline.oci.digest import Digest
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.shape import rfc3339

OTHER = Digest("1" * 64)
SIGNED = f"[{{predicate: '{SIGN}'}}]"


@pytest.fixture
def foreign(tmp_path: Path) -> Foreign:
    return Foreign(tmp_path / "image")


@pytest.fixture
def lenient(tmp_path: Path) -> LoadedPolicy:
    return open_policy(tmp_path / "policy")


def test_evidence_of_another_pipeline_passes_without_a_seal(
    foreign: Foreign, lenient: LoadedPolicy
) -> None:
    """Signed provenance of an accepted builder passes, and the missing seal is said aloud."""
    foreign.put_key_bundle(foreign.statement())
    result = foreign.verify(lenient)
    passed(result)
    assert rules(result)["seal"] == "allow"
    assert "run" not in rules(result)
    assert "without a seal" in result.summary
    assert "does not require a seal" in str(result.figures["decision"])


def test_a_seal_is_required_unless_the_policy_says_otherwise(
    tmp_path: Path, foreign: Foreign
) -> None:
    """The same evidence under a policy that is silent about the seal refuses."""
    foreign.put_key_bundle(foreign.statement())
    strict = policy(tmp_path / "p", require=f"[{{predicate: '{SLSA_V1}'}}]", builders=f"['{TEAM}']")
    refused(foreign.verify(strict), ExitCode.VERIFICATION, "no seal")


def test_a_seal_that_is_there_is_checked_in_full(tmp_path: Path) -> None:
    """A lenient policy does not excuse a statement that is missing from a sealed run."""
    release = Release(tmp_path / "image")
    release.run(without=["vulns"])
    lenient = policy(tmp_path / "p", more="seal: {required: false}")
    refused(release.verify(lenient), ExitCode.VERIFICATION, "seal:", "is missing")


def test_a_run_that_is_asked_for_has_to_be_sealed(foreign: Foreign, lenient: LoadedPolicy) -> None:
    """--run names a set that only a seal could close."""
    foreign.put_key_bundle(foreign.statement())
    refused(foreign.verify(lenient, run_id="run-1"), ExitCode.VERIFICATION, "no seal")


def test_an_unsealed_run_of_ours_is_judged_without_its_seal(tmp_path: Path) -> None:
    """Where no seal is required our own statements stand too, source rule included."""
    release = Release(tmp_path / "image")
    release.run(sealed=False)
    passed(release.verify(policy(tmp_path / "p", more="seal: {required: false}")))
    dirty = Release(tmp_path / "dirty")
    dirty.run(sealed=False, uncommitted=True)
    result = dirty.verify(policy(tmp_path / "q", more="seal: {required: false}"))
    refused(result, ExitCode.DENIED, "uncommitted changes")


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3"])
def test_older_bundles_are_read(foreign: Foreign, lenient: LoadedPolicy, version: str) -> None:
    """Bundles under the media types before v0.3 count like those of today."""
    media_type = f"application/vnd.dev.sigstore.bundle+json;version={version}"
    envelope = dsse.sign_envelope(foreign.statement(), signer())
    data = bundle.make_bundle(envelope, signer().public_key_der)
    changed = data.replace(bundle.MEDIA_TYPE.encode(), media_type.encode())
    assert changed != data
    foreign.put_bundle(changed, media_type)
    passed(foreign.verify(lenient))


def test_chains_and_cosign_2_layers_are_read(foreign: Foreign, lenient: LoadedPolicy) -> None:
    """A statement v0.1 with several subjects under the .att tag counts for each of them."""
    payload = foreign.statement(others=[OTHER])
    envelope = dsse.sign_envelope(payload, signer())
    foreign.put_att((envelope, {"dev.cosignproject.cosign/signature": ""}))
    passed(foreign.verify(lenient))


def test_sig_04_foreign_statement_about_other_images_is_refused(
    foreign: Foreign, lenient: LoadedPolicy
) -> None:
    """The image has to be among the subjects; expected and found are named."""
    foreign.put_key_bundle(foreign.statement())
    foreign.put_key_bundle(foreign.statement(subjects=[OTHER]))
    refused(foreign.verify(lenient), ExitCode.VERIFICATION, str(foreign.image.digest), str(OTHER))


def test_sig_03_another_predicate_type_does_not_stand_for_the_required_one(
    foreign: Foreign, lenient: LoadedPolicy
) -> None:
    """SLSA v0.2 is another type than v1, though both are provenance."""
    foreign.put_key_bundle(foreign.statement(SLSA_V02, {"builder": {"id": TEAM}}))
    refused(foreign.verify(lenient), ExitCode.VERIFICATION, f"{SLSA_V1} is missing")


def test_sig_10_a_failing_statement_beside_a_good_one_refuses(
    tmp_path: Path, foreign: Foreign
) -> None:
    """Of two signed scans the one with a critical vulnerability is asked too."""
    chosen = requiring(tmp_path / "p", VULNS, builders="[]")
    foreign.put_key_bundle(foreign.statement(VULNS, vulnerabilities()))
    passed(foreign.verify(chosen))
    bad = vulnerabilities(("CVE-1", "9.8"))
    foreign.put_key_bundle(foreign.statement(VULNS, bad))
    refused(foreign.verify(chosen), ExitCode.DENIED, "CVE-1 (critical)")


def test_a_fresh_scan_stands_beside_an_old_one(tmp_path: Path, foreign: Foreign) -> None:
    """Without a seal one statement inside the greatest age is enough, and none is not."""
    require = f"[{{predicate: '{VULNS}', max-age: 1d}}]"
    chosen = open_policy(tmp_path / "p", require=require, builders="[]")
    day = {"scanStartedOn": "2026-02-01T10:00:00Z", "scanFinishedOn": "2026-02-01T11:00:00Z"}
    old = vulnerabilities(metadata=day)
    old["scanner"]["db"]["lastUpdate"] = "2026-02-01T06:00:00Z"
    foreign.put_key_bundle(foreign.statement(VULNS, old))
    refused(foreign.verify(chosen), ExitCode.DENIED, "older than the policy's")
    foreign.put_key_bundle(foreign.statement(VULNS, vulnerabilities()))
    passed(foreign.verify(chosen))


def test_sig_11_no_attachment_is_no_proof(foreign: Foreign, lenient: LoadedPolicy) -> None:
    """0 of 0 refuses without a seal too."""
    refused(foreign.verify(lenient), ExitCode.VERIFICATION, "no evidence is attached")


@pytest.mark.parametrize(
    ("kind", "predicate"),
    [
        (SLSA_V1, provenance("https://else.invalid")),
        (SLSA_V1, provenance("")),
        (SLSA_V02, {"builder": {"id": "https://else.invalid"}}),
    ],
)
def test_another_builder_is_denied(
    tmp_path: Path, foreign: Foreign, kind: str, predicate: dict[str, Any]
) -> None:
    """Each provenance statement names its builder, in both versions of SLSA."""
    foreign.put_key_bundle(foreign.statement(kind, predicate))
    chosen = requiring(tmp_path / "p", kind)
    refused(foreign.verify(chosen), ExitCode.DENIED, "builder:", f"is not among {TEAM}")


def test_slsa_v02_provenance_of_an_accepted_builder_passes(
    tmp_path: Path, foreign: Foreign
) -> None:
    """The older version is one more predicate type."""
    foreign.put_key_bundle(foreign.statement(SLSA_V02, {"builder": {"id": TEAM}}))
    passed(foreign.verify(requiring(tmp_path / "p", SLSA_V02)))


@pytest.mark.parametrize("predicate", [{}, {"runDetails": {}}, {"runDetails": {"builder": {}}}])
def test_provenance_without_a_builder_is_wrong(
    foreign: Foreign, lenient: LoadedPolicy, predicate: dict[str, Any]
) -> None:
    """A statement that lacks what its type demands refuses."""
    full = {"buildDefinition": {"buildType": "x"}} | predicate
    foreign.put_key_bundle(foreign.statement(SLSA_V1, full))
    refused(foreign.verify(lenient), ExitCode.VERIFICATION, "builder:", "is missing")


def test_builders_and_provenance_go_together(tmp_path: Path, foreign: Foreign) -> None:
    """Required provenance needs builders; builders need provenance to be told from."""
    foreign.put_key_bundle(foreign.statement())
    refused(
        foreign.verify(requiring(tmp_path / "a", SLSA_V1, builders="[]")),
        ExitCode.DENIED,
        "accepts no builder",
    )
    other = Foreign(tmp_path / "other")
    other.put_key_bundle(other.statement(VULNS, vulnerabilities()))
    passed(other.verify(requiring(tmp_path / "b", VULNS, builders="[]")))
    refused(
        other.verify(requiring(tmp_path / "c", VULNS)), ExitCode.INCONCLUSIVE, "no provenance says"
    )


def test_provenance_of_our_kind_of_build_has_to_say_its_rules(
    tmp_path: Path, foreign: Foreign
) -> None:
    """Leaving out the run does not turn our own build into another tool's."""
    ours = provenance()
    ours["buildDefinition"] = {"buildType": "https://secure-pipeline.dev/build-type/v1"}
    foreign.put_key_bundle(foreign.statement(SLSA_V1, ours))
    chosen = requiring(tmp_path / "p", SLSA_V1)
    refused(foreign.verify(chosen), ExitCode.INCONCLUSIVE, "which build rules")


@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        ((("CVE-1", "medium"),), None, ""),
        ((("CVE-1", "7.5"),), ExitCode.DENIED, "CVE-1 (high)"),
        ((("CVE-1", "strange"),), ExitCode.DENIED, "CVE-1 (unknown)"),
    ],
)
def test_a_foreign_scan_is_judged_by_its_severities(
    tmp_path: Path,
    foreign: Foreign,
    found: tuple[tuple[str, str], ...],
    code: ExitCode | None,
    words: str,
) -> None:
    """Vulns v0.2 without our figures: the list decides, and unknown reaches every gate."""
    foreign.put_key_bundle(foreign.statement(VULNS, vulnerabilities(*found)))
    result = foreign.verify(requiring(tmp_path / "p", VULNS, builders="[]"))
    if code is None:
        passed(result)
        assert "another tool's" in str(result.figures["decision"])
    else:
        refused(result, code, words)


def test_fixed_only_does_not_hide_what_a_standard_cannot_say(
    tmp_path: Path, foreign: Foreign
) -> None:
    """Without a word about fixes every vulnerability of a foreign scan counts."""
    foreign.put_key_bundle(foreign.statement(VULNS, vulnerabilities(("CVE-1", "high"))))
    gate = "gates: {scan: {fixed-only: true}}"
    chosen = requiring(tmp_path / "p", VULNS, builders="[]", more=gate)
    refused(foreign.verify(chosen), ExitCode.DENIED, "CVE-1 (high)")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"db": {"uri": "x"}}, ExitCode.INCONCLUSIVE, "does not say how old"),
        ({"db": {"lastUpdate": "2026-01-01T00:00:00Z"}}, ExitCode.DENIED, "old when used"),
        ({"result": None}, ExitCode.VERIFICATION, "scanner.result is missing"),
    ],
)
def test_a_foreign_scan_with_an_old_or_unknown_database(
    tmp_path: Path, foreign: Foreign, change: dict[str, Any], code: ExitCode, words: str
) -> None:
    """The age of the database is asked of everybody."""
    scan = vulnerabilities()
    scan["scanner"] |= change
    foreign.put_key_bundle(foreign.statement(VULNS, scan))
    refused(foreign.verify(requiring(tmp_path / "p", VULNS, builders="[]")), code, words)


def test_a_pinned_database_is_not_met_by_a_foreign_scan(tmp_path: Path, foreign: Foreign) -> None:
    """Where the policy pins a database, a scan that does not name its digest is no answer."""
    foreign.put_key_bundle(foreign.statement(VULNS, vulnerabilities()))
    gate = f"gates: {{scan: {{database: 'sha256:{'d' * 64}', allow-demonstration-database: true}}}}"
    chosen = requiring(tmp_path / "p", VULNS, builders="[]", more=gate)
    refused(foreign.verify(chosen), ExitCode.INCONCLUSIVE, "database")


def trivy(*found: tuple[str, str], **more: Any) -> dict[str, Any]:
    """A Trivy report in cosign's form, as 'trivy image --format cosign-vuln' writes it."""
    entries = [
        {"VulnerabilityID": name, "Severity": severity, "PkgName": "libc6"}
        for name, severity in found
    ]
    report = {"SchemaVersion": 2, "Results": [{"Target": "x", "Vulnerabilities": entries}]}
    moment = rfc3339(NOON)
    return {
        "invocation": {},
        "scanner": {"uri": "trivy", "db": {"lastUpdate": moment}, "result": {**report, **more}},
        "metadata": {"scanStartedOn": moment, "scanFinishedOn": moment},
    }


@pytest.mark.parametrize(
    ("predicate", "code", "words"),
    [
        (trivy(("CVE-1", "MEDIUM")), None, ""),
        (trivy(("CVE-1", "CRITICAL")), ExitCode.DENIED, "CVE-1 (critical)"),
        (trivy(("CVE-1", "UNKNOWN")), ExitCode.DENIED, "CVE-1 (unknown)"),
        (trivy(SchemaVersion=3), ExitCode.INCONCLUSIVE, "of a form that is not read"),
        (trivy(Results=None), ExitCode.INCONCLUSIVE, "of a form that is not read"),
        (trivy(Results=[{"Vulnerabilities": [{}]}]), ExitCode.VERIFICATION, "VulnerabilityID"),
    ],
)
def test_a_foreign_report_in_cosigns_form_is_judged(
    tmp_path: Path,
    foreign: Foreign,
    predicate: dict[str, Any],
    code: ExitCode | None,
    words: str,
) -> None:
    """Trivy's report is read; a report of another form is no answer, never a pass."""
    foreign.put_key_bundle(foreign.statement(COSIGN_VULN, predicate))
    result = foreign.verify(requiring(tmp_path / "p", COSIGN_VULN, builders="[]"))
    passed(result) if code is None else refused(result, code, words)


@pytest.mark.parametrize(
    ("verdict", "code"),
    [("PASSED", None), ("FAILED", ExitCode.DENIED), ("WARNED", ExitCode.INCONCLUSIVE)],
)
def test_a_foreign_test_result_is_judged_by_its_word(
    tmp_path: Path, foreign: Foreign, verdict: str, code: ExitCode | None
) -> None:
    """Whatever a suite is called, only PASSED passes."""
    predicate = {"result": verdict, "configuration": [{"name": "integration"}]}
    foreign.put_key_bundle(foreign.statement(TEST, predicate))
    result = foreign.verify(requiring(tmp_path / "p", TEST, builders="[]"))
    passed(result) if code is None else refused(result, code, "integration")


def test_a_minimum_of_coverage_is_not_met_by_silence(tmp_path: Path, foreign: Foreign) -> None:
    """A policy that asks for coverage gets no pass from suites that do not speak of it."""
    predicate = {"result": "PASSED", "configuration": [{"name": "integration"}]}
    foreign.put_key_bundle(foreign.statement(TEST, predicate))
    gate = "gates: {test: {minimum-coverage: 80}}"
    chosen = requiring(tmp_path / "p", TEST, builders="[]", more=gate)
    refused(foreign.verify(chosen), ExitCode.INCONCLUSIVE, "coverage:", "80 %")


@pytest.mark.parametrize(
    ("verdict", "code"),
    [("PASSED", None), ("FAILED", ExitCode.DENIED), ("other", ExitCode.INCONCLUSIVE)],
)
def test_a_required_summary_has_to_say_passed(
    tmp_path: Path, foreign: Foreign, verdict: str, code: ExitCode | None
) -> None:
    """A verification summary that the policy requires is judged, not only counted."""
    kind = "https://slsa.dev/verification_summary/v1"
    predicate = {"verificationResult": verdict, "timeVerified": rfc3339(NOON)}
    foreign.put_key_bundle(foreign.statement(kind, predicate))
    result = foreign.verify(requiring(tmp_path / "p", kind, builders="[]"))
    passed(result) if code is None else refused(result, code, "result:")
