"""Semgrep's JSON report, read as an answer that may be incomplete or about other files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from secure_pipeline import strictjson
from secure_pipeline.errors import Inconclusive
from secure_pipeline.files import canonical_json, sha256_bytes
from secure_pipeline.findings import Finding, Kind, Location, Severity
from secure_pipeline.tools.snapshot import copied

MAX_REPORT_BYTES = 256 << 20
MAX_MESSAGE = 2_000
_SEVERITIES = {
    "INFO": Severity.LOW,
    "WARNING": Severity.MEDIUM,
    "ERROR": Severity.HIGH,
    "LOW": Severity.LOW,
    "MEDIUM": Severity.MEDIUM,
    "HIGH": Severity.HIGH,
    "CRITICAL": Severity.CRITICAL,
}


@dataclass(frozen=True)
class Match:
    """One result, with the path as the report names it."""

    rule: str
    path: str
    line: int
    end_line: int
    column: int
    severity: Severity
    kind: Kind
    message: str
    url: str | None


@dataclass(frozen=True)
class SemgrepReport:
    """The parts of the report that are used; all of them must be there."""

    version: str
    matches: tuple[Match, ...]
    errors: tuple[str, ...]
    scanned: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    document: Mapping[str, Any]


def parse_report(data: bytes) -> SemgrepReport:
    """Read a report.

    Raises: Inconclusive for anything but one whole, strict JSON report (SCN-05).
    """
    try:
        document = strictjson.loads(data, limit=MAX_REPORT_BYTES)
        return SemgrepReport(
            version=_text(document["version"]),
            matches=tuple(_match(item) for item in _list(document["results"])),
            errors=(
                *(_error(item) for item in _list(document["errors"])),
                *(f"rule skipped: {_rule_name(item)}" for item in _list(document["skipped_rules"])),
            ),
            scanned=tuple(_text(path) for path in _list(document["paths"]["scanned"])),
            skipped=tuple(
                (_text(item["path"]), _text(item["reason"]))
                for item in _list(document["paths"].get("skipped") or [])
            ),
            document=document,
        )
    except strictjson.InvalidJson as error:
        raise Inconclusive(f"semgrep left no complete report: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise Inconclusive(f"semgrep's report lacks a part: {detail[:200]}") from None


def findings(
    matches: tuple[Match, ...], names: Mapping[str, str], root: Path, prefix: str
) -> tuple[Finding, ...]:
    """Turn matches below ``prefix`` into findings with repository paths and fingerprints.

    ``names`` maps names in the copy at ``root`` to paths in the repository; a file may be
    there twice, and is reported once.
    Raises: Inconclusive for a match in a file that was not given.
    """
    lines = _Lines(root)
    seen: Counter[tuple[str, str, str]] = Counter()
    places: set[tuple[str, str, int, int]] = set()
    result = []
    for match in sorted(set(matches), key=lambda m: (m.path, m.line, m.column, m.rule)):
        name = match.path.removeprefix(prefix)
        if name == match.path or name not in names:
            raise Inconclusive(f"semgrep reports on a file it was not given: {match.path[:200]}")
        place = (match.rule, names[name], match.line, match.column)
        if place in places:
            continue
        places.add(place)
        code = lines.normalised(name, match.line, match.end_line)
        key = (match.rule, names[name], code)
        fingerprint = sha256_bytes(canonical_json([*key, seen[key]]))
        seen[key] += 1
        result.append(_finding(match, names[name], fingerprint))
    return tuple(result)


def without(document: Mapping[str, Any], names: Mapping[str, str], prefix: str) -> bytes:
    """The report as JSON with repository paths, and only what is about the repository.

    Timings are left out: they differ in each run.
    """

    def renamed(path: str) -> str:
        name = path.removeprefix(prefix)
        return names.get(name, name)

    def own(items: list[Any]) -> list[Any]:
        return [
            {**item, "path": renamed(item["path"])}
            for item in items
            if item["path"].startswith(prefix)
        ]

    paths = document["paths"]
    kept = {
        "version": document["version"],
        "results": own(document["results"]),
        "errors": document["errors"],
        "paths": {
            "scanned": sorted(renamed(p) for p in paths["scanned"] if p.startswith(prefix)),
            "skipped": own(paths.get("skipped") or []),
        },
        "skipped_rules": document["skipped_rules"],
    }
    return json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False).encode()


def _finding(match: Match, path: str, fingerprint: str) -> Finding:
    return Finding(
        rule=match.rule,
        kind=match.kind,
        severity=match.severity,
        message=match.message,
        fingerprint=fingerprint,
        location=Location(path, match.line, match.end_line, match.column),
        url=match.url,
    )


class _Lines:
    """Matched code of the copied files: one file is kept, since matches come by file."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._name: str | None = None
        self._lines: list[bytes] = []

    def normalised(self, name: str, start: int, end: int) -> str:
        """The lines of a match without their indentation and spacing."""
        if name != self._name:
            self._name = name
            with open(copied(self._root, name), "rb") as stream:
                self._lines = stream.read().split(b"\n")
        text = b"\n".join(self._lines[start - 1 : end]).decode("utf-8", "backslashreplace")
        return " ".join(text.split())


def _match(item: Any) -> Match:
    extra = item["extra"]
    metadata = extra.get("metadata") or {}
    references = metadata.get("references") or [None]
    match = Match(
        rule=_text(item["check_id"]),
        path=_text(item["path"]),
        line=_number(item["start"]["line"]),
        end_line=_number(item["end"]["line"]),
        column=_number(item["start"]["col"]),
        severity=_SEVERITIES.get(extra["severity"], Severity.UNKNOWN),
        kind=_kind(metadata),
        message=" ".join(_text(extra["message"]).split())[:MAX_MESSAGE],
        url=references[0] if isinstance(references[0], str) else None,
    )
    return replace(match, end_line=max(match.line, match.end_line))


def _kind(metadata: Mapping[str, Any]) -> Kind:
    words = {kind.value: kind for kind in Kind}
    return words.get(str(metadata.get("kind")), Kind.CODE)


def _error(item: Any) -> str:
    kind = item.get("type")
    name = kind[0] if isinstance(kind, list) and kind else kind
    text = item.get("message") or item.get("long_msg") or item.get("short_msg") or ""
    place = f"{item['path']}: " if item.get("path") else ""
    return f"{place}{name}: {' '.join(str(text).split())}"[:MAX_MESSAGE]


def _rule_name(item: Any) -> str:
    return str(item.get("rule_id", item) if isinstance(item, dict) else item)[:200]


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("a list is needed")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a string is needed")
    return value


def _number(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is no line or column")
    return value
