"""Path patterns: what is below, and what never matches."""

from __future__ import annotations

import pytest

from secure_pipeline.globs import under


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("a/b.py", "a", True),
        ("a/b.py", "a/*.py", True),
        ("a/b/c.py", "a/*.py", False),
        ("a/b/c.py", "a/**", True),
        ("a/b/c.py", "**/c.py", True),
        ("c.py", "**/c.py", True),
        ("ab.py", "a", False),
        ("a.py", "?.py", True),
        ("a+b.py", "a+b.py", True),
        ("aab.py", "a+b.py", False),
        ("a/../b.py", "a", False),
        ("a/b.py", "", False),
        ("a/b.py", ".", False),
    ],
)
def test_a_pattern_covers_a_path_or_a_directory_above_it(
    path: str, pattern: str, expected: bool
) -> None:
    """A star stays inside one name, dots upward never match, other characters are literal."""
    assert under(path, pattern) is expected
