"""Exceptions: scoped, expiring, judged one by one and counted."""

from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.findings import Finding, Ignored, Kind, Location, Severity
from secure_pipeline.policy.document import PolicyException
from secure_pipeline.policy.exceptions import account, apply_exceptions, covers

TODAY = date(2027, 1, 10)
WHY = "not reachable in this image"


def finding(rule: str = "CVE-1", package: str | None = "ssl", path: str | None = None) -> Finding:
    location = Location(path) if path else None
    return Finding(
        rule, Kind.VULNERABILITY, Severity.HIGH, "text", f"{rule}{package}", location, package
    )


def exception(
    rule: str = "CVE-1",
    package: str | None = None,
    path: str | None = None,
    expires: date = TODAY,
) -> PolicyException:
    return PolicyException(rule, WHY, expires, package, path)


def test_exception_marks_with_its_reason_on_its_last_day() -> None:
    """An exception counts on the day it expires, and the finding carries the reason."""
    (marked,) = apply_exceptions([finding()], [exception()], TODAY)
    assert (marked.ignored, marked.reason) == (Ignored.EXCEPTION, WHY)


def test_scn_09_expired_exception_does_not_count_and_is_reported() -> None:
    """The day after, the finding counts again and the report says which exception ended."""
    old = exception(expires=TODAY - timedelta(1))
    report = account([finding()], [old], TODAY)
    assert report.findings == (finding(),)
    assert report.expired == ((old, 1),)
    assert "expired on 2027-01-09; 1 findings count again" in report.lines[0]


def test_unused_exceptions_are_reported() -> None:
    """An exception that matches nothing is said aloud, because its id may be misspelt."""
    rule = exception("CVE-2")
    report = account([finding()], [rule], TODAY)
    assert (report.used, report.unused) == ((), (rule,))
    assert report.lines == ("exception CVE-2 matches nothing",)


def test_cli_07_two_exceptions_never_widen_each_other() -> None:
    """One exception for a package and one for a path do not cover package and path freely."""
    rules = [exception(package="ssl", path="usr/**"), exception(package="zlib", path="opt/**")]
    crossed = [finding(package="ssl", path="opt/a"), finding(package="zlib", path="usr/a")]
    assert apply_exceptions(crossed, rules, TODAY) == tuple(crossed)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["CVE-1", "CVE-2"]),
            st.sampled_from([None, "ssl", "zlib"]),
            st.sampled_from([None, "usr", "opt/*"]),
            st.sampled_from([-1, 0, 1]),
        ),
        max_size=4,
    ),
    st.sampled_from(["CVE-1", "CVE-2"]),
    st.sampled_from([None, "ssl", "zlib"]),
    st.sampled_from([None, "usr/a", "opt/b"]),
)
def test_cli_07_a_set_of_exceptions_covers_what_one_of_them_covers(
    rules: list[tuple[str, str | None, str | None, int]],
    rule: str,
    package: str | None,
    path: str | None,
) -> None:
    """Any set ignores a finding exactly if one unexpired member alone does."""
    exceptions = [exception(r, p, f, TODAY + timedelta(days)) for r, p, f, days in rules]
    subject = finding(rule, package, path)
    (together,) = apply_exceptions([subject], exceptions, TODAY)
    alone = [apply_exceptions([subject], [one], TODAY)[0].ignored for one in exceptions]
    assert (together.ignored is not None) == any(mark is not None for mark in alone)


def test_other_marks_stay() -> None:
    """A finding that the baseline ignores keeps that mark and is not counted twice."""
    known = replace(finding(), ignored=Ignored.BASELINE)
    report = account([known], [exception()], TODAY)
    assert (report.findings, report.used) == ((known,), ())


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("tests", "tests/unit/a.py", True),
        ("tests/*", "tests/a.py", True),
        ("*/a.py", "tests/unit/a.py", False),
        ("**/a.py", "tests/unit/a.py", True),
        ("**/a.py", "a.py", True),
        ("test", "tests/a.py", False),
        ("tests", "tests/../src/a.py", False),
        ("a.py", "aXpy", False),
        ("src/?.py", "src/a.py", True),
        ("src/?.py", "src//.py", False),
    ],
)
def test_paths_match_whole_names(pattern: str, path: str, expected: bool) -> None:
    """A path scope covers whole names and what is below them, and never climbs."""
    assert covers(exception(path=pattern), finding(path=path)) is expected


def test_cli_07_a_missing_member_never_matches() -> None:
    """A finding without package or place is outside every scope that names one."""
    assert not covers(exception(package="ssl"), finding(package=None))
    assert not covers(exception(path="**"), finding())
