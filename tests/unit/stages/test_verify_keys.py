"""``verify`` trusts the keys of the policy, in their windows, for what they may sign."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from fakes.evidence import NAME, NOON, public_key, run_context, signer
from fakes.release import (
    BUILDER,
    Release,
    passed,
    policy,
    refused,
    two_keys,
)
from secure_pipeline.attestations import predicates
from secure_pipeline.attestations.statement import make_statement
from secure_pipeline.errors import ExitCode
from secure_pipeline.policy.document import Algorithm, LoadedPolicy, load
from secure_pipeline.stages.result import Evidence

DAY = timedelta(days=1)


def test_sig_21_expired_key_is_refused(tmp_path: Path, release: Release) -> None:
    """Evidence made after the key's last day refuses and names key and window."""
    release.run()
    old = policy(tmp_path / "policy", window=", not-after: 2026-02-28")
    refused(release.verify(old), ExitCode.VERIFICATION, "key-window:", "'release'", "to 2026-02-28")


def test_sig_21_key_that_is_not_yet_valid_is_refused(tmp_path: Path, release: Release) -> None:
    """Evidence made before the key's first day refuses."""
    release.run()
    soon = policy(tmp_path / "policy", window=", not-before: 2026-03-02")
    refused(release.verify(soon), ExitCode.VERIFICATION, "key-window:", "2026-03-02 to")


def test_sig_21_backdated_evidence_of_a_lapsed_key_is_undetermined(
    tmp_path: Path, release: Release
) -> None:
    """After a key's last day only its own statements date them: that is no answer."""
    release.run()
    window = ", not-before: 2026-03-01, not-after: 2026-03-01"
    lapsed = policy(tmp_path / "policy", window=window)
    passed(release.verify(lapsed))
    refused(release.verify(lapsed, NOON + DAY), ExitCode.INCONCLUSIVE, "does not hold today")


def test_sig_21_lapsed_key_cannot_put_its_seal_last(tmp_path: Path, release: Release) -> None:
    """The holder of an old key can neither block nor replace the run of the present key."""
    release.run("run-1", time=NOON - timedelta(minutes=1))
    release.run("run-2", key=signer(1))
    now = policy(tmp_path / "policy")
    (tmp_path / "policy/old.pub").write_bytes(public_key(signer(1)).pem)
    text = now.source.read_text().replace(
        "keys: [",
        "keys: [{id: old, public-key: old.pub, algorithm: ecdsa-p256-sha256, "
        "not-after: 2025-12-31}, ",
    )
    now.source.write_text(text)
    result = release.verify(load(now.source))
    passed(result)
    assert result.figures["run"] == "run-1"


def test_stale_evidence_is_refused(release: Release, trusted: LoadedPolicy) -> None:
    """A scan older than the policy's maximum age refuses with 12, though it is genuine."""
    release.run()
    passed(release.verify(trusted, NOON + timedelta(days=6)))
    refused(release.verify(trusted, NOON + 8 * DAY), ExitCode.DENIED, predicates.VULNS, "older")


def test_evidence_without_a_time_has_no_age(tmp_path: Path, release: Release) -> None:
    """Where a maximum age is set, evidence without a time is undetermined, never young."""
    require = f"[{{predicate: '{predicates.CYCLONEDX}', max-age: 1d}}]"
    bom = Evidence(predicates.CYCLONEDX, {"bomFormat": "CycloneDX", "metadata": {}})
    about = run_context("run-1", builder_id=BUILDER)
    undated = dict(bom.predicate) | {"metadata": {"properties": []}}
    bound = predicates.bind(Evidence(predicates.CYCLONEDX, undated), about)
    payload = make_statement(NAME, release.image.digest, predicates.CYCLONEDX, bound)
    release.attach([payload, release.seal([payload], about)])
    result = release.verify(policy(tmp_path / "policy", require=require))
    refused(result, ExitCode.INCONCLUSIVE, predicates.CYCLONEDX, "has no time")


def test_future_evidence_is_undetermined(release: Release, trusted: LoadedPolicy) -> None:
    """Evidence dated further ahead than the clock skew is no answer; within it, it is."""
    release.run(time=NOON + timedelta(minutes=4))
    passed(release.verify(trusted))
    refused(
        release.verify(trusted, NOON - timedelta(minutes=2)),
        ExitCode.INCONCLUSIVE,
        "time:",
        "yet to come",
    )


def test_old_seal_is_refused_when_the_policy_says_so(tmp_path: Path, release: Release) -> None:
    """A seal may have a maximum age of its own."""
    release.run()
    strict = policy(tmp_path / "policy", more="seal: {max-age: 1h}")
    passed(release.verify(strict, NOON + timedelta(minutes=59)))
    refused(release.verify(strict, NOON + timedelta(minutes=61)), ExitCode.DENIED, "the seal is of")


def test_key_that_may_not_sign_a_type_is_refused(tmp_path: Path, release: Release) -> None:
    """A trusted key outside a requirement's list refuses with 12 and is named."""
    chosen = two_keys(tmp_path / "policy", max_age=" keys: [second], max-age")
    release.run()
    refused(release.verify(chosen), ExitCode.DENIED, predicates.VULNS, "signed by release")


def test_quorum_counts_different_keys(tmp_path: Path, release: Release) -> None:
    """Two of two passes only when both keys signed the very same statement."""
    chosen = two_keys(tmp_path / "policy", max_age=" quorum: 2, max-age")
    payloads = release.run()
    refused(release.verify(chosen), ExitCode.DENIED, predicates.VULNS, "1 of 2 keys")
    release.attach(payloads, signer(1))
    passed(release.verify(chosen))


def test_key_that_may_not_seal_is_refused(tmp_path: Path, release: Release) -> None:
    """A seal by a trusted key outside seal.keys refuses with 12 and names the key."""
    chosen = two_keys(tmp_path / "policy")
    text = chosen.source.read_text().replace("builders:", "seal: {keys: [second]}\nbuilders:")
    chosen.source.write_text(text)
    release.run()
    refused(release.verify(load(chosen.source)), ExitCode.DENIED, "release, which may not seal")


def test_operator_key_does_not_widen_a_list_of_keys(tmp_path: Path, release: Release) -> None:
    """Where the policy names who may sign, a key given with --key is not among them."""
    chosen = two_keys(tmp_path / "policy", max_age=" keys: [second], max-age")
    release.run(key=signer(2))
    operator = ((public_key(signer(2)).pem, Algorithm.ECDSA_P256_SHA256),)
    result = release.verify(chosen, operator_keys=operator)
    refused(result, ExitCode.DENIED, predicates.VULNS, "signed by operator")
