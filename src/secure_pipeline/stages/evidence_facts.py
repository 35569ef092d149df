"""What a statement says, in a line and as facts for people.

The statement is authentic, but whoever signed it chose every value: a member of another shape
than expected is left out, and every text is cut. Nothing here decides anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secure_pipeline.attestations import predicates
from secure_pipeline.attestations.scans import OWN
from secure_pipeline.findings import Severity
from secure_pipeline.policy.evidence import Item
from secure_pipeline.policy.vulnerability_lists import severity_of

MAX_TEXT = 300
"""Characters of one fact."""
MAX_LISTED = 12
"""Entries of one list inside a fact."""
MAX_COUNTED = 100_000
"""Entries of one list that are counted by what they hold."""


@dataclass(frozen=True)
class Fact:
    """A label of ours and what a statement, or a digest, says about it."""

    label: str
    value: str


@dataclass(frozen=True)
class Said:
    """What one statement says."""

    summary: str
    """At most a line; empty if it says nothing that is known here."""
    facts: tuple[Fact, ...]


def said(item: Item) -> Said:
    """Return what an authentic statement says."""
    read = _READERS.get(item.type, _anything)
    if item.name == "analyze":
        read = _analysis
    return read(item.statement.predicate)


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """Shorten foreign text and say how much there was."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def plural(count: int, what: str) -> str:
    """``1 layer``, ``2 layers``, ``3 vulnerabilities``."""
    many = what[:-1] + "ies" if what.endswith("y") else what + "s"
    return f"{count} {what if count == 1 else many}"


def size(count: int) -> str:
    """Bytes for people: 512 B, 3.4 KiB, 162.5 MiB."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def _test(predicate: Mapping[str, Any]) -> Said:
    figures = _at(predicate, OWN, "figures")
    result = _text(predicate, "result") or "no result"
    counts = _test_counts(predicate, figures)
    coverage = _number(figures, "coverage")
    covered = f"coverage {coverage:g} %" if coverage is not None else ""
    facts = [
        ("result", result),
        ("tests", counts),
        ("coverage", f"{coverage:g} % of lines" if coverage is not None else ""),
        ("command", _command(predicate)),
        ("ended", _text(figures, "exit")),
        ("failed", _names(_at(predicate, "failedTests"))),
    ]
    return Said(_line(_unless(result, "PASSED"), counts, covered) or result, _facts(facts))


def _test_counts(predicate: Mapping[str, Any], figures: Any) -> str:
    """Our own figures, or the lengths of the standard's lists."""
    tests = _count(figures, "tests")
    if tests is not None:
        failed = (_count(figures, "failures") or 0) + (_count(figures, "errors") or 0)
        skipped = _count(figures, "skipped") or 0
        return f"{tests - failed - skipped} passed, {failed} failed, {skipped} skipped"
    lists = {word: _at(predicate, f"{word}Tests") for word in ("passed", "failed", "warned")}
    return ", ".join(f"{len(v)} {w}" for w, v in lists.items() if isinstance(v, list) and v)


def _command(predicate: Mapping[str, Any]) -> str:
    configuration = _at(predicate, "configuration")
    first = configuration[0] if isinstance(configuration, list) and configuration else None
    words = _at(first, "annotations", "command")
    return " ".join(map(str, words[:100])) if isinstance(words, list) else ""


def _analysis(predicate: Mapping[str, Any]) -> Said:
    figures = _at(predicate, OWN, "figures")
    result = _text(predicate, "result") or "no result"
    counts = _severities(_at(figures, "findings"), "open finding")
    engine = _line(_text(figures, "engine"), _text(figures, "engineVersion"), between=" ")
    scanned, rules = _count(figures, "filesScanned"), _count(figures, "rules")
    files = plural(scanned, "file") if scanned is not None else ""
    facts = [
        ("result", result),
        ("analysis found", counts),
        ("engine", engine),
        ("rules", f"{rules}" if rules is not None else ""),
        ("rules digest", _text(figures, "rulesDigest")),
        ("files analysed", f"{scanned}" if scanned is not None else ""),
        ("files skipped", _tally(_at(figures, "filesSkipped"))),
        ("not counted", _tally(_at(figures, "ignored"))),
        ("report", _prefixed("sha256:", _text(figures, "sarifSha256"))),
    ]
    line = _line(_unless(result, "PASSED"), counts, engine, files)
    return Said(line or result, _facts(facts))


def _provenance(predicate: Mapping[str, Any]) -> Said:
    definition, details = _at(predicate, "buildDefinition"), _at(predicate, "runDetails")
    external = _at(definition, "externalParameters")
    builder = _text(details, "builder", "id")
    tools = _tally(_at(details, "builder", "version"), between=" ")
    bases = _bases(_at(definition, "resolvedDependencies"))
    secrets = _at(external, "secrets")
    facts = [
        ("builder", builder),
        ("built with", tools),
        ("run of the engine", _text(definition, "internalParameters", "engine", "run")),
        *(("base image", base) for base in bases),
        ("build type", _text(definition, "buildType")),
        ("dockerfile", _text(external, "dockerfile")),
        ("target", _text(external, "target")),
        ("network", _text(external, "network")),
        ("secrets used", _names(secrets) if secrets else ""),
        ("rules switched off", _tally(_at(definition, "internalParameters", "relaxedRules"))),
        ("source", _text(external, "source", "uri")),
        ("started", _text(details, "metadata", "startedOn")),
        ("finished", _text(details, "metadata", "finishedOn")),
    ]
    named = f"base {bases[0].partition('@')[0]}" if bases else ""
    more = f" and {len(bases) - 1} more" if len(bases) > 1 else ""
    return Said(_line(tools or builder, named + more), _facts(facts))


def _bases(dependencies: Any) -> list[str]:
    """``name@sha256:…`` of the base images; any other dependency of an image type's own kind."""
    found = []
    for entry in dependencies[:1000] if isinstance(dependencies, list) else ():
        digest = _text(entry, "digest", "sha256")
        if _at(entry, "annotations", "kind") == "base image" and digest:
            found.append(f"{_text(entry, 'name') or 'unnamed'}@sha256:{digest}")
    return found[:MAX_LISTED]


def _vulns(predicate: Mapping[str, Any]) -> Said:
    listed = _at(predicate, "scanner", "result")
    entries = listed if isinstance(listed, list) else []
    rated = _rated(entries[:MAX_COUNTED]) if isinstance(listed, list) else None
    counts = _severities(rated, "vulnerability")
    updated = _text(predicate, "scanner", "db", "lastUpdate")
    figures = _at(predicate, OWN, "figures")
    demonstration = _at(predicate, OWN, "demonstrationDatabase") is True
    facts = [
        ("scan found", counts),
        ("set aside by the scan", _tally(_at(figures, "ignored"))),
        ("findings of all kinds", _tally(_at(figures, "kinds"))),
        ("packages", _worded(figures, "packages")),
        ("operating system", _text(figures, "os")),
        ("scanner", _text(predicate, "scanner", "uri")),
        ("database of", updated),
        ("database digest", _text(predicate, OWN, "databaseDigest")),
        ("demonstration database", "yes: it knows a few advisories only" if demonstration else ""),
        ("started", _text(predicate, "metadata", "scanStartedOn")),
        ("finished", _text(predicate, "metadata", "scanFinishedOn")),
    ]
    kind = "demonstration database" if demonstration else "database"
    return Said(_line(counts, f"{kind} of {updated[:10]}" if updated else ""), _facts(facts))


def _rated(entries: list[Any]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for entry in entries:
        ratings = _at(entry, "severity")
        shaped = isinstance(ratings, list) and all(isinstance(r, dict) for r in ratings)
        counts[severity_of(ratings if shaped else ()).value] += 1
    return dict(counts)


def _cosign_vuln(predicate: Mapping[str, Any]) -> Said:
    facts = [
        ("scanner, cosign's form", _text(predicate, "scanner", "uri")),
        ("platform's report", _text(predicate, "scanner", "result", "ArtifactName")),
    ]
    return Said("", _facts(facts))


def _cyclonedx(predicate: Mapping[str, Any]) -> Said:
    components = _at(predicate, "components")
    count = plural(len(components), "component") if isinstance(components, list) else ""
    version = _text(predicate, "specVersion")
    facts = [("CycloneDX", _line(version, count)), ("serial", _text(predicate, "serialNumber"))]
    return Said(f"{count} (CycloneDX)" if count else "", _facts(facts))


def _spdx(predicate: Mapping[str, Any]) -> Said:
    packages = _at(predicate, "packages")
    count = plural(len(packages), "package") if isinstance(packages, list) else ""
    facts = [("SPDX", _line(_text(predicate, "spdxVersion"), count))]
    return Said(f"{count} (SPDX)" if count else "", _facts(facts))


def _seal(predicate: Mapping[str, Any]) -> Said:
    root = _text(predicate, "merkle", "root")
    listed, types = _at(predicate, "statements"), _at(predicate, "requiredPredicateTypes")
    count = plural(len(listed), "statement") if isinstance(listed, list) else ""
    facts = [
        ("seals", count),
        ("Merkle root", root),
        ("sealed", _text(predicate, "sealedAt")),
        ("required types", _names(types)),
    ]
    return Said(_line(count, f"Merkle root {root[:12]}…" if root else ""), _facts(facts))


def _vsa(predicate: Mapping[str, Any]) -> Said:
    result = _text(predicate, "verificationResult")
    time = _text(predicate, "timeVerified")
    digest = _prefixed("sha256:", _text(predicate, "policy", "digest", "sha256"))
    facts = [
        ("result", result),
        ("verifier", _text(predicate, "verifier", "id")),
        ("verified", time),
        ("policy", _line(_text(predicate, "policy", "uri"), digest)),
        ("levels", _names(_at(predicate, "verifiedLevels"))),
    ]
    return Said(_line(result, time), _facts(facts))


def _promotion(predicate: Mapping[str, Any]) -> Said:
    result = _text(predicate, "result")
    target, looks = _text(predicate, "target", "name"), _count(predicate, "lookCount")
    digest = _prefixed("sha256:", _text(predicate, "target", "digest", "sha256"))
    facts = [
        ("promotion", _line(result, _text(predicate, "cause"))),
        ("why", _text(predicate, "why")),
        ("target", _line(target, digest)),
        ("looks", f"{looks}" if looks is not None else ""),
        ("promotion ended", _text(predicate, "finishedOn")),
    ]
    cause = _unless(_text(predicate, "cause"), "passed")
    return Said(_line(result, cause, target), _facts(facts))


def _quarantine(predicate: Mapping[str, Any]) -> Said:
    cause, time = _text(predicate, "cause"), _text(predicate, "quarantinedAt")
    why = _line(cause, _text(predicate, "reason"), between=": ")
    return Said(f"quarantine {time[:10]}", _facts([("quarantine", _line(why, time))]))


def _release(predicate: Mapping[str, Any]) -> Said:
    reason, time = _text(predicate, "reason"), _text(predicate, "releasedAt")
    return Said(f"release {time[:10]}", _facts([("release", _line(reason, time))]))


def _anything(predicate: Mapping[str, Any]) -> Said:
    """A type without a reader: its plain members, as they stand."""
    plain = [
        (cut(str(name), 40), str(value))
        for name, value in list(predicate.items())[:1000]
        if isinstance(value, str | int | float)
    ]
    verdict = _text(predicate, "verdict") or _text(predicate, "result")
    return Said(_line(verdict), _facts(plain[:MAX_LISTED]))


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Said]] = {
    predicates.TEST_RESULT: _test,
    predicates.PROVENANCE: _provenance,
    predicates.VULNS: _vulns,
    predicates.COSIGN_VULN: _cosign_vuln,
    predicates.CYCLONEDX: _cyclonedx,
    predicates.SPDX: _spdx,
    predicates.SEAL: _seal,
    predicates.VSA: _vsa,
    predicates.PROMOTION: _promotion,
    predicates.QUARANTINE: _quarantine,
    predicates.RELEASE: _release,
}


def verdict_of(item: Item) -> bool | None:
    """How a verdict that was made after the seal turned out, as it says; None if it is unclear."""
    predicate = item.statement.predicate
    words = {_text(predicate, name) for name in ("verificationResult", "verdict", "result")}
    good, bad = bool(words & _GOOD), bool(words & _BAD)
    return good if good != bad else None


_GOOD = {"PASSED", "PASS", "APPROVED", "PROMOTED"}
_BAD = {"FAILED", "FAIL", "DENIED", "REJECTED", "ROLLED_BACK"}


def short(digest: str, digits: int = 12) -> str:
    """``sha256:…`` and the first digits."""
    return f"sha256:{digest.removeprefix('sha256:')[:digits]}…"


def _facts(pairs: Sequence[tuple[str, str]]) -> tuple[Fact, ...]:
    return tuple(Fact(label, cut(value)) for label, value in pairs if value)


def _at(value: Any, *path: str) -> Any:
    """Walk into objects; None where there is no such member."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _text(value: Any, *path: str) -> str:
    found = _at(value, *path)
    return found if isinstance(found, str) else ""


def _count(value: Any, *path: str) -> int | None:
    found = _at(value, *path)
    return found if type(found) is int and 0 <= found < 1 << 53 else None


def _number(value: Any, *path: str) -> float | None:
    found = _at(value, *path)
    known = isinstance(found, int | float) and not isinstance(found, bool)
    return float(found) if known and abs(found) < 1e15 else None


def _worded(value: Any, name: str) -> str:
    count = _count(value, name)
    return f"{count}" if count is not None else ""


def _names(value: Any) -> str:
    texts = [cut(item, 100) for item in value if isinstance(item, str)] if _is_list(value) else []
    more = f" and {len(texts) - MAX_LISTED} more" if len(texts) > MAX_LISTED else ""
    return ", ".join(texts[:MAX_LISTED]) + more


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_COUNTED


def _tally(value: Any, between: str = ": ") -> str:
    """An object of plain values as ``name: value, …``."""
    if not isinstance(value, Mapping):
        return ""
    pairs = [
        f"{cut(str(name), 60)}{between}{cut(str(item), 100)}"
        for name, item in list(value.items())[:MAX_LISTED]
        if isinstance(item, str | int | float)
    ]
    return ", ".join(pairs)


def _severities(value: Any, what: str) -> str:
    """Counts by severity, worst first: ``4 vulnerabilities: 1 high, 3 low``."""
    if not isinstance(value, Mapping):
        return ""
    counts = [(s.value, _count(value, s.value) or 0) for s in reversed(Severity)]
    total = sum(count for _, count in counts)
    words = ", ".join(f"{count} {word}" for word, count in counts if count)
    return f"{plural(total, what)}: {words}" if total else f"no {plural(0, what)[2:]}"


def _prefixed(prefix: str, text: str) -> str:
    return prefix + text if text else ""


def _unless(text: str, usual: str) -> str:
    return "" if text == usual else text


def _line(*parts: str | None, between: str = " · ") -> str:
    return cut(between.join(cut(part, 80) for part in parts if part), 200)
