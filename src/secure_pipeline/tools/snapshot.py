"""A private copy of the files to analyse, so that nothing in the repository steers the analyser.

Ignore files, git settings and symbolic links stay behind, names are made such that the
analyser recognises and reports them (SCN-09, CLI-01), and what is left out has a reason.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from secure_pipeline.errors import Inconclusive, Unavailable
from secure_pipeline.files import sha256_bytes
from secure_pipeline.globs import under

MAX_FILES = 200_000
MAX_BYTES = 4 << 30
_COPY_BYTES = 1 << 20
_MAX_NAME = 200
_STEERING = (".semgrepignore", ".semgrep.yml", ".semgrepconfig.yml")
_DOCKERFILE = re.compile(r"(dockerfile|containerfile)([._-].*)?\Z|.*\.containerfile\Z")
_RECOGNISED = re.compile(r"dockerfile\Z|.*\.dockerfile\Z")
_OTHERWISE = (
    ".md", ".rst", ".adoc", ".txt", ".html", ".json", ".toml", ".yaml", ".yml", ".xml",
    ".py", ".js", ".ts", ".go", ".rb", ".java", ".rs", ".sh", ".j2", ".tpl", ".tmpl", ".in",
)  # fmt: skip
_SUFFIXES = {
    "python": (".py", ".pyi"),
    "python3": (".py", ".pyi"),
    "dockerfile": (".dockerfile",),
    "yaml": (".yaml", ".yml"),
}
KNOWN = frozenset(_SUFFIXES)
EXCLUDED = "excluded by the policy"
_LARGER = "larger than"
_UNREADABLE = "cannot be read"


@dataclass
class Snapshot:
    """What was copied below ``root`` and what was not."""

    root: Path
    names: dict[str, str] = field(default_factory=dict)
    """Name in the copy → path in the repository as valid UTF-8. A file may be there twice."""
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def missing(self, languages: Iterable[str]) -> list[str]:
        """Why the analysis of files that rules for ``languages`` concern is incomplete."""
        return [
            f"{path}: not analysed: {reason}"
            for path, reason in self.skipped
            if reason.startswith((_LARGER, _UNREADABLE)) and concerns(path, languages)
        ]


def walk(root: Path) -> Iterable[str]:
    """Yield relative paths of all files below ``root`` except those of git itself."""
    for directory, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted(names):
            yield os.path.relpath(os.path.join(directory, name), root)


def take(
    source: Path, paths: Iterable[str], target: Path, *, exclude: tuple[str, ...], max_size: int
) -> Snapshot:
    """Copy ``paths`` (relative to ``source``) below ``target``.

    Raises: Inconclusive when there are too many files or bytes; Unavailable when the disk
    refuses.
    """
    snapshot = Snapshot(target)
    inside = _Inside(source)
    total = 0
    try:
        for count, path in enumerate(paths):
            shown = printable(path)
            reason = _unwanted(path, shown, exclude) or inside.refuses(path)
            if reason is None:
                size, reason = _put(snapshot, source / path, shown, max_size)
                total += size
            if reason is not None:
                snapshot.skipped.append((shown, reason))
            if count >= MAX_FILES or total > MAX_BYTES:
                raise Inconclusive(f"over {MAX_FILES} files or {MAX_BYTES >> 30} GiB to analyse")
    except OSError as error:
        raise Unavailable(f"cannot copy: {error.strerror}", where=str(error.filename)) from error
    return snapshot


def printable(path: str) -> str:
    """The path as valid UTF-8 text without control characters; different paths stay different.

    Other bytes and characters are escaped, and so is the backslash.
    """
    text = os.fsencode(path.replace("\\", "\\\\")).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def copied(root: Path, name: str) -> bytes:
    """Where a file of the copy is: names are UTF-8 whatever the locale says (CLI-01)."""
    return os.path.join(os.fsencode(root), name.encode())


def concerns(path: str, languages: Iterable[str]) -> bool:
    """Tell whether rules for ``languages`` could apply to a file of this name.

    A language that is not known here concerns every file.
    """
    names = [path.rpartition("/")[2].lower()]
    if is_dockerfile(path):
        names.append("x.dockerfile")
    return any(
        word not in _SUFFIXES or any(name.endswith(_SUFFIXES[word]) for name in names)
        for word in languages
    )


def is_dockerfile(path: str) -> bool:
    """Tell whether people would name a Dockerfile so: Dockerfile.dev, Containerfile."""
    name = path.rpartition("/")[2].lower()
    if _RECOGNISED.match(name):
        return True
    return bool(_DOCKERFILE.match(name)) and not name.endswith(_OTHERWISE)


class _Inside:
    """Refuses files below a directory that is a link out of the repository."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._source = str(root)
        self._known: dict[str, bool] = {}

    def refuses(self, path: str) -> str | None:
        if os.path.isabs(path) or ".." in path.split("/"):
            return "outside the repository"
        parent = os.path.dirname(path)
        if parent not in self._known:
            real = os.path.realpath(os.path.join(self._source, parent))
            self._known[parent] = real == os.path.normpath(os.path.join(self._root, parent))
        return None if self._known[parent] else "below a symbolic link"


def _unwanted(path: str, shown: str, exclude: tuple[str, ...]) -> str | None:
    if os.path.basename(path) in _STEERING:
        return "settings of the analyser in the repository have no effect"
    if any(under(shown, pattern) for pattern in exclude):
        return EXCLUDED
    return None


def _put(snapshot: Snapshot, source: Path, shown: str, max_size: int) -> tuple[int, str | None]:
    """Copy one file; a Dockerfile by an uncommon name a second time, by a common one.

    Never only by another name: the suffix may be what other rules know the file by.
    """
    names = [_place(snapshot, shown)]
    if is_dockerfile(shown) and not _RECOGNISED.match(shown.rpartition("/")[2].lower()):
        names.append(_place(snapshot, f"{shown}.dockerfile"))
    size = 0
    for name in names:
        size, reason = _copy(source, copied(snapshot.root, name), max_size)
        if reason is not None:
            return size, reason
        snapshot.names[name] = shown
    return size * len(names), None


def _place(snapshot: Snapshot, shown: str) -> str:
    """Choose a name in the copy: short and unique, with the suffix it had."""
    name = "/".join(_short(part) for part in shown.split("/"))
    while name in snapshot.names:
        stem, dot, suffix = name.rpartition(".")
        name = f"{stem}~{dot}{suffix}" if dot else f"{name}~"
    return name


def _short(part: str) -> str:
    """Escaping makes names longer; the file system takes 255 bytes."""
    if len(part.encode()) <= _MAX_NAME:
        return part
    suffix = os.path.splitext(part)[1][:16]
    return sha256_bytes(part.encode()) + suffix


def _copy(source: Path, target: bytes, max_size: int) -> tuple[int, str | None]:
    """Copy one regular file; return its size, and the reason if it was not copied."""
    try:
        # Never through a link, and never waiting for the other end of a FIFO.
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        return 0, _unopened(source, error)
    with os.fdopen(descriptor, "rb") as stream:
        info = os.fstat(stream.fileno())
        if not stat.S_ISREG(info.st_mode):
            return 0, "not a regular file"
        if info.st_size > max_size:
            return 0, f"{_LARGER} {max_size} bytes"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "xb") as copy:
            remaining = max_size + 1
            while remaining > 0 and (data := stream.read(min(_COPY_BYTES, remaining))):
                remaining -= copy.write(data)
        if remaining <= 0:
            os.unlink(target)
            return 0, f"{_LARGER} {max_size} bytes"
        os.chmod(target, 0o700 if info.st_mode & stat.S_IXUSR else 0o600)
        return info.st_size, None


def _unopened(source: Path, error: OSError) -> str:
    if os.path.islink(source):
        return "symbolic link"
    if isinstance(error, FileNotFoundError):
        return "not in the working tree"
    return f"{_UNREADABLE}: {error.strerror}"
