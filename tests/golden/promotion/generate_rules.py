"""Writes the sample target's rules for other controllers.

Run with the project's Python from the top of the repository:

    PYTHONPATH=tests python tests/golden/promotion/generate_rules.py
"""

from __future__ import annotations

from pathlib import Path

from fakes.promotions import target
from secure_pipeline.canary.render import RENDERERS

HERE = Path(__file__).parent


def main() -> None:
    """Write a file for each controller."""
    for name, render in RENDERERS.items():
        (HERE / f"{name}.yaml").write_text(render(target()))


if __name__ == "__main__":
    main()
