"""A run as one file, to go on in another place: what ``state pack`` writes and ``unpack`` reads.

The file is a tar archive of ``runs/<id>/``, ``image/``, ``files/`` and the ledger. What reads it
is told its digest by a way of its own (the output of a job), as it lies where others can write.
Several files are unpacked over each other when stages ran side by side; what one of them has
otherwise than another is refused, except for when and where a run began.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from secure_pipeline import strictjson
from secure_pipeline.errors import ConfigError, Unavailable, VerificationFailed
from secure_pipeline.files import publish, read_bounded, sha256_file
from secure_pipeline.oci.digest import Digest
from secure_pipeline.place import Place
from secure_pipeline.runs import RUN_ID, RunStore

LEDGER = "ledger.jsonl"
MAX_FILES = 20_000
MAX_BYTES = 16 << 30
_HEADER = "run.json"
_MAX_HEADER = 1 << 20


def pack(place: Place, run: str, target: Path) -> Digest:
    """Write the run, the image, its files and the ledger to a file; return the file's digest.

    The same state gives the same bytes. Raises: UsageError if there is no such run; Unavailable.
    """
    RunStore(place.runs).open(run)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.part")
        with temporary.open("wb") as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for path in _files(place, run):
                    info = tarfile.TarInfo(path.relative_to(place.state).as_posix())
                    info.size, info.mode = path.stat().st_size, 0o644
                    with path.open("rb") as content:
                        archive.addfile(info, content)
            publish(stream, temporary, target)
        return Digest.parse(f"sha256:{sha256_file(target)}")
    except OSError as error:
        raise Unavailable(f"cannot write: {error.strerror}", where=str(target)) from error


def unpack(place: Place, source: Path, digest: Digest) -> int:
    """Add the files of a packed run to the state directory; return how many there were.

    Raises: VerificationFailed for another digest, a member that is no plain file of a run, or a
    file that is there with other content; Unavailable.
    """
    # (1) the bytes are the ones that were packed
    try:
        found = sha256_file(source)
    except OSError as error:
        raise Unavailable(f"cannot read: {error.strerror}", where=str(source)) from error
    if found != digest.hex:
        raise VerificationFailed(f"the digest is sha256:{found}, not {digest}", where=str(source))
    # (2) each member is a file of a run, and is not there with other content
    number = 0
    try:
        with tarfile.open(source, "r:") as archive:
            for member in _members(archive, str(source)):
                content = cast("IO[bytes]", archive.extractfile(member))
                _place(place.state / member.name, content)
                number += 1
    except (tarfile.TarError, OSError) as error:
        raise VerificationFailed(f"not a packed run: {error}", where=str(source)) from error
    return number


def _files(place: Place, run: str) -> Iterator[Path]:
    for directory in (place.runs / run, place.layout, place.files):
        yield from sorted(p for p in directory.rglob("*") if p.is_file() and not p.is_symlink())
    if (place.state / LEDGER).is_file():
        yield place.state / LEDGER


def _members(archive: tarfile.TarFile, where: str) -> Iterator[tarfile.TarInfo]:
    number = size = 0
    for member in archive:
        number, size = number + 1, size + member.size
        if number > MAX_FILES or size > MAX_BYTES:
            raise VerificationFailed("more than a run can hold", where=where)
        if not member.isreg() or not _of_a_run(member.name):
            raise VerificationFailed(f"{member.name[:200]!r} is no file of a run", where=where)
        yield member


def _of_a_run(name: str) -> bool:
    parts = PurePosixPath(name).parts
    if (
        not parts
        or name != "/".join(parts)
        or any(part.startswith(".") for part in parts)
        or "\0" in name
    ):
        return False
    if parts[0] == "runs":
        return len(parts) > 2 and bool(RUN_ID.match(parts[1]))
    return name == LEDGER or (len(parts) > 1 and parts[0] in ("image", "files"))


def _place(path: Path, content: IO[bytes]) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.part")
        with temporary.open("wb") as stream:
            while chunk := content.read(1 << 20):
                stream.write(chunk)
            publish(stream, temporary, path)
        return
    with path.open("rb") as present:
        same = all(a == b for a, b in _chunks(present, content))
    if not same and not (path.name == _HEADER and _alike(path, content)):
        raise VerificationFailed("it is there with other content", where=str(path))


def _chunks(one: IO[bytes], other: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    while True:
        pair = one.read(1 << 20), other.read(1 << 20)
        if pair == (b"", b""):
            return
        yield pair


def _alike(path: Path, content: IO[bytes]) -> bool:
    """Whether two headers name the same run of the same source: only the start may differ."""
    content.seek(0)
    try:
        headers = [
            strictjson.loads(data)
            for data in (read_bounded(path, _MAX_HEADER), content.read(_MAX_HEADER))
        ]
    except (ConfigError, strictjson.InvalidJson):
        return False
    for header in headers:
        if not isinstance(header, dict) or not isinstance(header.pop("started", None), str):
            return False
    return bool(headers[0] == headers[1])
