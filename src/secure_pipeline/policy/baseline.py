"""Findings that were there when a baseline was written, so that only new ones gate."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from secure_pipeline import strictjson
from secure_pipeline.errors import ConfigError
from secure_pipeline.findings import Finding

MAX_BYTES = 32 << 20
_VERSION = 1
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_HINT = "write the file again with 'secure-pipeline analyze --write-baseline FILE'"


def baseline_document(findings: Iterable[Finding]) -> bytes:
    """Write the fingerprints of ``findings``, with rule and path for people, as JSON."""
    known = {
        f.fingerprint: {"rule": f.rule, "path": f.location.path if f.location else ""}
        for f in findings
    }
    document = {"version": _VERSION, "findings": dict(sorted(known.items()))}
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def read_baseline(data: bytes, where: str) -> frozenset[str]:
    """Return the fingerprints of a baseline file.

    Raises: ConfigError for anything but what ``baseline_document`` writes.
    """
    try:
        document = strictjson.loads(data, limit=MAX_BYTES)
    except strictjson.InvalidJson as error:
        raise ConfigError(f"not a baseline: {error}", where=where, hint=_HINT) from None
    if not isinstance(document, dict) or set(document) != {"version", "findings"}:
        raise ConfigError(
            "not a baseline: 'version' and 'findings' are needed", where=where, hint=_HINT
        )
    if document["version"] is not True and document["version"] == _VERSION:
        return frozenset(_checked(document["findings"], where))
    raise ConfigError("not a baseline of version 1", where=where, hint=_HINT)


def _checked(findings: Any, where: str) -> Iterable[str]:
    if not isinstance(findings, dict):
        raise ConfigError("not a baseline: 'findings' is no object", where=where, hint=_HINT)
    for fingerprint, entry in findings.items():
        known = isinstance(entry, dict) and set(entry) == {"rule", "path"}
        if not _FINGERPRINT.fullmatch(fingerprint) or not known:
            raise ConfigError(
                f"not a baseline: entry {fingerprint[:80]!r}", where=where, hint=_HINT
            )
        yield fingerprint
