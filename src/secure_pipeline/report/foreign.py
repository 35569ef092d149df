"""Text that others chose, made harmless for people's eyes: bounded and with nothing hidden.

A name may hold a line break, an escape sequence, a mark that turns the reading direction or a
megabyte. Shown as it stands it could redraw a terminal or make one digest look like another.
"""

from __future__ import annotations

import unicodedata

MAX_TEXT = 2000
"""Characters that are shown of one text."""
MAX_MARKS = 2
"""Combining marks on one letter; more would run over the lines around it."""


def visible(text: str, limit: int = MAX_TEXT) -> str:
    r"""Return the text cut, and what does not print written as ``\u{hex}``."""
    shown: list[str] = []
    marks = 0
    for character in text[:limit]:
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        plain = character.isprintable() and marks <= MAX_MARKS
        shown.append(character if plain else f"\\u{{{ord(character):x}}}")
    more = f"… ({len(text)} characters)" if len(text) > limit else ""
    return "".join(shown) + more
