"""Gates, evaluated again from the evidence itself under the policy of today.

That a stage once said PASS is not enough: the policy may be stricter now, and the signer's
configuration is not the verifier's. What a gate needs and the evidence does not say is
undetermined. ``OWN`` is the predicate's member for what its standard has no field for; a
statement of no run of ours is another tool's, and is judged by what its standard says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from secure_pipeline import shape
from secure_pipeline.attestations.fileform import is_of_file
from secure_pipeline.attestations.predicates import (
    COSIGN_VULN,
    NAMESPACE,
    PROVENANCE,
    TEST_RESULT,
    VSA,
    VULNS,
)
from secure_pipeline.attestations.scans import OWN
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.findings import Finding, Severity
from secure_pipeline.policy import vex
from secure_pipeline.policy.decision import Outcome, Rule, allow, forbid, unsure, wrong
from secure_pipeline.policy.document import Policy
from secure_pipeline.policy.evidence import Item
from secure_pipeline.policy.exceptions import account
from secure_pipeline.policy.vulnerability_lists import listed, number, of_trivy


@dataclass(frozen=True)
class Bench:
    """What gates judge by."""

    policy: Policy
    image: vex.Subject
    now: datetime
    vex: tuple[vex.Statement, ...] = ()
    """Of the documents that the policy names."""
    of_file: bool = False
    """Whether a file is judged, and no image."""


Gate = Callable[[Item, Bench], tuple[Rule, ...]]


def gate_rules(item: Item, bench: Bench) -> tuple[Rule, ...]:
    """All gates of one statement; none for types that no gate reads."""
    return _rules(_GATES, item, bench)


def failing_rules(items: Iterable[Item], bench: Bench) -> tuple[Rule, ...]:
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
        for rule in _rules(_RESULTS, item, bench):
            if rule.outcome is Outcome.DENY:
                why = f"another result for this image refuses: {rule.why}"
                rules.append(forbid("each-of", why, rule.evidence))
    return tuple(rules) or (allow("each-of", f"{asked} other results for this image; none fails"),)


def _rules(gates: Mapping[str, tuple[Gate, ...]], item: Item, bench: Bench) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    for gate in gates.get(item.type, ()):
        try:
            rules += gate(item, bench)
        except VerificationFailed as error:
            rules.append(wrong("statement", f"{item.title}: {error.message}", (item.digest,)))
    return tuple(rules)


def _result(item: Item, bench: Bench) -> tuple[Rule, ...]:
    """A test result must be PASSED; only FAILED denies, all else is no answer."""
    result = shape.member(item.statement.predicate, "result", str, item.type)
    digests = (item.digest,)
    if result == "PASSED":
        return (allow("result", f"{item.title} is PASSED", digests),)
    if result == "FAILED":
        return (forbid("result", f"{item.title} is FAILED", digests),)
    return (unsure("result", f"{item.title} is {result[:40]!r}, not PASSED", digests),)


def _coverage(item: Item, bench: Bench) -> tuple[Rule, ...]:
    """Line coverage of the test named "test" against the policy's minimum, per cent."""
    minimum = bench.policy.gates.test.minimum_coverage
    if item.name != "test" or minimum is None:
        return ()
    coverage = number(_figures(item).get("coverage"))
    digests = (item.digest,)
    if coverage is None or not 0 <= coverage <= 100:
        why = f"{item.title} does not say its coverage; the policy asks for {minimum:g} %"
        return (unsure("coverage", why, digests),)
    if coverage < minimum:
        why = f"coverage is {coverage:g} %; the policy asks for {minimum:g} %"
        return (forbid("coverage", why, digests),)
    return (allow("coverage", f"{coverage:g} % of at least {minimum:g} %", digests),)


def _analysis(item: Item, bench: Bench) -> tuple[Rule, ...]:
    """Findings of the analysis named "analyze" that nothing set aside, by severity."""
    if item.name != "analyze":
        return ()
    gate, digests = bench.policy.gates.analyze.severity, (item.digest,)
    counts = _counts(_figures(item).get("findings"))
    if counts is None:
        why = f"{item.title} does not say how many findings of each severity are open"
        return (unsure("analysis", why, digests),)
    over = sum(count for severity, count in counts.items() if severity.reaches(gate))
    if over:
        why = f"{item.title}: {over} open findings reach {gate.value}"
        return (forbid("analysis", why, digests),)
    why = f"{sum(counts.values())} open findings, none reaches {gate.value}"
    return (allow("analysis", why, digests),)


def _counts(value: object) -> dict[Severity, int] | None:
    """Number by severity; None unless every severity has one."""
    if not isinstance(value, dict) or value.keys() != {severity.value for severity in Severity}:
        return None
    if any(type(count) is not int or count < 0 for count in value.values()):
        return None
    return {severity: value[severity.value] for severity in Severity}


def _relaxations(item: Item, bench: Bench) -> tuple[Rule, ...]:
    """Build rules that were switched off are switched off in this policy too."""
    definition = shape.member(item.statement.predicate, "buildDefinition", dict, item.type)
    if is_of_file(item.statement.predicate) and not bench.of_file:
        return (wrong("build-rules", f"{item.title} is about a file, no image", (item.digest,)),)
    internal = shape.optional(definition, "internalParameters", dict, item.type) or {}
    relaxed = shape.optional(internal, "relaxedRules", dict, item.type)
    digests = (item.digest,)
    kind = shape.optional(definition, "buildType", str, item.type) or ""
    if relaxed is None and item.run is None and not kind.startswith(f"{NAMESPACE}/"):
        why = (
            f"{item.title} is of another kind of build, {kind[:120]!r}: the builder answers for it"
        )
        return (allow("build-rules", why, digests),)
    if relaxed is None:
        why = f"{item.title} does not say which build rules were switched off"
        return (unsure("build-rules", why, digests),)
    extra = sorted(relaxed.keys() - {entry.rule for entry in bench.policy.gates.build.allow})
    if extra:
        why = f"the build switched off {', '.join(extra)[:200]}; the policy does not allow that"
        return (forbid("build-rules", why, digests),)
    words = ", ".join(sorted(relaxed)) or "none"
    return (allow("build-rules", f"switched off: {words}", digests),)


def _vulnerabilities(item: Item, bench: Bench) -> tuple[Rule, ...]:
    """Vulnerabilities that reach the policy's severity, without VEX or exception of the policy.

    What the scan itself set aside is judged anew: only the verifier's policy excuses.
    """
    return _judged(item, listed(item.statement), bench)


def _scanner_report(item: Item, bench: Bench) -> tuple[Rule, ...]:
    """Another tool's report in cosign's form. Ours only repeats what vulns v0.2 says."""
    if item.run is not None:
        return ()
    found = of_trivy(item.statement)
    if found is None:
        why = f"{item.title} holds a scanner's report of a form that is not read here"
        return (unsure("vulnerabilities", why, (item.digest,)),)
    return _judged(item, found, bench)


def _judged(item: Item, vulnerabilities: Sequence[Finding], bench: Bench) -> tuple[Rule, ...]:
    gate, policy = bench.policy.gates.scan, bench.policy
    found, _ = vex.apply_vex(vulnerabilities, bench.vex, bench.image)
    report = account(found, policy.exceptions, bench.now.date())
    over = [f for f in report.findings if f.ignored is None and f.severity.reaches(gate.severity)]
    if gate.fixed_only and (item.type == COSIGN_VULN or _own(item)):
        # vulns v0.2 alone does not say whether there is a fix: then all of them count
        over = [finding for finding in over if finding.fixed]
    aside = sum(finding.ignored is not None for finding in report.findings)
    counts = f"{len(report.findings)} vulnerabilities, {aside} excused by the policy"
    if not over:
        why = f"{counts}, none of the others reaches {gate.severity.value}"
        return (allow("vulnerabilities", why, (item.digest,)),)
    worst = sorted(over, key=lambda f: (f.severity, f.rule), reverse=True)
    names = [f"{f.rule[:40]} ({f.severity.value})" for f in worst[:5]]
    expired = [f"; the exception for {e.id} expired on {e.expires}" for e, n in report.expired if n]
    why = (
        f"{item.title}: {counts}, {len(over)} reach {gate.severity.value}: "
        f"{', '.join(names)}{''.join(expired)}"
    )
    return (forbid("vulnerabilities", why, (item.digest,)),)


def _other_findings(item: Item, bench: Bench) -> tuple[Rule, ...]:
    """Secrets and misconfigurations, which vulns v0.2 has no place for.

    Our figures count all findings over the gate of the scan; what the list of vulnerabilities
    does not explain is something else. The scan's gate must be no looser than the policy's.
    """
    own, asked = _own(item), bench.policy.gates.scan.severity
    if item.run is None and not own:
        why = f"{item.title} is another tool's: secrets and misconfigurations are not judged"
        return (allow("other-findings", why, (item.digest,)),)
    over, used = _figures(item).get("over_gate"), _used_gate(own)
    digests = (item.digest,)
    if type(over) is not int or used is None:
        why = f"{item.title} does not say what else was looked for"
        return (unsure("other-findings", why, digests),)
    known = listed(item.statement, as_judged=True)
    told = sum(finding.ignored is None and finding.severity.reaches(used) for finding in known)
    if over > told:
        why = f"{item.title}: {over - told} secrets or misconfigurations reach {used.value}"
        return (forbid("other-findings", why, digests),)
    if over < told:
        why = f"{item.title} counts {over} findings over its gate and lists {told}"
        return (wrong("other-findings", why, digests),)
    if used > asked:
        why = f"{item.title} was gated at {used.value}; the policy asks for {asked.value}"
        return (unsure("other-findings", why, digests, hint="run the pipeline again"),)
    why = f"no secret or misconfiguration reaches {used.value}"
    return (allow("other-findings", why, digests),)


def _used_gate(own: Mapping[str, Any]) -> Severity | None:
    gate = own.get("gate")
    word = gate.get("severity") if isinstance(gate, dict) else None
    known = {severity.value: severity for severity in Severity if severity is not Severity.UNKNOWN}
    return known.get(word) if isinstance(word, str) else None


def _database(item: Item, bench: Bench) -> tuple[Rule, ...]:
    """The database was young enough when it was used, and of a kind the policy takes."""
    gate, digests = bench.policy.gates.scan, (item.digest,)
    scanner = shape.member(item.statement.predicate, "scanner", dict, item.type)
    database = shape.optional(scanner, "db", dict, item.type) or {}
    text = shape.optional(database, "lastUpdate", str, item.type)
    if text is None or item.time is None:
        why = f"{item.title} does not say how old its database was"
        return (unsure("database", why, digests),)
    updated = shape.timestamp(text, item.type)
    age = item.time - updated
    if -age > bench.policy.clock_skew:
        return (unsure("database", f"the database is dated {text}, after the scan", digests),)
    if age > gate.max_database_age:
        why = f"the database was {age} old when used; the policy allows {gate.max_database_age}"
        return (forbid("database", why, digests),)
    return (_database_kind(item, bench, text),)


def _foreign_database(item: Item, bench: Bench) -> tuple[Rule, ...]:
    """Of another tool's report; ours has its database judged with vulns v0.2."""
    return _database(item, bench) if item.run is None else ()


def _database_kind(item: Item, bench: Bench, updated: str) -> Rule:
    gate, digests = bench.policy.gates.scan, (item.digest,)
    own = _own(item)
    demonstration = own.get("demonstrationDatabase")
    if item.run is None and not own and gate.database is None:
        return allow("database", f"another tool's, of {updated}", digests)
    if not isinstance(demonstration, bool) and not gate.allow_demonstration_database:
        return unsure("database", f"{item.title} does not say which kind its database is", digests)
    if demonstration and not gate.allow_demonstration_database:
        return forbid("database", "the scan used the demonstration database", digests)
    if gate.database is not None and own.get("databaseDigest") != gate.database:
        found = own.get("databaseDigest")
        why = f"the scan used the database {str(found)[:80]}, not {gate.database}"
        return forbid("database", why, digests) if found else unsure("database", why, digests)
    return allow("database", f"of {updated}", digests)


def _own(item: Item) -> Mapping[str, Any]:
    """Our member of the predicate; empty when another tool wrote it."""
    value = shape.optional(item.statement.predicate, OWN, dict, item.type)
    return value or {}


def _figures(item: Item) -> Mapping[str, Any]:
    return shape.optional(_own(item), "figures", dict, item.type) or {}


def _summary(item: Item, bench: Bench) -> tuple[Rule, ...]:
    """A verification summary that the policy requires has to say PASSED (SLSA VSA v1)."""
    if item.type not in {requirement.predicate for requirement in bench.policy.require}:
        return ()
    result = shape.member(item.statement.predicate, "verificationResult", str, item.type)
    digests = (item.digest,)
    if result == "PASSED":
        return (allow("result", f"{item.title} is PASSED", digests),)
    if result == "FAILED":
        return (forbid("result", f"{item.title} is FAILED", digests),)
    return (unsure("result", f"{item.title} is {result[:40]!r}, not PASSED", digests),)


_RESULTS: Mapping[str, tuple[Gate, ...]] = {
    TEST_RESULT: (_result,),
    VULNS: (_vulnerabilities, _other_findings),
    COSIGN_VULN: (_scanner_report,),
}
_GATES: Mapping[str, tuple[Gate, ...]] = {
    TEST_RESULT: (_result, _analysis, _coverage),
    PROVENANCE: (_relaxations,),
    VULNS: (_vulnerabilities, _other_findings, _database),
    COSIGN_VULN: (_scanner_report, _foreign_database),
    VSA: (_summary,),
}
