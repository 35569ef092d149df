"""``verify`` refuses evidence that is missing, added, mixed, swapped or altered."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from fakes.evidence import NAME, NOON, make_image, public_key, run_context, signer
from fakes.release import (
    BUILDER,
    Release,
    flip,
    passed,
    policy,
    refused,
    rules,
    stage_evidence,
    statement,
    suite,
    vulns,
)
from secure_pipeline.attestations import bundle, dsse, predicates
from secure_pipeline.attestations.statement import make_statement
from secure_pipeline.errors import ConfigError, ExitCode
from secure_pipeline.keys.local import LocalSigner
from secure_pipeline.oci.digest import Digest
from secure_pipeline.policy.document import Algorithm, LoadedPolicy, load
from secure_pipeline.stages.result import Evidence


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
    """A statement of our runs about this image and another one at once is not about this one."""
    release.run()
    (scan,) = release.payloads([vulns()], run_context("run-1", builder_id=BUILDER))
    document = json.loads(scan)
    document["subject"].append({"name": "a", "digest": {"sha256": "1" * 64}})
    release.smuggle(dsse.sign_envelope(json.dumps(document).encode(), signer()))
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
    with pytest.raises(ConfigError, match="one and the same key"):
        release.verify(load(two.source))
