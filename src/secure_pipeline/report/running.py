"""What runs, as lines for people and as documents for machines."""

from __future__ import annotations

from typing import Any

from secure_pipeline.policy.decision import Rule
from secure_pipeline.shape import rfc3339
from secure_pipeline.stages.running import ContainerCheck, RunningReport
from secure_pipeline.stages.running_watch import StandingChange

MAX_REASONS = 30


def lines(report: RunningReport) -> list[str]:
    """One line a container, what speaks against it below, and the sum."""
    text = [line for check in report.checks for line in container_lines(check)]
    counts: dict[str, int] = {}
    for check in report.checks:
        counts[check.standing.value] = counts.get(check.standing.value, 0) + 1
    total = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return [*text, f"{report.standing.value}: {len(report.checks)} containers ({total})"]


def container_lines(check: ContainerCheck) -> list[str]:
    """``MATCH docker://web sha256:… run r-…``, and the reasons where it does not match."""
    digest = str(check.image.digest) if check.image else check.container.image or "-"
    run = f" run {check.run}" if check.run else ""
    head = printable(f"{check.standing.value} {check.container.place} {digest}{run}")
    objections = check.decision.objections
    reasons = [printable(f"  {_reason(rule)}") for rule in objections[:MAX_REASONS]]
    if len(objections) > MAX_REASONS:
        reasons.append(f"  … and {len(objections) - MAX_REASONS} more")
    return [head, *reasons]


def change_line(change: StandingChange) -> str:
    """A change as one line with its time, and the first reason."""
    before = f"{change.before} -> " if change.before else ""
    why = change.why
    digest = ""
    if change.check is not None:
        digest = f" {change.check.image.digest}" if change.check.image else ""
        why = next((_reason(rule) for rule in change.check.decision.objections), "")
    said = f": {why}" if why else ""
    time = rfc3339(change.time)
    return printable(f"{time} {before}{change.now} {change.place}{digest}{said}")


def document(report: RunningReport) -> dict[str, Any]:
    """The members of a document of kind RunningVerification."""
    return {
        "time": rfc3339(report.time),
        "outcome": report.standing.value,
        "exitCode": int(report.code),
        "policy": report.policy.digest,
        "containers": [container_document(check) for check in report.checks],
    }


def container_document(check: ContainerCheck) -> dict[str, Any]:
    """One container: what runs, which build it is, and every rule."""
    container = check.container
    return {
        "container": container.place,
        "id": container.id,
        "kind": container.kind.value,
        "running": container.running,
        "started": container.started,
        "asked": container.asked,
        "runs": container.image,
        "platform": container.platform,
        "outcome": check.standing.value,
        "exitCode": int(check.decision.code),
        "image": str(check.image) if check.image else None,
        "run": check.run,
        "reasons": [_reason(rule) for rule in check.decision.objections],
        "rules": [rule.to_json() for rule in check.decision.rules],
    }


def change_document(change: StandingChange) -> dict[str, Any]:
    """The members of a document of kind RunningChange."""
    return {
        "time": rfc3339(change.time),
        "container": change.place,
        "before": change.before,
        "outcome": change.now,
        "why": change.why or None,
        "found": container_document(change.check) if change.check else None,
    }


def printable(text: str) -> str:
    """Keep control characters of foreign names away from the terminal (AUD-10)."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _reason(rule: Rule) -> str:
    return f"{rule.id}: {rule.why}" + (f" (hint: {rule.hint})" if rule.hint else "")
