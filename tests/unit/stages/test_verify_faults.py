"""``verify`` under limits, crashes, bad inputs, and one changed byte anywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.evidence import NAME
from fakes.release import (
    Release,
    flip,
    passed,
    policy,
    refused,
    stage_evidence,
)
from secure_pipeline.errors import ExitCode, PipelineError
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.stages.result import Verdict


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
    "policy.evidence.read_statement",
    "stages.verify.collect_signatures",
    "stages.verify.collect_contained",
    "stages.verify.trusted_identities",
    "policy.evidence.excess",
    "policy.required._objection",
    "policy.evidence.read_run",
    "policy.evidence.read_time",
    "policy.evidence_gates.account",
    "policy.trust.load_public_key",
    "keys.verify.PublicKey.verify",
    "oci.layout.Layout.open",
    "stages.verify.check_image",
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


def test_image_that_is_not_in_the_layout_is_refused(
    release: Release, trusted: LoadedPolicy
) -> None:
    """Another digest than those in the layout refuses with 11 and is named."""
    release.run()
    absent = ImageReference(NAME, Digest("0" * 64))
    refused(release.verify(trusted, image=absent), ExitCode.VERIFICATION, "0" * 64)


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


def test_verifying_writes_nothing(release: Release, trusted: LoadedPolicy) -> None:
    """The layout is the same, file by file, before and after."""
    release.run()
    before = snapshot(release.path)
    passed(release.verify(trusted))
    assert snapshot(release.path) == before


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
