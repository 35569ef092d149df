"""Signing as the ledger sees it, with the files of the image that get bundles of their own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.evidence import NAME, NOON, StepClock, public_key, sign_inputs, signer, stage_results
from fakes.foreign import open_policy
from fakes.images import Layer, build_image
from fakes.ledgers import ledger
from fakes.release import BUILDER, FixedClock, policy, stage_evidence
from fakes.virtualsigstore import IDENTITY, ISSUER, VirtualSigstore
from secure_pipeline import signing
from secure_pipeline.adapters.sigstore import SigstoreVerifier
from secure_pipeline.attestations import bundle, predicates
from secure_pipeline.attestations.attachments import collect
from secure_pipeline.attestations.fileform import read_origin
from secure_pipeline.attestations.statement import Statement, parse_statement
from secure_pipeline.audit import reader
from secure_pipeline.errors import FindingsOverGate, Unavailable, VerificationFailed
from secure_pipeline.events import ignore
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.imagefiles import take_files
from secure_pipeline.oci.layout import Layout
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.ports import AnySigner
from secure_pipeline.signing import Recording, sign_recorded
from secure_pipeline.stages import verify as verifying
from secure_pipeline.stages.result import StageResult, Verdict
from secure_pipeline.stages.sign import SignInputs
from secure_pipeline.stages.signfiles import are_there
from secure_pipeline.stages.verifyfile import VerifyFileInputs, verify_file

WHEEL, SOURCE = "app-1.0-py3-none-any.whl", "app-1.0.tar.gz"
CONTENT = {WHEEL: b"the wheel", SOURCE: b"the source"}
PATTERNS = ("/opt/dist/*",)
KILLED = 9


def inputs_of(
    directory: Path, content: dict[str, bytes] = CONTENT, run: str = "run-1"
) -> SignInputs:
    """What sign needs about an image with these files, which its build has named."""
    path = directory / "image"
    image = build_image(path, [Layer({f"opt/dist/{name}": data for name, data in content.items()})])
    files = take_files(Layout.open(path), image.digest, PATTERNS) if content else ()
    made = stage_evidence()
    chosen = {
        "analyze": [made["analyze"]],
        "test": [made["test"]],
        "build": [made["build"]],
        "scan": [made[name] for name in ("vulns", "cosign-vuln", "cyclonedx", "spdx")],
    }
    results = [
        replace(result, evidence=tuple(chosen[result.stage]))
        for result in stage_results(str(image.digest))
    ]
    results[2] = named(results[2], [file.to_json() for file in files])
    inputs = sign_inputs(path, image, run)
    context = replace(inputs.context, builder_id=BUILDER)
    return replace(inputs, results=tuple(results), context=context)


def named(result: StageResult, files: list[dict[str, Any]]) -> StageResult:
    return replace(result, figures={**result.figures, "files": files})


def run(inputs: SignInputs, directory: Path, key: AnySigner | None = None) -> StageResult:
    recording = Recording(ledger(directory), "vault-transit://transit/release", None)
    return sign_recorded(
        inputs, directory / "files", recording, lambda: key or signer(), StepClock(), ignore
    )


def names(directory: Path) -> set[str]:
    return {path.name for path in (directory / "files").iterdir()}


def statement_of(directory: Path, name: str) -> Statement:
    envelope = bundle.parse_bundle((directory / "files" / f"{name}.sigstore.json").read_bytes())
    assert public_key().signed(envelope)
    return parse_statement(envelope.payload)


@pytest.fixture
def inputs(tmp_path: Path) -> SignInputs:
    return inputs_of(tmp_path)


@pytest.fixture
def trusted(tmp_path: Path) -> LoadedPolicy:
    return policy(tmp_path / "policy")


def verified(path: Path, trusted: LoadedPolicy) -> Verdict:
    return verify_file(VerifyFileInputs(path, trusted), FixedClock(NOON), ignore).verdict


def test_each_file_gets_a_bundle_of_the_run(
    inputs: SignInputs, tmp_path: Path, trusted: LoadedPolicy
) -> None:
    """The content of the image, one statement each: same run, source, builder and dependencies."""
    result = run(inputs, tmp_path)
    assert result.verdict is Verdict.PASS
    assert result.summary.endswith("; 2 files signed")
    assert names(tmp_path) == {*CONTENT, *(f"{name}.sigstore.json" for name in CONTENT)}
    (built,) = inputs.results[2].evidence
    image = predicates.bind(
        built, inputs.context, inputs.results[2].started, inputs.results[2].finished
    )
    for name, content in CONTENT.items():
        assert (tmp_path / "files" / name).read_bytes() == content
        statement = statement_of(tmp_path, name)
        assert statement.predicate_type == predicates.PROVENANCE
        (subject,) = statement.subjects
        assert (subject.name, subject.digests) == (name, {"sha256": Digest.of(content).hex})
        ours = statement.predicate
        assert predicates.read_run(predicates.PROVENANCE, ours) == inputs.context
        dependencies = ours["buildDefinition"]["resolvedDependencies"]
        assert dependencies == image["buildDefinition"]["resolvedDependencies"]
        assert ours["runDetails"]["metadata"] == image["runDetails"]["metadata"]
        assert ours["runDetails"]["builder"] == image["runDetails"]["builder"]
        origin = read_origin(ours)
        assert (origin.path, origin.image) == (f"/opt/dist/{name}", str(inputs.image))
        assert verified(tmp_path / "files" / name, trusted) is Verdict.PASS


def test_the_images_set_is_whole_without_them(
    inputs: SignInputs, tmp_path: Path, trusted: LoadedPolicy
) -> None:
    """No statement about a file is attached to the image; its seal and its rules hold."""
    result = run(inputs, tmp_path)
    about = {
        subject.digests["sha256"]
        for item in collect(Layout.open(inputs.layout), inputs.image.digest)
        for subject in parse_statement(item.envelope.payload).subjects
    }
    assert about == {inputs.image.digest.hex}
    assert result.figures["statements"] == 7
    question = verifying.VerifyInputs(Layout.open(inputs.layout), inputs.image, trusted)
    answer = verifying.verify(question, FixedClock(NOON), ignore)
    assert answer.verdict is Verdict.PASS, answer.reasons


def test_every_signature_is_in_the_ledger_before_it_is_made(
    inputs: SignInputs, tmp_path: Path
) -> None:
    """Image, files and the ledger's head: an intent and a conclusion each, in this order."""
    run(inputs, tmp_path)
    entries = [stored.entry for stored in reader.entries(tmp_path / "ledger.jsonl")]
    intents = [item for item in entries if item.kind.value == "intent"]
    files = [f"{name}@{Digest.of(CONTENT[name])}" for name in (WHEEL, SOURCE)]
    assert [item.subject for item in intents] == [str(inputs.image), *sorted(files), "ledger"]
    assert {item.action for item in intents} == {"sign"}
    done = [item for item in entries if item.intent and item.outcome]
    assert [item.outcome.value for item in done if item.outcome] == ["done"] * 4
    assert [item.details["keyId"] for item in done[:3]] == [public_key().hint] * 3


def test_signing_again_changes_nothing(inputs: SignInputs, tmp_path: Path) -> None:
    """Bundles of this run that are there are kept, byte for byte."""
    first = run(inputs, tmp_path)
    before = {p.name: p.read_bytes() for p in (tmp_path / "files").iterdir()}
    assert run(inputs, tmp_path).figures == first.figures
    assert {p.name: p.read_bytes() for p in (tmp_path / "files").iterdir()} == before
    assert are_there(first, tmp_path / "files")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"{}",
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b'"sig":"ME', b'"sig":"AE'),
    ],
)
def test_a_bundle_that_is_not_this_runs_is_replaced(
    inputs: SignInputs, tmp_path: Path, trusted: LoadedPolicy, damage: Callable[[bytes], bytes]
) -> None:
    """Broken, altered, of another key or another run: signed anew, never taken over."""
    run(inputs, tmp_path)
    path = tmp_path / "files" / f"{WHEEL}.sigstore.json"
    path.write_bytes(damage(path.read_bytes()))
    run(inputs, tmp_path)
    assert verified(tmp_path / "files" / WHEEL, trusted) is Verdict.PASS
    run(inputs, tmp_path, signer(4))
    assert verified(tmp_path / "files" / WHEEL, trusted) is Verdict.FAIL
    run(replace(inputs, context=replace(inputs.context, run_id="run-2")), tmp_path)
    assert predicates.read_run(
        predicates.PROVENANCE, statement_of(tmp_path, WHEEL).predicate
    ).run_id == ("run-2")


def test_the_directory_holds_the_files_of_the_last_run_only(tmp_path: Path) -> None:
    """Nothing of a run before is left to be published by mistake."""
    run(inputs_of(tmp_path), tmp_path)
    other = inputs_of(tmp_path, {"new-2.0.whl": b"x"}, "run-2")
    result = run(other, tmp_path)
    assert names(tmp_path) == {"new-2.0.whl", "new-2.0.whl.sigstore.json"}
    assert [item["path"] for item in result.figures["files"]] == ["/opt/dist/new-2.0.whl"]
    none = inputs_of(tmp_path, {}, "run-3")
    assert run(none, tmp_path).figures["files"] == []
    assert not (tmp_path / "files").exists()
    assert {p.name for p in tmp_path.iterdir() if p.name.startswith(".files")} == set()


def test_nothing_is_signed_when_a_gate_failed(inputs: SignInputs, tmp_path: Path) -> None:
    """A stage that did not pass: no bundle, and what was there stays as it is."""
    failed = replace(inputs.results[3], verdict=Verdict.FAIL, reasons=("over the gate",))
    result = run(replace(inputs, results=(*inputs.results[:3], failed)), tmp_path)
    assert result.verdict is Verdict.FAIL
    assert not (tmp_path / "files").exists()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"digest": "sha256:" + "0" * 64}, VerificationFailed),
        ({"size": 1}, VerificationFailed),
        ({"size": True}, VerificationFailed),
        ({"path": "/opt/dist/other.whl"}, FindingsOverGate),
        ({"path": "/opt/dist/../x"}, VerificationFailed),
        ({"path": "/opt/dist/*"}, VerificationFailed),
        ({"path": "relative"}, VerificationFailed),
        ({"digest": "x"}, VerificationFailed),
    ],
)
def test_the_image_must_hold_what_the_build_named(
    inputs: SignInputs, tmp_path: Path, change: dict[str, Any], error: type[Exception]
) -> None:
    """A result of the build that says otherwise than the image, or nothing sensible, is refused."""
    files = [{**item, **change} for item in inputs.results[2].figures["files"][:1]]
    built = named(inputs.results[2], files)
    with pytest.raises(error):
        run(replace(inputs, results=(*inputs.results[:2], built, inputs.results[3])), tmp_path)
    assert not (tmp_path / "files").exists()


def test_without_a_ledger_no_file_is_signed(
    inputs: SignInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be recorded does not happen, and no half of the files is put in place."""
    real = signing.recorded
    calls: list[str] = []

    def full_disk(on: Any, use: Any) -> Any:
        calls.append(use.subject)
        if len(calls) == 3:
            raise Unavailable("no space left")
        return real(on, use)

    monkeypatch.setattr(signing, "recorded", full_disk)
    with pytest.raises(Unavailable):
        run(inputs, tmp_path)
    assert not (tmp_path / "files").exists()


def test_a_missing_or_altered_file_is_not_there(inputs: SignInputs, tmp_path: Path) -> None:
    """A signed result is reused only while its files and bundles lie where they were put."""
    result = run(inputs, tmp_path)
    for name in sorted(names(tmp_path)):
        path = tmp_path / "files" / name
        data = path.read_bytes()
        for change in (path.unlink, lambda p=path, d=data: p.write_bytes(d + b" ")):
            change()
            assert not are_there(result, tmp_path / "files"), name
            path.write_bytes(data)
    assert are_there(result, tmp_path / "files")
    assert are_there(replace(result, figures={}), tmp_path / "nowhere")


def test_a_kill_at_any_rename_leaves_all_or_nothing(
    inputs: SignInputs, tmp_path: Path, trusted: LoadedPolicy
) -> None:
    """Whatever lies under ``files`` after a kill verifies, and the next signing completes it."""
    signer()  # made before any fork, so that children share it
    moment = 0
    while True:
        moment += 1
        place = tmp_path / str(moment)
        place.mkdir()
        child = os.fork()
        if child == 0:
            kill_at(moment)
            try:
                run(inputs, place)
            finally:
                os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for path in (place / "files").glob("*[lz]"):
            assert verified(path, trusted) is Verdict.PASS
        assert run(inputs, place).verdict is Verdict.PASS
        assert len(names(place)) == 4
        shutil.rmtree(place)
        if code == 0:
            break
    assert moment > 8


def kill_at(moment: int) -> None:
    """End this process, without cleaning up, before the given rename."""
    count = 0
    for name in ("replace", "rename"):
        real = getattr(os, name)

        def counted(source: Any, target: Any, real: Any = real) -> None:
            nonlocal count
            count += 1
            if count == moment:
                os._exit(KILLED)
            real(source, target)

        setattr(os, name, counted)


class VirtualIdentity:
    """A ``KeylessSigner`` of a Sigstore that is only here."""

    identity = (IDENTITY, ISSUER)

    def __init__(self) -> None:
        self.sigstore = VirtualSigstore(NOON)
        self.root = self.sigstore.trusted_root()
        self.verifier = SigstoreVerifier(self.root, "test", NOON)

    def sign(self, payload: bytes) -> bytes:
        return self.sigstore.bundle(payload)

    def signed(self, bundle: bytes, payload: bytes) -> bool:
        self.verifier.verify(bundle, payload)
        return True


def test_an_identity_signs_files_too(inputs: SignInputs, tmp_path: Path) -> None:
    """Without a key the bundle carries the certificate; the policy's identities decide."""
    who = VirtualIdentity()
    result = run(inputs, tmp_path, who)
    assert result.figures["identity"] == IDENTITY
    assert run(inputs, tmp_path, who).figures["files"] == result.figures["files"]
    trusted = open_policy(
        tmp_path / "p", keys=False, root=who.root, builders=f"['{BUILDER}']",
        identities=f"[{{id: ci, issuer: '{ISSUER}', identity: '{IDENTITY}'}}]",
    )  # fmt: skip
    question = VerifyFileInputs(tmp_path / "files" / WHEEL, trusted, identity_verifier=who.verifier)
    answer = verify_file(question, FixedClock(NOON), ignore)
    assert answer.verdict is Verdict.PASS, answer.reasons
    entries = [stored.entry for stored in reader.entries(tmp_path / "ledger.jsonl")]
    identities = [item.details.get("identity") for item in entries if item.outcome]
    assert identities == [IDENTITY, IDENTITY, IDENTITY, None] * 2


def test_the_bundle_is_one_that_others_read(inputs: SignInputs, tmp_path: Path) -> None:
    """Version 0.3 with the key's hint and one DSSE envelope, as for images."""
    run(inputs, tmp_path)
    document = json.loads((tmp_path / "files" / f"{WHEEL}.sigstore.json").read_bytes())
    assert document["mediaType"] == bundle.MEDIA_TYPE
    assert document["verificationMaterial"] == {"publicKey": {"hint": public_key().hint}}
    assert document["dsseEnvelope"]["payloadType"] == "application/vnd.in-toto+json"
    assert NAME in str(read_origin(statement_of(tmp_path, WHEEL).predicate))
