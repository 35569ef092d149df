"""Explanations as pages, texts and documents: equal to their golden files, bounded, harmless."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.htmlpage import read_page
from secure_pipeline.report.explain_html import explanation_page
from secure_pipeline.report.explain_text import explanation_lines
from secure_pipeline.stages.evidence_nodes import first
from secure_pipeline.stages.explain import Explanation

GOLDEN = Path(__file__).parents[2] / "golden/explain"
ESCAPES = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
CASES = ("allowed", "quarantined", "denied", "undetermined", "hostile", "nothing")


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


@pytest.mark.parametrize("case", CASES)
def test_pages_texts_and_documents_equal_their_generator(
    generator: ModuleType, case: str, tmp_path: Path
) -> None:
    """Page, text and document of each case are, byte for byte, what the generator writes."""
    for name, content in generator.files(case, tmp_path).items():
        assert content == (GOLDEN / name).read_bytes(), f"{name}: run its generator and look"


@pytest.mark.parametrize("case", CASES)
def test_a_page_is_whole_and_loads_nothing(case: str) -> None:
    """Every page is well-formed, without script or loads, and names its verdict first."""
    read = read_page((GOLDEN / f"{case}.html").read_bytes())
    verdict = {"allowed": "Allowed", "undetermined": "Cannot tell"}.get(case, "Denied")
    assert read.texts[1] == f"{verdict}: inference-service"
    assert not ESCAPES.search(read.text)


def test_text_never_reaches_the_terminal_as_control() -> None:
    """No line for a terminal holds a control character, a turning mark or a line too long."""
    for path in GOLDEN.glob("*.txt"):
        for line in path.read_text().split("\n"):
            assert not ESCAPES.search(line)
            assert len(line) <= 110, line


def test_an_image_with_a_thousand_statements_stays_bounded(
    sample: Explanation,
) -> None:
    """Everything is counted, some is shown, and what was left out is said."""
    explanation, graph, many = sample, sample.graph, 1000
    view, rule = graph.statements.items[0], explanation.rules.items[0]
    test = next(one for one in graph.nodes if one.id == "test")
    crowded = replace(test, statements=first([view] * many, 12), rules=(rule,) * many)
    explanation = replace(
        explanation,
        graph=replace(
            graph,
            nodes=tuple(crowded if one.id == "test" else one for one in graph.nodes),
            statements=first([view] * many, 200),
            beside=first([view] * many, 200),
        ),
        rules=first([rule] * many, 300),
        claims=first([], 20),
    )
    page = explanation_page(explanation)
    assert len(page) < 512 << 10
    text = read_page(page).text
    assert "… and 988 more statements" in text
    assert "… and 950 more rules" in text
    assert "… and 800 more statements" in text
    assert len(explanation_lines(explanation)) < 200
    assert "… and 940 more rules" in "\n".join(explanation_lines(explanation))


@given(st.text(max_size=200) | st.text("<>&\"'/scriptonload=\u202e\x1b\n", max_size=60))
def test_no_text_of_an_explanation_can_become_markup(sample: Explanation, text: str) -> None:
    """Any text in any place of an explanation leaves page and lines whole."""
    explanation, graph = sample, sample.graph
    view = replace(graph.statements.items[0], name=text, run=text, type=text, signers=(text,))
    listed = replace(graph.statements, items=(view,))
    nodes = tuple(
        replace(
            one,
            summary=text,
            facts=tuple(replace(fact, label=text, value=text) for fact in one.facts),
            statements=listed,
        )
        for one in graph.nodes
    )
    rule = replace(explanation.rules.items[0], why=text, hint=text)
    bent_one = replace(
        explanation,
        policy=text,
        because=text,
        hint=text,
        run=text,
        graph=replace(graph, nodes=nodes, statements=listed, beside=listed),
        rules=replace(explanation.rules, items=(rule,)),
    )
    read_page(explanation_page(bent_one))
    for line in explanation_lines(bent_one):
        assert not ESCAPES.search(line)
