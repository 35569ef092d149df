"""JSON as attackers must not be able to bend it (CASES SIG-05, SIG-07).

One parser for envelopes, manifests, predicates and tool reports: duplicate members,
NaN, a byte order mark, trailing bytes, lone surrogates and deep nesting are refused.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

MAX_DEPTH = 100
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.?)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)


class InvalidJson(ValueError):
    """The bytes are not one strict JSON value."""


def loads(data: bytes, *, limit: int = 32 << 20) -> Any:
    """Parse exactly one JSON value of at most ``limit`` bytes.

    Raises: InvalidJson, for anything that two parsers could read differently.
    """
    if len(data) > limit:
        raise InvalidJson(f"larger than {limit} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJson(f"not UTF-8 at byte {error.start}") from None
    if text.startswith("\ufeff"):
        raise InvalidJson("starts with a byte order mark")
    _check_depth(text)
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float
        )
    except InvalidJson:
        raise
    except (ValueError, RecursionError) as error:  # ValueError: also an integer too long
        raise InvalidJson(f"not JSON: {error}") from None
    if "\\u" in text or "\\U" in text:
        _check_surrogates(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidJson(f"duplicate member {name!r}")
            seen.add(name)
    return result


def _constant(name: str) -> NoReturn:
    raise InvalidJson(f"{name} is not JSON")


def _float(text: str) -> float:
    """A number beyond the range would become infinity, which is no JSON."""
    value = float(text)
    if math.isinf(value):
        raise InvalidJson(f"number out of range: {text[:20]}")
    return value


def _check_depth(text: str) -> None:
    """Bound nesting before the recursive parser sees it."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _STRUCTURE.finditer(text):
        if token[0] in ("[", "{"):
            depth += 1
            if depth > MAX_DEPTH:
                raise InvalidJson(f"nested deeper than {MAX_DEPTH}")
        elif token[0] in ("]", "}"):
            depth -= 1


def _check_surrogates(value: Any) -> None:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            try:
                item.encode("utf-8")
            except UnicodeEncodeError:
                raise InvalidJson("lone surrogate in a string") from None
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, dict):
            pending.extend(item.keys())
            pending.extend(item.values())
