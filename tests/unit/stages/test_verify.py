"""``verify`` passes a whole, sealed run and says why; what it leaves behind."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from fakes.evidence import NAME, NOON, public_key, run_context, signer
from fakes.release import (
    BUILDER,
    Release,
    passed,
    refused,
    rules,
)
from secure_pipeline.errors import ExitCode
from secure_pipeline.oci.digest import Digest
from secure_pipeline.policy.document import Algorithm, LoadedPolicy, load


def test_a_whole_run_passes_and_says_why(release: Release, trusted: LoadedPolicy) -> None:
    """A sealed run with all evidence passes, and every rule is reported with its reason."""
    payloads = release.run()
    result = release.verify(trusted)
    passed(result)
    expected = "content policy signature quarantine seal run required time source builder"
    expected += " result analysis build-rules vulnerabilities other-findings database each-of"
    assert rules(result) == dict.fromkeys(expected.split(), "allow")
    report = json.loads({r.name: r.content for r in result.reports}["decision.json"])
    assert report["outcome"] == "allow"
    assert report["rules"] == result.figures["decision"]
    used = {digest for rule in report["rules"] for digest in rule["evidence"]}
    assert used == {str(Digest.of(payload)) for payload in payloads}


def test_vsa_lists_all_input_attestations(release: Release, trusted: LoadedPolicy) -> None:
    """The verification summary names verifier, policy by digest, and every statement used."""
    payloads = release.run()
    result = release.verify(trusted, verifier_id="https://verifier.example/1")
    (evidence,) = result.evidence
    vsa = evidence.predicate
    assert evidence.predicate_type == "https://slsa.dev/verification_summary/v1"
    assert vsa["verifier"] == {"id": "https://verifier.example/1"}
    assert vsa["timeVerified"] == "2026-03-01T12:00:00Z"
    assert vsa["policy"]["digest"] == {"sha256": trusted.digest.removeprefix("sha256:")}
    assert vsa["verificationResult"] == "PASSED"
    assert vsa["verifiedLevels"] == ["SLSA_BUILD_LEVEL_UNEVALUATED"]
    assert vsa["slsaVersion"] == "1.2"
    assert vsa["resourceUri"].startswith(f"pkg:oci/{NAME}@sha256%3A{release.image.digest.hex}")
    listed = sorted(item["digest"]["sha256"] for item in vsa["inputAttestations"])
    assert listed == sorted(Digest.of(payload).hex for payload in payloads)
    assert json.loads({r.name: r.content for r in result.reports}["vsa.json"]) == vsa


def test_verdicts_made_after_the_seal_do_not_break_it(
    release: Release, trusted: LoadedPolicy
) -> None:
    """A VSA of the same run, signed and attached later, leaves the evidence set whole."""
    release.run()
    (vsa,) = release.verify(trusted).evidence
    release.attach(release.payloads([vsa], run_context("run-1", builder_id=BUILDER)))
    passed(release.verify(trusted))


def test_the_run_sealed_last_counts(release: Release, trusted: LoadedPolicy) -> None:
    """Of two whole runs about one image the later is judged; either can be named."""
    release.run("run-1", time=NOON - timedelta(hours=1))
    release.run("run-2")
    assert release.verify(trusted).figures["run"] == "run-2"
    for name in ("run-1", "run-2"):
        result = release.verify(trusted, run_id=name)
        passed(result)
        assert result.figures["run"] == name


def test_two_runs_sealed_in_one_second_are_undetermined(
    release: Release, trusted: LoadedPolicy
) -> None:
    """When no seal is the last one, nothing is guessed."""
    release.run("run-1")
    release.run("run-2")
    refused(release.verify(trusted), ExitCode.INCONCLUSIVE, "same second", "--run")


def test_operator_key_serves_a_policy_without_keys(tmp_path: Path, release: Release) -> None:
    """The built-in policy accepts nobody; with a builder and --key, what that key signed."""
    from secure_pipeline.data import data_path

    shipped = data_path("policies") / "release.yaml"
    copied = tmp_path / "release.yaml"
    copied.write_text(shipped.read_text().replace("builders: []", f"builders: [{BUILDER}]"))
    builtin = load(copied)
    release.run()
    refused(release.verify(builtin), ExitCode.DENIED, "trusts no key", "--key")
    key = (public_key().pem, Algorithm.ECDSA_P256_SHA256)
    refused(release.verify(load(shipped), operator_keys=(key,)), ExitCode.DENIED, "no builder")
    passed(release.verify(builtin, operator_keys=(key,)))
    other = (public_key(signer(1)).pem, Algorithm.ECDSA_P256_SHA256)
    refused(
        release.verify(builtin, operator_keys=(other,)),
        ExitCode.VERIFICATION,
        "no statement is signed by a trusted key",
    )
