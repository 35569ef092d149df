"""Selectors from foreign labels: one literal each, whatever is in them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.canary.promql import matchers, quoted

LITERAL = re.compile(r'"(?:[^"\\\n]|\\[\\"nrt]|\\u[0-9a-f]{4}|\\U[0-9a-f]{8})*"')
ESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|U([0-9a-f]{8})|(.))")
SHORT = {"\\": "\\", '"': '"', "n": "\n", "r": "\r", "t": "\t"}


def unquoted(literal: str) -> str:
    """Read a literal as Prometheus (Go) does."""
    assert LITERAL.fullmatch(literal), literal
    return ESCAPE.sub(lambda m: SHORT[m[3]] if m[3] else chr(int(m[1] or m[2], 16)), literal[1:-1])


def test_labels_and_patterns_in_their_order() -> None:
    """Equal labels come first, then the patterns."""
    assert matchers({"job": "a", "slot": "green"}, {"code": "5.."}) == (
        'job="a",slot="green",code=~"5.."'
    )
    assert matchers({}) == ""


@given(st.text() | st.text('\\"\n\r\t{},=~\x00\u2028\U000e0001', max_size=20))
def test_every_text_is_one_literal_that_means_it(text: str) -> None:
    """No value ends its literal, and reading the literal gives the value back."""
    assert unquoted(quoted(text)) == text
    assert quoted(text).isprintable()


@pytest.mark.parametrize("name", ["", "a-b", '} or up{x="', "a\n", "é"])
def test_a_label_that_is_none_is_refused(name: str) -> None:
    """A name cannot carry PromQL either."""
    with pytest.raises(ValueError, match="label"):
        matchers({name: "x"})
    with pytest.raises(ValueError, match="label"):
        matchers({}, {name: "x"})


def test_a_lone_surrogate_is_refused() -> None:
    """What cannot be sent as UTF-8 is refused before it is sent."""
    with pytest.raises(ValueError, match="surrogate"):
        quoted("\ud800")
