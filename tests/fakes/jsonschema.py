"""A checker for the few keywords of JSON Schema that the project's own schemas use."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PREDICATES = Path(__file__).parents[2] / "docs/reference/predicates"
_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int,
    "number": (int, float),
}  # fmt: skip
_KNOWN = {
    *("$schema", "$id", "$ref", "$defs", "title", "description", "type", "format", "enum"),
    *("required", "properties", "additionalProperties", "oneOf", "items", "pattern"),
    *("minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum"),
}


def example(page: str) -> dict[str, Any]:
    """The example in a page of docs/reference/predicates."""
    text = (PREDICATES / f"{page}.md").read_text()
    value: dict[str, Any] = json.loads(text.split("```json")[1].split("```")[0])
    return value


def fits(schema: dict[str, Any], value: Any) -> None:
    """Assert that a value fits, and that an object has no member that the schema leaves out."""
    _fits(schema, schema, value, "$")


def _fits(root: dict[str, Any], part: dict[str, Any], value: Any, where: str) -> None:
    if "$ref" in part:
        part = root["$defs"][part["$ref"].split("/")[-1]]
    assert part.keys() <= _KNOWN, f"{where}: {part.keys() - _KNOWN} is not checked here"
    kind = part["type"]
    assert isinstance(value, _TYPES[kind]), f"{where} is no {kind}"
    assert kind == "boolean" or not isinstance(value, bool), f"{where} is no {kind}"
    assert "enum" not in part or value in part["enum"], where
    if kind == "object":
        _object(root, part, value, where)
    elif kind == "array":
        assert part.get("minItems", 0) <= len(value) <= part.get("maxItems", len(value)), where
        for number, item in enumerate(value):
            _fits(root, part["items"], item, f"{where}[{number}]")
    elif kind == "string":
        assert part.get("minLength", 0) <= len(value) <= part.get("maxLength", len(value)), where
        assert re.search(part.get("pattern", ""), value), f"{where}: {value!r}"
    elif kind in ("integer", "number"):
        assert part.get("minimum", value) <= value <= part.get("maximum", value), where


def _object(root: dict[str, Any], part: dict[str, Any], value: Any, where: str) -> None:
    named = part.get("properties", {})
    missing = set(part.get("required", ())) - value.keys()
    assert not missing, f"{where} lacks {missing}"
    if "oneOf" in part:
        met = [one for one in part["oneOf"] if set(one["required"]) <= value.keys()]
        assert len(met) == 1, f"{where}: {len(met)} of oneOf"
    for name, item in value.items():
        inner = named.get(name, part.get("additionalProperties"))
        assert inner, f"{where}.{name} is not in the schema"
        _fits(root, inner, item, f"{where}.{name}")
