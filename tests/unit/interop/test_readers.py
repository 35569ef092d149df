"""Each reader's rules, on layouts; cosign's are held against cosign in the integration tests."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fakes.beside import Beside
from fakes.evidence import public_key, signer
from fakes.images import Layer, build_index
from fakes.scenes import KIND, SCENES
from secure_pipeline.attestations import bundle
from secure_pipeline.errors import ExitCode, Inconclusive, UsageError, VerificationFailed
from secure_pipeline.interop import sight
from secure_pipeline.interop.cosign import PROVENANCE
from secure_pipeline.interop.model import Answer, Verdict, every, some
from secure_pipeline.interop.readers import READERS, InteropReport, check_names, report
from secure_pipeline.interop.sight import Discovery, look
from secure_pipeline.keys.local import LocalSigner
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import MANIFEST_TYPE, Descriptor
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.oci.store import Source
from secure_pipeline.policy.document import Algorithm
from secure_pipeline.report.interop_text import interop_lines

YES, NO, UNKNOWN = Answer.YES, Answer.NO, Answer.UNKNOWN
ATT_LOG = "dev.sigstore.cosign/bundle"
KEYLESS = {"verificationMaterial": {"certificate": {"rawBytes": "AAAA"}}}


def judged(site: Beside, *, key: bool = True, source: Source | None = None) -> InteropReport:
    site.finish()
    found = look(source or site.layout, site.image)
    image = ImageReference("service", site.image)
    return report(image, found, public_key() if key else None, ())


def answers(made: InteropReport) -> dict[str, Answer]:
    return {verdict.reader: verdict.accepted for verdict in made.verdicts}


def of(made: InteropReport, reader: str) -> Verdict:
    return next(verdict for verdict in made.verdicts if verdict.reader == reader)


def test_both_forms_with_a_key(site: Beside) -> None:
    """Readers of keys accept what is there in both forms; those of certificates alone do not."""
    SCENES["both"].build(site)
    assert answers(judged(site)) == {
        "cosign-2": YES,
        "cosign-3": YES,
        "policy-controller": YES,
        "kyverno": YES,
        "kyverno-bundle": NO,
        "kyverno-ivp": NO,
        "conforma": YES,
        "gh": NO,
    }


def test_bundles_alone_are_not_found_by_readers_of_the_tag(site: Beside) -> None:
    """What is not in the .att tag is not found there, and the hint says what to do."""
    SCENES["bundle"].build(site)
    made = judged(site)
    for reader in ("policy-controller", "kyverno", "kyverno-ivp"):
        (finding,) = of(made, reader).findings
        assert (finding.found, finding.accepted) == (NO, NO)
        assert "sign" in (finding.hint or "")
    assert answers(made)["cosign-3"] is YES


def test_a_certificate_cannot_be_judged(site: Beside) -> None:
    """Of a keyless bundle every reader that verifies identities might accept: cannot tell."""
    envelope = site.envelope(site.statement(KIND))
    site.put_bundle(site.wrapped(envelope, **KEYLESS))
    made = judged(site)
    assert "--certificate-identity NAME" in of(made, "cosign-3").needs
    assert "--insecure-ignore-tlog" not in of(made, "cosign-3").needs
    found = answers(made)
    for reader in ("cosign-2", "cosign-3", "conforma", "kyverno-bundle", "gh"):
        assert found[reader] is UNKNOWN, reader
    assert found["policy-controller"] is NO


def test_without_a_key_nothing_is_accepted(site: Beside) -> None:
    """No key, no proof: what would depend on a signature cannot be told, and the hint asks."""
    SCENES["both"].build(site)
    made = judged(site, key=False)
    assert {item for item in answers(made).values()} == {UNKNOWN, NO}
    assert "--key" in (of(made, "cosign-3").findings[0].hint or "")


def test_no_evidence_is_accepted_by_nobody(site: Beside) -> None:
    """An image with nothing beside it has no finding and is accepted by no reader."""
    made = judged(site)
    assert set(answers(made).values()) == {NO}
    assert made.code(["cosign-3"]) is ExitCode.VERIFICATION
    assert "  there is no evidence beside the image" in interop_lines(made, [])


@pytest.mark.parametrize(
    ("required", "key", "code"),
    [
        ([], False, ExitCode.PASS),
        (["cosign-3", "kyverno"], True, ExitCode.PASS),
        (["cosign-3", "gh"], True, ExitCode.VERIFICATION),
        (["cosign-3"], False, ExitCode.INCONCLUSIVE),
        (["cosign-3", "gh"], False, ExitCode.VERIFICATION),
    ],
)
def test_the_exit_code_is_of_required_readers(
    site: Beside, required: list[str], key: bool, code: ExitCode
) -> None:
    """0 for a report or full acceptance, 11 if one would not accept, 14 if it cannot be told."""
    SCENES["both"].build(site)
    assert judged(site, key=key).code(required) is code


def test_an_unknown_reader_is_a_usage_error() -> None:
    """A name that is none is refused, with the names there are."""
    assert check_names(["gh", "gh", "kyverno"]) == ("gh", "kyverno")
    with pytest.raises(UsageError) as caught:
        check_names(["cosign-4"])
    assert all(name in (caught.value.hint or "") for name in READERS)


def test_kyverno_looks_at_no_more_than_fifty_referrers(site: Beside) -> None:
    """The 51st referrer of any kind makes its bundle mode refuse all."""
    for number in range(51):
        envelope = site.envelope(site.statement(KIND, _type="https://in-toto.io/Statement/v1"))
        site.put_bundle(site.wrapped(envelope, **KEYLESS) + b" " * number)
    made = judged(site)
    (finding,) = of(made, "kyverno-bundle").findings
    assert finding.accepted is NO
    assert "51 referrers" in finding.why


def test_one_bundle_that_cannot_be_read_ends_gh(site: Beside) -> None:
    """Readers that parse every listed bundle refuse all for one with an unknown member."""
    envelope = site.envelope(site.statement(KIND))
    site.put_bundle(site.wrapped(envelope, **KEYLESS))
    site.put_bundle(site.wrapped(envelope, extra=1))
    made = judged(site)
    for reader in ("gh", "kyverno-bundle"):
        (finding,) = of(made, reader).findings
        assert finding.accepted is NO
        assert "refuse them all" in finding.why


def test_an_attestation_with_a_log_entry_may_pass_kyvernos_policy(site: Beside) -> None:
    """With an entry of a log an ImageValidatingPolicy may accept: the entry is not checked."""
    envelope = site.envelope(site.statement(KIND))
    notes = {"dev.cosignproject.cosign/signature": "", "predicateType": KIND, ATT_LOG: "{}"}
    site.put_layer(envelope, KIND, annotations=notes)
    assert answers(judged(site))["kyverno-ivp"] is UNKNOWN


def test_conforma_wants_the_images_signature_or_a_bundle(site: Beside) -> None:
    """With the tag alone it needs an option more, unless there is a .sig; and it has a schema."""
    site.put_layer(site.envelope(site.statement(PROVENANCE)), PROVENANCE)
    made = judged(site)
    assert any("--skip-image-sig-check" in need for need in of(made, "conforma").needs)
    assert answers(made)["conforma"] is UNKNOWN
    manifest = json.dumps({**json.loads(_raw(site)), "annotations": {"x": "y"}}).encode()
    tag = f"sha256-{site.image.hex}.sig"
    site.layout.write_manifest(manifest, MANIFEST_TYPE, tag=tag, listed=False)
    needs = of(judged(site), "conforma").needs
    assert not any("--skip-image-sig-check" in need for need in needs)


def _raw(site: Beside) -> bytes:
    tagged = site.layout.tagged(f"sha256-{site.image.hex}.att")
    assert tagged
    return site.layout.read_manifest(tagged).raw


def test_conforma_knows_one_hash(tmp_path: Path) -> None:
    """A P-384 key, which signs SHA-384, is nothing for it, and a need for the others."""
    private = LocalSigner(ec.generate_private_key(ec.SECP384R1()), Algorithm.ECDSA_P384_SHA384)
    other = Beside.make(tmp_path / "other", private)
    SCENES["both"].build(other)
    other.finish()
    found = look(other.layout, other.image)
    made = report(ImageReference("service", other.image), found, private.public_key("k"), ())
    assert answers(made)["conforma"] is NO
    for reader in ("cosign-2", "cosign-3", "policy-controller", "kyverno"):
        assert answers(made)[reader] is YES
        assert any("sha384" in need for need in of(made, reader).needs)


@dataclass
class Listing:
    """A layout as a registry whose API lists only some of its referrers, or that has none."""

    layout: Layout
    page: tuple[Descriptor, ...] | None

    def __getattr__(self, name: str) -> object:
        return getattr(self.layout, name)

    def first_listed(self, subject: Digest) -> tuple[Descriptor, ...] | None:
        return self.page


def test_what_the_api_does_not_list_is_not_found(site: Beside) -> None:
    """Referrers under the fallback tag alone, in a registry with the API, are seen by nobody."""
    SCENES["bundle"].build(site)
    hidden = Listing(site.layout, ())
    assert isinstance(hidden, Discovery)
    made = judged(site, source=hidden)  # type: ignore[arg-type]
    assert set(answers(made).values()) == {NO}
    assert of(made, "cosign-3").findings[0].found is NO
    assert any("fallback tag" in note for note in made.notes)
    shown = judged(site, source=Listing(site.layout, None))  # type: ignore[arg-type]
    assert answers(shown)["cosign-3"] is YES
    assert not any("fallback tag" in note for note in shown.notes)


def test_an_index_is_noted(tmp_path: Path) -> None:
    """Readers that get a platform's digest find nothing of an index, which is said."""
    index = build_index(tmp_path / "layout", {"linux/amd64": [Layer({"a": b"b"})]})
    layout = Layout.open(tmp_path / "layout")
    made = report(ImageReference("service", index.digest), look(layout, index.digest), None, ())
    assert any("platform" in note for note in made.notes)


def test_too_many_referrers_are_no_answer(site: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the limit of referrers there is no report rather than one of a part."""
    monkeypatch.setattr(sight, "MAX_REFERRERS", 2)
    for number in range(3):
        site.put_bundle(site.wrapped(site.envelope(site.statement(KIND))) + b" " * number)
    with pytest.raises(Inconclusive, match="3 referrers"):
        look(site.layout, site.image)


def test_a_missing_image_is_an_error(site: Beside) -> None:
    """An image that is not there has no report."""
    with pytest.raises(VerificationFailed):
        look(site.layout, Digest.of(b"nothing"))


def test_evidence_that_cannot_be_read_is_no_acceptance(site: Beside) -> None:
    """A bundle whose bytes are gone cannot be told, and never accepted."""
    SCENES["bundle"].build(site)
    layer = next(
        layout_layer
        for item in site.layout.referrers(site.image)
        for layout_layer in site.layout.read_manifest(item).layers
    )
    (site.layout.path / "blobs/sha256" / layer.digest.hex).write_bytes(b"{}")
    made = judged(site)
    assert YES not in answers(made).values()


def test_a_referrer_that_may_be_a_bundle_leaves_it_open(site: Beside) -> None:
    """What we cannot read and cosign may take for a bundle hides the .att tag, or not."""
    SCENES[".att"].build(site)
    good = site.wrapped(site.envelope(site.statement(KIND)))
    site.put_bundle(good.replace(b'"payload": "', b'"payload": "\\n'))
    found = answers(judged(site))
    assert found["cosign-2"] is found["cosign-3"] is UNKNOWN
    assert found["policy-controller"] is YES


def test_the_text_and_the_document_say_the_same(site: Beside) -> None:
    """People see every reader with its rules, what it needs and each type; so does the document."""
    SCENES["both"].build(site)
    made = judged(site)
    lines = interop_lines(made, ["gh"])
    assert lines[0] == f"image service@{site.image}"
    assert "cosign-3: accepts (cosign 3.0.6)" in lines
    assert "  needs: --insecure-ignore-tlog" in lines
    row = f"  {KIND}  found, accepted: yes  in bundles; signed by release"
    assert row in lines
    assert lines[-1] == "required: gh rejects"
    document = made.to_json()
    assert [item["reader"] for item in document["readers"]] == list(READERS)
    assert document["readers"][1]["findings"] == [
        {
            "predicateType": KIND,
            "found": "yes",
            "accepted": "yes",
            "why": "in bundles; signed by release",
            "hint": None,
        }
    ]


def test_no_and_cannot_tell_differ() -> None:
    """One NO decides over all, one YES over some; nothing at all is NO."""
    assert every([YES, YES]) is YES
    assert every([YES, UNKNOWN]) is UNKNOWN
    assert every([UNKNOWN, NO]) is NO
    assert every([]) is NO
    assert some([NO, UNKNOWN]) is UNKNOWN
    assert some([NO, YES, UNKNOWN]) is YES
    assert some([]) is NO


def test_the_signer_of_the_tests_is_the_key(site: Beside) -> None:
    """The layout's evidence is by the key that the tests give: acceptance above means something."""
    assert site.signer is signer()
    assert public_key().signed(
        bundle.parse_bundle(site.wrapped(site.envelope(site.statement(KIND))))
    )
