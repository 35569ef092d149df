"""Writes the tables of docs/reference/interop.md from runs of the real readers.

Run with the project's Python from the top of the repository:

    PYTHONPATH=tests python tests/golden/interop/generate.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from fakes.interopruns import (
    all_scenes,
    open_ground,
    ours_read_by_others,
    page_section,
    theirs_read_by_us,
    with_section,
)

PAGE = Path(__file__).resolve().parents[3] / "docs/reference/interop.md"


def main() -> None:
    """Replace the generated part."""
    with tempfile.TemporaryDirectory() as temporary, open_ground(Path(temporary)) as ground:
        section = page_section(
            ours_read_by_others(ground), theirs_read_by_us(ground), all_scenes(ground)
        )
    PAGE.write_text(with_section(PAGE.read_text(), section))


if __name__ == "__main__":
    main()
