"""sign: what it refuses, what it leaves, and that being killed does not matter."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.evidence import (
    NAME,
    StepClock,
    evidence,
    make_image,
    public_key,
    sign_inputs,
    signer,
    stage_results,
)
from secure_pipeline import files
from secure_pipeline.attestations import predicates
from secure_pipeline.attestations.attachments import collect
from secure_pipeline.attestations.forms import att_tag
from secure_pipeline.attestations.seal import check_seal
from secure_pipeline.attestations.statement import Statement, parse_statement
from secure_pipeline.errors import ExitCode, VerificationFailed
from secure_pipeline.events import ignore
from secure_pipeline.keys.local import LocalSigner
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import Descriptor
from secure_pipeline.stages.result import Evidence, StageResult, Verdict
from secure_pipeline.stages.sign import SignInputs, sign

KILLED = 9


@pytest.fixture
def inputs(tmp_path: Path) -> SignInputs:
    signer()  # made before any fork, so that children share it
    return sign_inputs(tmp_path / "layout", make_image(tmp_path / "layout"))


def run(inputs: SignInputs, key: LocalSigner | None = None) -> StageResult:
    return sign(inputs, key or signer(), StepClock(), ignore)


def found(inputs: SignInputs) -> list[Statement]:
    """All statements beside the image, each authentic and about it."""
    statements = []
    for item in collect(Layout.open(inputs.layout), inputs.image.digest):
        assert public_key().signed(item.envelope)
        statement = parse_statement(item.envelope.payload)
        statement.require_subject(inputs.image.digest)
        statements.append(statement)
    return statements


def seals(inputs: SignInputs) -> list[Statement]:
    return [item for item in found(inputs) if item.predicate_type == predicates.SEAL]


def index(inputs: SignInputs) -> bytes:
    return (inputs.layout / "index.json").read_bytes()


def with_result(inputs: SignInputs, stage: str, **changes: Any) -> SignInputs:
    results = tuple(replace(r, **changes) if r.stage == stage else r for r in inputs.results)
    return replace(inputs, results=results)


def test_every_piece_of_evidence_is_signed_and_sealed(inputs: SignInputs) -> None:
    """One statement per piece of evidence, of the run, about the image; the seal holds."""
    result = run(inputs)
    assert result.verdict is Verdict.PASS
    assert result.figures["statements"] == 7
    assert result.figures["key"] == public_key().hint
    (seal,) = seals(inputs)
    assert result.figures["seal"] == str(Digest.of(seal.payload))
    check_seal(seal, found(inputs))
    kinds = Counter(item.predicate_type for item in found(inputs))
    assert kinds == Counter([*evidence(), predicates.TEST_RESULT, predicates.SEAL])
    for statement in found(inputs):
        run_of = predicates.read_run(statement.predicate_type, statement.predicate)
        assert run_of == inputs.context
        assert [item.name for item in statement.subjects] == [NAME]


def test_reports_are_complete_and_exact(inputs: SignInputs) -> None:
    """The envelopes come as JSON Lines, each statement as it was signed and sealed."""
    lines, *statements = run(inputs).reports
    assert lines.name == "evidence.intoto.jsonl"
    envelopes = [json.loads(line) for line in lines.content.splitlines()]
    assert len(envelopes) == len(statements) == 8
    types = {json.loads(item.content)["predicateType"] for item in statements}
    assert types == {*evidence(), predicates.SEAL}
    assert len({item.name for item in statements}) == 8
    assert str(Digest.of(statements[-1].content)) == run(inputs).figures["seal"]


def test_signing_again_changes_nothing(inputs: SignInputs) -> None:
    """A second signing of the same run reuses what is there, down to the byte."""
    first, before = run(inputs), index(inputs)
    again = run(inputs)
    assert index(inputs) == before
    assert again.figures == first.figures
    assert again.reports == first.reports


def test_another_run_is_sealed_beside_the_first(inputs: SignInputs) -> None:
    """The next run of the same image has its own statements and seal; both sets hold."""
    run(inputs)
    second = replace(inputs, context=replace(inputs.context, run_id="run-2"))
    assert run(second).verdict is Verdict.PASS
    assert len(seals(inputs)) == 2
    for seal in seals(inputs):
        check_seal(seal, found(inputs))


REFUSED: dict[str, tuple[Callable[[SignInputs], SignInputs], Verdict, ExitCode, str]] = {
    "a stage failed": (
        lambda i: with_result(i, "scan", verdict=Verdict.FAIL, reasons=("CVE",), summary="2 high"),
        Verdict.FAIL,
        ExitCode.FINDINGS,
        "scan is FAIL: 2 high",
    ),
    "a stage is inconclusive": (
        lambda i: with_result(i, "test", verdict=Verdict.INCONCLUSIVE, reasons=("no tests",)),
        Verdict.INCONCLUSIVE,
        ExitCode.INCONCLUSIVE,
        "test is INCONCLUSIVE",
    ),
    "a stage is missing": (
        lambda i: replace(i, results=i.results[1:]),
        Verdict.INCONCLUSIVE,
        ExitCode.INCONCLUSIVE,
        "analyze has no result",
    ),
    "no stage at all": (
        lambda i: replace(i, results=()),
        Verdict.INCONCLUSIVE,
        ExitCode.INCONCLUSIVE,
        "no result",
    ),
    "a stage twice": (
        lambda i: replace(i, results=(*i.results, i.results[0])),
        Verdict.INCONCLUSIVE,
        ExitCode.INCONCLUSIVE,
        "not exactly",
    ),
    "a stage without evidence": (
        lambda i: with_result(i, "analyze", evidence=()),
        Verdict.INCONCLUSIVE,
        ExitCode.INCONCLUSIVE,
        "analyze has no evidence",
    ),
    "another image was built": (
        lambda i: with_result(i, "build", figures={"digest": str(Digest.of(b"other"))}),
        Verdict.FAIL,
        ExitCode.VERIFICATION,
        str(Digest.of(b"other")),
    ),
    "another image was scanned": (
        lambda i: with_result(i, "scan", figures={"digest": str(Digest.of(b"other"))}),
        Verdict.FAIL,
        ExitCode.VERIFICATION,
        "scan is about",
    ),
    "the build names no image": (
        lambda i: with_result(i, "build", figures={}),
        Verdict.INCONCLUSIVE,
        ExitCode.INCONCLUSIVE,
        "which image",
    ),
    "a required type is missing": (
        lambda i: replace(i, required=(*i.required, "https://example.com/review/v1")),
        Verdict.INCONCLUSIVE,
        ExitCode.INCONCLUSIVE,
        "https://example.com/review/v1",
    ),
    "nothing is required": (
        lambda i: replace(i, required=(predicates.VSA,)),
        Verdict.INCONCLUSIVE,
        ExitCode.INCONCLUSIVE,
        "requires no evidence",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_proven_is_not_signed(inputs: SignInputs, case: str) -> None:
    """Failed, missing, empty or mixed results are refused, with nothing written."""
    change, verdict, code, words = REFUSED[case]
    before = index(inputs)
    result = run(change(inputs))
    assert (result.verdict, result.code) == (verdict, code)
    assert any(words in reason for reason in result.reasons)
    assert index(inputs) == before


def test_reg_02_an_altered_image_is_not_signed(inputs: SignInputs) -> None:
    """One altered byte in a layer stops the signing before anything is written."""
    layout = Layout.open(inputs.layout)
    image = layout.find(inputs.image.digest)
    layer = layout.read_manifest(image).layers[0]
    path = inputs.layout / "blobs" / "sha256" / layer.digest.hex
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    before = index(inputs)
    with pytest.raises(VerificationFailed, match="expected sha256:"):
        run(inputs)
    assert index(inputs) == before


class Broken(LocalSigner):
    """A signer that signs something else, as a faulty service would."""

    def __init__(self) -> None:
        vars(self).update(vars(signer()))

    def sign(self, message: bytes) -> bytes:
        return super().sign(message + b"!")


def test_a_faulty_signature_is_never_attached(inputs: SignInputs) -> None:
    """A signature that its own public key does not verify stops the signing."""
    before = index(inputs)
    with pytest.raises(VerificationFailed, match="own public key"):
        run(inputs, Broken())
    assert index(inputs) == before


def test_a_run_has_one_set_of_evidence(inputs: SignInputs) -> None:
    """Other results under the same run id are refused, sealed or not."""
    run(inputs)
    before = index(inputs)
    changed = with_result(
        inputs,
        "test",
        evidence=(Evidence(predicates.TEST_RESULT, {"result": "PASSED", "configuration": []}),),
    )
    with pytest.raises(VerificationFailed, match="other evidence"):
        run(changed)
    assert index(inputs) == before


def test_foreign_attachments_neither_hinder_nor_help(inputs: SignInputs) -> None:
    """What another key signed stays, and is not taken over into our set."""
    run(inputs, signer(1))
    result = run(inputs)
    assert result.figures["statements"] == 7
    own = [
        parse_statement(item.envelope.payload)
        for item in collect(Layout.open(inputs.layout), inputs.image.digest)
        if public_key().signed(item.envelope)
    ]
    assert len(own) == 8
    check_seal(next(i for i in own if i.predicate_type == predicates.SEAL), own)


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked process and return its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(moment: int, after: bool) -> None:
    """End this process, without cleaning up, at the given rename of a written file."""
    rename, count = os.replace, 0

    def replace_or_die(source: Any, target: Any) -> None:
        nonlocal count
        count += 1
        if count < moment:
            rename(source, target)
            return
        if after:
            rename(source, target)
        os._exit(KILLED)

    vars(files.os)["replace"] = replace_or_die


def small(inputs: SignInputs) -> SignInputs:
    """The same inputs with less evidence, so that every moment can be tried."""
    scan = (evidence()[predicates.VULNS],)
    return with_result(inputs, "scan", evidence=scan)


@pytest.mark.parametrize("after", [False, True], ids=["before rename", "after rename"])
def test_a_kill_at_any_write_converges(inputs: SignInputs, tmp_path: Path, after: bool) -> None:
    """Killed at every single write, the set is unsealed or whole, and the next run completes it."""
    chosen = small(inputs)
    pristine = tmp_path / "pristine"
    shutil.copytree(chosen.layout, pristine)
    moment, unsealed = 0, 0
    while True:
        moment += 1
        shutil.rmtree(chosen.layout)
        shutil.copytree(pristine, chosen.layout)

        def killed(moment: int = moment) -> None:
            kill_at(moment, after)
            run(chosen)

        code = in_child(killed)
        assert code in (0, KILLED)
        for seal in seals(chosen):
            check_seal(seal, found(chosen))
        unsealed += not seals(chosen)
        result = run(chosen)
        assert result.verdict is Verdict.PASS
        whole = found(chosen)
        assert len(whole) == 5
        check_seal(seals(chosen)[0], whole)
        tagged = Layout.open(chosen.layout).tagged(att_tag(chosen.image.digest))
        assert tagged
        assert len(Layout.open(chosen.layout).read_manifest(tagged).layers) == 5
        if code == 0:
            break
    assert moment > 15
    assert unsealed > 10


def test_sig_29_signers_at_once_lose_nothing(inputs: SignInputs) -> None:
    """Four processes that sign the image at the same time all find their statements there."""
    runs = [f"run-{number}" for number in range(4)]
    children = []
    for name in runs:
        mine = replace(small(inputs), context=replace(inputs.context, run_id=name))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if run(mine).verdict is Verdict.PASS else 2
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    statements = found(inputs)
    assert len(statements) == 4 * 5
    for seal in seals(inputs):
        check_seal(seal, statements)
    layout = Layout.open(inputs.layout)
    tagged = layout.tagged(att_tag(inputs.image.digest))
    assert tagged
    assert len(layout.read_manifest(tagged).layers) == 4 * 5
    listed = [item for item in layout.manifests() if item.artifact_type]
    assert len(listed) == len({item.digest for item in listed}) == 4 * 5


def test_an_image_in_an_index_is_signed_by_the_index(inputs: SignInputs) -> None:
    """For several platforms the subject is the index, and referrers point to it."""
    layout = Layout.open(inputs.layout)
    one = layout.find(inputs.image.digest)
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [one.to_json()],
    }
    data = json.dumps(document).encode()
    made = layout.write_blob(data, "application/vnd.oci.image.index.v1+json")
    layout.add_manifest(made)
    chosen = sign_inputs(inputs.layout, Descriptor(made.media_type, made.digest, made.size))
    assert run(chosen).verdict is Verdict.PASS
    check_seal(seals(chosen)[0], found(chosen))
    assert not collect(layout, one.digest)
    assert stage_results(str(made.digest))[2].figures["digest"] == str(made.digest)
