"""How the ledger's commands read their words and render what they found."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from secure_pipeline.cli._output import Output, print_error
from secure_pipeline.errors import Inconclusive, UsageError, VerificationFailed

if TYPE_CHECKING:
    from secure_pipeline.audit.entry import Entry
    from secure_pipeline.audit.verify import Checked


def show_checked(output: Output, item: Checked) -> None:
    """Say what one pass over a ledger found."""
    from secure_pipeline.wiring.auditing import describe

    head = f", head {item.head.seq} {item.head.hash}" if item.head else ""
    output.text(f"{item.path}: {item.entries} entries{head}")
    if item.open:
        output.text(f"{item.open} intents have no conclusion")
    if previous := item.opening.get("previousDamage"):
        output.text(f"it follows a ledger that was damaged: {previous}")
    if item.anchors:
        output.text(f"{item.anchors} anchors fit")
    if item.damage:
        where = f"{item.path}:{item.damage.line} (byte {item.damage.offset})"
        print_error(VerificationFailed(describe(item.damage), where=where, hint=_hint(item)))
    elif item.torn:
        print_error(
            Inconclusive(
                f"a torn tail of {item.torn} bytes, never acknowledged",
                where=f"{item.path}:{item.entries + 1} (byte {item.bytes})",
                hint="secure-pipeline audit recover moves it aside",
            )
        )
    elif not item.entries:
        print_error(Inconclusive("the ledger has no entries", where=str(item.path)))


def _hint(item: Checked) -> str | None:
    from secure_pipeline.audit.verify import Fault

    if item.damage and item.damage.fault is Fault.UNKNOWN:
        return "a newer secure-pipeline wrote it; check it with that"
    if item.damage and item.damage.fault is Fault.REPLACED:
        return "if the ledger was rotated, --history checks those before it too"
    return "keep the file; 'audit rotate --damaged --reason …' seals it and begins a new one"


def document(item: Checked) -> dict[str, Any]:
    """The same for programs."""
    damage = item.damage
    return {
        "ledger": str(item.path),
        "origin": item.origin,
        "head": {"seq": item.head.seq, "hash": item.head.hash} if item.head else None,
        "entries": item.entries,
        "bytes": item.bytes,
        "open": item.open,
        "torn": item.torn,
        "anchors": item.anchors,
        "previousDamage": item.opening.get("previousDamage"),
        "damage": {
            "fault": damage.fault.value,
            "seq": damage.seq,
            "line": damage.line,
            "offset": damage.offset,
            "message": damage.message,
        }
        if damage
        else None,
    }


def line(seq: int, item: Entry) -> str:
    """One entry in one line; control characters are escaped (AUD-10)."""
    from secure_pipeline.audit.entry import instant

    ended = item.outcome.value if item.outcome else item.kind.value
    who = f"{item.actor.kind}:{item.actor.id}{'' if item.actor.verified else ' (unverified)'}"
    details = " ".join(f"{name}={value}" for name, value in item.details.items())
    text = f"{seq:6} {instant(item.time)} {item.action} {ended} {item.subject} by {who} {details}"
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text.rstrip())


def moment(text: str | None) -> datetime | None:
    """Read a time or a date, UTC unless it says otherwise. Raises: UsageError."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text[:40]!r} is not a time", hint="--since 2026-03-01, or 2026-03-01T12:00:00Z"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
