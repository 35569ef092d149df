"""The seal: nothing removed, added, swapped or mixed in."""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.evidence import NAME, NOON, evidence, run_context
from secure_pipeline.attestations import merkle, predicates
from secure_pipeline.attestations.predicates import bind
from secure_pipeline.attestations.seal import check_seal, leaves, make_seal, parse_seal
from secure_pipeline.attestations.statement import Statement, make_statement, parse_statement
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.stages.result import Evidence

IMAGE = Digest.of(b"image")
REQUIRED = (predicates.PROVENANCE, predicates.VULNS)
SCHEMA = Path(__file__).parents[3] / "docs/reference/predicates/seal-v1.schema.json"


def statement(kind: str, run: str = "run-1", predicate: dict[str, Any] | None = None) -> Statement:
    chosen = Evidence(kind, predicate if predicate is not None else evidence()[kind].predicate)
    bound = bind(chosen, run_context(run), NOON, NOON)
    return parse_statement(make_statement(NAME, IMAGE, kind, bound))


def all_of(run: str = "run-1") -> list[Statement]:
    return [statement(kind, run) for kind in evidence()]


def seal_of(statements: list[Statement], run: str = "run-1", **changes: Any) -> Statement:
    payloads = [item.payload for item in statements]
    predicate = make_seal(payloads, REQUIRED, run_context(run), NOON) | changes
    return parse_statement(make_statement(NAME, IMAGE, predicates.SEAL, predicate))


def altered(seal: Statement, change: Callable[[dict[str, Any]], None]) -> Statement:
    predicate = copy.deepcopy(dict(seal.predicate))
    change(predicate)
    return parse_statement(make_statement(NAME, IMAGE, predicates.SEAL, predicate))


def test_the_whole_set_passes_in_any_order() -> None:
    """A seal holds for exactly its statements, in whatever order they are found or sealed."""
    found = all_of()
    seal = seal_of(found)
    for seed in range(5):
        random.Random(seed).shuffle(found)
        check_seal(seal, found)
        assert seal_of(found) == seal


@given(st.sampled_from(sorted(evidence())))
def test_a_removed_statement_is_missed(kind: str) -> None:
    """Whichever statement is taken away, the seal says which one is missing."""
    seal = seal_of(all_of())
    rest = [item for item in all_of() if item.predicate_type != kind]
    with pytest.raises(VerificationFailed, match=f"{kind}.* is missing"):
        check_seal(seal, rest)


def test_no_statement_at_all_is_missed() -> None:
    """A seal alone proves nothing."""
    with pytest.raises(VerificationFailed, match="missing"):
        check_seal(seal_of(all_of()), [])


def test_an_added_statement_is_found() -> None:
    """A statement of the run that the seal does not list is refused, even a harmless one."""
    added = statement(predicates.TEST_RESULT, predicate={"result": "PASSED"})
    with pytest.raises(VerificationFailed, match="is not sealed"):
        check_seal(seal_of(all_of()), [*all_of(), added])


def test_an_added_statement_with_a_forged_context_is_found() -> None:
    """A statement that takes the run's id but another commit still counts as added."""
    bound = bind(evidence()[predicates.VULNS], run_context(commit="d" * 40))
    added = parse_statement(make_statement(NAME, IMAGE, predicates.VULNS, bound))
    with pytest.raises(VerificationFailed, match="is not sealed"):
        check_seal(seal_of(all_of()), [*all_of(), added])


def test_a_swapped_statement_is_found() -> None:
    """A statement exchanged for another of the same type is both missing and added."""
    other = statement(predicates.VULNS, predicate={"scanner": {"result": []}})
    swapped = [other if i.predicate_type == predicates.VULNS else i for i in all_of()]
    with pytest.raises(VerificationFailed, match="missing"):
        check_seal(seal_of(all_of()), swapped)


def test_sig_09_statements_of_two_runs_cannot_be_mixed() -> None:
    """Valid evidence of another run neither fills a gap nor can be sealed."""
    mixed = [statement(predicates.VULNS, "run-2"), *all_of()[1:]]
    with pytest.raises(VerificationFailed, match="is of another run"):
        seal_of([item for item in mixed if item.predicate_type])
    without = [item for item in all_of() if item.predicate_type != predicates.VULNS]
    with pytest.raises(VerificationFailed, match="missing"):
        check_seal(seal_of(all_of()), [*without, statement(predicates.VULNS, "run-2")])


def test_a_seal_of_another_run_does_not_fit() -> None:
    """The seal of run 2 over run 1's statements is refused: its own are missing."""
    with pytest.raises(VerificationFailed, match="missing"):
        check_seal(seal_of(all_of("run-2"), "run-2"), all_of())


def test_several_sealed_runs_live_beside_each_other() -> None:
    """Each run's seal holds while another run's complete evidence is there too."""
    both = [*all_of(), *all_of("run-2")]
    check_seal(seal_of(all_of()), both)
    check_seal(seal_of(all_of("run-2"), "run-2"), both)


@pytest.mark.parametrize("kind", sorted(predicates.AFTER_SEAL))
def test_verdicts_may_follow_the_seal(kind: str) -> None:
    """A summary, a promotion or a repeated seal of the run is not added evidence."""
    check_seal(seal_of(all_of()), [*all_of(), statement(kind, predicate={})])


def test_foreign_statements_are_left_to_the_rules() -> None:
    """A statement that names no run is not this run's, and does not break its seal."""
    foreign = parse_statement(make_statement(NAME, IMAGE, predicates.SPDX, {"name": "theirs"}))
    check_seal(seal_of(all_of()), [*all_of(), foreign])


def test_a_required_type_must_be_sealed() -> None:
    """A run cannot be sealed without a type that it promises, nor verify when it was."""
    rest = [item for item in all_of() if item.predicate_type != predicates.VULNS]
    with pytest.raises(VerificationFailed, match="required"):
        seal_of(rest)
    promised = altered(
        seal_of(all_of()), lambda p: p["requiredPredicateTypes"].append(predicates.VSA)
    )
    with pytest.raises(VerificationFailed, match="required"):
        check_seal(promised, all_of())


def test_nothing_cannot_be_sealed() -> None:
    """A seal over no statements does not exist."""
    with pytest.raises(VerificationFailed, match="empty"):
        make_seal([], [], run_context(), NOON)


def test_one_statement_is_sealed_once() -> None:
    """The same payload twice is refused instead of listed twice."""
    payload = all_of()[0].payload
    with pytest.raises(VerificationFailed, match="unique"):
        make_seal([payload, payload], [], run_context(), NOON)


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no list": lambda p: p.pop("statements"),
    "empty list": lambda p: p["statements"].clear(),
    "line twice": lambda p: p["statements"].append(p["statements"][-1]),
    "not sorted": lambda p: p["statements"].reverse(),
    "line cut": lambda p: p["statements"].pop(),
    "line without digest": lambda p: p["statements"][0].pop("digest"),
    "other digest": lambda p: p["statements"][0].update(digest={"sha256": "0" * 64}),
    "other type": lambda p: p["statements"][0].update(predicateType="https://a.example/v1"),
    "no root": lambda p: p["merkle"].pop("root"),
    "other root": lambda p: p["merkle"].update(root="0" * 64),
    "upper case root": lambda p: p["merkle"].update(root=p["merkle"]["root"].upper()),
    "other size": lambda p: p["merkle"].update(treeSize=1),
    "size is a boolean": lambda p: p["merkle"].update(treeSize=True),
    "other algorithm": lambda p: p["merkle"].update(algorithm="sha1"),
    "no required types": lambda p: p.pop("requiredPredicateTypes"),
    "required is a number": lambda p: p["requiredPredicateTypes"].append(5),
    "no run": lambda p: p.pop(predicates.RUN_MEMBER),
    "another run": lambda p: p[predicates.RUN_MEMBER].update(id="run-9"),
    "another commit": lambda p: p[predicates.RUN_MEMBER].update(commit="e" * 40),
    "no time": lambda p: p.pop("sealedAt"),
    "no real time": lambda p: p.update(sealedAt="now"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_seal_is_refused(case: str) -> None:
    """Whatever is cut from or changed in a seal's predicate, it no longer verifies."""
    seal = seal_of(all_of())
    with pytest.raises(VerificationFailed):
        check_seal(altered(seal, DAMAGE[case]), all_of())


def test_sig_03_another_predicate_is_no_seal() -> None:
    """A statement of another type is never taken for a seal."""
    with pytest.raises(VerificationFailed, match="predicate type"):
        check_seal(all_of()[0], all_of())


def test_a_line_is_proven_by_its_audit_path() -> None:
    """A single sealed statement can be proven against the root without the others."""
    seal = parse_seal(seal_of(all_of()).predicate)
    data = leaves(seal.statements)
    for index, leaf in enumerate(data):
        proof = merkle.inclusion_proof(data, index)
        assert merkle.verify_inclusion(leaf, index, seal.tree_size, proof, bytes.fromhex(seal.root))


def test_the_published_schema_describes_what_is_written() -> None:
    """The schema requires exactly the members that a seal has, at every level."""
    schema = json.loads(SCHEMA.read_bytes())
    predicate = dict(seal_of(all_of()).predicate)

    def compare(part: dict[str, Any], value: Any) -> None:
        part = schema["$defs"][part["$ref"].split("/")[-1]] if "$ref" in part else part
        if part["type"] == "object":
            assert set(part["required"]) <= value.keys() <= part["properties"].keys()
            for name, item in value.items():
                compare(part["properties"][name], item)
        elif part["type"] == "array":
            for item in value:
                compare(part["items"], item)
        else:
            assert isinstance(value, {"string": str, "integer": int, "boolean": bool}[part["type"]])

    compare(schema, predicate)


def test_the_example_of_the_page_is_true() -> None:
    """The page's example parses as a seal and has the root of its statements."""
    page = SCHEMA.with_name("seal-v1.md").read_text()
    seal = parse_seal(json.loads(page.split("```json")[1].split("```")[0]))
    assert seal.root == merkle.root(leaves(seal.statements)).hex()
