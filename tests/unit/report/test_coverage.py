"""Coverage reports, of which only whole and consistent ones give a number."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.config import CoverageFormat
from secure_pipeline.report.coverage import Coverage, InvalidCoverage, read_coverage

AUTO = CoverageFormat.AUTO


def cobertura(hits: list[int], attributes: str | None = None) -> bytes:
    lines = "".join(f'<line number="{n}" hits="{h}"/>' for n, h in enumerate(hits, start=1))
    if attributes is None:
        covered = sum(h > 0 for h in hits)
        rate = covered / len(hits) if hits else 1
        attributes = f'lines-valid="{len(hits)}" lines-covered="{covered}" line-rate="{rate:.4f}"'
    return (
        f'<coverage {attributes}><packages><package><classes><class filename="a.py">'
        f"<methods><method><lines>{lines}</lines></method></methods><lines>{lines}</lines>"
        f"</class></classes></package></packages></coverage>"
    ).encode()


def lcov(hits: list[int], tail: str = "end_of_record\n") -> bytes:
    lines = "".join(f"DA:{n},{h}\n" for n, h in enumerate(hits, start=1))
    covered = sum(h > 0 for h in hits)
    return f"TN:\nSF:a.js\nFN:1,f\n{lines}LF:{len(hits)}\nLH:{covered}\n{tail}".encode()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50))
def test_both_formats_give_the_same_number(hits: list[int]) -> None:
    """Lines of a class count, those of its methods do not count again."""
    expected = Coverage(sum(h > 0 for h in hits), len(hits))
    assert read_coverage(cobertura(hits), AUTO) == expected
    assert read_coverage(lcov(hits), AUTO) == expected


def test_percent_is_never_rounded_up() -> None:
    """9,499 of 10,000 lines are not 95 per cent."""
    assert Coverage(94_999, 100_000).percent == 94.99
    assert Coverage(2, 3).percent == 66.66


def test_a_line_that_several_tests_list_counts_once() -> None:
    """Two records of one file are united, as lcov's own tools do."""
    assert read_coverage(lcov([1, 0]) + lcov([0, 0]), AUTO) == Coverage(1, 2)


REFUSED = {
    "empty": b"",
    "no lines": cobertura([]),
    "no lines in lcov": lcov([]),
    "NaN rate": cobertura([1, 0], 'line-rate="NaN"'),
    "infinite rate": cobertura([1, 0], 'line-rate="inf"'),
    "rate that lies": cobertura([1, 0], 'lines-valid="2" lines-covered="1" line-rate="0.99"'),
    "totals that lie": cobertura([1, 0], 'lines-valid="200" lines-covered="199"'),
    "more covered than there are": cobertura([1], 'lines-valid="1" lines-covered="2"'),
    "NaN totals": cobertura([1], 'lines-valid="NaN" lines-covered="NaN"'),
    "negative": cobertura([1], 'lines-valid="-1" lines-covered="-1"'),
    "half of it": cobertura([1, 0])[:-20],
    "another document": b"<testsuite/>",
    "lcov without an end": lcov([1], ""),
    "lcov record in a record": lcov([1], "") + lcov([1]),
    "lcov whose total lies": lcov([1, 0]).replace(b"LH:1", b"LH:2"),
    "lcov line outside": b"DA:1,1\n",
    "lcov negative": lcov([1]).replace(b"DA:1,1", b"DA:1,-1"),
    "entity": b'<!DOCTYPE coverage [<!ENTITY x "y">]><coverage/>',
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_report_that_cannot_be_trusted_gives_no_number(case: str) -> None:
    """Half, inconsistent, NaN and empty reports are errors, never 0 or 100 per cent."""
    with pytest.raises(InvalidCoverage):
        read_coverage(REFUSED[case], AUTO)


def test_the_named_format_is_held_to() -> None:
    """A report in another format than the configured one is refused."""
    with pytest.raises(InvalidCoverage):
        read_coverage(lcov([1]), CoverageFormat.COBERTURA)
    with pytest.raises(InvalidCoverage):
        read_coverage(cobertura([1]), CoverageFormat.LCOV)


@given(st.binary(max_size=200))
def test_any_bytes_give_coverage_or_the_error(data: bytes) -> None:
    """No input ends in another exception."""
    for form in CoverageFormat:
        with contextlib.suppress(InvalidCoverage):
            assert read_coverage(data, form).lines > 0
