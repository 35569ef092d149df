"""Words, quotes and variables of a Dockerfile line, as its builders understand them."""

from __future__ import annotations

import re
from collections.abc import Mapping

MAX_EXPANDED = 1 << 16
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class BadWord(ValueError):
    """A quote that is not closed, or a variable that cannot be read."""


def split_words(text: str, escape: str = "\\") -> list[str]:
    """Split at unquoted white space, keeping quotes and escapes as they stand.

    Raises: BadWord for a quote that is not closed.
    """
    words: list[str] = []
    current = ""
    quote = ""
    position = 0
    while position < len(text):
        char = text[position]
        if char == escape and quote != "'" and position + 1 < len(text):
            current += text[position : position + 2]
            position += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char.isspace():
            words += [current] if current else []
            current = ""
            position += 1
            continue
        current += char
        position += 1
    if quote:
        raise BadWord(f"a {quote} is not closed")
    return words + ([current] if current else [])


def unquote(word: str, escape: str = "\\") -> str:
    """Remove quotes and escapes without looking at variables."""
    return _Expander(word, None, escape).run()


def expand(word: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """Replace ``$NAME``, ``${NAME}``, ``${NAME:-word}`` and ``${NAME:+word}``; remove quotes.

    What is not set is empty, as in a build. Raises: BadWord.
    """
    return _Expander(word, variables, escape).run()


def variable_names(word: str) -> set[str]:
    """The variables that a word uses."""
    return set(re.findall(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)", word))


class _Expander:
    def __init__(self, text: str, variables: Mapping[str, str] | None, escape: str) -> None:
        self._text = text
        self._variables = variables
        self._escape = escape
        self._at = 0

    def run(self, end: str = "") -> str:
        """Read to the end of the text, or past ``end``."""
        parts: list[str] = []
        quote = ""
        while self._at < len(self._text):
            char = self._text[self._at]
            self._at += 1
            if not quote and char == end:
                return self._bounded(parts)
            if char == quote:
                quote = ""
            elif char in "\"'" and not quote:
                quote = char
            elif char == self._escape and quote != "'":
                parts.append(self._escaped(quote))
            elif char == "$" and quote != "'" and self._variables is not None:
                parts.append(self._variable(self._variables))
            else:
                parts.append(char)
        if end or quote:
            raise BadWord(f"a {end or quote} is missing")
        return self._bounded(parts)

    def _bounded(self, parts: list[str]) -> str:
        text = "".join(parts)
        if len(text) > MAX_EXPANDED:
            raise BadWord(f"a value grows over {MAX_EXPANDED} characters")
        return text

    def _escaped(self, quote: str) -> str:
        if self._at >= len(self._text):
            return self._escape
        char = self._text[self._at]
        self._at += 1
        return self._escape + char if quote and char not in '"$' + self._escape else char

    def _variable(self, variables: Mapping[str, str]) -> str:
        braces = self._text[self._at : self._at + 1] == "{"
        match = _NAME.match(self._text, self._at + braces)
        if not match:
            if braces:
                raise BadWord("${ needs a name")
            return "$"
        self._at = match.end()
        value = variables.get(match[0], "")
        return self._modified(match[0], value, variables) if braces else value

    def _modified(self, name: str, value: str, variables: Mapping[str, str]) -> str:
        rest = self._text[self._at :]
        for operator in ("}", ":-", ":+", "-", "+"):
            if rest.startswith(operator):
                self._at += len(operator)
                break
        else:
            raise BadWord(f"${{{name}…}}: only :-, :+, - and + are understood")
        if operator == "}":
            return value
        other = self.run("}")
        present = bool(value) if operator[0] == ":" else name in variables
        if operator[-1] == "-":
            return value if present else other
        return other if present else ""
