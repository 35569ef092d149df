"""A strict, bounded Dockerfile parser that keeps the line of every instruction.

Follows the Dockerfile reference of BuildKit: parser directives, continuations, comments
within them, here-documents, ARG before FROM. What two builders could read differently
(control characters, an instruction they do not both know) is refused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from secure_pipeline.dockerfile.words import BadWord, split_words, unquote
from secure_pipeline.errors import ConfigError
from secure_pipeline.files import read_bounded, sha256_bytes

MAX_BYTES = 1 << 20
MAX_INSTRUCTIONS = 5000
KEYWORDS = frozenset(
    ("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL",
     "MAINTAINER", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")
)  # fmt: skip
_WITH_FLAGS = frozenset(("ADD", "COPY", "FROM", "HEALTHCHECK", "RUN"))
_WITH_HEREDOCS = frozenset(("ADD", "COPY", "RUN"))
_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*\Z")
_DIRECTIVES = frozenset(("syntax", "escape", "check"))
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]")
_HEREDOC = re.compile(r"[0-9]*<<(-?)([^<]+)\Z")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*\Z")


@dataclass(frozen=True)
class Heredoc:
    """A here-document and its lines, joined."""

    name: str
    content: str


@dataclass(frozen=True)
class Instruction:
    """One instruction; lines count from 1."""

    keyword: str
    """Upper case."""
    line: int
    end_line: int
    text: str
    """The logical line: continuations joined, comments gone."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """``--name=value``; the value is empty for a bare flag."""
    mounts: tuple[str, ...] = ()
    """Values of ``--mount``, which may be given several times."""
    arguments: str = ""
    """What follows keyword and flags."""
    heredocs: tuple[Heredoc, ...] = ()
    trigger: Instruction | None = None
    """The instruction within ONBUILD."""


@dataclass(frozen=True)
class Stage:
    """A build stage."""

    index: int
    name: str | None
    """Lower case."""
    image: str
    """As written after FROM, variables not expanded."""
    platform: str | None
    instructions: tuple[Instruction, ...]
    """FROM is the first."""

    @property
    def line(self) -> int:
        """Line of FROM."""
        return self.instructions[0].line


@dataclass(frozen=True)
class Dockerfile:
    """A parsed file."""

    source: str
    """How errors name the file."""
    text: str
    digest: str
    """``sha256:…`` of the file's bytes."""
    directives: Mapping[str, tuple[str, int]]
    """Value and line of ``# syntax=``, ``# escape=``."""
    globals: tuple[Instruction, ...]
    """ARG before the first FROM."""
    stages: tuple[Stage, ...]

    @property
    def escape(self) -> str:
        """The escape character."""
        return self.directives.get("escape", ("\\", 0))[0]

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """All instructions in order."""
        return (*self.globals, *(item for stage in self.stages for item in stage.instructions))

    def fail(self, line: int, message: str, hint: str | None = None) -> NoReturn:
        """Raise a ConfigError at a line of this file."""
        raise ConfigError(message, where=f"{self.source}:{line}", hint=hint)


def load(path: Path, source: str) -> Dockerfile:
    """Read and parse a file of at most 1 MiB; ``source`` is its name in errors.

    Raises: ConfigError naming file:line.
    """
    return parse(read_bounded(path, MAX_BYTES), source)


def parse(data: bytes, source: str = "Dockerfile") -> Dockerfile:
    """Parse a Dockerfile.

    Raises: ConfigError naming ``source`` and the line.
    """
    return _Parser(_decode(data, source), source).dockerfile(f"sha256:{sha256_bytes(data)}")


def _decode(data: bytes, source: str) -> str:
    if len(data) > MAX_BYTES:
        raise ConfigError(f"larger than the limit of {MAX_BYTES} bytes", where=source)
    try:
        text = data.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError("not UTF-8", where=f"{source}:{line}") from None
    if match := _CONTROL.search(text):
        line = text.count("\n", 0, match.start()) + 1
        raise ConfigError(f"control character {match[0]!r}", where=f"{source}:{line}")
    return text


class _Parser:
    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._lines = text.split("\n")
        self._source = source
        self._at = 0
        self._directives: dict[str, tuple[str, int]] = {}

    def dockerfile(self, digest: str) -> Dockerfile:
        self._read_directives()
        self._escape = self._directives.get("escape", ("\\", 0))[0]
        if self._escape not in ("\\", "`"):
            self._fail(self._directives["escape"][1], "escape must be \\ or `")
        self._continuation = re.compile(re.escape(self._escape) + r"[ \t]*\Z")
        instructions: list[Instruction] = []
        while (instruction := self._instruction()) is not None:
            instructions.append(instruction)
            if len(instructions) > MAX_INSTRUCTIONS:
                self._fail(instruction.line, f"more than {MAX_INSTRUCTIONS} instructions")
        first = next((n for n, i in enumerate(instructions) if i.keyword == "FROM"), None)
        self._check_globals(instructions, first)
        return Dockerfile(
            self._source,
            self._text,
            digest,
            self._directives,
            tuple(instructions[:first]),
            self._stages(instructions[first:]),
        )

    def _fail(self, line: int, message: str, hint: str | None = None) -> NoReturn:
        raise ConfigError(message, where=f"{self._source}:{line}", hint=hint)

    def _read_directives(self) -> None:
        for number, line in enumerate(self._lines, 1):
            match = _DIRECTIVE.match(line.strip())
            if not match or match[1].lower() not in _DIRECTIVES:
                return
            name = match[1].lower()
            if name in self._directives:
                self._fail(number, f"directive '{name}' is given twice")
            self._directives[name] = (match[2], number)

    def _check_globals(self, instructions: list[Instruction], first: int | None) -> None:
        for instruction in instructions[:first]:
            if instruction.keyword != "ARG":
                self._fail(instruction.line, f"{instruction.keyword} before the first FROM")
        if first is None:
            self._fail(len(self._lines), "no FROM: there is nothing to build")

    def _instruction(self) -> Instruction | None:
        self._skip_blank()
        if self._at >= len(self._lines):
            return None
        line = self._at + 1
        text = self._logical_line().strip()
        return self._parsed(text, line, allow_trigger=True)

    def _skip_blank(self) -> None:
        while self._at < len(self._lines):
            stripped = self._lines[self._at].strip()
            if stripped and not stripped.startswith("#"):
                return
            self._at += 1

    def _logical_line(self) -> str:
        parts: list[str] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            match = self._continuation.search(line)
            parts.append(line[: match.start()] if match else line)
            if not match:
                break
            self._skip_blank()
        return "".join(parts)

    def _parsed(self, text: str, line: int, *, allow_trigger: bool) -> Instruction:
        word, rest = (*text.split(maxsplit=1), "", "")[:2]
        keyword = word.upper()
        if keyword not in KEYWORDS:
            near = difflib.get_close_matches(keyword, KEYWORDS, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else None
            self._fail(line, f"unknown instruction {word[:40]!r}", hint)
        if not rest:
            self._fail(line, f"{keyword} needs an argument")
        flags, mounts, arguments = self._flags(keyword, rest, line)
        heredocs = self._heredocs(keyword, arguments, line)
        trigger = self._trigger(keyword, rest, line, allow_trigger)
        return Instruction(
            keyword, line, self._at, text, flags, mounts, arguments, heredocs, trigger
        )

    def _trigger(self, keyword: str, rest: str, line: int, allowed: bool) -> Instruction | None:
        if keyword != "ONBUILD":
            return None
        inner = self._parsed(rest, line, allow_trigger=False)
        if not allowed or inner.keyword in ("ONBUILD", "FROM", "MAINTAINER"):
            self._fail(line, f"{inner.keyword} cannot be an ONBUILD trigger")
        return inner

    def _flags(
        self, keyword: str, rest: str, line: int
    ) -> tuple[dict[str, str], tuple[str, ...], str]:
        flags: dict[str, str] = {}
        mounts: list[str] = []
        while keyword in _WITH_FLAGS and rest.startswith("--"):
            word, rest = self._first_word(rest, line)
            name, _, value = word[2:].partition("=")
            if name == "mount":
                mounts.append(value)
            elif name in flags:
                self._fail(line, f"--{name} is given twice")
            else:
                flags[name] = value
        if not rest:
            self._fail(line, f"{keyword} needs an argument")
        return flags, tuple(mounts), rest

    def _first_word(self, rest: str, line: int) -> tuple[str, str]:
        end = 0
        quote = ""
        while end < len(rest) and (quote or not rest[end].isspace()):
            char = rest[end]
            if char in "\"'" and quote in ("", char):
                quote = "" if quote else char
            end += 2 if char == self._escape else 1
        if quote:
            self._fail(line, f"a {quote} is not closed")
        return unquote(rest[:end], self._escape), rest[end:].strip()

    def _heredocs(self, keyword: str, arguments: str, line: int) -> tuple[Heredoc, ...]:
        if keyword not in _WITH_HEREDOCS or "<<" not in arguments:
            return ()
        try:
            words = split_words(arguments, self._escape)
        except BadWord:
            return ()
        matches = [match for word in words if (match := _HEREDOC.match(word))]
        return tuple(self._heredoc(match[2], bool(match[1]), line) for match in matches)

    def _heredoc(self, word: str, strip_tabs: bool, line: int) -> Heredoc:
        try:
            name = unquote(word, self._escape)
        except BadWord as error:
            self._fail(line, f"here-document: {error}")
        content: list[str] = []
        while self._at < len(self._lines):
            text = self._lines[self._at]
            self._at += 1
            if (text.lstrip("\t") if strip_tabs else text) == name:
                return Heredoc(name, "\n".join(content))
            content.append(text)
        self._fail(line, f"here-document {name[:40]!r} does not end")

    def _stages(self, instructions: list[Instruction]) -> tuple[Stage, ...]:
        stages: list[Stage] = []
        starts = [n for n, item in enumerate(instructions) if item.keyword == "FROM"]
        for index, start in enumerate(starts):
            end = starts[index + 1] if index + 1 < len(starts) else len(instructions)
            stage = self._stage(index, tuple(instructions[start:end]))
            if stage.name and any(other.name == stage.name for other in stages):
                self._fail(stage.line, f"stage name {stage.name!r} is given twice")
            stages.append(stage)
        return tuple(stages)

    def _stage(self, index: int, instructions: tuple[Instruction, ...]) -> Stage:
        start = instructions[0]
        try:
            words = split_words(start.arguments, self._escape)
        except BadWord as error:
            self._fail(start.line, f"FROM: {error}")
        if not (len(words) == 1 or (len(words) == 3 and words[1].upper() == "AS")):
            self._fail(start.line, "FROM needs IMAGE or IMAGE AS NAME")
        name = words[2].lower() if len(words) == 3 else None
        if name is not None and not _STAGE_NAME.match(name):
            self._fail(start.line, f"{name[:60]!r} is not a stage name")
        return Stage(index, name, words[0], start.flags.get("platform"), instructions)
