"""Quarantine of real signed evidence in a layout: who may, what counts, what stays whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fakes.evidence import NAME, NOON, run_context, signer
from fakes.release import BUILDER, FixedClock, Release, passed, policy, refused, rules, two_keys
from secure_pipeline.attestations import predicates
from secure_pipeline.attestations.publishing import Published, publish
from secure_pipeline.errors import ExitCode, PolicyDenied, UsageError, VerificationFailed
from secure_pipeline.events import ignore
from secure_pipeline.keys.verify import PublicKey
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.document import Algorithm, LoadedPolicy, load
from secure_pipeline.ports import Signer
from secure_pipeline.stages.quarantine import (
    Found,
    added,
    check_effect,
    check_key,
    look,
    released,
    signed_statements,
)
from secure_pipeline.stages.resign import plan_resign, resign
from secure_pipeline.stages.result import Evidence
from secure_pipeline.stages.verify import VerifyInputs

DAY = timedelta(days=1)
OTHER = signer(1)
RUN = run_context("run-1", builder_id=BUILDER)


def inputs(release: Release, trusted: LoadedPolicy) -> VerifyInputs:
    layout = Layout.open(release.path)
    return VerifyInputs(layout, ImageReference(NAME, release.image.digest), trusted)


def say(
    release: Release, items: Sequence[Evidence], key: Signer | None = None, bound: bool = True
) -> list[Digest]:
    """Sign and attach statements about the image; return their digests."""
    who = key or signer()
    image = ImageReference(NAME, release.image.digest)
    envelopes = signed_statements(image, items, RUN if bound else None, who)
    public = PublicKey("signer", Algorithm(who.algorithm), who.public_key_der)
    layout = Layout.open(release.path)
    made = publish(layout, layout.find(release.image.digest), envelopes, public, NOON)
    assert made == Published(len(items), len(items))
    return [Digest.of(envelope.payload) for envelope in envelopes]


def quarantine(release: Release, key: Signer | None = None, reason: str = "slow") -> Digest:
    (digest,) = say(release, [added(reason, "me", NOON)], key)
    return digest


def free(
    release: Release, trusted: LoadedPolicy, key: Signer | None = None, named: Sequence[str] = ()
) -> Found:
    found = look(inputs(release, trusted), NOON)
    made, _ = released(found, named, "repaired", "me", NOON)
    say(release, [made], key)
    return look(inputs(release, trusted), NOON)


def separate(tmp_path: Path, more: str = "") -> LoadedPolicy:
    """A policy of two keys, where ``release`` quarantines and ``second`` alone releases."""
    trusted = two_keys(tmp_path / "policy")
    text = "quarantine: {keys: [release], release-keys: [second]}\n"
    trusted.source.write_text(trusted.source.read_text() + text + more)
    return load(trusted.source)


@pytest.mark.parametrize("sealed", [True, False])
def test_a_quarantined_image_does_not_verify_until_it_is_released(
    tmp_path: Path, release: Release, sealed: bool
) -> None:
    """Sealed or not: 12 with cause and statement, then 0; the seal stays whole throughout."""
    trusted = policy(tmp_path / "p", more="" if sealed else "seal: {required: false}")
    release.run(sealed=sealed)
    passed(release.verify(trusted))
    first, second = quarantine(release), quarantine(release, reason="other")
    result = release.verify(trusted)
    refused(result, ExitCode.DENIED, "in quarantine, asked: ", "(and 1 more)")
    assert [name for name, outcome in rules(result).items() if outcome == "deny"] == ["quarantine"]
    found = free(release, trusted, named=[str(first)])
    assert [one.item.digest for one in found.open] == [str(second)]
    refused(release.verify(trusted), ExitCode.DENIED, str(second))
    found = free(release, trusted)
    assert (len(found.standings), found.open, found.code) == (2, (), ExitCode.PASS)
    passed(release.verify(trusted))


def test_another_quarantine_after_a_release_counts_again(
    release: Release, trusted: LoadedPolicy
) -> None:
    """A release is no pass for ever, not even for the same words a millisecond later."""
    release.run()
    quarantine(release)
    assert free(release, trusted).open == ()
    say(release, [added("slow", "me", NOON + timedelta(milliseconds=1))])
    refused(release.verify(trusted), ExitCode.DENIED, "in quarantine")


def test_a_quarantine_of_no_run_or_another_run_counts(
    release: Release, trusted: LoadedPolicy
) -> None:
    """The verdict is about the digest; which run is judged does not matter."""
    release.run("run-0", time=NOON - timedelta(hours=1))
    release.run("run-1")
    say(release, [added("slow", "me", NOON)], bound=False)
    for run_id in ("run-0", "run-1", None):
        refused(release.verify(trusted, run_id=run_id), ExitCode.DENIED, "in quarantine")


def test_strangers_change_nothing(release: Release, trusted: LoadedPolicy) -> None:
    """An unknown key neither keeps an image out nor lets it in."""
    release.run()
    quarantine(release, OTHER)
    result = release.verify(trusted)
    passed(result)
    assert result.figures["untrusted"] == 1
    assert look(inputs(release, trusted), NOON).standings == ()
    quarantine(release)
    free(release, trusted, OTHER)
    refused(release.verify(trusted), ExitCode.DENIED, "in quarantine")


def test_only_keys_that_may_count(tmp_path: Path, release: Release) -> None:
    """The key of the canary cannot release what it put in, nor the operator's quarantine."""
    trusted = separate(tmp_path)
    release.run()
    quarantine(release, OTHER)
    passed(release.verify(trusted))
    quarantine(release)
    free(release, trusted, signer())
    refused(release.verify(trusted), ExitCode.DENIED, "in quarantine")
    free(release, trusted, OTHER)
    passed(release.verify(trusted))


def test_who_may_sign_is_known_before_anything_is_signed(tmp_path: Path) -> None:
    """A key that verification would not count is refused: unknown, not listed, or lapsed."""
    trusted = separate(tmp_path)
    kinds = predicates.QUARANTINE, predicates.RELEASE
    first, second = signer().public_key_der, OTHER.public_key_der
    assert check_key(trusted, first, kinds[0], NOON) == "release"
    assert check_key(trusted, second, kinds[1], NOON) == "second"
    for der, kind, words in (
        (second, kinds[0], "'second' is not among quarantine.keys: release"),
        (first, kinds[1], "'release' is not among quarantine.release-keys: second"),
        (signer(2).public_key_der, kinds[0], "none of the policy's keys"),
    ):
        with pytest.raises(PolicyDenied, match=words):
            check_key(trusted, der, kind, NOON)
    lapsing = policy(tmp_path / "lapsing", window=", not-after: 2026-03-01")
    assert check_key(lapsing, first, kinds[1], NOON) == "release"
    assert check_key(lapsing, first, kinds[0], NOON + DAY) == "release"
    with pytest.raises(PolicyDenied, match="outside the window"):
        check_key(lapsing, first, kinds[1], NOON + DAY)


def lapsed(tmp_path: Path) -> LoadedPolicy:
    """The key ``release`` had its last day; ``second`` is trusted."""
    return two_keys(
        tmp_path / "policy",
        **{"release.pub, algorithm: ecdsa-p256-sha256":
           "release.pub, algorithm: ecdsa-p256-sha256, not-after: 2026-03-01"},
    )  # fmt: skip


def test_a_lapsed_key_keeps_out_and_cannot_let_in(tmp_path: Path, release: Release) -> None:
    """The day after: its quarantine still refuses, its release does not count."""
    trusted, later = lapsed(tmp_path), NOON + DAY
    release.run(key=OTHER, time=later)
    quarantine(release)
    refused(release.verify(trusted, later), ExitCode.DENIED, "in quarantine")
    free(release, trusted, signer())
    refused(release.verify(trusted, later), ExitCode.DENIED, "in quarantine")
    assert look(inputs(release, trusted), later).open
    free_later(release, trusted, later)
    passed(release.verify(trusted, later))


def free_later(release: Release, trusted: LoadedPolicy, now: datetime) -> None:
    found = look(inputs(release, trusted), now)
    made, _ = released(found, (), "repaired, after all", "me", now)
    say(release, [made], OTHER)


def test_another_keys_signature_takes_no_quarantine_away(tmp_path: Path, release: Release) -> None:
    """A key that may not quarantine signs a lapsed key's quarantine too: it still counts."""
    trusted, later = lapsed(tmp_path), NOON + DAY
    trusted.source.write_text(trusted.source.read_text() + "quarantine: {keys: [release]}\n")
    trusted = load(trusted.source)
    release.run(key=OTHER, time=later)
    for key in (signer(), OTHER):
        say(release, [added("slow", "me", NOON)], key)
    (one,) = look(inputs(release, trusted), later).standings
    assert (one.item.signers, one.item.everyone) == ({"second"}, {"release", "second"})
    refused(release.verify(trusted, later), ExitCode.DENIED, "in quarantine")


@pytest.mark.parametrize(
    ("predicate", "code"),
    [
        ({"reason": 7, "quarantinedAt": "2026-03-01T12:00:00Z"}, ExitCode.DENIED),
        ({}, ExitCode.DENIED),
        ({"quarantinedAt": "yesterday"}, ExitCode.VERIFICATION),
    ],
)
def test_a_malformed_quarantine_never_passes(
    release: Release, trusted: LoadedPolicy, predicate: dict[str, object], code: ExitCode
) -> None:
    """Nothing that a trusted key signed as a quarantine is overlooked."""
    release.run()
    (digest,) = say(release, [Evidence(predicates.QUARANTINE, predicate)])
    refused(release.verify(trusted), code)
    found = look(inputs(release, trusted), NOON)
    assert found.code is code
    if code is ExitCode.DENIED:
        assert free(release, trusted, named=[str(digest)]).code is ExitCode.PASS
        passed(release.verify(trusted))


def test_a_quarantine_of_another_image_is_proven_wrong(
    release: Release, trusted: LoadedPolicy, tmp_path: Path
) -> None:
    """A genuine statement that was moved here refuses; it is no quarantine of this image."""
    other = Release(tmp_path / "other", b"other\n")
    image = ImageReference(NAME, other.image.digest)
    (moved,) = signed_statements(image, [added("slow", "me", NOON)], None, signer())
    release.run()
    release.smuggle(moved.raw)
    refused(release.verify(trusted), ExitCode.VERIFICATION, "expected exactly the subject")


def test_looking_tells_what_could_not_be_read(release: Release, trusted: LoadedPolicy) -> None:
    """Without any evidence by a trusted key nothing is known, which is not 'none open'."""
    found = look(inputs(release, trusted), NOON)
    assert (found.standings, found.code) == ((), ExitCode.VERIFICATION)
    assert "no evidence is attached" in found.unread[0].why
    nobody = replace(trusted, policy=replace(trusted.policy, keys=()))
    found = look(inputs(release, nobody), NOON)
    assert found.code is ExitCode.DENIED
    assert "trusts no key" in found.unread[0].why
    release.run(without=["test"])
    found = look(inputs(release, trusted), NOON)
    assert (found.unread, found.code) == ((), ExitCode.PASS)


def test_an_image_without_evidence_can_be_kept_out(release: Release, trusted: LoadedPolicy) -> None:
    """Quarantine needs no run and no seal; afterwards it is what list shows."""
    quarantine(release)
    found = look(inputs(release, trusted), NOON)
    assert (len(found.open), found.run, found.code) == (1, None, ExitCode.DENIED)


def test_nothing_open_or_unknown_is_not_released(release: Release, trusted: LoadedPolicy) -> None:
    """A release that would name nothing, or something else, is refused before it is signed."""
    release.run()
    found = look(inputs(release, trusted), NOON)
    with pytest.raises(UsageError, match="no quarantine of this image is open") as caught:
        released(found, (), "repaired", "me", NOON)
    assert caught.value.hint == "secure-pipeline quarantine list"
    digest = quarantine(release)
    found = look(inputs(release, trusted), NOON)
    for named in ("sha256:" + "0" * 64, "nonsense", str(digest).upper()):
        with pytest.raises(UsageError, match="is no open quarantine") as caught:
            released(found, (named,), "repaired", "me", NOON)
        assert caught.value.hint == f"one of {digest}"
    assert released(found, (str(digest),), "repaired", "me", NOON)[1] == (digest,)


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "\x1b[31m", "\udcff", "x" * 2001])
def test_a_reason_is_a_line(release: Release, trusted: LoadedPolicy, reason: str) -> None:
    """What could not be read again is an error of the command line."""
    release.run()
    quarantine(release)
    with pytest.raises(UsageError, match="reason is not a line"):
        added(reason, "me", NOON)
    with pytest.raises(UsageError, match="reason is not a line"):
        released(look(inputs(release, trusted), NOON), (), reason, "me", NOON)


def test_what_did_not_take_effect_is_an_error(release: Release, trusted: LoadedPolicy) -> None:
    """Signed and attached is not enough: it has to be what verification sees."""
    release.run()
    digest = quarantine(release)
    found = look(inputs(release, trusted), NOON)
    check_effect(found, (), digest)
    with pytest.raises(VerificationFailed, match="is still open"):
        check_effect(found, (digest,), None)
    with pytest.raises(VerificationFailed, match="is not open"):
        check_effect(free(release, trusted), (), digest)


def test_a_rotated_key_takes_its_place_in_the_lists(tmp_path: Path, release: Release) -> None:
    """Signing again with a new key keeps old verdicts, and a policy without the old key works."""
    trusted = separate(tmp_path, "seal: {keys: [release]}\n")
    release.run()
    quarantine(release)
    free(release, trusted, OTHER)
    third = signer(2)
    directory = trusted.source.parent
    (directory / "third.pub").write_bytes(
        PublicKey("third", Algorithm(third.algorithm), third.public_key_der).pem
    )
    trusted.source.write_text(
        trusted.source.read_text().replace(
            "keys: [{", "keys: [{id: third, public-key: third.pub, algorithm: ecdsa-p256-sha256}, {"
        )
    )
    given = inputs(release, load(trusted.source))
    plan = plan_resign(given, third.public_key_der, "release", NOON)
    done = resign(plan, given, Layout.open(release.path), third, FixedClock(), ignore)
    passed(done.after)
