"""``explain`` decides as ``verify`` does, and shows nothing as a fact that was not proven."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.evidence import NOON, run_context, signer
from fakes.htmlpage import read_page
from fakes.release import (
    BUILDER,
    Release,
    built,
    flip,
    open_findings,
    policy,
    stage_evidence,
    statement,
    suite,
    two_keys,
    vulns,
)
from secure_pipeline.attestations import bundle, dsse, predicates
from secure_pipeline.attestations.quarantine import quarantine_predicate, release_predicate
from secure_pipeline.attestations.statement import Statement
from secure_pipeline.errors import ExitCode
from secure_pipeline.files import sha256_bytes
from secure_pipeline.oci.digest import Digest
from secure_pipeline.policy.decision import Outcome
from secure_pipeline.policy.document import LoadedPolicy, load
from secure_pipeline.policy.evidence import Item
from secure_pipeline.report.explain_html import explanation_page
from secure_pipeline.report.explain_json import explanation_document
from secure_pipeline.report.explain_text import explanation_lines
from secure_pipeline.stages.evidence_facts import MAX_TEXT, said
from secure_pipeline.stages.evidence_nodes import Node, State
from secure_pipeline.stages.explain import Explanation
from secure_pipeline.stages.result import Evidence

GOLDEN = Path(__file__).parents[2] / "golden/explain"
ESCAPES = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("explain_golden", GOLDEN / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sample(generator: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Explanation:
    """An image that is allowed, with evidence of another run and verdicts after the seal."""
    found: Explanation = generator.explained("allowed", tmp_path_factory.mktemp("sample"))
    return found


def node(explanation: Explanation, name: str) -> Node:
    return next(node for node in explanation.graph.nodes if node.id == name)


def states(explanation: Explanation) -> dict[str, State]:
    return {node.id: node.state for node in explanation.graph.nodes}


def _nothing(release: Release) -> None:
    pass


def _whole(release: Release) -> None:
    release.run()


def _removed(release: Release) -> None:
    release.run(without=["vulns"])


def _unsealed(release: Release) -> None:
    release.run(sealed=False)


def _failed(release: Release) -> None:
    release.run(items={"test": suite("test", "FAILED")})


def _warned(release: Release) -> None:
    release.run(items={"test": suite("test", "WARNED")})


def _findings(release: Release) -> None:
    release.run(items={"analyze": suite("analyze", findings=open_findings(critical=1))})


def _vulnerable(release: Release) -> None:
    release.run(items={"vulns": vulns(("CVE-1", "critical"))})


def _relaxed(release: Release) -> None:
    release.run(items={"build": built(unpinned_base="because it must be so")})


def _uncommitted(release: Release) -> None:
    release.run(uncommitted=True)


def _stranger(release: Release) -> None:
    release.run(key=signer(1))


def _mixed(release: Release) -> None:
    payloads = release.run("run-1", sealed=False, without=["vulns"])
    assert payloads
    release.run("run-2", time=NOON)


def _two_at_once(release: Release) -> None:
    release.run("run-1")
    release.run("run-2")


def _failing_other_run(release: Release) -> None:
    release.run("run-0", items={"test": suite("test", "FAILED")}, sealed=False)
    release.run("run-1")


def _another_image(release: Release) -> None:
    release.run()
    foreign = statement(
        subject=[{"name": "x", "digest": {"sha256": "1" * 64}}],
        predicateType=predicates.VULNS,
        predicate={"a": 1},
    )
    release.smuggle(dsse.sign_envelope(foreign, signer()))


def _altered_layer(release: Release) -> None:
    release.run()
    manifest = release.layout.read_manifest(release.image)
    flip(release.blob(manifest.layers[0].digest), 700)


def _garbage(release: Release) -> None:
    release.run()
    release.smuggle_layer(b"{}")


CASES: list[tuple[Callable[[Release], None], ExitCode, dict[str, State]]] = [
    (_nothing, ExitCode.VERIFICATION, {"test": State.MISSING, "seal": State.MISSING}),
    (_whole, ExitCode.PASS, {"test": State.HOLDS, "seal": State.HOLDS, "canary": State.NONE}),
    (_removed, ExitCode.VERIFICATION, {"scan": State.MISSING, "seal": State.REFUSED}),
    (_unsealed, ExitCode.VERIFICATION, {"seal": State.MISSING, "test": State.UNSURE}),
    (_failed, ExitCode.DENIED, {"test": State.REFUSED, "analyze": State.HOLDS}),
    (_warned, ExitCode.INCONCLUSIVE, {"test": State.UNSURE}),
    (_findings, ExitCode.DENIED, {"analyze": State.REFUSED, "test": State.HOLDS}),
    (_vulnerable, ExitCode.DENIED, {"scan": State.REFUSED}),
    (_relaxed, ExitCode.DENIED, {"build": State.REFUSED}),
    (_uncommitted, ExitCode.DENIED, {"source": State.REFUSED}),
    (_stranger, ExitCode.VERIFICATION, {"test": State.MISSING, "seal": State.MISSING}),
    (_mixed, ExitCode.PASS, {"scan": State.HOLDS}),
    (_two_at_once, ExitCode.INCONCLUSIVE, {"seal": State.UNSURE, "test": State.UNSURE}),
    (_failing_other_run, ExitCode.DENIED, {"test": State.HOLDS}),
    (_another_image, ExitCode.VERIFICATION, {}),
    (_altered_layer, ExitCode.VERIFICATION, {"image": State.REFUSED, "test": State.HOLDS}),
    (_garbage, ExitCode.VERIFICATION, {"test": State.MISSING}),
]


@pytest.mark.parametrize(("make", "code", "expected"), CASES)
def test_it_decides_exactly_as_verify_does(
    generator: ModuleType,
    release: Release,
    trusted: LoadedPolicy,
    make: Callable[[Release], None],
    code: ExitCode,
    expected: dict[str, State],
) -> None:
    """Code and every rule are verify's; no step with an objection holds; text says the same."""
    make(release)
    verified = release.verify(trusted)
    explanation = generator.explain_release(release, trusted)
    assert explanation.code is verified.code is code
    assert explanation.rules.total == len(verified.figures["decision"])
    ours = sorted(json.dumps(rule.to_json()["why"]) for rule in explanation.rules.items)
    assert ours == sorted(json.dumps(rule["why"]) for rule in verified.figures["decision"])
    found = states(explanation)
    assert {name: found[name] for name in expected} == expected
    for one in explanation.graph.nodes:
        if any(rule.outcome is not Outcome.ALLOW for rule in one.rules):
            assert one.state is not State.HOLDS
    sentence = explanation_lines(explanation)[0]
    assert sentence.startswith("ALLOWED") == (code is ExitCode.PASS)
    assert explanation_document(explanation)["exitCode"] == int(code)
    page = read_page(explanation_page(explanation)).text
    assert ("Allowed" in page) == (code is ExitCode.PASS)


def test_strangers_words_are_claims_and_nothing_else(
    generator: ModuleType, release: Release, trusted: LoadedPolicy
) -> None:
    """What an unknown key signed appears under the claims only, and changes no step."""
    release.run()
    before = explanation_document(generator.explain_release(release, trusted))
    lie = suite("test", "PASSED", coverage=11.25, exit="a lie")
    approval = Evidence(f"{predicates.NAMESPACE}/attestation/approval/v1", {"verdict": "APPROVED"})
    for payload in release.payloads([lie, approval], run_context("run-1", builder_id=BUILDER)):
        envelope = dsse.sign_envelope(payload, signer(1))
        release.smuggle_layer(bundle.make_bundle(envelope, signer(1).public_key_der))
    explanation = generator.explain_release(release, trusted)
    after = explanation_document(explanation)
    assert after["untrusted"] == 2
    claimed = {claim["claimedType"] for claim in after["claimsNotProven"]["items"]}
    assert claimed == {predicates.TEST_RESULT, approval.predicate_type}
    for name in ("outcome", "nodes", "edges", "statements", "otherStatements", "missing"):
        assert after[name] == before[name]
    page = read_page(explanation_page(explanation)).text
    assert "a lie" not in page
    assert page.index("Claims, not proven (2)") < page.index(approval.predicate_type)
    assert "claims, not proven: 2" in "\n".join(explanation_lines(explanation))


def test_a_policy_that_trusts_nobody_leaves_claims_only(
    generator: ModuleType, tmp_path: Path, release: Release
) -> None:
    """Without a trusted key all evidence is claims: nothing of it is shown as a fact."""
    release.run()
    trusted = policy(tmp_path / "policy")
    text = re.sub(r"keys: \[.*\]\n", "keys: []\n", trusted.source.read_text())
    trusted.source.write_text(text)
    explanation = generator.explain_release(release, load(trusted.source))
    assert explanation.code is ExitCode.DENIED
    assert explanation.claims.total == 8
    assert explanation.graph.statements.total == 0
    assert "97.5" not in read_page(explanation_page(explanation)).text


def test_each_step_names_its_signers_and_statements(
    generator: ModuleType, tmp_path: Path, release: Release
) -> None:
    """A step shows who signed it, the payload's digest, where it is attached, run and time."""
    payloads = release.run()
    release.attach(payloads[:1], signer(1))
    explanation = generator.explain_release(release, two_keys(tmp_path / "policy"))
    (view,) = node(explanation, "analyze").statements.items
    assert view.signers == ("release", "second")
    assert view.digest == f"sha256:{sha256_bytes(payloads[0])}"
    assert (view.run, view.time, view.lapsed) == ("run-1", NOON, False)
    assert all(re.fullmatch(r"(bundle|att) sha256:[0-9a-f]{64}", place) for place in view.places)
    assert {signer.id for signer in explanation.signers} == {"release", "second"}
    assert "[release, second]" in "\n".join(explanation_lines(explanation))


def test_a_key_outside_its_window_is_said(
    generator: ModuleType, tmp_path: Path, release: Release
) -> None:
    """Statements by a lapsed key do not hold, and the step says why."""
    release.run()
    trusted = policy(tmp_path / "policy", window=", not-after: 2026-02-01")
    explanation = generator.explain_release(release, trusted)
    test = node(explanation, "test")
    assert test.state is State.REFUSED
    assert any(rule.id == "key-window" for rule in test.rules)
    assert "outside its window" in read_page(explanation_page(explanation)).text


def test_other_runs_stand_apart(
    sample: Explanation,
) -> None:
    """Statements of an earlier run are listed as such and are in no step."""
    explanation = sample
    assert {view.run for view in explanation.graph.beside.items} == {"run-0"}
    for one in explanation.graph.nodes:
        assert {view.run for view in one.statements.items} <= {"run-1"}
    assert node(explanation, "canary").state is State.HOLDS
    assert "8 statements of other runs" in explanation.extra


@pytest.mark.parametrize(
    ("verdict", "state"),
    [("PROMOTED", State.HOLDS), ("ROLLED_BACK", State.REFUSED), ("perhaps", State.UNSURE)],
)
def test_a_verdict_after_the_seal_stands_as_it_says(
    generator: ModuleType,
    release: Release,
    trusted: LoadedPolicy,
    verdict: str,
    state: State,
) -> None:
    """A canary that was rolled back does not look like one that was promoted."""
    release.run()
    item = Evidence(predicates.PROMOTION, {"result": verdict})
    release.attach(release.payloads([item], run_context("run-1", builder_id=BUILDER)))
    explanation = generator.explain_release(release, trusted)
    assert node(explanation, "canary").state is state
    assert explanation.code is ExitCode.PASS


@pytest.mark.parametrize(("released", "state"), [(False, State.REFUSED), (True, State.HOLDS)])
def test_a_quarantine_stands_as_the_rule_says(
    generator: ModuleType, release: Release, trusted: LoadedPolicy, released: bool, state: State
) -> None:
    """The canary's step is refused with the rule while one is open, and holds afterwards."""
    release.run()
    about = run_context("run-1", builder_id=BUILDER)
    said = quarantine_predicate("slow", "latency", "blue", None, "ci", NOON)
    payloads = release.payloads([Evidence(predicates.QUARANTINE, said)], about)
    if released:
        ended = release_predicate([Digest.of(payloads[0])], "repaired", "me", NOON)
        payloads += release.payloads([Evidence(predicates.RELEASE, ended)], about)
    release.attach(payloads)
    canary = node(generator.explain_release(release, trusted), "canary")
    assert canary.state is state
    assert [rule.id for rule in canary.rules] == ["quarantine"]
    assert canary.summary.startswith("quarantine 2026-03-01")
    assert any("latency: slow" in fact.value for fact in canary.facts)


def test_edges_hold_only_where_the_seal_and_the_run_do(
    generator: ModuleType, release: Release, trusted: LoadedPolicy
) -> None:
    """With a statement removed, what was sealed no longer ties to the seal."""
    release.run(without=["vulns"])
    edges = generator.explain_release(release, trusted).graph.edges
    holds = {(edge.start, edge.end): edge.holds for edge in edges}
    assert holds["source", "test"]
    assert holds["test", "image"]
    assert not holds["test", "seal"]
    assert not holds["scan", "seal"]


def _items() -> list[Evidence]:
    more = [
        Evidence(predicates.SEAL, {"statements": [], "merkle": {"root": "ab"}, "sealedAt": "x"}),
        Evidence(predicates.VSA, {"verifier": {"id": "v"}, "verificationResult": "PASSED"}),
        Evidence("https://example.org/other", {"verdict": "x", "count": 3, "list": [1]}),
    ]
    return [*stage_evidence().values(), *more]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def bent(draw: st.DrawFn) -> Evidence:
    """Evidence of a known type in which one member, at any depth, is something else."""
    item = draw(st.sampled_from(_items()))
    predicate: Any = copy.deepcopy(dict(item.predicate))
    spots: list[tuple[Any, Any]] = []
    pending: list[Any] = [predicate]
    while pending:
        value = pending.pop()
        keys = value if isinstance(value, dict) else range(len(value))
        spots += [(value, key) for key in keys]
        pending += [value[key] for key in keys if isinstance(value[key], dict | list)]
    parent, key = draw(st.sampled_from(spots))
    parent[key] = draw(JSON | st.just("A" * 100_000) | st.just([{}] * 1000))
    return Evidence(item.predicate_type, predicate)


@settings(max_examples=300)
@given(bent())
def test_any_shape_of_a_predicate_can_be_told(evidence: Evidence) -> None:
    """Whatever a signer wrote where something else belongs, facts are few, short and made."""
    parsed = Statement(evidence.predicate_type, evidence.predicate, (), b"")
    item = Item(parsed, "sha256:0", frozenset({"release"}), (), ("bundle x",), None, None)
    told = said(item)
    assert len(told.summary) <= 260
    assert len(told.facts) <= 40
    for fact in told.facts:
        assert len(fact.value) <= MAX_TEXT + 40
