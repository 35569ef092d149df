"""YAML documents that people write, read strictly and decoded to typed values.

Anchors, aliases, tags, duplicate keys and several documents in one file are refused;
every value keeps its line, so that an error names file:line (issue 1, "strict
configuration"). Scalars follow the YAML 1.2 core schema: ``on`` and ``no`` are strings.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from fractions import Fraction
from typing import Any, NoReturn, TypeVar

import yaml

from secure_pipeline.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 100_000

_INT = re.compile(r"[-+]?[0-9]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_DURATION = re.compile(r"([0-9]+)(ms|s|m|h|d)\Z")
_SIZE = re.compile(r"([0-9]+)(B|KiB|MiB|GiB)?\Z")
_PERCENT = re.compile(r"([0-9]{1,3}(\.[0-9]{1,6})?)%\Z")
_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE_UNITS = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

T = TypeVar("T")


class Size(int):
    """A number of bytes, written ``512MiB``."""


class Percent(Fraction):
    """A share from 0 to 1, exact, written ``5%`` or ``0.5%``."""

    def __new__(cls, text: str) -> Percent:
        """Parse it. Raises: ValueError."""
        match = _PERCENT.match(text)
        if not match or Fraction(match[1]) > 100:
            raise ValueError("a share such as 5% or 0.5% is needed here")
        return super().__new__(cls, Fraction(match[1]) / 100)

    def __str__(self) -> str:
        """As people write it."""
        return f"{float(self * 100):g}%"

    def __copy__(self) -> Percent:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Percent:
        return self


@dataclasses.dataclass(frozen=True)
class Node:
    """A YAML value and the line it stands on (from 1)."""

    value: Any
    """None, bool, int, float, str, list[Node] or dict[str, Node]."""
    line: int
    source: str

    @property
    def where(self) -> str:
        """``file:line``."""
        return f"{self.source}:{self.line}"

    def fail(self, message: str, hint: str | None = None) -> NoReturn:
        """Raise a ConfigError that names this place."""
        raise ConfigError(message, where=self.where, hint=hint)


def parse_yaml(data: bytes, source: str) -> Node:
    """Parse one strict YAML document of at most 1 MiB.

    Raises: ConfigError naming ``source`` and the line.
    """
    if len(data) > MAX_BYTES:
        raise ConfigError(f"larger than the limit of {MAX_BYTES} bytes", where=source)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError("not UTF-8", where=f"{source}:{line}") from None
    try:
        return _Composer(text, source).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = source if mark is None else f"{source}:{mark.line + 1}"
        raise ConfigError(f"not valid YAML: {error.problem}", where=where) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"not valid YAML: {str(error).splitlines()[0]}", where=source) from None


class _Composer:
    """Builds nodes from the parser's events, so that no alias is ever expanded."""

    def __init__(self, text: str, source: str) -> None:
        self.events = yaml.parse(text, Loader=yaml.SafeLoader)
        self.source = source
        self.count = 0

    def document(self) -> Node:
        event = self._next()
        if isinstance(event, yaml.StreamStartEvent):
            event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            raise ConfigError("the file is empty", where=f"{self.source}:1")
        node = self._node(self._next(), 0)
        self._next()
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            self._fail(event, "more than one document in the file")
        return node

    def _next(self) -> yaml.Event:
        return next(self.events)

    def _fail(self, event: yaml.Event, message: str) -> NoReturn:
        raise ConfigError(message, where=f"{self.source}:{_line(event)}")

    def _node(self, event: yaml.Event, depth: int) -> Node:
        self.count += 1
        if self.count > MAX_NODES:
            self._fail(event, f"more than {MAX_NODES} values")
        if depth > MAX_DEPTH:
            self._fail(event, f"nested deeper than {MAX_DEPTH}")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            self._fail(event, "anchors and aliases are not allowed")
        line = _line(event)
        if isinstance(event, yaml.ScalarEvent):
            if event.tag is not None:
                self._fail(event, f"tags are not allowed: {event.tag}")
            value = event.value if event.style else _scalar(event.value)
            return Node(value, line, self.source)
        if isinstance(event, yaml.CollectionStartEvent) and event.tag:
            self._fail(event, f"tags are not allowed: {event.tag}")
        if isinstance(event, yaml.SequenceStartEvent):
            return Node(self._sequence(depth), line, self.source)
        return Node(self._mapping(depth), line, self.source)

    def _sequence(self, depth: int) -> list[Node]:
        items = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return items

    def _mapping(self, depth: int) -> dict[str, Node]:
        items: dict[str, Node] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(event, yaml.ScalarEvent):
                key.fail("a key must be plain text")
            if event.value in items:
                key.fail(f"duplicate key {event.value!r}")
            value = self._node(self._next(), depth + 1)
            items[event.value] = dataclasses.replace(value, line=key.line)
        return items


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _scalar(text: str) -> str | int | float | bool | None:
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if len(text) > 300:
        return text
    if _INT.match(text):
        return int(text, 16) if text.startswith("0x") else int(text)
    if _FLOAT.match(text):
        return float(text)
    return text


def field(doc: str, *, default: Any = dataclasses.MISSING, factory: Any = None) -> Any:
    """Declare a field of a document: its text for the schema and the docs, and its default."""
    metadata = {"doc": doc}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def decode(kind: type[T], node: Node) -> T:
    """Decode a node to the dataclass ``kind``, checking every key and type.

    A dataclass may refuse its values by raising ValueError in ``__post_init__``.
    Raises: ConfigError at the line of the wrong value.
    """
    return typing.cast(T, _decode(kind, node, ""))


def _decode(kind: Any, node: Node, path: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(kind, node, path)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast(type, kind), node, path)
    if origin is tuple:
        if not isinstance(node.value, list):
            node.fail(f"{path}: a list is needed here")
        item = typing.get_args(kind)[0]
        return tuple(_decode(item, child, f"{path}[{i}]") for i, child in enumerate(node.value))
    if origin is Mapping or (isinstance(origin, type) and issubclass(origin, Mapping)):
        if not isinstance(node.value, dict):
            node.fail(f"{path}: a mapping is needed here")
        item = typing.get_args(kind)[1]
        return {key: _decode(item, child, f"{path}.{key}") for key, child in node.value.items()}
    return _decode_scalar(kind, node, path)


def _decode_union(kind: Any, node: Node, path: str) -> Any:
    options = [option for option in typing.get_args(kind) if option is not type(None)]
    if node.value is None and len(options) < len(typing.get_args(kind)):
        return None
    if len(options) != 1:
        raise TypeError(f"unsupported field type {kind}")
    return _decode(options[0], node, path)


def _decode_dataclass(kind: type, node: Node, path: str) -> Any:
    if not isinstance(node.value, dict):
        node.fail(f"{path or 'the document'}: a mapping is needed here")
    hints = typing.get_type_hints(kind)
    fields = {_key(f.name): f for f in dataclasses.fields(kind)}
    for name, child in node.value.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(fields)}"
            child.fail(f"unknown key '{name}'" + (f" in '{path}'" if path else ""), hint)
    values = {}
    for name, spec in fields.items():
        if name in node.value:
            inner = f"{path}.{name}" if path else name
            values[spec.name] = _decode(hints[spec.name], node.value[name], inner)
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            node.fail(f"key '{name}' is missing" + (f" in '{path}'" if path else ""))
    try:
        return kind(**values)
    except ValueError as error:
        node.fail(f"{path}: {error}" if path else str(error))


def _decode_scalar(kind: Any, node: Node, path: str) -> Any:
    value = node.value
    if kind is timedelta:
        return _duration(node, path)
    if kind is Size:
        return _size(node, path)
    if kind is Percent:
        return _percent(node, path)
    if kind is date:
        return _date(node, path)
    if isinstance(kind, type) and issubclass(kind, Enum):
        names = [str(member.value) for member in kind]
        if value not in names:
            node.fail(f"{path}: {value!r} is not one of {', '.join(names)}")
        return kind(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        node.fail(f"{path}: {words.get(kind, kind)} is needed here, not {_describe(value)}")
    return value


def _describe(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else repr(value)[:60]


def _duration(node: Node, path: str) -> timedelta:
    match = _DURATION.match(str(node.value))
    if not match or len(match[1]) > 9:
        node.fail(f"{path}: a duration such as 90s, 15m, 24h or 30d is needed here")
    return timedelta(seconds=int(match[1]) * _DURATION_UNITS[match[2]])


def _size(node: Node, path: str) -> Size:
    match = _SIZE.match(str(node.value))
    if not match or len(match[1]) > 15:
        node.fail(f"{path}: a size such as 10MiB or 2GiB is needed here")
    return Size(int(match[1]) * _SIZE_UNITS[match[2]])


def _percent(node: Node, path: str) -> Percent:
    try:
        return Percent(str(node.value))
    except ValueError as error:
        node.fail(f"{path}: {error}")


def _date(node: Node, path: str) -> date:
    try:
        return date.fromisoformat(str(node.value))
    except ValueError:
        node.fail(f"{path}: a date such as 2027-01-31 is needed here")


def instant(text: str) -> datetime:
    """Parse an RFC 3339 time with an offset into UTC.

    Raises: ValueError.
    """
    value = datetime.fromisoformat(text)
    if value.tzinfo is None:
        raise ValueError(f"no time zone in {text!r}")
    return value.astimezone(UTC)


def _key(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def schema(kind: type, title: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) that editors use for documents of ``kind``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **_schema(kind),
    }


def _schema(kind: Any) -> dict[str, Any]:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        inner = [_schema(option) for option in typing.get_args(kind) if option is not type(None)]
        return {"anyOf": [*inner, {"type": "null"}]}
    if dataclasses.is_dataclass(kind):
        return _schema_dataclass(typing.cast(type, kind))
    if origin is tuple:
        return {"type": "array", "items": _schema(typing.get_args(kind)[0])}
    if origin is not None:
        return {"type": "object", "additionalProperties": _schema(typing.get_args(kind)[1])}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    if kind is timedelta:
        return {"type": "string", "pattern": "^[0-9]{1,9}(ms|s|m|h|d)$"}
    if kind is Size:
        return {"type": ["string", "integer"], "pattern": "^[0-9]{1,15}(B|KiB|MiB|GiB)?$"}
    if kind is Percent:
        return {"type": "string", "pattern": "^[0-9]{1,3}(\\.[0-9]{1,6})?%$"}
    if kind is date:
        return {"type": "string", "format": "date"}
    return {"type": {str: "string", int: "integer", float: "number", bool: "boolean"}[kind]}


def _schema_dataclass(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    properties, required = {}, []
    for spec in dataclasses.fields(kind):
        name = _key(spec.name)
        properties[name] = {
            "description": spec.metadata.get("doc", ""),
            **_schema(hints[spec.name]),
        }
        if spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            required.append(name)
    result: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    return {**result, "required": required} if required else result
