"""Writes made-up promotions: as a page, as text and as JSON.

Run with the project's Python from the top of the repository:

    PYTHONPATH=tests python tests/golden/promotion/generate.py

The numbers come from a fixed seed, so equal code gives equal bytes.
"""

from __future__ import annotations

import json
from pathlib import Path

from fakes.promotions import CASES
from secure_pipeline.report.promotion_html import promotion_page
from secure_pipeline.report.promotion_json import moment_document, record_document
from secure_pipeline.report.promotion_text import moment_line, summary_lines

HERE = Path(__file__).parent
SHOWN = 4
"""Moments from the start and from the end; pages have all."""


def files(case: str) -> dict[str, bytes]:
    """The golden files of a case, by name."""
    story, record = CASES[case]()
    moments = story.moments[:SHOWN] + story.moments[SHOWN:][-SHOWN:]
    lines = [*map(moment_line, moments), *summary_lines(record), ""]
    shown = [*map(moment_document, moments), record_document(record)]
    shown[-1]["looks"] = shown[-1]["looks"][-1:]
    return {
        f"{case}.html": promotion_page(record),
        f"{case}.txt": "\n".join(lines).encode(),
        f"{case}.jsonl": "".join(f"{json.dumps(item)}\n" for item in shown).encode(),
    }


def main() -> None:
    """Write all files."""
    for case in CASES:
        for name, content in files(case).items():
            (HERE / name).write_bytes(content)


if __name__ == "__main__":
    main()
