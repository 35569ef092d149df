"""``resign``: the same statements under a new key; no forged quorum, nothing laundered."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fakes.evidence import NAME, NOON, signer
from fakes.release import FixedClock, Release, passed, policy, refused, two_keys
from secure_pipeline.attestations.attachments import collect
from secure_pipeline.errors import ExitCode, PolicyDenied, UsageError, VerificationFailed
from secure_pipeline.events import ignore
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.document import LoadedPolicy, load
from secure_pipeline.ports import Signer
from secure_pipeline.stages.resign import Resigned, plan_resign, resign, without
from secure_pipeline.stages.verify import VerifyInputs

DAY = timedelta(days=1)
NEW = signer(1)


def again(
    release: Release, trusted: LoadedPolicy, key: Signer = NEW, old: str | None = None,
    now: datetime = NOON,
) -> Resigned:  # fmt: skip
    """Plan and do it."""
    layout = Layout.open(release.path)
    inputs = VerifyInputs(layout, ImageReference(NAME, release.image.digest), trusted)
    plan = plan_resign(inputs, key.public_key_der, old, now)
    return resign(plan, inputs, layout, key, FixedClock(now), ignore)


def only_second(tmp_path: Path) -> LoadedPolicy:
    """A policy that has never heard of the first key."""
    return policy(tmp_path / "only", key=NEW)


def test_a_policy_with_the_new_key_alone_accepts_it(tmp_path: Path, release: Release) -> None:
    """Every statement and the seal are signed by the new key, in both layouts; payloads stay."""
    payloads = release.run()
    done = again(release, two_keys(tmp_path / "policy"))
    assert (done.old, done.new, done.statements, done.signed) == ("release", "second", 8, 8)
    assert (done.published.bundles, done.published.att) == (8, 8)
    passed(done.after)
    passed(release.verify(only_second(tmp_path)))
    found = collect(release.layout, release.image.digest)
    assert {item.envelope.payload for item in found} == set(payloads)
    assert len(found) == 16


def test_the_old_key_may_go_out_of_trust_afterwards(tmp_path: Path, release: Release) -> None:
    """With a last day for the old key, evidence of the new one still passes later."""
    release.run()
    both = two_keys(tmp_path / "policy")
    again(release, both)
    text = both.source.read_text().replace(
        "release.pub, algorithm: ecdsa-p256-sha256",
        "release.pub, algorithm: ecdsa-p256-sha256, not-after: 2026-03-01",
    )
    both.source.write_text(text)
    passed(release.verify(load(both.source), NOON + DAY))


def test_a_second_time_signs_nothing(tmp_path: Path, release: Release) -> None:
    """What is signed already is not signed again; what is missing in one layout is added."""
    release.run()
    trusted = two_keys(tmp_path / "policy")
    first = again(release, trusted)
    second = again(release, trusted)
    assert (first.signed, second.signed, second.statements) == (8, 0, 8)
    assert (second.published.bundles, second.published.att) == (0, 0)
    passed(second.after)


def test_another_partys_statement_gets_no_second_signature(
    tmp_path: Path, release: Release
) -> None:
    """Where two keys have signed, the one to replace has to be named: a quorum is not forged."""
    third = signer(2)
    release.run("run-1")
    release.run("run-2", key=third, time=NOON + timedelta(minutes=1))
    (tmp_path / "policy").mkdir()
    trusted = two_keys(tmp_path / "policy")
    pem = (tmp_path / "policy/release.pub").read_bytes()
    other = policy(tmp_path / "third", key=third)
    (tmp_path / "policy/third.pub").write_bytes((other.source.parent / "release.pub").read_bytes())
    assert pem != (tmp_path / "policy/third.pub").read_bytes()
    trusted.source.write_text(
        trusted.source.read_text().replace(
            "keys: [",
            "keys: [{id: third, public-key: third.pub, algorithm: ecdsa-p256-sha256}, ",
        )
    )
    trusted = load(trusted.source)
    with pytest.raises(UsageError, match="2 keys have signed: third, release") as caught:
        again(release, trusted)
    assert caught.value.hint
    assert caught.value.hint.startswith("--old third")
    assert again(release, trusted, old="release").statements == 8
    found = collect(release.layout, release.image.digest)
    assert len(found) == 8 + 8 + 8
    for name in ("nobody", "second"):
        with pytest.raises(UsageError, match="is none of the policy's other keys"):
            again(release, trusted, old=name)


def test_a_key_that_the_policy_does_not_know_signs_nothing(
    tmp_path: Path, release: Release, trusted: LoadedPolicy
) -> None:
    """The new key has to be in the policy first."""
    release.run()
    before = release.layout.manifests()
    with pytest.raises(PolicyDenied, match="none of the policy's keys"):
        again(release, trusted)
    assert Layout.open(release.path).manifests() == before


def test_what_a_lapsed_key_signed_is_not_laundered(tmp_path: Path, release: Release) -> None:
    """After its last day nobody can tell the owner's statements from a thief's: refused."""
    release.run()
    trusted = two_keys(
        tmp_path / "policy",
        **{"release.pub, algorithm: ecdsa-p256-sha256":
           "release.pub, algorithm: ecdsa-p256-sha256, not-after: 2026-03-01"},
    )  # fmt: skip
    with pytest.raises(PolicyDenied, match="outside the window of key 'release'"):
        again(release, trusted, now=NOON + DAY)
    assert again(release, trusted).signed == 8


def test_a_new_key_that_begins_too_late_is_refused_before_signing(
    tmp_path: Path, release: Release
) -> None:
    """Statements keep their time: a not-before of today would refuse yesterday's evidence."""
    release.run(time=NOON - DAY)
    trusted = two_keys(
        tmp_path / "policy",
        **{"second.pub, algorithm: ecdsa-p256-sha256":
           "second.pub, algorithm: ecdsa-p256-sha256, not-before: 2026-03-01"},
    )  # fmt: skip
    with pytest.raises(PolicyDenied, match=r"made at 2026-02-28T.* when key 'second'") as caught:
        again(release, trusted)
    assert caught.value.hint == "the policy's not-before and not-after of 'second' decide"
    assert len(collect(release.layout, release.image.digest)) == 8


def test_a_quorum_that_would_be_lost_is_told_before_signing(
    tmp_path: Path, release: Release
) -> None:
    """Two of two keys cannot become one: nothing is signed."""
    payloads = release.run()
    release.attach(payloads, NEW)
    trusted = two_keys(
        tmp_path / "policy",
        **{"name: analyze}": "name: analyze, keys: [release, second], quorum: 2}"},
    )
    passed(release.verify(trusted))
    with pytest.raises(PolicyDenied, match="without key 'release' the policy could not be met"):
        again(release, trusted)


def test_names_of_the_old_key_become_the_new_one(tmp_path: Path) -> None:
    """Lists of who may sign or seal name the new key instead."""
    trusted = two_keys(tmp_path / "policy", **{"name: analyze}": "name: analyze, keys: [release]}"})
    sealed = replace(trusted.policy.seal, keys=("release", "second"))
    changed = without(replace(trusted, policy=replace(trusted.policy, seal=sealed)), "release",
                      "second").policy  # fmt: skip
    assert [key.id for key in changed.keys] == ["second"]
    assert changed.require[0].keys == ("second",)
    assert changed.require[1].keys is None
    assert changed.seal.keys == ("second",)


def test_sealed_evidence_that_was_cut_does_not_pass_without_the_old_key(
    tmp_path: Path, release: Release
) -> None:
    """Signing again adds nothing to an incomplete set: the last word is a verification."""
    release.run(without=["test"])
    done = again(release, two_keys(tmp_path / "policy"))
    refused(done.after, ExitCode.VERIFICATION)


def test_a_statement_about_another_image_is_refused(tmp_path: Path, release: Release) -> None:
    """A genuine envelope of the old key that was moved here gets no new signature."""
    other = Release(tmp_path / "other", b"other\n")
    other.run()
    release.run()
    release.smuggle(collect(other.layout, other.image.digest)[0].envelope.raw)
    with pytest.raises(VerificationFailed):
        again(release, two_keys(tmp_path / "policy"))
