"""``.dockerignore``: which files of the context a builder is sent.

Rules of moby's patternmatcher: the last pattern that matches a path or one of its parent
directories decides; ``!`` takes a path back; ``**`` crosses directories.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.errors import ConfigError
from secure_pipeline.files import read_bounded

MAX_BYTES = 1 << 20
MAX_PATTERNS = 5000


@dataclass(frozen=True)
class IgnoreFile:
    """Patterns and where they came from."""

    source: str | None
    """Name of the file; None when there is none."""
    patterns: tuple[str, ...]
    """Cleaned, in order, with ``!`` in front of exceptions."""

    def __post_init__(self) -> None:
        compiled = tuple((p.startswith("!"), _compile(p.removeprefix("!"))) for p in self.patterns)
        object.__setattr__(self, "_compiled", compiled)

    @property
    def has_exceptions(self) -> bool:
        """Whether a file below an ignored directory may still be sent."""
        return any(pattern.startswith("!") for pattern in self.patterns)

    def ignores(self, path: str) -> bool:
        """Tell whether ``path`` (relative, with slashes) is kept from the builder."""
        parts = path.split("/")
        prefixes = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        compiled: tuple[tuple[bool, re.Pattern[str]], ...] = self.__dict__["_compiled"]
        ignored = False
        for taken_back, pattern in compiled:
            if ignored == taken_back and any(pattern.match(prefix) for prefix in prefixes):
                ignored = not taken_back
        return ignored

    def text(self) -> bytes:
        """The patterns as a file for a builder."""
        return "".join(f"{pattern}\n" for pattern in self.patterns).encode()


def load(context: Path, dockerfile: Path, extra: tuple[str, ...] = ()) -> IgnoreFile:
    """Read ``<Dockerfile>.dockerignore``, else ``.dockerignore`` of the context.

    ``extra`` patterns come last, so that nothing can take them back.
    Raises: ConfigError naming file:line.
    """
    for path in (
        dockerfile.with_name(f"{dockerfile.name}.dockerignore"),
        context / ".dockerignore",
    ):
        if path.is_symlink():
            raise ConfigError("a symbolic link cannot say what is sent", where=str(path))
        if path.is_file():
            own = parse(read_bounded(path, MAX_BYTES), str(path))
            return IgnoreFile(path.name, own + extra)
    return IgnoreFile(None, extra)


def parse(data: bytes, source: str) -> tuple[str, ...]:
    """Return the cleaned patterns of an ignore file.

    Raises: ConfigError naming file:line.
    """
    try:
        lines = data.decode("utf-8").removeprefix("\ufeff").split("\n")
    except UnicodeDecodeError:
        raise ConfigError("not UTF-8", where=source) from None
    patterns = []
    for number, line in enumerate(lines, 1):
        pattern = line.strip()
        if not pattern or line.startswith("#"):
            continue
        try:
            cleaned = _clean(pattern)
            _compile(cleaned.removeprefix("!"))
        except (ValueError, re.error) as error:
            raise ConfigError(f"bad pattern: {error}", where=f"{source}:{number}") from None
        patterns.append(cleaned)
        if len(patterns) > MAX_PATTERNS:
            raise ConfigError(f"more than {MAX_PATTERNS} patterns", where=f"{source}:{number}")
    return tuple(patterns)


def _clean(pattern: str) -> str:
    mark = "!" if pattern.startswith("!") else ""
    rest = pattern.removeprefix("!").strip()
    if not rest or "\0" in rest:
        raise ValueError(f"{pattern[:40]!r} names nothing")
    cleaned = posixpath.normpath(rest)
    if cleaned.startswith("//"):
        cleaned = cleaned[1:]
    return mark + (cleaned[1:] if len(cleaned) > 1 and cleaned[0] == "/" else cleaned)


def _compile(pattern: str) -> re.Pattern[str]:
    parts: list[str] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*" and pattern[position : position + 1] == "*":
            position += 1
            while pattern[position : position + 1] == "*":
                position += 1
            position += pattern[position : position + 1] == "/"
            parts.append(".*" if position >= len(pattern) else "(?:.*/)?")
        elif char == "[":
            end = _class_end(pattern, position)
            parts.append(f"[{pattern[position:end]}]".replace("[[", r"[\["))
            position = end + 1
        elif char == "\\" and position < len(pattern):
            parts.append(re.escape(pattern[position]))
            position += 1
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(char) or re.escape(char))
    return re.compile("".join(parts) + r"\Z", re.DOTALL)


def _class_end(pattern: str, start: int) -> int:
    end = pattern.find("]", start + 1 + pattern.startswith("^", start))
    if end < 0:
        raise ValueError(f"[ is not closed in {pattern[:60]!r}")
    return end
