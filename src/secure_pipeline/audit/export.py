"""Entries for other programs: the lines as they are, or as events of OCSF.

OCSF 1.3.0, class API Activity (6003): docs/reference/audit.md has the mapping. ``raw_data`` holds
the line itself, so that whoever receives an event can check its hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from secure_pipeline import __version__
from secure_pipeline.audit.entry import Entry, Kind, Outcome, instant
from secure_pipeline.audit.reader import Stored, entries
from secure_pipeline.files import canonical_json

OCSF_VERSION = "1.3.0"
_CATEGORY, _CLASS = 6, 6003
_ACTIVITIES = {
    "sign": (1, "Create"),
    "push": (1, "Create"),
    "fetch": (2, "Read"),
    "promote": (3, "Update"),
    "rotate": (3, "Update"),
    "revoke": (4, "Delete"),
}
_STATUS = {
    Outcome.DONE: (1, "Success"),
    Outcome.FAILED: (2, "Failure"),
    Outcome.REFUSED: (2, "Failure"),
    None: (0, "Unknown"),
}
_INFORMATIONAL, _LOW, _MEDIUM, _HIGH = (
    (1, "Informational"),
    (2, "Low"),
    (3, "Medium"),
    (4, "High"),
)


@dataclass(frozen=True)
class Selection:
    """Which entries are wanted; None for all."""

    run: str | None = None
    stage: str | None = None
    since: datetime | None = None

    def takes(self, item: Entry) -> bool:
        """Tell whether an entry is among them."""
        return (
            self.run in (None, item.run)
            and self.stage in (None, item.stage)
            and (self.since is None or item.time >= self.since)
        )


def select(path: Path, wanted: Selection, start: int = 0) -> Iterator[tuple[Stored, Entry]]:
    """Yield the wanted entries. Raises: like ``reader.entries``."""
    for stored in entries(path, start):
        item = stored.entry
        if wanted.takes(item):
            yield stored, item


def as_jsonl(path: Path, start: int) -> Iterator[bytes]:
    """Yield the ledger's own lines. Raises: like ``reader.entries``."""
    for stored in entries(path, start):
        yield stored.data


def as_ocsf(path: Path, start: int) -> Iterator[bytes]:
    """Yield one OCSF event a line. Raises: like ``reader.entries``."""
    for stored in entries(path, start):
        yield canonical_json(ocsf(stored))


def ocsf(stored: Stored) -> dict[str, Any]:
    """The entry as an API Activity event; times in milliseconds since 1970."""
    item = stored.entry
    activity, activity_name = _ACTIVITIES.get(item.action, (99, item.action))
    status, status_name = _STATUS[item.outcome]
    severity, severity_name = _severity(item)
    event: dict[str, Any] = {
        "activity_id": activity,
        "activity_name": activity_name,
        "category_uid": _CATEGORY,
        "category_name": "Application Activity",
        "class_uid": _CLASS,
        "class_name": "API Activity",
        "type_uid": _CLASS * 100 + activity,
        "type_name": f"API Activity: {activity_name}",
        "severity_id": severity,
        "severity": severity_name,
        "status_id": status,
        "status": status_name,
        "time": round(item.time.timestamp() * 1000),
        "message": f"{item.action} {item.kind.value}: {item.subject}",
        "metadata": _metadata(stored, item),
        "actor": {"user": {"uid": item.actor.id, "name": item.actor.id}, "idp": _idp(item)},
        "api": _api(item),
        "src_endpoint": {"svc_name": "secure-pipeline"},
        "resources": [{"name": item.subject}],
        "raw_data": stored.data.decode("ascii"),
        "unmapped": {
            "run": item.run,
            "kind": item.kind.value,
            "identity_verified": item.actor.verified,
            "details": dict(item.details),
        },
    }
    if item.outcome:
        event["status_detail"] = str(item.details.get("reason") or item.outcome.value)
    return event


def _metadata(stored: Stored, item: Entry) -> dict[str, Any]:
    """An intent and its conclusion have the same correlation: the intent's hash."""
    product = {
        "name": "secure-pipeline",
        "vendor_name": "secure-pipeline",
        "version": __version__,
    }
    return {
        "version": OCSF_VERSION,
        "product": product,
        "log_name": "ledger",
        "uid": stored.hash,
        "sequence": stored.seq,
        "original_time": instant(item.time),
        "correlation_uid": item.intent or stored.hash,
    }


def _idp(item: Entry) -> dict[str, str]:
    return {"name": item.actor.kind}


def _api(item: Entry) -> dict[str, Any]:
    api: dict[str, Any] = {"operation": item.action, "service": {"name": item.stage}}
    request = item.details.get("vaultRequestId") or item.details.get("requestHash")
    return {**api, "request": {"uid": str(request)}} if request else api


def _severity(item: Entry) -> tuple[int, str]:
    if item.details.get("previousDamage"):
        return _HIGH
    if item.outcome is Outcome.REFUSED:
        return _MEDIUM
    if item.outcome is Outcome.FAILED or item.kind is Kind.RECOVERED:
        return _LOW
    return _INFORMATIONAL
