"""The answers of ``interop`` as lines of text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from secure_pipeline.interop.model import Answer, Finding, Verdict
from secure_pipeline.interop.readers import InteropReport
from secure_pipeline.report.to_text import table

_WORDS = {Answer.YES: "accepts", Answer.NO: "rejects", Answer.UNKNOWN: "cannot tell"}


def interop_lines(report: InteropReport, required: Sequence[str]) -> list[str]:
    """One block a reader: its rules, what it needs, then each type with answer and reason."""
    lines = [f"image {report.image}", *(f"note: {note}" for note in report.notes)]
    for verdict in report.verdicts:
        lines += ["", *_block(verdict)]
    lines.append("")
    lines += [_required(verdict) for verdict in report.verdicts if verdict.reader in required]
    return lines if required else lines[:-1]


def _block(verdict: Verdict) -> Iterator[str]:
    yield f"{verdict.reader}: {_WORDS[verdict.accepted]} ({verdict.title})"
    if verdict.needs:
        yield f"  needs: {'; '.join(verdict.needs)}"
    if not verdict.findings:
        yield "  there is no evidence beside the image"
    rows = list(map(_row, verdict.findings))
    if len(rows) > 1 and len({row[1:] for row in rows}) == 1:
        rows = [(f"all {len(rows)} types", *rows[0][1:])]
    yield from (f"  {line}" for line in table(rows))
    hints = dict.fromkeys(item.hint for item in verdict.findings if item.hint)
    yield from (f"  hint: {hint}" for hint in hints)


def _row(finding: Finding) -> tuple[str, str, str]:
    found = {Answer.YES: "found", Answer.NO: "not found", Answer.UNKNOWN: "found?"}
    accepted = {Answer.YES: "yes", Answer.NO: "NO", Answer.UNKNOWN: "?"}
    state = f"{found[finding.found]}, accepted: {accepted[finding.accepted]}"
    return finding.predicate_type, state, finding.why


def _required(verdict: Verdict) -> str:
    return f"required: {verdict.reader} {_WORDS[verdict.accepted]}"
