"""Exceptions of the trusted policy, applied to findings and counted aloud (SCN-09, CLI-07).

Each exception is judged alone: all of its own conditions hold for the one finding, or it does
not apply. Two exceptions never add up to a wider one, and no condition matches a finding that
lacks the member which the condition names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date

from secure_pipeline.findings import Finding, Ignored
from secure_pipeline.globs import under
from secure_pipeline.policy.document import PolicyException


@dataclass(frozen=True)
class ExceptionReport:
    """What became of every exception, so that none works or rests in silence."""

    findings: tuple[Finding, ...]
    """The findings, the excepted ones marked with ``ignored`` and ``reason``."""
    used: tuple[tuple[PolicyException, int], ...]
    """Exceptions that apply, each with the number of findings it ignores."""
    unused: tuple[PolicyException, ...]
    """Exceptions in force that match no finding."""
    expired: tuple[tuple[PolicyException, int], ...]
    """Expired exceptions, each with the number of findings it no longer ignores."""

    @property
    def lines(self) -> tuple[str, ...]:
        """One line a person can read for each exception."""
        return (
            *(f"exception {scope(e)} ignores {n}: {e.reason}" for e, n in self.used),
            *(f"exception {scope(e)} matches nothing" for e in self.unused),
            *(
                f"exception {scope(e)} expired on {e.expires}; {n} findings count again"
                for e, n in self.expired
            ),
        )


def apply_exceptions(
    findings: Iterable[Finding], exceptions: Iterable[PolicyException], today: date
) -> tuple[Finding, ...]:
    """Mark the findings that an exception in force covers; order and number stay the same."""
    return account(findings, exceptions, today).findings


def account(
    findings: Iterable[Finding], exceptions: Iterable[PolicyException], today: date
) -> ExceptionReport:
    """Apply the exceptions and count what each of them did.

    The first matching exception gives a finding its reason. A finding that something else
    (a baseline, VEX) ignores already keeps that mark and is not counted here.
    """
    rules = tuple(exceptions)
    in_force = [rule for rule in rules if today <= rule.expires]
    counts = [0] * len(in_force)
    marked = []
    given = tuple(findings)
    for finding in given:
        index = next((i for i, rule in enumerate(in_force) if covers(rule, finding)), None)
        if index is not None and finding.ignored is None:
            counts[index] += 1
            finding = replace(finding, ignored=Ignored.EXCEPTION, reason=in_force[index].reason)
        marked.append(finding)
    counted = tuple(zip(in_force, counts, strict=True))
    return ExceptionReport(
        findings=tuple(marked),
        used=tuple((rule, count) for rule, count in counted if count),
        unused=tuple(rule for rule, count in counted if not count),
        expired=tuple(
            (rule, sum(covers(rule, finding) for finding in given))
            for rule in rules
            if today > rule.expires
        ),
    )


def covers(exception: PolicyException, finding: Finding) -> bool:
    """Tell whether every condition of one exception holds for one finding."""
    if exception.id != finding.rule:
        return False
    if exception.package is not None and exception.package != finding.package:
        return False
    if exception.path is None:
        return True
    return finding.location is not None and under(finding.location.path, exception.path)


def scope(exception: PolicyException) -> str:
    """The exception's own words for what it covers."""
    parts = [exception.id]
    if exception.package is not None:
        parts.append(f"in package {exception.package}")
    if exception.path is not None:
        parts.append(f"under {exception.path}")
    return " ".join(parts)
