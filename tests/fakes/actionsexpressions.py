"""The part of GitHub's expression language that the workflows use.

Values are strings, numbers, truth values and none; what is not there is none, which is an empty
string in text. Anything that is not known is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Contexts = dict[str, Any]
_TOKEN = re.compile(r"\s*(?:('(?:[^']|'')*')|(\|\||&&|==|!=|!|\(|\))|([\w.-]+(?:\(\))?))")


def substitute(text: str, contexts: Contexts) -> str:
    """Replace every ``${{ … }}`` by its value."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda m: _text(evaluate(m[1], contexts)), text)


def evaluate(text: str, contexts: Contexts) -> Any:
    """The value of an expression. Raises: ValueError."""
    tokens = []
    end = 0
    text = text.strip()
    while end < len(text):
        match = _TOKEN.match(text, end)
        if match is None:
            raise ValueError(f"not understood: {text[end:]!r}")
        tokens.append(match[0].strip())
        end = match.end()
    reader = _Reader(tokens, contexts)
    value = reader.either()
    if reader.tokens:
        raise ValueError(f"left over: {reader.tokens}")
    return value


class _Reader:
    def __init__(self, tokens: list[str], contexts: Contexts) -> None:
        self.tokens = tokens
        self.contexts = contexts

    def _next(self, *wanted: str) -> str | None:
        if self.tokens and (not wanted or self.tokens[0] in wanted):
            return self.tokens.pop(0)
        return None

    def either(self) -> Any:
        value = self._both()
        while self._next("||"):
            other = self._both()
            value = value or other
        return value

    def _both(self) -> Any:
        value = self._compared()
        while self._next("&&"):
            other = self._compared()
            value = value and other
        return value

    def _compared(self) -> Any:
        value = self._one()
        while operator := self._next("==", "!="):
            same = _plain(value) == _plain(self._one())
            value = same if operator == "==" else not same
        return value

    def _one(self) -> Any:
        if self._next("!"):
            return not self._one()
        if self._next("("):
            value = self.either()
            if not self._next(")"):
                raise ValueError("no ')'")
            return value
        token = self._next()
        if token is None:
            raise ValueError("an end where a value should be")
        return self._value(token)

    def _value(self, token: str) -> Any:
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        known = {"true": True, "false": False, "null": None, "always()": True, "cancelled()": False}
        if token in known:
            return known[token]
        first, *rest = token.split(".")
        if first not in self.contexts:
            raise ValueError(f"no context: {token!r}")
        value = self.contexts[first]
        for name in rest:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value


def _plain(value: Any) -> Any:
    """None is an empty string beside a string, and false beside a truth value."""
    if value is None or isinstance(value, bool):
        return "" if value is None else value
    return value


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
