"""What can be executed in a root file system, compared by content.

An engine's own list of changes (``docker diff``) compares sizes and times: a program that was
replaced by one of the same size, with its time set back, is not in it. So the files that the
image has, hashed out of its layers, are compared with those that the container has now.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import IO, Any, Protocol, cast

from secure_pipeline.errors import Inconclusive

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
_MAGIC = (b"\x7fELF", b"#!")
_CODE = re.compile(
    r".*\.(?:cjs|class|jar|js|lua|mjs|node|php|pl|pm|pth|pyc?|rb|sh|so(?:\.[^/]*)?|wasm)"
    r"|etc/ld\.so\.preload",
    re.DOTALL,
)
"""Files that interpreters and loaders run whatever their mode."""
_PROGRAMS = frozenset(("bin", "sbin", "lib", "lib64", "libexec"))
_SET_ID = 0o6000
_CAPABILITY = "SCHILY.xattr.security.capability"
_MAX_LINKS = 40
_END = 1024
_CHUNK = 1 << 20
_BLOCK = 1 << 18


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; b"" at the end."""


class Kind(Enum):
    """What a path is."""

    FILE = "file"
    LINK = "symbolic link"
    DIRECTORY = "directory"
    OTHER = "something else"


@dataclass(frozen=True)
class Entry:
    """One path of a root file system."""

    kind: Kind
    code: str = ""
    """For a file that can be executed: its content's digest, and what its mode adds."""
    target: str = ""
    """Where a symbolic link points to."""


Files = dict[str, Entry]
"""By path without a leading slash."""
Reader = Callable[[tarfile.TarFile, tarfile.TarInfo, Files, str], Entry]
"""From an archive, a member, what the archive held before it, and the member's path."""


class Budget:
    """What reading may cost; shared by all streams of one comparison."""

    def __init__(self, members: int = 1_000_000, size: int = 64 << 30) -> None:
        self.members = members
        self.size = size

    def charge(self, *, members: int = 0, size: int = 0) -> None:
        """Count before going on. Raises: Inconclusive."""
        self.members -= members
        self.size -= size
        if self.members < 0 or self.size < 0:
            raise Inconclusive("more files or bytes than the limit to compare")


class Counted:
    """A stream that is hashed, paid for, and knows where its last byte that is not zero was."""

    def __init__(self, stream: Readable, budget: Budget) -> None:
        self._stream = stream
        self._budget = budget
        self._hasher = hashlib.sha256()
        self.total = 0
        self.used = 0
        """Bytes up to the last one that is not zero."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""
        data = self._stream.read(size)
        self._budget.charge(size=len(data))
        self._hasher.update(data)
        filled = len(data.rstrip(b"\0"))
        if filled:
            self.used = self.total + filled
        self.total += len(data)
        return data

    def finish(self) -> str:
        """Read to the end; return the hex SHA-256 of everything."""
        while self.read(_CHUNK):
            pass
        return self._hasher.hexdigest()


@dataclass
class Layer:
    """What one tar stream holds."""

    files: Files = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    """Paths that it takes away from the layers below."""
    opaque: set[str] = field(default_factory=set)
    """Directories of which nothing in the layers below stays."""


def read_container(stream: Readable, budget: Budget, where: str) -> Files:
    """Read the tar stream of a whole root file system (``docker export``).

    Raises: Inconclusive if it ends early, is malformed or over a limit.
    """
    counted = Counted(stream, budget)
    layer, end = _read(counted, budget, where)
    counted.finish()
    # An engine that meets an error half-way ends the stream; only its last blocks tell.
    if counted.used > end or counted.total - end < _END:
        raise Inconclusive("the export ended early", where=where, hint="try again")
    return with_directories(layer.files)


def read_layer(counted: Counted, budget: Budget, where: str, entry: Reader | None = None) -> Layer:
    """Read an image layer; whether it is whole, its digest tells.

    ``entry`` makes the entries; by default they tell executables apart.
    Raises: Inconclusive; what ``entry`` raises.
    """
    layer, _ = _read(counted, budget, where, entry)
    result = Layer()
    for path, found in layer.files.items():
        directory, name = posixpath.split(path)
        if name == OPAQUE:
            result.opaque.add(directory)
        elif name.startswith(WHITEOUT):
            result.removed.add(posixpath.join(directory, name.removeprefix(WHITEOUT)))
        else:
            result.files[path] = found
    return result


def stacked(below: Files, layer: Layer) -> Files:
    """Put a layer on what is below it (image-spec, layer.md)."""
    above = layer.files
    directories = {parent for path in above for parent in parents(path)}
    hiding = layer.removed | {p for p, entry in above.items() if entry.kind is not Kind.DIRECTORY}

    def stays(path: str, entry: Entry) -> bool:
        if path in layer.removed or (path in directories and entry.kind is not Kind.DIRECTORY):
            return False
        return not any(up in hiding or up in layer.opaque for up in parents(path))

    kept = {path: entry for path, entry in below.items() if stays(path, entry)}
    return {**kept, **above}


def with_directories(files: Files) -> Files:
    """Add the directories that no entry of their own names."""
    above = {parent for path in files for parent in parents(path)}
    return {**dict.fromkeys(above, Entry(Kind.DIRECTORY)), **files}


def changes(image: Files, now: Files) -> Iterator[tuple[str, str]]:
    """Yield (absolute path, 'added', 'changed' or 'deleted') of what can be executed, sorted."""
    for path in sorted({*image, *now}):
        before, after = image.get(path), now.get(path)
        if before != after and _counts(path, image, now):
            change = "added" if before is None else "deleted" if after is None else "changed"
            yield f"/{path}", change


def _counts(path: str, image: Files, now: Files) -> bool:
    before, after = image.get(path), now.get(path)
    was, runs = _code(image, path), _code(now, path)
    if was != runs:
        return not (before is None and _is_cache(path))
    if after is None or after.kind is not Kind.LINK or runs:
        return False
    # A link into what cannot be seen (a volume, /proc) or to another directory.
    place = _resolve(now, path)
    found = now.get(place) if place is not None else None
    if found is not None and found.kind is not Kind.DIRECTORY:
        return False
    return before is not None or not _PROGRAMS.isdisjoint(path.split("/"))


def _is_cache(path: str) -> bool:
    """Byte code that Python writes by itself, beside each module that it imports."""
    return path.endswith(".pyc") and "__pycache__" in path.split("/")


def _code(files: Files, path: str) -> str:
    """What runs when this path is executed; "" if nothing does."""
    place = _resolve(files, path)
    return files[place].code if place is not None else ""


def _resolve(files: Mapping[str, Entry], path: str) -> str | None:
    """Follow symbolic links inside the root; None if they lead nowhere."""
    waiting = deque(path.split("/"))
    place, links = "", 0
    while waiting:
        name = waiting.popleft()
        if name in ("", "."):
            continue
        if name == "..":
            place = posixpath.dirname(place)
            continue
        inner = posixpath.join(place, name)
        entry = files.get(inner)
        if entry is None:
            return None
        if entry.kind is not Kind.LINK:
            place = inner
            continue
        links += 1
        if links > _MAX_LINKS:
            return None
        place = "" if entry.target.startswith("/") else place
        waiting.extendleft(reversed(entry.target.split("/")))
    return place if place in files else None


def _read(
    counted: Counted, budget: Budget, where: str, entry: Reader | None = None
) -> tuple[Layer, int]:
    """Read all entries; return them and the offset where the archive's end should begin."""
    layer = Layer()
    make = entry or _entry
    try:
        with tarfile.open(fileobj=cast(Any, counted), mode="r|", bufsize=_BLOCK) as archive:
            while (member := archive.next()) is not None:
                budget.charge(members=1)
                if member.issparse():  # it may read as far more than the stream holds
                    budget.charge(size=member.size)
                if path := _path(member.name, where):
                    layer.files[path] = make(archive, member, layer.files, path)
                archive.members.clear()  # type: ignore[attr-defined]  # it keeps all it met
            return layer, archive.offset
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise Inconclusive(f"not a tar stream: {error}", where=where) from None


def _path(name: str, where: str) -> str:
    path = posixpath.normpath(f"/{name}").lstrip("/")
    if ".." in name.split("/"):
        raise Inconclusive(f"a path leads upwards: {name[:100]!r}", where=where)
    return path


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo, known: Files, path: str) -> Entry:
    if member.isdir():
        return Entry(Kind.DIRECTORY)
    if member.issym():
        return Entry(Kind.LINK, target=member.linkname)
    if member.islnk():
        return known.get(_path(member.linkname, path), Entry(Kind.OTHER))
    if not member.isreg():
        return Entry(Kind.OTHER)
    content = cast(IO[bytes], archive.extractfile(member))
    head = content.read(4)
    runs = member.mode & 0o111 or head.startswith(_MAGIC) or _CODE.fullmatch(path)
    # An empty file does nothing, such as the /.dockerenv that docker adds with mode 755.
    return Entry(Kind.FILE, code=_digest(head, content, member) if head and runs else "")


def _digest(head: bytes, content: IO[bytes], member: tarfile.TarInfo) -> str:
    """Content and powers of a file that can be executed."""
    hasher = hashlib.sha256(head)
    while chunk := content.read(_CHUNK):
        hasher.update(chunk)
    owner = f"{member.uid}:{member.gid}" if member.mode & _SET_ID else ""
    power = member.pax_headers.get(_CAPABILITY, "")
    return f"{hasher.hexdigest()} {member.mode & 0o7111:o} {owner} {power!r}"


def parents(path: str) -> Iterator[str]:
    """Yield the directories above a path, the nearest first, without the root."""
    while path := posixpath.dirname(path):
        yield path
