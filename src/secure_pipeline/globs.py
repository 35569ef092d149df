"""Path patterns of policies and configurations."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import PurePosixPath

_WORDS = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def under(path: str, pattern: str) -> bool:
    """Tell whether ``pattern`` matches a relative path or a directory above it.

    ``*`` and ``?`` stay inside one name, ``**`` crosses directories. A path with ``..`` in it
    never matches.
    """
    place = PurePosixPath(path)
    if ".." in place.parts:
        return False
    expression = _compiled(pattern)
    return any(expression.fullmatch(str(p)) for p in (place, *place.parents) if str(p) != ".")


def matches(path: str, pattern: str) -> bool:
    """Tell whether ``pattern`` matches the whole path; its signs mean what they do in ``under``."""
    return _compiled(pattern).fullmatch(path) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|[^*?]+", pattern)
    return re.compile("".join(_WORDS.get(token) or re.escape(token) for token in tokens), re.DOTALL)
