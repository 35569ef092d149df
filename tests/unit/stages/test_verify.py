"""``verify`` refuses whatever is not exactly the evidence that the policy asks for."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.evidence import NAME, NOON, make_image, public_key, run_context, signer
from fakes.release import BUILDER, Release, built, policy, stage_evidence, suite, vulns
from secure_pipeline.attestations import bundle, dsse, predicates
from secure_pipeline.attestations.statement import make_statement
from secure_pipeline.errors import ConfigError, ExitCode, PipelineError, UsageError
from secure_pipeline.keys.local import LocalSigner
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.document import Algorithm, LoadedPolicy
from secure_pipeline.stages.result import Evidence, StageResult, Verdict

DAY = timedelta(days=1)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(tmp_path / "image")


@pytest.fixture
def trusted(tmp_path: Path) -> LoadedPolicy:
    return policy(tmp_path / "policy")


def refused(result: StageResult, code: ExitCode, *words: str) -> None:
    """Assert verdict, exit code, that the reasons name the culprit, and what is left behind."""
    verdict = Verdict.INCONCLUSIVE if code is ExitCode.INCONCLUSIVE else Verdict.FAIL
    text = "\n".join(result.reasons)
    assert (result.verdict, result.code) == (verdict, code), text
    for word in words:
        assert word in text
    for evidence in result.evidence:
        assert evidence.predicate["verificationResult"] == "FAILED"
        assert evidence.predicate["verifiedLevels"] == ["FAILED"]
    assert bool(result.evidence) == (verdict is Verdict.FAIL)


def passed(result: StageResult) -> None:
    assert (result.verdict, result.code) == (Verdict.PASS, ExitCode.PASS), result.reasons


def rules(result: StageResult) -> dict[str, str]:
    return {rule["rule"]: rule["outcome"] for rule in result.figures["decision"]}


# --- what passes -------------------------------------------------------------------------


def test_a_whole_run_passes_and_says_why(release: Release, trusted: LoadedPolicy) -> None:
    """A sealed run with all evidence passes, and every rule is reported with its reason."""
    payloads = release.run()
    result = release.verify(trusted)
    passed(result)
    expected = "content policy signature seal run required time source builder"
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
    """The built-in policy trusts nobody; with --key it verifies what that key signed."""
    from secure_pipeline.data import data_path
    from secure_pipeline.policy.document import load

    builtin = load(data_path("policies") / "release.yaml")
    release.run()
    refused(release.verify(builtin), ExitCode.DENIED, "trusts no key", "--key")
    key = (public_key().pem, Algorithm.ECDSA_P256_SHA256)
    passed(release.verify(builtin, operator_keys=(key,)))
    other = (public_key(signer(1)).pem, Algorithm.ECDSA_P256_SHA256)
    refused(
        release.verify(builtin, operator_keys=(other,)),
        ExitCode.VERIFICATION,
        "no statement is signed by a trusted key",
    )


# --- altered, missing, mixed --------------------------------------------------------------


def test_rev_altered_layer_is_refused(release: Release, trusted: LoadedPolicy) -> None:
    """One changed byte in a layer refuses with 11 and names the blob."""
    release.run()
    manifest = json.loads(release.blob(release.image.digest).read_bytes())
    layer = Digest.parse(manifest["layers"][0]["digest"])
    flip(release.blob(layer), 700)
    refused(release.verify(trusted), ExitCode.VERIFICATION, "content:", layer.hex)


def test_sig_11_no_evidence_is_refused(release: Release, trusted: LoadedPolicy) -> None:
    """0 of 0 attachments is no proof."""
    refused(release.verify(trusted), ExitCode.VERIFICATION, "no evidence is attached")


@pytest.mark.parametrize("name", sorted(stage_evidence()))
def test_removed_statement_is_refused(release: Release, trusted: LoadedPolicy, name: str) -> None:
    """Whichever statement is removed after the seal, its digest and type are named."""
    payloads = dict(zip([*stage_evidence(), "seal"], release.run(without=[name]), strict=True))
    kind = stage_evidence()[name].predicate_type
    digest = str(Digest.of(payloads[name]))
    result = release.verify(trusted)
    refused(result, ExitCode.VERIFICATION, digest, kind, "is missing")
    assert rules(result)["seal"] == "deny"


def test_removed_seal_is_refused(release: Release, trusted: LoadedPolicy) -> None:
    """Without a seal nothing shows that the set is complete, though each statement is good."""
    release.run(sealed=False)
    refused(release.verify(trusted), ExitCode.VERIFICATION, "no seal")


def test_added_statement_is_refused(release: Release, trusted: LoadedPolicy) -> None:
    """A statement of the run that its seal does not list refuses, and is named."""
    release.run()
    extra = release.payloads([suite("lint")], run_context("run-1", builder_id=BUILDER))
    release.attach(extra)
    refused(release.verify(trusted), ExitCode.VERIFICATION, str(Digest.of(extra[0])), "not sealed")


def test_sig_09_statements_of_two_runs_mixed_are_refused(
    release: Release, trusted: LoadedPolicy
) -> None:
    """A scan taken from another run does not fill the gap of the sealed one."""
    release.run("run-1", without=["vulns"])
    release.attach(release.payloads([vulns()], run_context("run-2", builder_id=BUILDER)))
    refused(
        release.verify(trusted),
        ExitCode.VERIFICATION,
        f"{predicates.VULNS} is missing in this run (there is one of run-2)",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"commit": "d" * 40},
        {"tree": "sha256:" + "8" * 64},
        {"uncommitted": True},
        {"builder_id": "https://builder.example/other"},
    ],
)
def test_sig_09_one_run_id_with_two_sources_is_refused(
    release: Release, trusted: LoadedPolicy, change: dict[str, Any]
) -> None:
    """Statements under one run id that disagree on commit, tree or builder refuse."""
    release.run("run-1", without=["vulns"])
    values = {"builder_id": BUILDER, **change}
    other = release.payloads([stage_evidence()["vulns"]], run_context("run-1", **values))
    release.attach(other)
    result = release.verify(trusted)
    refused(result, ExitCode.VERIFICATION, Digest.of(other[0]).hex[:12])
    assert rules(result)["run"] == "deny"


def test_swapped_seal_is_refused(release: Release, trusted: LoadedPolicy) -> None:
    """The seal of another run of the same image does not close this run's set."""
    release.run("run-1", sealed=False)
    about = run_context("run-2", builder_id=BUILDER)
    others = release.payloads(stage_evidence().values(), about)
    release.attach([release.seal(others, about)])
    refused(release.verify(trusted), ExitCode.VERIFICATION, "run run-2", "is missing")


def test_seal_of_another_image_is_refused(
    tmp_path: Path, release: Release, trusted: LoadedPolicy
) -> None:
    """A seal whose subject is another image refuses and both digests are named."""
    other = Release(tmp_path / "other", b"another\n")
    seal = other.run()[-1]
    release.run(sealed=False)
    release.smuggle(dsse.sign_envelope(seal, signer()))
    refused(
        release.verify(trusted),
        ExitCode.VERIFICATION,
        str(release.image.digest),
        str(other.image.digest),
    )


def test_two_seals_of_one_run_are_refused(release: Release, trusted: LoadedPolicy) -> None:
    """A second seal under the same run id refuses: neither is believed."""
    payloads = release.run()
    about = run_context("run-1", builder_id=BUILDER)
    release.attach([release.seal(payloads[:3], about, NOON - timedelta(minutes=1))])
    refused(release.verify(trusted), ExitCode.VERIFICATION, "run-1 has 2 seals")


def test_run_that_is_not_sealed_here_is_refused(release: Release, trusted: LoadedPolicy) -> None:
    """Asking for a run that has no seal names the runs that have one."""
    release.run("run-1")
    result = release.verify(trusted, run_id="run-9")
    refused(result, ExitCode.VERIFICATION, "run-9 is not sealed", "run-1")


# --- signatures and statements -------------------------------------------------------------


def test_sig_04_statement_about_another_image_is_refused(
    tmp_path: Path, release: Release, trusted: LoadedPolicy
) -> None:
    """A trusted statement with another subject refuses; expected and found are named."""
    release.run()
    other = make_image(tmp_path / "other", b"other\n").digest
    payload = make_statement(NAME, other, predicates.VULNS, {"scanner": {}})
    release.smuggle(dsse.sign_envelope(payload, signer()))
    result = release.verify(trusted)
    refused(result, ExitCode.VERIFICATION, str(release.image.digest), str(other))
    assert rules(result)["subject"] == "deny"


def test_sig_04_second_subject_is_refused(release: Release, trusted: LoadedPolicy) -> None:
    """A statement about this image and another one at once is not about exactly this image."""
    release.run()
    subjects = [{"name": n, "digest": {"sha256": d}} for n, d in (("a", "1" * 64),)]
    subjects.append({"name": NAME, "digest": {"sha256": release.image.digest.hex}})
    release.smuggle(dsse.sign_envelope(statement(subject=subjects), signer()))
    refused(release.verify(trusted), ExitCode.VERIFICATION, "subject:", "1" * 64)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b'{"_type":"a","_type":"b"}', "duplicate member"),
        (b'{"a":1} {"b":2}', "not JSON"),
        (b'{"a":NaN}', "NaN"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b"[]", "not a JSON object"),
    ],
)
def test_sig_05_sig_07_signed_but_ambiguous_json_is_refused(
    release: Release, trusted: LoadedPolicy, payload: bytes, words: str
) -> None:
    """Even under a good signature, JSON that two parsers could read differently refuses."""
    release.run()
    release.smuggle(dsse.sign_envelope(payload, signer()))
    refused(release.verify(trusted), ExitCode.VERIFICATION, "statement:", words)


def test_sig_05_duplicate_subject_is_refused(release: Release, trusted: LoadedPolicy) -> None:
    """A statement with the member 'subject' twice refuses, whichever of them is right."""
    release.run()
    payload = statement(subject=[{"name": NAME, "digest": {"sha256": release.image.digest.hex}}])
    twice = payload.replace(b'"subject":', b'"subject":[],"subject":', 1)
    release.smuggle(dsse.sign_envelope(twice, signer()))
    refused(release.verify(trusted), ExitCode.VERIFICATION, "duplicate member 'subject'")


def test_sig_01_other_payload_type_is_refused(release: Release, trusted: LoadedPolicy) -> None:
    """A well-signed envelope of another payload type refuses before its payload is read."""
    release.run()
    kind, payload = "application/vnd.other+json", b'{"a":1}'
    signature = signer().sign(dsse.pae(kind, payload))
    envelope = dsse.serialise(kind, payload, (dsse.EnvelopeSignature("", signature),))
    document = {
        "mediaType": bundle.MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": "x"}},
        "dsseEnvelope": json.loads(envelope),
    }
    release.smuggle_layer(json.dumps(document).encode())
    refused(release.verify(trusted), ExitCode.VERIFICATION, "attachments:", kind)


def test_sig_01_payload_type_swapped_under_a_signature_is_no_evidence(
    release: Release, trusted: LoadedPolicy
) -> None:
    """A signature made over another type does not verify over the in-toto type."""
    payloads = release.run(without=["vulns"])
    scan = payloads[list(stage_evidence()).index("vulns")]
    signature = signer().sign(dsse.pae("text/plain", scan))
    swapped = dsse.serialise(dsse.PAYLOAD_TYPE, scan, (dsse.EnvelopeSignature("", signature),))
    release.smuggle(swapped)
    result = release.verify(trusted)
    refused(result, ExitCode.VERIFICATION, f"{predicates.VULNS} is missing")
    assert result.figures["untrusted"] == 1


@pytest.mark.parametrize(
    "kind", [f"{predicates.VULNS}/", predicates.VULNS.upper(), predicates.VULNS[:-1], "vuln"]
)
def test_sig_03_predicate_types_match_exactly(
    release: Release, trusted: LoadedPolicy, kind: str
) -> None:
    """A predicate of nearly the required type, sealed and signed, does not stand for it."""
    items = {"vulns": Evidence(kind, stage_evidence()["vulns"].predicate)}
    release.run(items=items)
    refused(
        release.verify(trusted), ExitCode.VERIFICATION, f"required: {predicates.VULNS} is missing"
    )


def test_sig_03_test_names_match_exactly(release: Release, trusted: LoadedPolicy) -> None:
    """A test result of another name does not stand for the required one."""
    release.run(items={"test": suite("tests", coverage=97)})
    refused(release.verify(trusted), ExitCode.VERIFICATION, "'test' is missing")


def test_unknown_predicate_is_sealed_and_harmless(release: Release, trusted: LoadedPolicy) -> None:
    """A sealed statement of a type that no rule knows neither helps nor harms."""
    release.run(items={"more": Evidence("https://example.org/more/v1", {"a": 1})})
    passed(release.verify(trusted))


def test_unknown_signer_neither_blocks_nor_helps(release: Release, trusted: LoadedPolicy) -> None:
    """A stranger's statements are counted aloud; a stranger's failing scan blocks nobody."""
    release.run()
    strange = release.payloads([vulns(("CVE-1", "CRITICAL"))], run_context("run-1"))
    release.attach(strange, signer(1))
    result = release.verify(trusted)
    passed(result)
    assert result.figures["untrusted"] == 1
    whys = " ".join(rule["why"] for rule in result.figures["decision"])
    assert "1 attachments by unknown keys are no evidence" in whys


def test_evidence_by_unknown_keys_alone_is_refused(release: Release, trusted: LoadedPolicy) -> None:
    """A whole run signed by nobody trusted is no evidence at all."""
    release.run(key=signer(1))
    refused(
        release.verify(trusted),
        ExitCode.VERIFICATION,
        "no statement is signed by a trusted key",
        "8 attachments by unknown keys",
    )


def test_bad_signature_in_a_trusted_name_is_reported(
    release: Release, trusted: LoadedPolicy
) -> None:
    """An envelope that claims a trusted key's id and is not its own refuses, naming the key."""
    release.run()
    forged = signer(1).sign(dsse.pae(dsse.PAYLOAD_TYPE, b"{}"))
    names_it = (dsse.EnvelopeSignature(public_key().hint, forged),)
    release.smuggle(dsse.serialise(dsse.PAYLOAD_TYPE, b"{}", names_it))
    refused(release.verify(trusted), ExitCode.VERIFICATION, "claims key 'release'")


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p384-sha384"])
def test_sig_22_key_of_another_algorithm_is_a_config_error(
    tmp_path: Path, release: Release, algorithm: str
) -> None:
    """The algorithm stands in the policy; a PEM of another kind refuses before verifying."""
    release.run()
    with pytest.raises(ConfigError, match="release") as caught:
        release.verify(policy(tmp_path / "policy", algorithm=algorithm))
    assert caught.value.exit_code is ExitCode.CONFIG
    assert algorithm in caught.value.message


@pytest.mark.parametrize(
    "key",
    [
        LocalSigner(ed25519.Ed25519PrivateKey.generate(), Algorithm.ED25519),
        LocalSigner(ec.generate_private_key(ec.SECP384R1()), Algorithm.ECDSA_P384_SHA384),
    ],
    ids=["ed25519", "p384"],
)
def test_sig_22_every_accepted_algorithm_verifies_with_its_own_key_only(
    tmp_path: Path, release: Release, trusted: LoadedPolicy, key: LocalSigner
) -> None:
    """Evidence by another kind of key passes where it is bound so, and nowhere else."""
    release.run(key=key)
    passed(release.verify(policy(tmp_path / "own", key=key, algorithm=key.algorithm)))
    refused(release.verify(trusted), ExitCode.VERIFICATION, "signed by a trusted key")


def test_one_key_under_two_ids_is_a_config_error(tmp_path: Path, release: Release) -> None:
    """One key must not count twice towards a quorum."""
    two = policy(tmp_path / "policy")
    text = two.source.read_text().replace(
        "keys: [", "keys: [{id: a, public-key: release.pub, algorithm: ecdsa-p256-sha256}, "
    )
    two.source.write_text(text)
    from secure_pipeline.policy.document import load

    with pytest.raises(ConfigError, match="one and the same key"):
        release.verify(load(two.source))


# --- key windows and times ------------------------------------------------------------------


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
    from secure_pipeline.policy.document import load

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


# --- keys of requirements --------------------------------------------------------------------


def two_keys(directory: Path, **changes: str) -> LoadedPolicy:
    """A policy with the keys ``release`` and ``second``."""
    from secure_pipeline.policy.document import load

    first = policy(directory)
    (directory / "second.pub").write_bytes(public_key(signer(1)).pem)
    text = first.source.read_text().replace(
        "keys: [", "keys: [{id: second, public-key: second.pub, algorithm: ecdsa-p256-sha256}, "
    )
    for old, new in changes.items():
        text = text.replace(old.replace("_", "-"), new)
    first.source.write_text(text)
    return load(first.source)


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
    chosen = two_keys(tmp_path / "policy", builders_="seal: {keys: [second]}\nbuilders")
    text = chosen.source.read_text().replace("builders:", "seal: {keys: [second]}\nbuilders:")
    chosen.source.write_text(text)
    from secure_pipeline.policy.document import load

    release.run()
    refused(release.verify(load(chosen.source)), ExitCode.DENIED, "release, which may not seal")


def test_operator_key_does_not_widen_a_list_of_keys(tmp_path: Path, release: Release) -> None:
    """Where the policy names who may sign, a key given with --key is not among them."""
    chosen = two_keys(tmp_path / "policy", max_age=" keys: [second], max-age")
    release.run(key=signer(2))
    operator = ((public_key(signer(2)).pem, Algorithm.ECDSA_P256_SHA256),)
    result = release.verify(chosen, operator_keys=operator)
    refused(result, ExitCode.DENIED, predicates.VULNS, "signed by operator")


# --- empty means refuse ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"require": "[]"}, "requires no evidence"),
        ({"builders": "[]"}, "accepts no builder"),
    ],
)
def test_cli_07_empty_policy_is_denied(
    tmp_path: Path, release: Release, changes: dict[str, str], words: str
) -> None:
    """A policy that asks for nothing, or accepts no builder, refuses even a whole run."""
    release.run()
    refused(release.verify(policy(tmp_path / "policy", **changes)), ExitCode.DENIED, words)


def test_builder_outside_the_list_is_denied(tmp_path: Path, release: Release) -> None:
    """A run by a builder that the policy does not name refuses with 12."""
    release.run()
    other = policy(tmp_path / "policy", builders="[https://builder.example/1]")
    refused(release.verify(other), ExitCode.DENIED, "builder:", BUILDER)


@pytest.mark.parametrize(
    ("context", "words"),
    [({"commit": None}, "not a git commit"), ({"uncommitted": True}, "uncommitted changes")],
)
def test_source_rules(
    tmp_path: Path,
    release: Release,
    trusted: LoadedPolicy,
    context: dict[str, Any],
    words: str,
) -> None:
    """A source without a commit, or with more than it, is denied unless the policy allows it."""
    release.run(**context)
    refused(release.verify(trusted), ExitCode.DENIED, "source:", words)
    more = "source: {require-commit: false, allow-uncommitted: true}"
    passed(release.verify(policy(tmp_path / "lax", more=more)))


# --- gates, again ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "code", "words"),
    [
        ({"test": suite("test", "FAILED")}, ExitCode.DENIED, "'test'"),
        ({"analyze": suite("analyze", "FAILED")}, ExitCode.DENIED, "'analyze'"),
        ({"test": suite("test", "WARNED")}, ExitCode.INCONCLUSIVE, "'WARNED'"),
        ({"test": suite("test", "passed")}, ExitCode.INCONCLUSIVE, "'passed'"),
        ({"vulns": vulns(("CVE-7", "HIGH"))}, ExitCode.DENIED, "CVE-7 (high)"),
        ({"vulns": vulns(("CVE-7", "critical"))}, ExitCode.DENIED, "CVE-7 (critical)"),
        ({"vulns": vulns(("CVE-7", "7.5"))}, ExitCode.DENIED, "CVE-7 (high)"),
        ({"vulns": vulns(("CVE-7", "who knows"))}, ExitCode.DENIED, "CVE-7 (unknown)"),
    ],
)
def test_gates_are_evaluated_from_the_evidence(
    release: Release,
    trusted: LoadedPolicy,
    items: dict[str, Evidence],
    code: ExitCode,
    words: str,
) -> None:
    """Signed and sealed evidence that misses a gate refuses, whatever its stage had said."""
    release.run(items=items)
    refused(release.verify(trusted), code, words)


def test_findings_below_the_gate_pass(release: Release, trusted: LoadedPolicy) -> None:
    """Medium findings do not reach the policy's gate at high."""
    release.run(items={"vulns": vulns(("CVE-7", "MEDIUM"), ("CVE-8", "3.1"))})
    passed(release.verify(trusted))


def test_exceptions_apply_and_expire(tmp_path: Path, release: Release) -> None:
    """An exception of the verifier's policy covers its id until its last day."""
    release.run(items={"vulns": vulns(("CVE-7", "HIGH"))})
    more = "exceptions: [{id: CVE-7, reason: not linked into it, expires: 2026-03-01}]"
    chosen = policy(tmp_path / "policy", more=more)
    result = release.verify(chosen)
    passed(result)
    assert "1 excused by the policy" in str(result.figures["decision"])
    refused(release.verify(chosen, NOON + DAY), ExitCode.DENIED, "CVE-7 (high)")


def test_rule_11_only_the_verifiers_policy_excuses(release: Release, trusted: LoadedPolicy) -> None:
    """What the scan itself had set aside counts again unless today's policy excuses it."""
    release.run(items={"vulns": vulns(("CVE-7", "HIGH"), ignored="vex")})
    refused(release.verify(trusted), ExitCode.DENIED, "vulnerabilities:", "CVE-7 (high)")


def test_vex_beside_the_policy_excuses(tmp_path: Path, release: Release) -> None:
    """A VEX document that the policy names sets aside what it names, for its package only."""
    document = {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": "https://example.org/vex/1",
        "author": "security team",
        "timestamp": "2026-02-01T00:00:00Z",
        "version": 1,
        "statements": [
            {
                "vulnerability": {"name": "CVE-7"},
                "products": [{"@id": "pkg:deb/debian/libc6"}],
                "status": "not_affected",
                "justification": "vulnerable_code_not_present",
            }
        ],
    }
    chosen = policy(tmp_path / "policy", more="gates: {scan: {vex: [excuses.json]}}")
    (tmp_path / "policy/excuses.json").write_text(json.dumps(document))
    release.run(items={"vulns": vulns(("CVE-7", "HIGH"), purl="pkg:deb/debian/libc6@2.36")})
    passed(release.verify(chosen))
    other = Release(tmp_path / "other")
    other.run(items={"vulns": vulns(("CVE-7", "HIGH"), purl="pkg:deb/debian/zlib@1")})
    refused(other.verify(chosen), ExitCode.DENIED, "CVE-7 (high)")


@pytest.mark.parametrize(
    ("scan", "code", "words"),
    [
        (vulns(more=2), ExitCode.DENIED, "2 secrets or misconfigurations reach high"),
        (vulns(("CVE-7", "HIGH"), more=-1), ExitCode.VERIFICATION, "lists 1"),
        (vulns(gate="critical"), ExitCode.INCONCLUSIVE, "the policy asks for high"),
        (
            Evidence(predicates.VULNS, vulns().predicate | {"secure-pipeline": None}),
            ExitCode.INCONCLUSIVE,
            "does not say what else",
        ),
    ],
    ids=["secrets", "miscounted", "looser-gate", "not-said"],
)
def test_findings_that_the_standard_has_no_place_for(
    release: Release, trusted: LoadedPolicy, scan: Evidence, code: ExitCode, words: str
) -> None:
    """Secrets and misconfigurations are judged from the figures; absent figures are no answer."""
    release.run(items={"vulns": scan})
    refused(release.verify(trusted), code, words)


def test_analysis_gated_looser_than_the_policy_is_undetermined(
    tmp_path: Path, release: Release, trusted: LoadedPolicy
) -> None:
    """PASSED at a looser gate, or at one that is not said, does not show what is asked."""
    release.run(items={"analyze": suite("analyze", gate="critical")})
    refused(release.verify(trusted), ExitCode.INCONCLUSIVE, "analysis:", "asks for high")
    other = Release(tmp_path / "other")
    other.run(items={"analyze": suite("analyze")})
    refused(other.verify(trusted), ExitCode.INCONCLUSIVE, "does not say at which severity")


def test_build_rules_switched_off_need_todays_policy(
    tmp_path: Path, release: Release, trusted: LoadedPolicy
) -> None:
    """A rule that was switched off for the build must be so in the verifier's policy."""
    release.run(items={"build": built(unpinned_base="mirrored and pinned there")})
    refused(release.verify(trusted), ExitCode.DENIED, "build-rules:", "unpinned-base")
    more = "gates: {build: {allow: [{rule: unpinned-base, reason: mirrored and pinned there}]}}"
    passed(release.verify(policy(tmp_path / "lax", more=more)))
    silent = Release(tmp_path / "silent")
    predicate = {**built().predicate}
    predicate["buildDefinition"] = {"buildType": "x", "externalParameters": {}}
    silent.run(items={"build": Evidence(predicates.PROVENANCE, predicate)})
    refused(silent.verify(trusted), ExitCode.INCONCLUSIVE, "does not say which build rules")


def test_coverage_below_the_minimum_is_denied(tmp_path: Path, release: Release) -> None:
    """The policy's minimum is compared with the signed figure."""
    release.run()
    passed(release.verify(policy(tmp_path / "a", more="gates: {test: {minimum-coverage: 97.5}}")))
    more = "gates: {test: {minimum-coverage: 98}}"
    refused(release.verify(policy(tmp_path / "b", more=more)), ExitCode.DENIED, "97.5 %")


@pytest.mark.parametrize(
    "figures",
    [
        {},
        {"coverage": None},
        {"coverage": "99"},
        {"coverage": True},
        {"coverage": 101},
        {"coverage": -1},
    ],
)
def test_coverage_that_is_not_said_is_undetermined(
    tmp_path: Path, release: Release, figures: dict[str, Any]
) -> None:
    """A missing or impossible figure never meets a minimum."""
    release.run(items={"test": suite("test", **figures)})
    more = "gates: {test: {minimum-coverage: 10}}"
    refused(
        release.verify(policy(tmp_path / "p", more=more)), ExitCode.INCONCLUSIVE, "does not say"
    )


def scanned(**changes: Any) -> dict[str, Evidence]:
    """The good scan with other database members."""
    predicate = json.loads(json.dumps(stage_evidence()["vulns"].predicate))
    predicate["scanner"]["db"] |= {k: v for k, v in changes.items() if k == "lastUpdate"}
    own = {k: v for k, v in changes.items() if k != "lastUpdate"}
    predicate["secure-pipeline"] = predicate["secure-pipeline"] | own
    return {"vulns": Evidence(predicates.VULNS, predicate)}


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"lastUpdate": "2026-02-27T06:00:00Z"}, ExitCode.DENIED, "old when used"),
        ({"lastUpdate": "2026-03-01T18:00:00Z"}, ExitCode.INCONCLUSIVE, "after the scan"),
        ({"lastUpdate": None}, ExitCode.INCONCLUSIVE, "does not say how old"),
        ({"lastUpdate": "yesterday"}, ExitCode.VERIFICATION, "not an RFC 3339 time"),
        ({"demonstrationDatabase": True}, ExitCode.DENIED, "demonstration database"),
        ({"demonstrationDatabase": None}, ExitCode.INCONCLUSIVE, "which kind"),
    ],
)
def test_scn_02_database_is_judged_from_the_evidence(
    release: Release,
    trusted: LoadedPolicy,
    changes: dict[str, Any],
    code: ExitCode,
    words: str,
) -> None:
    """A stale, undated or demonstration database refuses at verification too."""
    release.run(items=scanned(**changes))
    refused(release.verify(trusted), code, words)


def test_scn_03_pinned_database(tmp_path: Path, release: Release) -> None:
    """A policy that pins a database refuses a scan with another one, or with none named."""
    release.run()
    pinned = "gates: {scan: {database: 'sha256:" + "d" * 64 + "'}}"
    passed(release.verify(policy(tmp_path / "a", more=pinned)))
    other = policy(tmp_path / "b", more=pinned.replace("d" * 64, "e" * 64))
    refused(release.verify(other), ExitCode.DENIED, "database:", "e" * 64)


def test_sig_10_failing_scan_hidden_behind_a_good_one_is_refused(
    release: Release, trusted: LoadedPolicy
) -> None:
    """Another run's signed failing scan of this digest refuses, though the last run is good."""
    about = run_context("run-0", builder_id=BUILDER)
    bad = release.payloads([vulns(("CVE-9", "CRITICAL"))], about, NOON - DAY)
    release.attach(bad)
    release.run("run-1")
    result = release.verify(trusted)
    refused(result, ExitCode.DENIED, "each-of:", "CVE-9")
    assert rules(result)["seal"] == "allow"


def test_sig_10_failed_tests_hidden_behind_good_ones_are_refused(
    release: Release, trusted: LoadedPolicy
) -> None:
    """A signed FAILED result without any run is asked too."""
    payload = statement(
        subject=[{"name": NAME, "digest": {"sha256": release.image.digest.hex}}],
        predicateType=predicates.TEST_RESULT,
        predicate={"result": "FAILED", "configuration": [{"name": "manual"}]},
    )
    release.attach([payload])
    release.run()
    refused(release.verify(trusted), ExitCode.DENIED, "each-of:", "'manual'", "FAILED")


# --- limits, crashes, inputs ---------------------------------------------------------------------


def test_sig_15_too_many_attachments_are_undetermined(
    release: Release, trusted: LoadedPolicy
) -> None:
    """Over the limit nothing is read: neither proven good nor proven bad."""
    release.run()
    tag = f"sha256-{release.image.digest.hex}.att"
    listed = release.layout.tagged(tag)
    assert listed is not None
    document = json.loads(release.blob(listed.digest).read_bytes())
    document["layers"] = document["layers"][:1] * 2001
    release.layout.replace(
        tag, release.layout.write_blob(json.dumps(document).encode(), listed.media_type)
    )
    result = release.verify(trusted)
    refused(result, ExitCode.INCONCLUSIVE, "attachments;", "limit 2000")


def test_sig_15_too_many_signature_checks_are_undetermined(
    release: Release, trusted: LoadedPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signatures times keys are bounded before the first is checked."""
    monkeypatch.setattr("secure_pipeline.policy.evidence.MAX_CHECKS", 7)
    release.run()
    refused(release.verify(trusted), ExitCode.INCONCLUSIVE, "8 signature checks", "limit is 7")


BOUNDARIES = [
    "stages.verify.trusted_signers",
    "stages.verify.check_content",
    "stages.verify.check_evidence",
    "stages.verify.collect",
    "stages.verify.decide",
    "stages.verify.make_vsa",
    "stages.verify._reports",
    "policy.rules.policy_rules",
    "policy.rules.authenticate",
    "policy.rules.choose_seal",
    "policy.rules.check_seal",
    "policy.rules.sealed_rule",
    "policy.rules.run_rule",
    "policy.rules.required_rules",
    "policy.rules.time_rules",
    "policy.rules.source_rule",
    "policy.rules.builder_rule",
    "policy.rules.gate_rules",
    "policy.rules.failing_rules",
    "policy.evidence.parse_statement",
    "policy.evidence.read_run",
    "policy.evidence.read_time",
    "policy.evidence_gates.account",
    "policy.trust.load_public_key",
    "keys.verify.PublicKey.verify",
    "oci.layout.Layout.open",
    "oci.layout.Layout.verify_image",
]
FAULTS = [RuntimeError("boom"), ValueError("boom"), MemoryError(), OSError(5, "I/O"), KeyError("x")]


@pytest.mark.parametrize("where", BOUNDARIES)
def test_sig_26_a_crash_anywhere_is_never_a_pass(
    release: Release, trusted: LoadedPolicy, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """An exception injected at any function of the verifier comes out, or refuses."""
    release.run()
    assert outcome(release, trusted) is ExitCode.PASS
    for fault in FAULTS:

        def broken(*args: object, _fault: Exception = fault, **kwargs: object) -> None:
            raise _fault

        with monkeypatch.context() as patch:
            patch.setattr(f"secure_pipeline.{where}", broken)
            assert outcome(release, trusted) is not ExitCode.PASS


def outcome(release: Release, trusted: LoadedPolicy) -> ExitCode:
    """What the program's handler would make of a verification."""
    try:
        return release.verify(trusted).code
    except PipelineError as error:
        return error.exit_code
    except Exception:
        return ExitCode.BUG


@pytest.mark.parametrize("where", BOUNDARIES[:4])
def test_sig_26_the_program_ends_with_a_code_above_0(
    release: Release,
    trusted: LoadedPolicy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
) -> None:
    """Through the program's own handler, a crash of the verifier is exit 1 and no traceback."""
    from secure_pipeline.cli import main as cli

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("boom")

    release.run()
    monkeypatch.setattr(f"secure_pipeline.{where}", broken)
    monkeypatch.setattr(cli, "app", lambda standalone_mode: release.verify(trusted).code)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == ExitCode.BUG
    assert "Traceback" not in capsys.readouterr().err


def test_cli_handler_passes_the_code_of_a_refusal(
    release: Release, trusted: LoadedPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage's own code reaches the shell: 11 here, 0 only for a PASS."""
    from secure_pipeline.cli import main as cli

    monkeypatch.setattr(cli, "app", lambda standalone_mode: release.verify(trusted).code)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == ExitCode.VERIFICATION
    release.run()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == ExitCode.PASS


def test_layout_that_is_none_is_a_usage_error(
    tmp_path: Path, release: Release, trusted: LoadedPolicy
) -> None:
    """A directory that is no layout is said so, with what to give instead."""
    with pytest.raises(UsageError, match="not an OCI layout"):
        release.verify(trusted, layout=tmp_path)


def test_image_that_is_not_in_the_layout_is_refused(
    release: Release, trusted: LoadedPolicy
) -> None:
    """Another digest than those in the layout refuses with 11 and is named."""
    release.run()
    absent = ImageReference(NAME, Digest("0" * 64))
    refused(release.verify(trusted, image=absent), ExitCode.VERIFICATION, "0" * 64)


# --- every byte ---------------------------------------------------------------------------


def flip(path: Path, offset: int, mask: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[offset % len(data)] ^= mask
    path.write_bytes(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, LoadedPolicy]:
    """A release that verifies, shared by the tests that change one byte and put it back."""
    directory = tmp_path_factory.mktemp("whole")
    release = Release(directory / "image")
    release.run()
    chosen = policy(directory / "policy")
    passed(release.verify(chosen))
    return release, chosen


@given(st.data())
@settings(max_examples=150)
def test_any_byte_of_any_blob_flipped_is_never_a_pass(
    whole: tuple[Release, LoadedPolicy], data: st.DataObject
) -> None:
    """One bit changed anywhere in the blobs of image or evidence refuses with 11."""
    release, chosen = whole
    blobs = sorted((release.path / "blobs/sha256").iterdir())
    path = data.draw(st.sampled_from(blobs))
    original = path.read_bytes()
    try:
        flip(path, data.draw(st.integers(0, len(original) - 1)), 1 << data.draw(st.integers(0, 7)))
        result = release.verify(chosen)
        assert (result.verdict, result.code) == (Verdict.FAIL, ExitCode.VERIFICATION)
    finally:
        path.write_bytes(original)


def test_any_blob_removed_or_cut_is_never_a_pass(whole: tuple[Release, LoadedPolicy]) -> None:
    """Each blob in turn removed, emptied, cut or lengthened refuses with 11."""
    release, chosen = whole
    for path in sorted((release.path / "blobs/sha256").iterdir()):
        original = path.read_bytes()
        for content in (None, b"", original[:-1], original + b" "):
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            assert release.verify(chosen).code is ExitCode.VERIFICATION, path
            path.write_bytes(original)
    passed(release.verify(chosen))


@given(st.sets(st.integers(0, 7), max_size=7), st.booleans())
def test_no_part_of_a_run_passes(
    tmp_path_factory: pytest.TempPathFactory, kept: set[int], sealed: bool
) -> None:
    """Of all subsets of a run's statements with or without its seal, only the whole passes."""
    directory = tmp_path_factory.mktemp("part")
    release = Release(directory / "image")
    names = list(stage_evidence())
    missing = [name for number, name in enumerate(names) if number not in kept]
    release.run(without=missing, sealed=sealed)
    result = release.verify(policy(directory / "policy"))
    assert (result.code is ExitCode.PASS) == (sealed and not missing)
    shutil.rmtree(directory)


def statement(**members: Any) -> bytes:
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [],
        "predicateType": "https://example.org/x",
        "predicate": {},
    }
    return json.dumps(document | members, separators=(",", ":")).encode()


def test_verifying_writes_nothing(release: Release, trusted: LoadedPolicy) -> None:
    """The layout is the same, file by file, before and after."""
    release.run()
    before = snapshot(release.path)
    passed(release.verify(trusted))
    assert snapshot(release.path) == before


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
