"""JSON as a tree that can hold what a parser must refuse: duplicate members, raw text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


class Raw(str):
    """Text that is written as it is."""

    __slots__ = ()


class Members(list[tuple[str, Any]]):
    """An object as its members, in order; a name may occur twice."""

    def get(self, name: str) -> Any:
        """The first member of this name, or None."""
        return next((value for key, value in self if key == name), None)

    def put(self, name: str, value: Any) -> None:
        """Give the member this value, where it stands or at the end."""
        for position, (key, _) in enumerate(self):
            if key == name:
                self[position] = (name, value)
                return
        self.append((name, value))

    def drop(self, name: str) -> None:
        """Remove every member of this name."""
        self[:] = [item for item in self if item[0] != name]


@dataclass(frozen=True)
class Place:
    """One value in a tree, by the container that holds it."""

    parent: Members | list[Any]
    position: int

    @property
    def value(self) -> Any:
        """What is there."""
        item = self.parent[self.position]
        return item[1] if isinstance(self.parent, Members) else item

    def put(self, value: Any) -> None:
        """Put another value there."""
        if isinstance(self.parent, Members):
            self.parent[self.position] = (self.parent[self.position][0], value)
        else:
            self.parent[self.position] = value


def read(text: bytes | str) -> Any:
    """Parse real JSON into a tree."""
    return json.loads(text, object_pairs_hook=Members)


def write(value: Any, item: str = ",", name: str = ":") -> str:
    """Write a tree, with these separators."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Members):
        inner = (f"{_name(key)}{name}{write(held, item, name)}" for key, held in value)
        return "{" + item.join(inner) + "}"
    if isinstance(value, list):
        return "[" + item.join(write(held, item, name) for held in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def places(value: Any) -> Iterator[Place]:
    """Every place below a value, parents before what they hold."""
    if isinstance(value, Members | list):
        for position in range(len(value)):
            place = Place(value, position)
            yield place
            yield from places(place.value)


def objects(value: Any) -> Iterator[Members]:
    """Every object in a value, itself too."""
    if isinstance(value, Members):
        yield value
    for place in places(value):
        if isinstance(place.value, Members):
            yield place.value


def _name(key: str) -> str:
    return str(key) if isinstance(key, Raw) else json.dumps(key, ensure_ascii=False)
