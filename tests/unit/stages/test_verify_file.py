"""``verify file``: a file and the bundle beside it, offline, rule by rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.evidence import NAME, NOON, evidence, public_key, signer
from fakes.foreign import open_policy, provenance
from fakes.release import BUILDER, Release, built, flip, objected, passed, policy, rules, two_keys
from fakes.signedfile import CONTENT, IMAGE, WHEEL, SignedWheel, bound
from fakes.virtualsigstore import IDENTITY, ISSUER, VirtualSigstore
from secure_pipeline.adapters.sigstore import SigstoreVerifier
from secure_pipeline.attestations import bundle, dsse, predicates
from secure_pipeline.attestations.fileform import BUILD_TYPE
from secure_pipeline.errors import ExitCode
from secure_pipeline.oci.digest import Digest
from secure_pipeline.policy.document import Algorithm, LoadedPolicy, load
from secure_pipeline.stages import verifyfile
from secure_pipeline.stages.result import Evidence, Verdict

ONLY_PROVENANCE = f"[{{predicate: '{predicates.PROVENANCE}'}}]"


@pytest.fixture
def wheel(tmp_path: Path) -> SignedWheel:
    return SignedWheel.write(tmp_path / "files")


def test_a_signed_file_passes_and_says_where_it_comes_from(
    wheel: SignedWheel, trusted: LoadedPolicy
) -> None:
    """All rules allow; digest, name, run and image are said, by the policy of the images."""
    result = wheel.sign().verify(trusted)
    passed(result)
    assert result.figures["digest"] == str(Digest.of(CONTENT))
    assert result.figures["signedName"] == WHEEL
    assert (result.figures["run"], result.figures["image"]) == ("run-1", str(IMAGE))
    assert list(rules(result)) == [
        *("content", "attachments", "policy", "signature", "name", "origin", "required"),
        *("time", "source", "builder", "build-rules"),
    ]
    assert f"/opt/wheel/{WHEEL} of {IMAGE}" in str(result.figures["decision"])


def test_another_place_of_the_bundle_is_named(wheel: SignedWheel, trusted: LoadedPolicy) -> None:
    """The bundle beside the file is only the default."""
    other = wheel.sign().bundle.rename(wheel.path.parent / "elsewhere")
    objected(wheel.verify(trusted), ExitCode.VERIFICATION, "attachments", "missing", "--bundle")
    passed(wheel.verify(trusted, bundle=other))


def test_a_key_of_the_operator_is_enough(wheel: SignedWheel, tmp_path: Path) -> None:
    """--key stands beside the policy's keys."""
    chosen = policy(tmp_path / "p", key=signer(3))
    wheel.sign()
    objected(wheel.verify(chosen), ExitCode.VERIFICATION, "no statement is signed by a trusted key")
    given_key = ((public_key().pem, Algorithm.ECDSA_P256_SHA256),)
    passed(wheel.verify(chosen, operator_keys=given_key))


@pytest.mark.parametrize("place", [0, 400, -1])
def test_an_altered_file_is_objected(wheel: SignedWheel, trusted: LoadedPolicy, place: int) -> None:
    """One changed bit anywhere in the content."""
    wheel.sign()
    flip(wheel.path, place)
    objected(
        wheel.verify(trusted), ExitCode.VERIFICATION, "subject", "expected exactly the subject"
    )


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: b""])
def test_a_cut_or_longer_file_is_objected(
    wheel: SignedWheel, trusted: LoadedPolicy, change: Callable[[bytes], bytes]
) -> None:
    """The digest is of all bytes and no other."""
    wheel.sign().path.write_bytes(change(CONTENT))
    objected(wheel.verify(trusted), ExitCode.VERIFICATION, "subject")


def test_the_bundle_of_another_file_is_objected(
    wheel: SignedWheel, trusted: LoadedPolicy, tmp_path: Path
) -> None:
    """A sound bundle, of the same name and the same run."""
    other = SignedWheel.write(tmp_path / "other", b"another wheel").sign()
    wheel.bundle.write_bytes(other.bundle.read_bytes())
    objected(wheel.verify(trusted), ExitCode.VERIFICATION, "subject")


def test_another_key_is_objected(wheel: SignedWheel, trusted: LoadedPolicy) -> None:
    """Whoever signs, only keys that the policy knows count; a claimed hint is an alarm."""
    wheel.sign(key=signer(7))
    objected(
        wheel.verify(trusted), ExitCode.VERIFICATION, "no statement is signed by a trusted key"
    )
    document = json.loads(wheel.bundle.read_bytes())
    document["verificationMaterial"]["publicKey"]["hint"] = public_key().hint
    wheel.bundle.write_text(json.dumps(document))
    objected(wheel.verify(trusted), ExitCode.VERIFICATION, "is not its own")


def test_another_builder_is_objected(wheel: SignedWheel, trusted: LoadedPolicy) -> None:
    """Signed with the right key, but run elsewhere."""
    wheel.sign(wheel.evidence(builder_id="https://laptop.invalid/"))
    objected(wheel.verify(trusted), ExitCode.DENIED, "builder: ", "laptop.invalid", BUILDER)


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ({"commit": None, "uncommitted": True}, "not a git commit"),
        ({"uncommitted": True}, "differs"),
    ],
)
def test_the_source_rules_are_those_of_images(
    wheel: SignedWheel, trusted: LoadedPolicy, tmp_path: Path, context: dict[str, Any], words: str
) -> None:
    """A commit, whole, unless the policy takes less."""
    wheel.sign(wheel.evidence(**context))
    objected(wheel.verify(trusted), ExitCode.DENIED, "source: ", words)
    more = "source: {require-commit: false, allow-uncommitted: true}"
    passed(wheel.verify(policy(tmp_path / "open", more=more)))


def test_an_images_statements_are_no_files(
    wheel: SignedWheel, trusted: LoadedPolicy, tmp_path: Path
) -> None:
    """Replayed as it is, and even about the very bytes of the image's manifest."""
    release = Release(tmp_path / "image")
    payloads = release.run()
    envelope = dsse.sign_envelope(payloads[2], signer())
    wheel.bundle.write_bytes(bundle.make_bundle(envelope, signer().public_key_der))
    objected(wheel.verify(trusted), ExitCode.VERIFICATION, "subject")
    wheel.path.write_bytes(release.blob(release.image.digest).read_bytes())
    objected(wheel.verify(trusted), ExitCode.VERIFICATION, "origin", "about an image")
    for kind in (predicates.VULNS, predicates.TEST_RESULT, predicates.SPDX):
        wheel.sign(bound(evidence()[kind]))
        objected(wheel.verify(trusted), ExitCode.VERIFICATION, "no statement about a file")


def test_a_files_statement_is_no_images(tmp_path: Path, trusted: LoadedPolicy) -> None:
    """Even if the file's bytes are a manifest: no image gets provenance that way."""
    release = Release(tmp_path / "image")
    chosen = open_policy(tmp_path / "p", builders=f"['{BUILDER}']")
    (honest,) = release.payloads([built()], bound_context())
    release.attach([honest])
    assert release.verify(chosen).verdict is Verdict.PASS
    forged = Release(tmp_path / "other", b"never scanned\n")
    manifest = forged.blob(forged.image.digest).read_bytes()
    file = SignedWheel.write(tmp_path / "f", manifest)
    about = [{"name": NAME, "digest": {"sha256": forged.image.digest.hex}}]
    forged.attach([file.statement(subjects=about)])
    result = forged.verify(chosen)
    assert (result.code, "is about a file" in str(result.reasons)) == (ExitCode.VERIFICATION, True)
    forged.run()
    assert forged.verify(trusted).verdict is Verdict.FAIL


def bound_context() -> predicates.RunContext:
    return predicates.read_run(predicates.PROVENANCE, bound(built()).predicate)


SUBJECTS: list[tuple[list[dict[str, Any]], str]] = [
    ([], "no subject"),
    ([{"name": WHEEL, "digest": {}}], "no digest"),
    ([{"name": WHEEL, "digest": {"sha512": "a" * 128}}], "no sha256"),
    ([{"name": WHEEL, "digest": {"sha256": "A" * 64}}], "hex digits"),
    (
        [
            {"name": WHEEL, "digest": {"sha256": Digest.of(CONTENT).hex}},
            {"name": "other.whl", "digest": {"sha256": "b" * 64}},
        ],
        "expected exactly the subject",
    ),
    ([{"name": WHEEL, "digest": {"sha256": Digest.of(CONTENT).hex}}] * 2, "expected exactly"),
]


@pytest.mark.parametrize(("subjects", "words"), SUBJECTS)
def test_a_statement_of_ours_has_one_subject(
    wheel: SignedWheel, trusted: LoadedPolicy, subjects: list[dict[str, Any]], words: str
) -> None:
    """None, without a digest, of another algorithm, two, and the same twice."""
    wheel.sign(subjects=subjects)
    objected(wheel.verify(trusted), ExitCode.VERIFICATION, words)


def test_a_renamed_file_passes_and_is_told(wheel: SignedWheel, trusted: LoadedPolicy) -> None:
    """The digest decides; what it was called is said, because installers believe the name."""
    wheel.sign()
    renamed = wheel.path.rename(wheel.path.with_name("app-2.0-py3-none-any.whl"))
    result = wheel.verify(trusted, path=renamed, bundle=wheel.bundle)
    passed(result)
    assert result.figures["signedName"] == WHEEL
    (why,) = [rule["why"] for rule in result.figures["decision"] if rule["rule"] == "name"]
    assert f"signed as '{WHEEL}'; called 'app-2.0-py3-none-any.whl' here" == why


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "attachments"),
        (b"{}", "mediaType"),
        (b"[]", "not a JSON object"),
        (b'{"mediaType": "text/plain"}', "mediaType"),
        (b"\x00" * 100, "attachments"),
    ],
)
def test_what_is_no_bundle_is_objected(
    wheel: SignedWheel, trusted: LoadedPolicy, data: bytes, words: str
) -> None:
    """Empty, foreign and broken files."""
    wheel.bundle.write_bytes(data)
    objected(wheel.verify(trusted), ExitCode.VERIFICATION, words)


def test_a_missing_bundle_is_missing_evidence(wheel: SignedWheel, trusted: LoadedPolicy) -> None:
    """As an image without evidence: exit 11, and what to type."""
    objected(
        wheel.verify(trusted), ExitCode.VERIFICATION, "attachments", "missing", "--bundle FILE"
    )


def test_links_are_not_followed(wheel: SignedWheel, trusted: LoadedPolicy, tmp_path: Path) -> None:
    """Neither to the file nor to the bundle, also if one is put there while it runs."""
    wheel.sign()
    link = tmp_path / WHEEL
    link.symlink_to(wheel.path)
    objected(
        wheel.verify(trusted, path=link, bundle=wheel.bundle), ExitCode.VERIFICATION, "content"
    )
    other = tmp_path / "b.json"
    other.symlink_to(wheel.bundle)
    objected(wheel.verify(trusted, bundle=other), ExitCode.VERIFICATION, "attachments")


def test_over_a_limit_nothing_is_decided(
    wheel: SignedWheel, trusted: LoadedPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A huge bundle is not parsed, a huge file not read to its end: exit 14."""
    wheel.sign()
    with monkeypatch.context() as patch:
        patch.setattr(verifyfile, "MAX_FILE_BYTES", len(CONTENT) - 1)
        objected(wheel.verify(trusted), ExitCode.INCONCLUSIVE, "content", "larger than")
    with wheel.bundle.open("ab") as stream:
        stream.truncate(bundle.MAX_BUNDLE_BYTES + 1)
    objected(wheel.verify(trusted), ExitCode.INCONCLUSIVE, "attachments", "over")


def test_a_large_file_is_streamed(wheel: SignedWheel, trusted: LoadedPolicy) -> None:
    """Several chunks are one digest."""
    wheel.path.write_bytes(b"\xab" * (3 << 20))
    passed(wheel.sign().verify(trusted))


def test_only_what_the_policy_asks_for_counts(wheel: SignedWheel, tmp_path: Path) -> None:
    """A type that is not under 'require' is denied, and so is one of keys, quorum or age."""
    wheel.sign()
    bom = open_policy(tmp_path / "bom", require=f"[{{predicate: '{predicates.SPDX}'}}]")
    objected(wheel.verify(bom), ExitCode.DENIED, "required", "does not ask for")
    more = "max-age: 1h"
    aged = policy(tmp_path / "age", require=ONLY_PROVENANCE.replace("}", f", {more}}}"))
    passed(wheel.verify(aged))
    objected(wheel.verify(aged, NOON + timedelta(hours=2)), ExitCode.DENIED, "older than")
    two = two_keys(tmp_path / "two")
    kind = f"'{predicates.PROVENANCE}'"
    two.source.write_text(two.source.read_text().replace(kind, f"{kind}, quorum: 2"))
    objected(wheel.verify(load(two.source)), ExitCode.DENIED, "1 of 2 keys")


def test_a_key_outside_its_window_does_not_count(wheel: SignedWheel, tmp_path: Path) -> None:
    """As for images: made outside is wrong, verified outside is undetermined."""
    wheel.sign()
    before = policy(tmp_path / "a", window=", not-before: 2026-03-02")
    objected(wheel.verify(before), ExitCode.VERIFICATION, "key-window")
    ended = policy(tmp_path / "b", window=", not-after: 2026-03-02")
    passed(wheel.verify(ended))
    objected(wheel.verify(ended, NOON + timedelta(days=9)), ExitCode.INCONCLUSIVE, "key-window")


def test_a_statement_of_the_future_is_no_answer(wheel: SignedWheel, trusted: LoadedPolicy) -> None:
    """A wrong clock somewhere."""
    objected(
        wheel.sign().verify(trusted, NOON - timedelta(days=1)), ExitCode.INCONCLUSIVE, "time: "
    )


def test_a_relaxed_build_rule_needs_the_policy(wheel: SignedWheel, trusted: LoadedPolicy) -> None:
    """The gates of the build hold for what came out of it."""
    wheel.sign(wheel.evidence(built(unpinned_base="the registry is ours")))
    objected(wheel.verify(trusted), ExitCode.DENIED, "build-rules", "unpinned-base")


def test_an_empty_policy_refuses(wheel: SignedWheel, tmp_path: Path) -> None:
    """No key, no requirement or no builder: nothing can be proven."""
    wheel.sign()
    for number, chosen in enumerate(({"require": "[]"}, {"builders": "[]"}, {"keys": False})):
        empty = open_policy(tmp_path / str(number), **{"builders": f"['{BUILDER}']", **chosen})
        objected(wheel.verify(empty), ExitCode.DENIED, "policy: ")


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p["buildDefinition"].pop("externalParameters"),
        lambda p: p["buildDefinition"]["externalParameters"].pop("file"),
        lambda p: p["runDetails"].pop("byproducts"),
        lambda p: p["runDetails"]["byproducts"].append(p["runDetails"]["byproducts"][0]),
        lambda p: p["runDetails"]["byproducts"][0].pop("digest"),
        lambda p: p["buildDefinition"].update(buildType=BUILD_TYPE + "/"),
    ],
)
def test_half_an_origin_is_objected(
    wheel: SignedWheel, trusted: LoadedPolicy, change: Callable[[dict[str, Any]], object]
) -> None:
    """A statement of ours says path and image, once."""
    evidence = wheel.evidence()
    change(dict(evidence.predicate))
    wheel.sign(evidence)
    objected(wheel.verify(trusted), ExitCode.VERIFICATION, "origin")


def test_other_tools_statements_by_the_policys_rules(wheel: SignedWheel, tmp_path: Path) -> None:
    """Provenance by a builder of the policy passes, with several subjects too; others do not."""
    chosen = open_policy(tmp_path / "p")
    foreign = Evidence(predicates.PROVENANCE, provenance())
    passed(wheel.sign(foreign).verify(chosen))
    both = [
        {"name": "other.whl", "digest": {"sha256": "b" * 64}},
        {"name": "named.whl", "digest": {"sha256": wheel.digest.hex}},
    ]
    result = wheel.sign(foreign, subjects=both).verify(chosen)
    passed(result)
    assert (result.figures["signedName"], result.figures["image"]) == ("named.whl", None)
    objected(
        wheel.sign(foreign, subjects=both[:1]).verify(chosen), ExitCode.VERIFICATION, "subject"
    )
    strict = open_policy(tmp_path / "q", builders="['https://other.invalid/']")
    objected(wheel.sign(foreign).verify(strict), ExitCode.DENIED, "builder: ")
    bom = Evidence(predicates.CYCLONEDX, {"bomFormat": "CycloneDX"})
    asks = f"[{{predicate: '{predicates.CYCLONEDX}'}}]"
    named = open_policy(tmp_path / "r", require=asks)
    objected(wheel.sign(bom).verify(named), ExitCode.INCONCLUSIVE, "no provenance says who")
    passed(wheel.sign(bom).verify(open_policy(tmp_path / "s", require=asks, builders="[]")))


def test_identities_count_as_for_images(wheel: SignedWheel, tmp_path: Path) -> None:
    """A certificate of a trusted identity passes; one of another identity is no evidence."""
    ours = VirtualSigstore(NOON)
    entry = f"[{{id: ci, issuer: '{ISSUER}', identity: '{IDENTITY}'}}]"
    chosen = open_policy(
        tmp_path / "p",
        keys=False,
        identities=entry,
        root=ours.trusted_root(),
        builders=f"['{BUILDER}']",
    )
    verifier = SigstoreVerifier(ours.trusted_root(), "test", NOON)
    wheel.bundle.write_bytes(ours.bundle(wheel.statement()))
    passed(wheel.verify(chosen, identity_verifier=verifier))
    objected(wheel.verify(chosen), ExitCode.VERIFICATION, "nothing here can check it")
    wheel.bundle.write_bytes(ours.bundle(wheel.statement(), "https://evil.invalid/"))
    result = wheel.verify(chosen, identity_verifier=verifier)
    objected(result, ExitCode.VERIFICATION, "no statement is signed")
    wheel.bundle.write_bytes(ours.bundle(wheel.statement()))
    flip(wheel.path, 3)
    objected(wheel.verify(chosen, identity_verifier=verifier), ExitCode.VERIFICATION, "subject")


@given(st.integers(0, 1 << 30), st.integers(1, 255))
def test_one_changed_byte_of_the_bundle_never_says_more(
    tmp_path_factory: pytest.TempPathFactory, place: int, mask: int
) -> None:
    """Altered anywhere, a bundle is refused, or says exactly what was signed."""
    directory = tmp_path_factory.mktemp("flip")
    wheel = SignedWheel.write(directory / "files").sign()
    chosen = policy(directory / "policy")
    flip(wheel.bundle, place, mask)
    result = wheel.verify(chosen)
    if result.verdict is Verdict.PASS:
        assert (result.figures["run"], result.figures["image"]) == ("run-1", str(IMAGE))
    else:
        assert result.code in (ExitCode.VERIFICATION, ExitCode.DENIED, ExitCode.INCONCLUSIVE)
        assert result.reasons


BOUNDARIES = [
    "stages.verifyfile.trusted_signers",
    "stages.verifyfile.open_plain",
    "stages.verifyfile.decide_file",
    "policy.filerules.policy_rules",
    "policy.filerules.authenticate",
    "policy.filerules.read_origin",
    "policy.filerules.required_rules",
    "policy.filerules.time_rules",
    "policy.filerules.source_rule",
    "policy.filerules.builder_rules",
    "policy.filerules.gate_rules",
    "keys.verify.PublicKey.verify",
]


@pytest.mark.parametrize("where", BOUNDARIES)
def test_sig_26_a_crash_anywhere_is_never_a_pass(
    wheel: SignedWheel, trusted: LoadedPolicy, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """An exception injected at any function of the verifier comes out, or refuses."""
    wheel.sign()
    for fault in (RuntimeError("boom"), OSError(5, "I/O"), KeyError("x"), MemoryError()):

        def broken(*args: object, _fault: BaseException = fault, **kwargs: object) -> None:
            raise _fault

        with monkeypatch.context() as patch:
            patch.setattr(f"secure_pipeline.{where}", broken)
            try:
                code = wheel.verify(trusted).code
            except (RuntimeError, OSError, KeyError, MemoryError):
                continue
            assert code is not ExitCode.PASS
    passed(wheel.verify(trusted))


def test_verifying_writes_nothing(wheel: SignedWheel, trusted: LoadedPolicy) -> None:
    """The directory of the file is as before."""
    wheel.sign()
    before = sorted((p.name, p.read_bytes()) for p in wheel.path.parent.iterdir())
    passed(wheel.verify(trusted))
    assert sorted((p.name, p.read_bytes()) for p in wheel.path.parent.iterdir()) == before
