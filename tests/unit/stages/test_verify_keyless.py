"""``verify`` of what identities signed, with certificates instead of keys."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fakes.evidence import NOON, signer
from fakes.foreign import (
    SIGN,
    SLSA_V1,
    Foreign,
    open_policy,
    provenance,
    simple_signing,
)
from fakes.release import Release, passed, policy, refused, rules
from fakes.virtualsigstore import DAY, IDENTITY, ISSUER, Faults, VirtualSigstore
from secure_pipeline.adapters.sigstore import SigstoreVerifier
from secure_pipeline.attestations import dsse
from secure_pipeline.attestations.legacy import CERTIFICATE, LOG_ENTRY
from secure_pipeline.errors import ExitCode, Inconclusive, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.policy.document import LoadedPolicy, load
from secure_pipeline.policy.trust import OperatorIdentity
from secure_pipeline.ports import Certified

CI = f"{{id: ci, issuer: '{ISSUER}', identity: '{IDENTITY}'}}"


@cache
def ours() -> VirtualSigstore:
    return VirtualSigstore(NOON)


@cache
def stranger() -> VirtualSigstore:
    return VirtualSigstore(NOON)


@pytest.fixture
def foreign(tmp_path: Path) -> Foreign:
    return Foreign(tmp_path / "image")


def keyless(directory: Path, identities: str = f"[{CI}]", **more: Any) -> LoadedPolicy:
    """A policy that trusts identities and no key."""
    values: dict[str, Any] = {"keys": False, "root": ours().trusted_root(), **more}
    return open_policy(directory, identities=identities, **values)


def test_a_policy_with_identities_and_no_key_is_fine(tmp_path: Path, foreign: Foreign) -> None:
    """A bundle by the trusted identity passes; the policy rule names it."""
    foreign.put_bundle(ours().bundle(foreign.statement()))
    result = foreign.verify(keyless(tmp_path / "p"))
    passed(result)
    assert "trusted identities: ci" in str(result.figures["decision"])


def test_a_policy_that_trusts_nobody_is_denied(tmp_path: Path, foreign: Foreign) -> None:
    """Neither keys nor identities: nothing could be proven."""
    foreign.put_bundle(ours().bundle(foreign.statement()))
    refused(
        foreign.verify(keyless(tmp_path / "p", "[]")), ExitCode.DENIED, "no key and no identity"
    )


def test_an_identity_pattern_covers_the_whole_identity(tmp_path: Path, foreign: Foreign) -> None:
    """A pattern admits what it matches from end to end and nothing longer."""
    pattern = f"[{{id: ci, issuer: '{ISSUER}', identity-pattern: 'https://ci\\.invalid/team/.*'}}]"
    chosen = keyless(tmp_path / "p", pattern)
    foreign.put_bundle(ours().bundle(foreign.statement()))
    passed(foreign.verify(chosen))
    other = Foreign(tmp_path / "other")
    other.put_bundle(ours().bundle(other.statement(), f"https://evil.invalid/?x={IDENTITY}"))
    refused(other.verify(chosen), ExitCode.VERIFICATION, "no statement is signed")


@pytest.mark.parametrize(
    ("identity", "issuer"),
    [
        (IDENTITY + "x", ISSUER),
        (IDENTITY, ISSUER + ".evil.invalid"),
        ("someone@team.invalid", ISSUER),
    ],
)
def test_cli_07_other_identities_are_no_evidence(
    tmp_path: Path, foreign: Foreign, identity: str, issuer: str
) -> None:
    """Well-signed by somebody else: counted aloud, neither pass nor block."""
    chosen = keyless(tmp_path / "p")
    foreign.put_bundle(ours().bundle(foreign.statement(), identity, issuer))
    refused(foreign.verify(chosen), ExitCode.VERIFICATION, "1 attachments by unknown keys")
    foreign.put_bundle(ours().bundle(foreign.statement()))
    result = foreign.verify(chosen)
    passed(result)
    assert result.figures["untrusted"] == 1


@pytest.mark.parametrize(
    "faults",
    [
        Faults(entry_of=b"other"),
        Faults(proof=False),
        Faults(checkpoint="\n\n"),
        Faults(signed_after=timedelta(minutes=11)),
        Faults(promise=False, stamp_of=b"x"),
        Faults(signature=True),
        Faults(sct=False),
    ],
    ids=["sig-16", "sig-17", "sig-17-checkpoint", "sig-18", "sig-20", "signature", "sct"],
)
def test_sig_16_17_18_20_a_false_claim_of_a_trusted_identity_refuses(
    tmp_path: Path, foreign: Foreign, faults: Faults
) -> None:
    """Even beside a good one: who claims a trusted identity and cannot prove it is forging."""
    foreign.put_bundle(ours().bundle(foreign.statement()))
    foreign.put_bundle(ours().bundle(foreign.statement(), faults=faults))
    result = foreign.verify(keyless(tmp_path / "p"))
    refused(result, ExitCode.VERIFICATION, "signature:", "claims identity 'ci'")


def test_sig_23_a_certificate_of_another_root_refuses(tmp_path: Path, foreign: Foreign) -> None:
    """A whole Sigstore of the attacker's own does not help."""
    foreign.put_bundle(stranger().bundle(foreign.statement()))
    refused(foreign.verify(keyless(tmp_path / "p")), ExitCode.VERIFICATION, "claims identity 'ci'")


@pytest.mark.parametrize("version", ["+json;version=0.1", "+json;version=0.2", "+json;version=0.3"])
def test_older_bundles_of_identities_are_read(
    tmp_path: Path, foreign: Foreign, version: str
) -> None:
    """Each media type that the field has written; a chain holds the certificate below v0.3."""
    data = ours().bundle(foreign.statement(), version=version)
    if version.endswith("0.3"):
        data = ours().bundle(foreign.statement()).replace(b".v0.3+json", version.encode())
    foreign.put_bundle(data, f"application/vnd.dev.sigstore.bundle{version}")
    passed(foreign.verify(keyless(tmp_path / "p")))


@pytest.mark.parametrize("faults", [Faults(), Faults(stamped=True)], ids=["set", "stamped"])
def test_layers_of_cosign_2_with_certificates_are_read(
    tmp_path: Path, foreign: Foreign, faults: Faults
) -> None:
    """Certificate, promise and time-stamp in annotations prove the signer as a bundle does."""
    foreign.put_att(ours().attested(foreign.statement(), faults=faults))
    passed(foreign.verify(keyless(tmp_path / "p")))


def test_image_signatures_of_cosign_2_with_certificates_are_read(
    tmp_path: Path, foreign: Foreign
) -> None:
    """The .sig layer of an identity meets a requirement for the image's signature."""
    require = f"[{{predicate: '{SIGN}', keys: [ci], max-age: 1h}}]"
    chosen = keyless(tmp_path / "p", require=require, builders="[]")
    payload = simple_signing(foreign.image.digest)
    foreign.put_sig((payload, ours().signed_message(payload)))
    passed(foreign.verify(chosen))


@pytest.mark.parametrize(
    "change",
    [
        {CERTIFICATE: "no PEM"},
        {CERTIFICATE: ""},
        {LOG_ENTRY: "{"},
        {LOG_ENTRY: "{}"},
        {LOG_ENTRY: '{"SignedEntryTimestamp":"AAAA","Payload":{"body":"%%"}}'},
    ],
)
def test_sig_26_malformed_annotations_refuse(
    tmp_path: Path, foreign: Foreign, change: dict[str, str]
) -> None:
    """What cannot be read beside an image is never passed over."""
    envelope, annotations = ours().attested(foreign.statement())
    foreign.put_att((envelope, annotations | change))
    refused(foreign.verify(keyless(tmp_path / "p")), ExitCode.VERIFICATION, "attachments:")


def test_sig_16_log_entry_of_another_layer_refuses(tmp_path: Path, foreign: Foreign) -> None:
    """A good entry moved from another signature of the same identity is found out."""
    envelope, annotations = ours().attested(foreign.statement())
    _, other = ours().attested(foreign.statement(others=[Digest("1" * 64)]))
    foreign.put_att((envelope, annotations | {LOG_ENTRY: other[LOG_ENTRY]}))
    result = foreign.verify(keyless(tmp_path / "p"))
    refused(result, ExitCode.VERIFICATION, "claims identity 'ci'", "log entry")


def test_sig_04_a_trusted_identitys_statement_about_another_image_refuses(
    tmp_path: Path, foreign: Foreign
) -> None:
    """Who signs is one thing, about what another."""
    foreign.put_bundle(ours().bundle(foreign.statement()))
    foreign.put_bundle(ours().bundle(foreign.statement(subjects=[Digest("1" * 64)])))
    refused(foreign.verify(keyless(tmp_path / "p")), ExitCode.VERIFICATION, "subject:")


def test_sig_22_a_key_in_the_policy_is_not_an_identity(tmp_path: Path, foreign: Foreign) -> None:
    """A certificate is worth nothing to a policy of keys, and a key to one of identities."""
    foreign.put_bundle(ours().bundle(foreign.statement()))
    refused(foreign.verify(open_policy(tmp_path / "p")), ExitCode.VERIFICATION, "no statement is")
    other = Foreign(tmp_path / "other")
    other.put_key_bundle(other.statement())
    refused(other.verify(keyless(tmp_path / "q")), ExitCode.VERIFICATION, "no statement is signed")


def test_a_quorum_may_be_of_keys_and_identities(tmp_path: Path, foreign: Foreign) -> None:
    """One statement under a key and an identity has two signers; twice the identity is one."""
    require = f"[{{predicate: '{SLSA_V1}', quorum: 2, keys: [release, ci]}}]"
    chosen = keyless(tmp_path / "p", keys=True, require=require)
    payload = foreign.statement()
    foreign.put_bundle(ours().bundle(payload))
    foreign.put_bundle(ours().bundle(payload))
    refused(foreign.verify(chosen), ExitCode.DENIED, "1 of 2 keys")
    foreign.put_key_bundle(payload)
    passed(foreign.verify(chosen))


def test_one_certificate_counts_once_towards_a_quorum(tmp_path: Path, foreign: Foreign) -> None:
    """Two entries that fit one certificate do not make two signers of it."""
    wide = f"{{id: wide, issuer: '{ISSUER}', identity-pattern: 'https://ci\\.invalid/.*'}}"
    require = f"[{{predicate: '{SLSA_V1}', quorum: 2}}]"
    foreign.put_bundle(ours().bundle(foreign.statement()))
    chosen = keyless(tmp_path / "p", f"[{wide}, {CI}]", require=require)
    refused(foreign.verify(chosen), ExitCode.DENIED, "signed by ci: 1 of 2 keys")


def test_the_trusted_time_counts(tmp_path: Path, foreign: Foreign) -> None:
    """Evidence that dates itself later than its log entry is as old as the entry."""
    old = VirtualSigstore(NOON - 3 * DAY)
    predicate = provenance()
    predicate["runDetails"]["metadata"]["finishedOn"] = "2026-03-01T11:59:00Z"
    foreign.put_bundle(old.bundle(foreign.statement(SLSA_V1, predicate)))
    for age, code in (("4d", None), ("2d", ExitCode.DENIED)):
        require = f"[{{predicate: '{SLSA_V1}', max-age: {age}}}]"
        chosen = keyless(tmp_path / age, root=old.trusted_root(), require=require)
        result = foreign.verify(chosen)
        passed(result) if code is None else refused(result, code, "older than the policy's")


def test_a_log_ahead_of_the_clock_is_undetermined(tmp_path: Path, foreign: Foreign) -> None:
    """A signature that is logged in the future says that a clock is wrong."""
    ahead = VirtualSigstore(NOON + DAY)
    foreign.put_bundle(ahead.bundle(foreign.statement()))
    result = foreign.verify(keyless(tmp_path / "p", root=ahead.trusted_root()))
    refused(result, ExitCode.INCONCLUSIVE, "time:", "yet to come")


def test_an_identity_may_seal_a_run_of_ours(tmp_path: Path) -> None:
    """A run whose statements and seal are signed without a key passes in full."""
    release = Release(tmp_path / "image")
    payloads = release.run("run-9", key=signer(5))
    chosen = policy(tmp_path / "p", more=f"identities: [{CI}]\ntrust-root: root.json")
    (tmp_path / "p" / "root.json").write_bytes(ours().trusted_root())
    for payload in payloads:
        release.smuggle_layer(ours().bundle(payload))
    checker = SigstoreVerifier(ours().trusted_root(), "root.json", NOON)
    result = release.verify(load(chosen.source), identity_verifier=checker)
    passed(result)
    assert result.figures["run"] == "run-9"
    assert rules(result)["seal"] == "allow"


def test_the_operators_identity_is_trusted_as_given(tmp_path: Path, foreign: Foreign) -> None:
    """--certificate-identity stands beside the policy's keys; another one does not."""
    foreign.put_bundle(ours().bundle(foreign.statement()))
    chosen = open_policy(tmp_path / "p", root=ours().trusted_root())
    given = OperatorIdentity(IDENTITY, ISSUER)
    passed(foreign.verify(chosen, operator_identity=given))
    other = OperatorIdentity(IDENTITY + "x", ISSUER)
    refused(foreign.verify(chosen, operator_identity=other), ExitCode.VERIFICATION, "unknown keys")


def test_without_a_verifier_an_identity_proves_nothing(tmp_path: Path, foreign: Foreign) -> None:
    """A program that was put together without one cannot tell, and never passes."""
    foreign.put_bundle(ours().bundle(foreign.statement()))
    result = foreign.verify(keyless(tmp_path / "p"), identity_verifier=None)
    refused(result, ExitCode.VERIFICATION, "nothing here can check it")


def test_sig_15_too_many_certificates_are_undetermined(
    tmp_path: Path, foreign: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work is bounded before the first certificate is checked."""
    monkeypatch.setattr("secure_pipeline.policy.keyless.MAX_VERIFICATIONS", 1)
    foreign.put_bundle(ours().bundle(foreign.statement()))
    foreign.put_bundle(ours().bundle(foreign.statement()))
    refused(foreign.verify(keyless(tmp_path / "p")), ExitCode.INCONCLUSIVE, "the limit is 1")


class Fixed:
    """An identity verifier that answers or raises what it is told."""

    def __init__(self, answer: Certified | Exception) -> None:
        self.answer = answer

    def verify(self, bundle: bytes, payload: bytes) -> Certified:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Certified(IDENTITY, ISSUER, NOON), None),
        (Certified(IDENTITY + "x", ISSUER, NOON), ExitCode.VERIFICATION),
        (Certified("", "", NOON), ExitCode.VERIFICATION),
        (VerificationFailed("x"), ExitCode.VERIFICATION),
    ],
)
def test_cli_07_the_verified_identity_is_compared_again(
    tmp_path: Path, foreign: Foreign, answer: Certified | Exception, code: ExitCode | None
) -> None:
    """What the verifier certified counts, not what the certificate claimed before."""
    foreign.put_bundle(ours().bundle(foreign.statement()))
    result = foreign.verify(keyless(tmp_path / "p"), identity_verifier=Fixed(answer))
    passed(result) if code is None else refused(result, code, "claims identity 'ci'")


def test_what_cannot_be_checked_is_undetermined_beside_good_evidence(
    tmp_path: Path, foreign: Foreign
) -> None:
    """A log entry of a kind that is not read leaves the question open."""
    foreign.put_key_bundle(foreign.statement())
    foreign.put_bundle(ours().bundle(foreign.statement()))
    chosen = keyless(tmp_path / "p", keys=True)
    result = foreign.verify(chosen, identity_verifier=Fixed(Inconclusive("of kind intoto")))
    refused(result, ExitCode.INCONCLUSIVE, "of kind intoto")


def test_a_certificate_beside_several_signatures_is_refused(
    tmp_path: Path, foreign: Foreign
) -> None:
    """Which of them it would be about is not for us to guess."""
    envelope, annotations = ours().attested(foreign.statement())
    parsed = dsse.parse_envelope(envelope)
    twice = dsse.serialise(parsed.payload_type, parsed.payload, parsed.signatures * 2)
    foreign.put_att((twice, annotations))
    refused(foreign.verify(keyless(tmp_path / "p")), ExitCode.VERIFICATION, "several signatures")
