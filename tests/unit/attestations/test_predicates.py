"""How predicates carry their run."""

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.evidence import NOON, evidence, run_context
from secure_pipeline import shape
from secure_pipeline.attestations import predicates
from secure_pipeline.attestations.predicates import RunContext, bind, read_run, read_time
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.stages.result import Evidence

SAMPLES = evidence() | {
    kind: Evidence(kind, {})
    for kind in (predicates.VSA, predicates.SEAL, predicates.PROMOTION, "https://example.com/x/v1")
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
HEX = "0123456789abcdef"
CONTEXTS = st.builds(
    RunContext,
    run_id=TEXT,
    commit=st.none() | st.text(HEX, min_size=40, max_size=40),
    tree=st.text(HEX, min_size=64, max_size=64).map(lambda text: f"sha256:{text}"),
    uncommitted=st.booleans(),
    builder_id=TEXT,
)


@given(kind=st.sampled_from(sorted(SAMPLES)), first=CONTEXTS, context=CONTEXTS)
def test_the_run_comes_back_from_every_type(
    kind: str, first: RunContext, context: RunContext
) -> None:
    """Whatever the run, and whatever run was named before, reading gives back what was bound."""
    bound = bind(Evidence(kind, bind(SAMPLES[kind], first)), context)
    assert read_run(kind, json.loads(json.dumps(bound))) == context
    assert bind(Evidence(kind, bound), context) == bound


@given(kind=st.sampled_from(sorted(SAMPLES)))
def test_binding_leaves_the_evidence_alone(kind: str) -> None:
    """The original is not changed, and none of its other members are lost."""
    before = copy.deepcopy(SAMPLES[kind])
    bound = bind(SAMPLES[kind], run_context(), NOON, NOON)
    assert SAMPLES[kind] == before
    assert before.predicate.keys() <= bound.keys()


@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_sig_09_a_predicate_without_a_run_is_refused(kind: str) -> None:
    """Evidence that does not say which run it belongs to belongs to none."""
    with pytest.raises(VerificationFailed):
        read_run(kind, SAMPLES[kind].predicate)


def test_provenance_keeps_the_run_where_slsa_puts_it() -> None:
    """invocationId, builder.id and the source in resolvedDependencies carry the run."""
    sample = SAMPLES[predicates.PROVENANCE]
    bound = bind(sample, run_context(), NOON, NOON)
    assert bound["runDetails"]["metadata"] == {
        "invocationId": "run-1",
        "startedOn": "2026-03-01T12:00:00Z",
        "finishedOn": "2026-03-01T12:00:00Z",
    }
    assert bound["runDetails"]["builder"]["id"] == run_context().builder_id
    source, base = bound["buildDefinition"]["resolvedDependencies"]
    assert source["digest"]["gitCommit"] == "c" * 40
    assert source["digest"][predicates.TREE_ALGORITHM] == "7" * 64
    assert base == sample.predicate["buildDefinition"]["resolvedDependencies"][0]


def test_a_source_of_the_build_is_completed_not_doubled() -> None:
    """A source that the build named keeps its address and gets the run's digests."""
    sample = copy.deepcopy(dict(SAMPLES[predicates.PROVENANCE].predicate))
    named = {"name": "source", "uri": "git+https://example.com/app", "digest": {"gitCommit": "0"}}
    sample["buildDefinition"]["resolvedDependencies"].append(named)
    bound = bind(Evidence(predicates.PROVENANCE, sample), run_context(commit=None))
    sources = [
        item
        for item in bound["buildDefinition"]["resolvedDependencies"]
        if item["name"] == "source"
    ]
    assert [item["uri"] for item in sources] == ["git+https://example.com/app"]
    assert "gitCommit" not in sources[0]["digest"]


def test_sig_09_a_base_image_named_like_the_source_is_refused() -> None:
    """A second entry of that name is neither dropped nor taken for the source."""
    sample = copy.deepcopy(dict(SAMPLES[predicates.PROVENANCE].predicate))
    sample["buildDefinition"]["resolvedDependencies"][:] = [
        {"name": "source", "uri": "git+https://example.com/app"},
        {"name": "source", "uri": "docker.example/source", "digest": {"sha256": "b" * 64}},
    ]
    bound = bind(Evidence(predicates.PROVENANCE, sample), run_context())
    assert len(bound["buildDefinition"]["resolvedDependencies"]) == 2
    with pytest.raises(VerificationFailed, match="2 sources"):
        read_run(predicates.PROVENANCE, bound)


def test_the_cosign_form_keeps_the_run_in_its_invocation() -> None:
    """event_id and the flat member builder.id are those of cosign's specification."""
    bound = bind(SAMPLES[predicates.COSIGN_VULN], run_context())
    assert bound["invocation"]["event_id"] == "run-1"
    assert bound["invocation"]["builder.id"] == run_context().builder_id
    assert bound["invocation"]["parameters"][0] == "--offline-scan"


def damage(kind: str, bound: dict[str, Any]) -> list[dict[str, Any]]:
    """Ways in which the run inside a predicate can be doubled or cut."""
    damaged = [copy.deepcopy(bound) for _ in range(2)]
    if kind == predicates.PROVENANCE:
        sources = damaged[0]["buildDefinition"]["resolvedDependencies"]
        sources.append(copy.deepcopy(sources[0]))
        del damaged[1]["runDetails"]["metadata"]["invocationId"]
    elif kind == predicates.COSIGN_VULN:
        damaged[0]["invocation"]["parameters"].append("secure-pipeline:uncommitted=false")
        damaged[1]["invocation"]["builder.id"] = 7
    elif kind == predicates.CYCLONEDX:
        properties = damaged[0]["metadata"]["properties"]
        properties.append(copy.deepcopy(properties[0]))
        damaged[1]["metadata"]["properties"].pop(0)
    elif kind == predicates.SPDX:
        damaged[0]["annotations"] *= 2
        damaged[1]["annotations"][0]["comment"] += "}"
    else:
        damaged[0][predicates.RUN_MEMBER]["tree"] = "sha256:short"
        del damaged[1][predicates.RUN_MEMBER]["uncommitted"]
    return damaged


@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_sig_09_a_run_named_twice_or_in_part_is_refused(kind: str) -> None:
    """Two runs in one predicate, or one that is incomplete, are refused."""
    for damaged in damage(kind, bind(SAMPLES[kind], run_context())):
        with pytest.raises(VerificationFailed):
            read_run(kind, damaged)


@pytest.mark.parametrize(
    "changes",
    [
        {"run_id": ""},
        {"builder_id": ""},
        {"commit": "main"},
        {"commit": "C" * 40},
        {"tree": "7" * 64},
        {"tree": ""},
    ],
)
def test_a_context_is_valid_or_not_made(changes: dict[str, Any]) -> None:
    """A run context with an empty id, a branch name or a bare hash cannot exist."""
    with pytest.raises(ValueError, match=r".+"):
        RunContext(**(vars(run_context()) | changes))


@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_the_time_of_evidence_is_read(kind: str) -> None:
    """Each type says when it was complete: its own time, or the stage's end."""
    own = {
        predicates.VULNS: datetime(2026, 3, 1, 11, 51, tzinfo=UTC),
        predicates.COSIGN_VULN: datetime(2026, 3, 1, 11, 51, tzinfo=UTC),
        predicates.CYCLONEDX: datetime(2026, 3, 1, 11, 51, tzinfo=UTC),
        predicates.SPDX: datetime(2026, 3, 1, 11, 51, tzinfo=UTC),
    }
    bound = bind(SAMPLES[kind], run_context(), NOON, NOON)
    assert read_time(kind, bound) == own.get(kind, NOON)
    assert read_time("https://example.com/none/v1", {}) is None


@pytest.mark.parametrize("text", ["yesterday", "2026-03-01T12:00:00", "", "2026-13-01T00:00:00Z"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    """Only RFC 3339 with an offset is a time."""
    with pytest.raises(VerificationFailed):
        shape.timestamp(text, "here")
