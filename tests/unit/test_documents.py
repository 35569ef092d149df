"""Tests of strict YAML documents and their decoding."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.documents import Size, decode, field, parse_yaml, schema
from secure_pipeline.errors import ConfigError


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    wait: timedelta = field("How long.", default=timedelta(seconds=1))
    max_size: Size = field("How much.", default=Size(5))

    def __post_init__(self) -> None:
        if self.wait > timedelta(days=2):
            raise ValueError("wait is too long")


@dataclass(frozen=True)
class Outer:
    name: str = field("A name.")
    count: int = field("A number.", default=1)
    ratio: float | None = field("A ratio.", default=None)
    colour: Colour = field("A colour.", default=Colour.RED)
    until: date | None = field("A day.", default=None)
    words: tuple[str, ...] = field("Words.", default=())
    labels: Mapping[str, str] = field("Labels.", factory=dict)
    inner: Inner = field("More.", default=Inner())


def read(text: str) -> Outer:
    return decode(Outer, parse_yaml(text.encode(), "f.yaml"))


def test_a_whole_document_is_decoded() -> None:
    """Every supported type arrives as its own type."""
    value = read(
        "name: on\ncount: 0x10\nratio: 3\ncolour: blue\nuntil: 2027-01-31\nwords: [a, 'b c']\n"
        "labels: {x: y}\ninner: {wait: 90s, max-size: 2KiB}\n"
    )
    assert value == Outer(
        "on", 16, 3.0, Colour.BLUE, date(2027, 1, 31), ("a", "b c"), {"x": "y"},
        Inner(timedelta(seconds=90), Size(2048)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "where", "message", "hint"),
    [
        ("name: a\ncuont: 2\n", "f.yaml:2", "unknown key 'cuont'", "did you mean 'count'?"),
        ("name: a\ninner:\n  wiat: 1s\n", "f.yaml:3", "unknown key 'wiat' in 'inner'", "'wait'"),
        ("name: a\nzzzzzzzz: 1\n", "f.yaml:2", "unknown key", "known keys: name"),
        ("name: a\nname: b\n", "f.yaml:2", "duplicate key 'name'", None),
        ("inner:\n  wait: 1s\n  wait: 2s\nname: a", "f.yaml:3", "duplicate key 'wait'", None),
        ("name: &n a\nwords: [*n]\n", "f.yaml:1", "anchors and aliases", None),
        ("name: a\nlabels: {<<: *x}\n", "f.yaml:2", "anchors and aliases", None),
        ("name: !!python/object:os.system a\n", "f.yaml:1", "tags are not allowed", None),
        ("name: a\nwords: !!set {a}\n", "f.yaml:2", "tags are not allowed", None),
        ("name: a\n---\nname: b\n", "f.yaml:2", "more than one document", None),
        ("", "f.yaml:1", "the file is empty", None),
        ("# only a comment\n", "f.yaml:1", "the file is empty", None),
        ("- a\n", "f.yaml:1", "a mapping is needed", None),
        ("count: 1\n", "f.yaml:1", "key 'name' is missing", None),
        ("name: 5\n", "f.yaml:1", "text is needed here, not 5", None),
        ("name: a\ncount: true\n", "f.yaml:2", "a whole number is needed", None),
        ("name: a\ncount: '1'\n", "f.yaml:2", "a whole number is needed", None),
        ("name: a\nwords: a\n", "f.yaml:2", "a list is needed", None),
        ("name: a\nlabels: [a]\n", "f.yaml:2", "a mapping is needed", None),
        ("name: a\ncolour: green\n", "f.yaml:2", "not one of red, blue", None),
        ("name: a\nuntil: tomorrow\n", "f.yaml:2", "a date such as", None),
        ("name: a\ninner:\n  wait: 5 min\n", "f.yaml:3", "a duration such as", None),
        ("name: a\ninner:\n  max-size: 1GB\n", "f.yaml:3", "a size such as", None),
        ("name: a\ninner:\n  wait: 3d\n", "f.yaml:2", "wait is too long", None),
        ("name: a\nratio: .nan\n", "f.yaml:2", "a number is needed", None),
        ("name: [a\n", "f.yaml:2", "not valid YAML", None),
        ("name: a\n\tcount: 1\n", "f.yaml:2", "not valid YAML", None),
        ("? [a]\n: b\n", "f.yaml:1", "a key must be plain text", None),
    ],
)
def test_a_mistake_names_its_line_and_what_to_do(
    text: str, where: str, message: str, hint: str | None
) -> None:
    """Each mistake gives file:line and what is wrong, and the nearest key where there is one."""
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert caught.value.where == where
    assert message in caught.value.message
    if hint:
        assert caught.value.hint is not None
        assert hint in caught.value.hint


def test_an_alias_bomb_is_refused_at_once() -> None:
    """Aliases are refused at the first one, so that nothing is ever expanded."""
    text = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
    )
    with pytest.raises(ConfigError, match="anchors and aliases"):
        parse_yaml(text.encode(), "bomb.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "a: " + "{b: " * 500,
        "- " * 2000 + "x",
        "x" * (2 << 20),
        "a:\n" + "- x\n" * 110_000,
    ],
)
def test_size_depth_and_count_are_bounded(text: str) -> None:
    """Huge, deep and crowded documents are refused with a clear error."""
    with pytest.raises(ConfigError, match=r"larger than|nested deeper|more than|not valid"):
        parse_yaml(text.encode(), "big.yaml")


@given(st.binary(max_size=120))
def test_any_bytes_give_a_node_or_a_config_error(data: bytes) -> None:
    """No input escapes as another exception."""
    with contextlib.suppress(ConfigError):
        parse_yaml(data, "any.yaml")


def test_the_schema_says_what_the_decoder_accepts() -> None:
    """The published schema has the same keys, required ones and enumerations."""
    published = schema(Outer, "outer")
    assert published["required"] == ["name"]
    assert published["additionalProperties"] is False
    assert published["properties"]["colour"]["enum"] == ["red", "blue"]
    assert set(published["properties"]["inner"]["properties"]) == {"wait", "max-size"}
