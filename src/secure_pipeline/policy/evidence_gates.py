"""Gates, evaluated again from the evidence itself under the policy of today.

That a stage once said PASS is not enough: the policy may be stricter now, and the signer's
configuration is not the verifier's. What a gate needs and the evidence does not say is
undetermined. ``OWN`` is the predicate's member for what its standard has no field for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from secure_pipeline import shape
from secure_pipeline.attestations.predicates import TEST_RESULT, VULNS
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.findings import Finding, Ignored, Kind, Severity
from secure_pipeline.policy.decision import Outcome, Rule, allow, forbid, unsure, wrong
from secure_pipeline.policy.document import Policy
from secure_pipeline.policy.evidence import Item
from secure_pipeline.policy.exceptions import account

OWN = "secure-pipeline"
MAX_FINDINGS = 200_000

Gate = Callable[[Item, Policy, datetime], tuple[Rule, ...]]


def gate_rules(item: Item, policy: Policy, now: datetime) -> tuple[Rule, ...]:
    """All gates of one statement; none for types that no gate reads."""
    return _rules(_GATES, item, policy, now)


def failing_rules(items: Iterable[Item], policy: Policy, now: datetime) -> tuple[Rule, ...]:
    """Denials out of statements beside the run's own: each is asked, not any (SIG-10).

    Only what is over a gate counts here; an old database or a missing figure in another
    run's evidence does not make this run's worse. A key out of its window proves nothing.
    """
    rules: list[Rule] = []
    asked = 0
    for item in items:
        if item.lapsed:
            continue
        asked += item.type in _RESULTS
        for rule in _rules(_RESULTS, item, policy, now):
            if rule.outcome is Outcome.DENY:
                why = f"another result for this image refuses: {rule.why}"
                rules.append(forbid("each-of", why, rule.evidence))
    return tuple(rules) or (allow("each-of", f"{asked} other results for this image; none fails"),)


def _rules(
    gates: Mapping[str, tuple[Gate, ...]], item: Item, policy: Policy, now: datetime
) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    for gate in gates.get(item.type, ()):
        try:
            rules += gate(item, policy, now)
        except VerificationFailed as error:
            rules.append(wrong("statement", f"{item.title}: {error.message}", (item.digest,)))
    return tuple(rules)


def _result(item: Item, policy: Policy, now: datetime) -> tuple[Rule, ...]:
    """A test result must be PASSED; only FAILED denies, all else is no answer."""
    result = shape.member(item.statement.predicate, "result", str, item.type)
    digests = (item.digest,)
    if result == "PASSED":
        return (allow("result", f"{item.title} is PASSED", digests),)
    if result == "FAILED":
        return (forbid("result", f"{item.title} is FAILED", digests),)
    return (unsure("result", f"{item.title} is {result[:40]!r}, not PASSED", digests),)


def _coverage(item: Item, policy: Policy, now: datetime) -> tuple[Rule, ...]:
    """Line coverage of the test named "test" against the policy's minimum, per cent."""
    minimum = policy.gates.test.minimum_coverage
    if item.name != "test" or minimum is None:
        return ()
    coverage = _number(_figures(item).get("coverage"))
    digests = (item.digest,)
    if coverage is None or not 0 <= coverage <= 100:
        why = f"{item.title} does not say its coverage; the policy asks for {minimum:g} %"
        return (unsure("coverage", why, digests),)
    if coverage < minimum:
        why = f"coverage is {coverage:g} %; the policy asks for {minimum:g} %"
        return (forbid("coverage", why, digests),)
    return (allow("coverage", f"{coverage:g} % of at least {minimum:g} %", digests),)


def _vulnerabilities(item: Item, policy: Policy, now: datetime) -> tuple[Rule, ...]:
    """Vulnerabilities that reach the policy's severity and have no exception."""
    gate = policy.gates.scan
    report = account(_findings(item, gate.vex), policy.exceptions, now.date())
    over = [f for f in report.findings if f.ignored is None and f.severity.reaches(gate.severity)]
    if gate.fixed_only:
        over = [finding for finding in over if finding.fixed]
    excepted = sum(count for _, count in report.used)
    digests = (item.digest,)
    counts = f"{len(report.findings)} vulnerabilities, {excepted} excepted by the policy"
    if over:
        worst = sorted(over, key=lambda f: (f.severity, f.rule), reverse=True)
        names = ", ".join(f"{f.rule[:40]} ({f.severity.value})" for f in worst[:5])
        why = f"{len(over)} of {counts}, reach {gate.severity.value}: {names}"
        return (forbid("vulnerabilities", f"{item.title}: {why}", digests),)
    why = f"{counts}, none other reaches {gate.severity.value}"
    return (allow("vulnerabilities", why, digests),)


def _database(item: Item, policy: Policy, now: datetime) -> tuple[Rule, ...]:
    """The database was young enough when it was used, and of a kind the policy takes."""
    gate, digests = policy.gates.scan, (item.digest,)
    scanner = shape.member(item.statement.predicate, "scanner", dict, item.type)
    database = shape.optional(scanner, "db", dict, item.type) or {}
    text = shape.optional(database, "lastUpdate", str, item.type)
    if text is None or item.time is None:
        why = f"{item.title} does not say how old its database was"
        return (unsure("database", why, digests),)
    updated = shape.timestamp(text, item.type)
    age = item.time - updated
    if -age > policy.clock_skew:
        return (unsure("database", f"the database is dated {text}, after the scan", digests),)
    if age > gate.max_database_age:
        why = f"the database was {age} old when used; the policy allows {gate.max_database_age}"
        return (forbid("database", why, digests),)
    return (_database_kind(item, policy, text),)


def _database_kind(item: Item, policy: Policy, updated: str) -> Rule:
    gate, digests = policy.gates.scan, (item.digest,)
    own = _own(item)
    demonstration = own.get("demonstrationDatabase")
    if not isinstance(demonstration, bool) and not gate.allow_demonstration_database:
        return unsure("database", f"{item.title} does not say which kind its database is", digests)
    if demonstration and not gate.allow_demonstration_database:
        return forbid("database", "the scan used the demonstration database", digests)
    if gate.database is not None and own.get("databaseDigest") != gate.database:
        found = own.get("databaseDigest")
        why = f"the scan used the database {str(found)[:80]}, not {gate.database}"
        return forbid("database", why, digests) if found else unsure("database", why, digests)
    return allow("database", f"of {updated}", digests)


def _findings(item: Item, vex: Collection[str]) -> list[Finding]:
    """The vulnerabilities; ``vex`` are the documents that the policy of today still names."""
    predicate = item.statement.predicate
    scanner = shape.member(predicate, "scanner", dict, item.type)
    if not isinstance(scanner.get("result"), list):
        raise VerificationFailed("scanner.result is missing")
    entries = shape.objects(scanner, "result", item.type, limit=MAX_FINDINGS)
    return [_finding(entry, vex, item.type) for entry in entries]


def _finding(entry: Mapping[str, Any], vex: Collection[str], where: str) -> Finding:
    identifier = shape.member(entry, "id", str, where)
    notes: dict[str, Any] = {}
    for annotation in shape.objects(entry, "annotations", where, limit=1000):
        notes |= annotation
    package, fixed = notes.get("package"), notes.get("fixed")
    return Finding(
        rule=identifier,
        kind=Kind.VULNERABILITY,
        severity=severity_of(shape.objects(entry, "severity", where, limit=100)),
        message=identifier,
        fingerprint=identifier,
        package=package if isinstance(package, str) else None,
        fixed=fixed if isinstance(fixed, str) and fixed else None,
        ignored=Ignored.VEX if notes.get("vex") in vex else None,
    )


def severity_of(ratings: Iterable[Mapping[str, Any]]) -> Severity:
    """The worst of all ratings: words, or CVSS v3/v4 scores by their qualitative scale.

    What cannot be read is UNKNOWN, and UNKNOWN reaches every gate (SCN-10).
    """
    return max((_severity(rating.get("score")) for rating in ratings), default=Severity.UNKNOWN)


def _severity(score: object) -> Severity:
    words = {"none": Severity.INFO, "negligible": Severity.LOW, "moderate": Severity.MEDIUM}
    if isinstance(score, str):
        word = score.strip().lower()
        known = {severity.value: severity for severity in Severity} | words
        if word in known:
            return known[word]
        try:
            score = float(word)
        except ValueError:
            return Severity.UNKNOWN
    number = _number(score)
    if number is None or not 0 <= number <= 10:
        return Severity.UNKNOWN
    steps = ((9.0, Severity.CRITICAL), (7.0, Severity.HIGH), (4.0, Severity.MEDIUM))
    low = Severity.LOW if number > 0 else Severity.INFO
    return next((severity for least, severity in steps if number >= least), low)


def _own(item: Item) -> Mapping[str, Any]:
    """Our member of the predicate; empty when another tool wrote it."""
    value = shape.optional(item.statement.predicate, OWN, dict, item.type)
    return value or {}


def _figures(item: Item) -> Mapping[str, Any]:
    return shape.optional(_own(item), "figures", dict, item.type) or {}


def _number(value: object) -> float | None:
    """A finite number; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


_RESULTS: Mapping[str, tuple[Gate, ...]] = {
    TEST_RESULT: (_result,),
    VULNS: (_vulnerabilities,),
}
_GATES: Mapping[str, tuple[Gate, ...]] = {
    TEST_RESULT: (_result, _coverage),
    VULNS: (_vulnerabilities, _database),
}
