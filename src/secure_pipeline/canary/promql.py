"""Label matchers of PromQL from foreign names and values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_SLOT = re.compile(r"\$(canary|baseline)\b")
_NONE: Mapping[str, str] = MappingProxyType({})


def matchers(labels: Mapping[str, str], patterns: Mapping[str, str] = _NONE) -> str:
    """Write what stands between the braces of a selector: ``pod="a",code=~"5.."``.

    ``labels`` have to be equal; ``patterns`` are regular expressions (RE2) that have to match
    the whole value. Order is kept. Raises: ValueError for what is no label of Prometheus.
    """
    return ",".join(
        [f"{_name(label)}={quoted(value)}" for label, value in labels.items()]
        + [f"{_name(label)}=~{quoted(value)}" for label, value in patterns.items()]
    )


def with_slots(expression: str, canary: str, baseline: str) -> str:
    """Put label matchers in the place of ``$canary`` and ``$baseline``."""
    chosen = {"canary": canary, "baseline": baseline}
    return _SLOT.sub(lambda found: chosen[found[1]], expression)


def quoted(text: str) -> str:
    """Write a string literal of PromQL: double quotes, the escapes of Go.

    Source: prometheus.io/docs/prometheus/latest/querying/basics, "String literals". Raises:
    ValueError for a lone surrogate, which no UTF-8 can hold.
    """
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise ValueError("a lone surrogate is no text")
    return f'"{"".join(map(_escaped, text))}"'


def _name(label: str) -> str:
    if not _LABEL.match(label):
        raise ValueError(f"{label!r} is not a label of Prometheus")
    return label


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"
