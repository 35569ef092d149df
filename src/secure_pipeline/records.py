"""Frozen dataclasses to JSON and back, for what the program writes for itself.

Decoding is strict: a record that was torn, altered or written by another version is
refused, and the caller does the work again.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class InvalidRecord(ValueError):
    """The stored document is not what this program writes."""


def encode(value: Any) -> Any:
    """Turn a record into JSON values. Bytes are not allowed: store them beside it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Path | Fraction):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"cannot be stored: {type(value).__name__}")


def decode(kind: type[T], value: Any) -> T:
    """Rebuild a record of ``kind``. Raises: InvalidRecord."""
    try:
        return typing.cast(T, _decode(kind, value))
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise InvalidRecord(f"not a {kind.__name__}: {error}") from error


def _decode(kind: Any, value: Any) -> Any:
    if kind is Any:
        return value
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        alternative = _alternative(arguments, value)
        return None if alternative is type(None) else _decode(alternative, value)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_decode(arguments[0], item) for item in value)
        return tuple(_decode(a, item) for a, item in zip(arguments, value, strict=True))
    if origin is not None:
        return {key: _decode(arguments[1], item) for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value)
    if kind is datetime:
        return datetime.fromisoformat(value)
    if isinstance(kind, type) and issubclass(kind, Enum | Path | Fraction):
        return kind(value)
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value


def _alternative(kinds: tuple[Any, ...], value: Any) -> Any:
    """The type of a union that a value is of: by the fields of a record where there are several."""
    rest = [kind for kind in kinds if kind is not type(None)]
    if value is None and len(rest) < len(kinds):
        return type(None)
    if len(rest) == 1:
        return rest[0]
    for kind in rest:
        if dataclasses.is_dataclass(kind):
            if isinstance(value, dict) and set(value) == {f.name for f in dataclasses.fields(kind)}:
                return kind
        elif type(value) is kind:
            return kind
    raise TypeError(f"{value!r} is none of {', '.join(str(kind) for kind in kinds)}")


def _decode_dataclass(kind: Any, value: Any) -> Any:
    hints = typing.get_type_hints(kind)
    if set(value) != {f.name for f in dataclasses.fields(kind)}:
        raise ValueError("other fields than expected")
    return kind(**{name: _decode(hints[name], item) for name, item in value.items()})
