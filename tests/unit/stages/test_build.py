"""The build stage with a fake builder: refusals, verdicts, figures and provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts.builder import EPOCH, BuilderContract
from fakes.bases import tiny_base
from fakes.builder import FakeBuilder
from fakes.evidence import StepClock
from secure_pipeline.attestations import predicates
from secure_pipeline.config import BuildConfig, SecretConfig
from secure_pipeline.errors import ConfigError, ExitCode
from secure_pipeline.events import Event, Progress, ignore
from secure_pipeline.findings import Ignored, Kind
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.walk import check_image
from secure_pipeline.policy.document import BuildGate, Relaxation
from secure_pipeline.ports import SourceState
from secure_pipeline.stages.build import BuildInputs, build, context_digest
from secure_pipeline.stages.result import StageResult, Verdict

TOKEN = "ghp_" + "Zz9" * 12
REASON = "the registry is inside this machine"


@pytest.fixture
def builder(tmp_path: Path) -> FakeBuilder:
    return FakeBuilder(tmp_path)


@pytest.fixture
def bases(tmp_path: Path) -> Mapping[str, Path]:
    return {"debian-base": tiny_base(tmp_path / "base")}


class TestFakeBuilder(BuilderContract):
    """The fake keeps the contract of real builders."""


@pytest.fixture
def inputs(tmp_path: Path) -> BuildInputs:
    root = tmp_path / "repository"
    root.mkdir()
    (root / "Dockerfile").write_text("FROM debian-base\nRUN make\n")
    (root / "app.py").write_text("print()\n")
    tiny_base(root / "bases" / "debian")
    return BuildInputs(
        root=root,
        config=BuildConfig(bases={"debian-base": "bases/debian"}),
        gate=BuildGate(),
        source=SourceState("c" * 40, "sha256:" + "d" * 64, False, EPOCH, "https://h/r.git"),
        layout=tmp_path / "image",
        name="team/app",
        secret_values={},
    )


def write(inputs: BuildInputs, text: str) -> BuildInputs:
    (inputs.root / "Dockerfile").write_text(text)
    return inputs


def configure(inputs: BuildInputs, **changes: Any) -> BuildInputs:
    return replace(inputs, config=replace(inputs.config, **changes))


def run(inputs: BuildInputs, builder: FakeBuilder) -> StageResult:
    return build(inputs, builder, StepClock(), ignore)


def test_a_build_passes_with_a_digest_and_provenance(
    inputs: BuildInputs, builder: FakeBuilder
) -> None:
    """PASS names the image, counts the steps, and says what it was built from."""
    result = run(inputs, builder)
    assert result.verdict is Verdict.PASS
    check_image(Layout.open(inputs.layout), Digest.parse(result.figures["digest"]))
    assert (result.figures["steps_executed"], result.figures["steps_cached"]) == (2, 0)
    assert result.figures["seconds_executed"] == 0.5
    assert result.figures["bases"].keys() == {"debian-base"}
    assert [report.name for report in result.reports] == ["build.log", "provenance.json"]
    second = run(inputs, builder)
    assert (second.figures["steps_executed"], second.figures["steps_cached"]) == (0, 2)
    assert second.figures["digest"] == result.figures["digest"]


def test_the_provenance_follows_slsa_v1_and_can_be_bound(
    inputs: BuildInputs, builder: FakeBuilder
) -> None:
    """Parameters are outside, digests are dependencies, and a run can be written into it."""
    result = run(configure(inputs, args={"V": "1"}, target="0"), builder)
    evidence = result.evidence[0]
    assert evidence.predicate_type == predicates.PROVENANCE
    definition = evidence.predicate["buildDefinition"]
    assert definition["buildType"] == "https://secure-pipeline.dev/build-type/v1"
    assert definition["externalParameters"]["args"] == {"V": "1"}
    assert definition["externalParameters"]["target"] == "0"
    named = {item["name"]: item for item in definition["resolvedDependencies"]}
    assert named.keys() == {"source", "debian-base", "dockerfile", "context"}
    assert named["context"]["digest"]["sha256"] == result.figures["context_digest"][7:]
    assert named["debian-base"]["digest"]["sha256"] == result.figures["bases"]["debian-base"][7:]
    names = [item["name"] for item in evidence.predicate["runDetails"]["byproducts"]]
    assert names == ["build.log", "stage 0"]
    context = predicates.RunContext("r1", "c" * 40, "sha256:" + "d" * 64, False, "https://b")
    bound = predicates.bind(evidence, context)
    assert predicates.read_run(predicates.PROVENANCE, bound) == context


def test_the_documented_example_has_the_members_of_a_real_predicate(
    inputs: BuildInputs, builder: FakeBuilder
) -> None:
    """docs/reference/build-type-v1.md shows every member that a build writes."""
    page = Path(__file__).parents[3] / "docs/reference/build-type-v1.md"
    example = json.loads(page.read_text().split("```json")[1].split("```")[0])
    real = run(inputs, builder).evidence[0].predicate
    for section in ("buildDefinition", "runDetails"):
        assert set(real[section]) <= set(example[section])
    ours = real["buildDefinition"]
    shown = example["buildDefinition"]
    assert set(ours["externalParameters"]) == set(shown["externalParameters"])
    assert set(ours["internalParameters"]) == set(shown["internalParameters"])


@pytest.mark.parametrize(
    ("text", "rule", "line"),
    [
        ("FROM debian:latest\n", "unpinned-base", 1),
        ("FROM debian-base\nADD https://x/y /z\n", "add-without-checksum", 2),
        ("FROM debian-base\nARG API_TOKEN\n", "secret-argument", 2),
    ],
)
def test_a_broken_rule_refuses_before_anything_is_built(
    inputs: BuildInputs, builder: FakeBuilder, text: str, rule: str, line: int
) -> None:
    """Exit 12, the reason has file and line, and the builder is never called."""
    result = run(write(inputs, text), builder)
    assert (result.verdict, result.code) == (Verdict.FAIL, ExitCode.DENIED)
    assert result.reasons[0].startswith(f"Dockerfile:{line}: ")
    assert f"[{rule}]" in result.reasons[0]
    assert (result.findings[0].rule, result.findings[0].dockerfile_line) == (rule, line)
    assert builder.requests == []
    assert result.evidence == ()
    assert not inputs.layout.exists()


def test_a_relaxed_rule_is_counted_aloud(inputs: BuildInputs, builder: FakeBuilder) -> None:
    """The trusted policy may switch a rule off; result, finding and provenance say so."""
    gate = BuildGate(allow=(Relaxation("secret-argument", REASON),))
    relaxed = replace(write(inputs, "FROM debian-base\nARG API_TOKEN\n"), gate=gate)
    events: list[Event] = []
    result = build(relaxed, builder, StepClock(), events.append)
    assert result.verdict is Verdict.PASS
    assert "1 refusals relaxed" in result.summary
    assert result.figures["relaxed"] == {"secret-argument": 1}
    assert (result.findings[0].ignored, result.findings[0].reason) == (Ignored.EXCEPTION, REASON)
    internal = result.evidence[0].predicate["buildDefinition"]["internalParameters"]
    assert internal["relaxedRules"] == {"secret-argument": REASON}
    assert any(isinstance(e, Progress) and REASON in e.message for e in events)


def test_one_relaxed_rule_does_not_relax_another(inputs: BuildInputs, builder: FakeBuilder) -> None:
    """A relaxation is for its rule only."""
    gate = BuildGate(allow=(Relaxation("secret-argument", REASON),))
    text = "FROM debian\nARG API_TOKEN\n"
    result = run(replace(write(inputs, text), gate=gate), builder)
    assert result.code is ExitCode.DENIED
    assert [item.rule for item in result.findings if item.ignored is None] == ["unpinned-base"]


def test_bld_01_no_secret_is_in_the_result(inputs: BuildInputs, builder: FakeBuilder) -> None:
    """Values of secrets and of secret-looking arguments are in no report and no evidence."""
    gate = BuildGate(allow=(Relaxation("secret-argument", REASON),))
    given = configure(
        replace(inputs, gate=gate, secret_values={"T": "s3cr3t-value"}),
        args={"X_TOKEN": "arg-value", "Y": TOKEN},
        secrets=(SecretConfig("tok", env="T"),),
    )
    result = run(given, builder)
    text = repr(result)
    assert result.verdict is Verdict.PASS
    assert all(value not in text for value in ("s3cr3t-value", "arg-value", TOKEN))
    external = result.evidence[0].predicate["buildDefinition"]["externalParameters"]
    assert external["secrets"] == ["tok"]
    assert external["args"] == {"X_TOKEN": "(hidden)", "Y": "(hidden)"}


def test_bld_08_a_secret_file_in_the_context_refuses(
    inputs: BuildInputs, builder: FakeBuilder
) -> None:
    """.env is refused until .dockerignore names it."""
    (inputs.root / ".env").write_text("PASSWORD=x\n")
    result = run(inputs, builder)
    assert result.code is ExitCode.DENIED
    assert (result.findings[0].kind, str(result.findings[0].location)) == (Kind.SECRET, ".env")
    (inputs.root / ".dockerignore").write_text(".env\n")
    assert run(inputs, builder).verdict is Verdict.PASS


def test_bld_08_a_git_directory_is_reported(inputs: BuildInputs, builder: FakeBuilder) -> None:
    """.git in the context is said in events and figures."""
    (inputs.root / ".git").mkdir()
    result = run(inputs, builder)
    assert result.verdict is Verdict.PASS
    assert result.figures["notes"] == [".git is sent to the builder; list it in .dockerignore"]


def test_products_of_the_pipeline_are_no_part_of_the_context(
    inputs: BuildInputs, builder: FakeBuilder
) -> None:
    """The state directory, reports and base layouts change neither digest nor build."""
    before = run(inputs, builder).figures["context_digest"]
    (inputs.root / "state").mkdir()
    (inputs.root / "state" / "big").write_text("x")
    (inputs.root / ".dockerignore").write_text("!state\n")
    result = run(replace(inputs, ignore=("state",)), builder)
    assert builder.requests[-1].ignore == ("state", "bases/debian")
    assert result.figures["context_files"] == 4
    (inputs.root / ".dockerignore").unlink()
    assert run(replace(inputs, ignore=("state",)), builder).figures["context_digest"] == before


def test_the_context_digest_of_the_cache_follows_context_and_dockerfile(
    inputs: BuildInputs,
) -> None:
    """A change of a sent file or of the Dockerfile changes it; an ignored one does not."""
    digests = [context_digest(inputs.root, inputs.config, ("state",))]
    (inputs.root / "app.py").write_text("changed")
    digests.append(context_digest(inputs.root, inputs.config, ("state",)))
    write(inputs, "FROM debian-base\n")
    digests.append(context_digest(inputs.root, inputs.config, ("state",)))
    assert len(set(digests)) == 3
    (inputs.root / "state").write_text("x")
    assert context_digest(inputs.root, inputs.config, ("state",)) == digests[-1]


def test_a_failing_step_is_a_verdict_with_line_and_log(
    inputs: BuildInputs, builder: FakeBuilder
) -> None:
    """FAIL (exit 10) gives the step, its line, the log's last lines and the steps before."""
    result = run(write(inputs, "FROM debian-base\nRUN false\n"), builder)
    assert (result.verdict, result.code) == (Verdict.FAIL, ExitCode.FINDINGS)
    assert result.reasons == (
        "Dockerfile:2: step 'RUN false': exit status 1",
        "  STEP RUN false",
        "  it failed",
    )
    assert result.figures["steps_executed"] == 1
    assert result.reports[0].content == b"STEP RUN false\nit failed\n"
    assert result.evidence == ()


@pytest.mark.parametrize("key", ["dockerfile", "context"])
@pytest.mark.parametrize("value", ["../outside", "link/Dockerfile"])
def test_bld_06_paths_outside_the_repository_are_refused(
    inputs: BuildInputs, builder: FakeBuilder, tmp_path: Path, key: str, value: str
) -> None:
    """Neither '..' nor a symbolic link leads a build out of the repository."""
    (inputs.root / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="leads out"):
        run(configure(inputs, **{key: value}), builder)


@pytest.mark.parametrize(
    ("text", "changes", "where"),
    [
        ("FROM debian-base\nRUNN x\n", {}, "Dockerfile:2"),
        ("", {}, "Dockerfile:1"),
        ("FROM debian-base\n", {"target": "nope"}, "Dockerfile"),
    ],
)
def test_what_cannot_be_understood_is_a_configuration_error(
    inputs: BuildInputs, builder: FakeBuilder, text: str, changes: dict[str, Any], where: str
) -> None:
    """A Dockerfile that does not parse, or an unknown target, exits with 3."""
    with pytest.raises(ConfigError) as caught:
        run(configure(write(inputs, text), **changes), builder)
    assert caught.value.where == where


def test_a_platform_must_be_one(inputs: BuildInputs, builder: FakeBuilder) -> None:
    """Nonsense in build.platforms is refused by name."""
    with pytest.raises(ConfigError, match=r"build\.platforms"):
        run(configure(inputs, platforms=("linux amd64",)), builder)


def test_files_to_sign_are_named_with_their_digests(
    inputs: BuildInputs, builder: FakeBuilder
) -> None:
    """Result and provenance say which bytes; without build.files there are none."""
    assert run(inputs, builder).figures["files"] == []
    result = run(configure(inputs, files=("/st*",)), builder)
    assert result.verdict is Verdict.PASS
    assert result.summary.endswith("; 1 files to sign")
    digest = Digest.of(b"FROM debian-base\nRUN make")
    assert result.figures["files"] == [{"path": "/steps", "digest": str(digest), "size": 25}]
    byproducts = result.evidence[0].predicate["runDetails"]["byproducts"]
    assert byproducts[-1] == {"name": "file /steps", "digest": {"sha256": digest.hex}}


def test_a_file_that_the_image_lacks_is_a_failed_build(
    inputs: BuildInputs, builder: FakeBuilder
) -> None:
    """FAIL (exit 10) with the pattern, the steps and the log; no evidence."""
    result = run(configure(inputs, files=("/steps", "/opt/*.whl")), builder)
    assert (result.verdict, result.code) == (Verdict.FAIL, ExitCode.FINDINGS)
    assert result.reasons == ("build.files: no file of the image matches /opt/*.whl",)
    assert result.reports[0].content == b"built\n"
    assert (result.evidence, result.figures["steps_executed"]) == ((), 2)
