"""A run as Markdown for the page of a job, within the size that the page takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from secure_pipeline.findings import Finding
from secure_pipeline.report.to_text import seconds
from secure_pipeline.runs import StoredResult

MAX_BYTES = (1 << 20) - 4096
"""GitHub drops the whole summary of a step that is over 1 MiB, so nothing here comes near."""
CUT = "\n*The rest was left out: it is in the reports of the run.*\n"
_MAX_TEXT = 500
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def markdown(
    run: str, stages: Mapping[str, StoredResult | None], image: str | None, limit: int = MAX_BYTES
) -> str:
    """The stages' answers, why they are no PASS, and the findings that count.

    ``stages``: name to result, None where there is none, which is said. ``limit``: bytes; what is
    over it is left out by whole lines, and that is said. No text from outside becomes markup.
    """
    text, size = [], len(CUT.encode())
    for line in _lines(run, stages, image):
        size += len(line.encode()) + 1
        if size > limit:
            text.append(CUT.rstrip("\n"))
            break
        text.append(line)
    return "\n".join(text) + "\n"


def _lines(run: str, stages: Mapping[str, StoredResult | None], image: str | None) -> Iterator[str]:
    yield f"## Run {plain(run)}"
    yield ""
    yield from _table(("stage", "verdict", "time", "summary"), _rows(stages))
    if image:
        yield f"\nImage {plain(image)}"
    for name, stored in stages.items():
        if stored is not None:
            yield from _details(name, stored)


def _rows(stages: Mapping[str, StoredResult | None]) -> Iterator[tuple[str, ...]]:
    for name, stored in stages.items():
        if stored is None:
            yield name, "no result", "", "it did not run, or did not end"
        else:
            result = stored.result
            yield name, result.verdict.value, seconds(result.seconds), result.summary


def _details(name: str, stored: StoredResult) -> Iterator[str]:
    result = stored.result
    counted = [f for f in result.findings if f.ignored is None]
    if not result.reasons and not counted:
        return
    yield f"\n### {plain(name)}: {plain(result.summary)}\n"
    for reason in result.reasons:
        yield f"- {plain(reason)}"
    if counted:
        yield ""
        yield from _table(
            ("severity", "finding", "where", "what"),
            (_finding(f) for f in sorted(counted, key=lambda f: f.severity, reverse=True)),
        )


def _finding(finding: Finding) -> tuple[str, ...]:
    package = f"{finding.package} {finding.installed or ''}".strip() if finding.package else ""
    place = str(finding.location) if finding.location else package
    return finding.severity.value, finding.rule, place, finding.message


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(plain(cell) for cell in row)} |"


def plain(text: str) -> str:
    """Text that Markdown shows as it is, in one line of at most 500 characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return _PUNCTUATION.sub(r"\\\1", line[:_MAX_TEXT]) + ("…" if len(line) > _MAX_TEXT else "")
