"""JUnit XML of the project's own tests, counted and checked against what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from secure_pipeline import strictxml
from secure_pipeline.strictxml import Element, InvalidXml

MAX_NAME = 300


class Outcome(Enum):
    """How one test ended."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class TestCase:
    """One test."""

    __test__ = False

    name: str
    outcome: Outcome


@dataclass(frozen=True)
class JUnit:
    """What a report says."""

    cases: tuple[TestCase, ...]
    inconsistent: tuple[str, ...]
    """Where the report's own totals differ from its content, one line each."""

    def names(self, *outcomes: Outcome) -> tuple[str, ...]:
        """Names of the tests that ended so, in the report's order."""
        return tuple(case.name for case in self.cases if case.outcome in outcomes)

    def count(self, outcome: Outcome) -> int:
        """How many tests ended so."""
        return sum(case.outcome is outcome for case in self.cases)


def read_junit(data: bytes) -> JUnit:
    """Read a report.

    Raises: InvalidXml if it is not whole, not plain XML, or not JUnit.
    """
    root = strictxml.parse(data)
    if root.name not in ("testsuites", "testsuite"):
        raise InvalidXml(f"the root is <{root.name[:40]}>, not <testsuites> or <testsuite>")
    return JUnit(tuple(_case(e) for e in _cases(root)), tuple(_differences(root)))


def _cases(element: Element) -> Iterator[Element]:
    for child in element.children:
        if child.name == "testcase":
            yield child
        elif child.name == "testsuite":
            yield from _cases(child)


def _case(element: Element) -> TestCase:
    group, name = element.attributes.get("classname", ""), element.attributes.get("name", "")
    return TestCase("::".join(part for part in (group, name) if part)[:MAX_NAME], _outcome(element))


def _outcome(element: Element) -> Outcome:
    """A test that both failed and was skipped failed: the worst counts."""
    kinds = {child.name for child in element.children}
    if "error" in kinds:
        return Outcome.ERROR
    if "failure" in kinds:
        return Outcome.FAILED
    return Outcome.SKIPPED if "skipped" in kinds else Outcome.PASSED


def _differences(root: Element) -> Iterator[str]:
    """Compare totals where they are unambiguous: at the root, and in suites without suites.

    Tools count differently in suites of suites. A test that passes and then breaks while
    cleaning up may count twice in ``tests`` (pytest), so errors are slack there.
    """
    for element in _totalled(root):
        cases = [_case(case) for case in _cases(element)]
        errors = sum(case.outcome is Outcome.ERROR for case in cases)
        tests, failures, broken = (_total(element, key) for key in ("tests", "failures", "errors"))
        label = f"<{element.name} {element.attributes.get('name', '')[:60]}>"
        if tests is not None and not len(cases) <= tests <= len(cases) + errors:
            yield f"{label} says {tests} tests and holds {len(cases)}"
        bad = sum(case.outcome in (Outcome.FAILED, Outcome.ERROR) for case in cases)
        if failures is not None and broken is not None and failures + broken < bad:
            yield f"{label} says {failures + broken} failed and holds {bad}"
        if (failures or 0) + (broken or 0) > bad:
            yield f"{label} says {(failures or 0) + (broken or 0)} failed and holds {bad}"


def _totalled(element: Element) -> Iterator[Element]:
    suites = [child for child in element.children if child.name == "testsuite"]
    if not suites or element.name == "testsuites":
        yield element
    for suite in suites:
        yield from _totalled(suite)


def _total(element: Element, key: str) -> int | None:
    text = element.attributes.get(key)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidXml(f"{key}={text[:40]!r} is not a count")
    return int(text)
