"""JUnit reports, counted and compared with what they say of themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.report.junit import Outcome, read_junit
from secure_pipeline.strictxml import InvalidXml

PYTEST = b"""<?xml version="1.0" encoding="utf-8"?>
<testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1" skipped="1"
 tests="5" time="0.1"><testcase classname="test_a" name="test_one" time="0.1" />
<testcase classname="test_a" name="test_two"><failure message="x">trace</failure></testcase>
<testcase classname="test_a" name="test_three"><skipped message="x"/></testcase>
<testcase classname="test_a" name="test_four"><error message="teardown">trace</error></testcase>
</testsuite></testsuites>"""

NODE = b"""<testsuites><testsuite name="outer" tests="2" failures="0" skipped="0">
<testsuite name="inner" tests="1" failures="0"><testcase name="deep"/></testsuite>
<testcase name="shallow"/></testsuite></testsuites>"""


def suite(cases: list[str], **totals: int) -> bytes:
    bodies = {"passed": "", "failed": "<failure/>", "error": "<error/>", "skipped": "<skipped/>"}
    inner = "".join(f'<testcase name="t{n}">{bodies[c]}</testcase>' for n, c in enumerate(cases))
    attributes = " ".join(f'{key}="{value}"' for key, value in totals.items())
    return f"<testsuite {attributes}>{inner}</testsuite>".encode()


def test_pytest_reports_are_consistent() -> None:
    """A pass whose teardown breaks counts twice in pytest's total and once as a test here."""
    report = read_junit(PYTEST)
    assert report.inconsistent == ()
    assert report.names(Outcome.PASSED) == ("test_a::test_one",)
    assert report.names(Outcome.FAILED, Outcome.ERROR) == ("test_a::test_two", "test_a::test_four")
    assert report.count(Outcome.SKIPPED) == 1


def test_suites_within_suites_are_counted_once() -> None:
    """Nested suites add up, and their ambiguous totals are not held against them."""
    report = read_junit(NODE)
    assert [case.name for case in report.cases] == ["deep", "shallow"]
    assert report.inconsistent == ()


@pytest.mark.parametrize(
    ("cases", "totals"),
    [
        (["passed"], {"tests": 2}),
        (["passed", "passed"], {"tests": 1}),
        (["passed"], {"tests": 1, "failures": 1}),
        (["failed", "failed"], {"tests": 2, "failures": 1, "errors": 0}),
        ([], {"tests": 3}),
    ],
)
def test_totals_that_differ_from_the_content_are_told(
    cases: list[str], totals: dict[str, int]
) -> None:
    """A report that lost or gained tests says so itself."""
    assert read_junit(suite(cases, **totals)).inconsistent


@pytest.mark.parametrize(
    "data",
    [b"<html/>", PYTEST[:-30], b"", b'<testsuite tests="NaN"/>', b'<testsuite tests="-1"/>'],
)
def test_what_is_not_junit_is_refused(data: bytes) -> None:
    """Half a report, another document and totals that are no counts are errors."""
    with pytest.raises(InvalidXml):
        read_junit(data)


def test_the_worst_mark_of_a_test_counts() -> None:
    """A test marked both skipped and failed failed."""
    report = read_junit(
        b'<testsuite><testcase name="t"><skipped/><failure/></testcase></testsuite>'
    )
    assert report.names(Outcome.FAILED) == ("t",)


@given(st.lists(st.sampled_from([o.value for o in Outcome]), max_size=30))
def test_every_case_is_counted_exactly_once(cases: list[str]) -> None:
    """Counts per outcome add up to the number of tests, and true totals are consistent."""
    bad = {"failures": cases.count("failed"), "errors": cases.count("error")}
    report = read_junit(suite(cases, tests=len(cases), **bad))
    assert report.inconsistent == ()
    assert {o.value: report.count(o) for o in Outcome} == {
        o.value: cases.count(o.value) for o in Outcome
    }
