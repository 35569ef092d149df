"""The vulnerability database: where it comes from, what it is, and that it stays what it is.

Every database becomes an entry of a store, named by the digest of its content, before a
scan uses it. A scan links that entry and checks the digest again when it is done, so a
database that is swapped or altered meanwhile is noticed (SCN-03).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Protocol

from secure_pipeline import strictjson
from secure_pipeline.documents import instant
from secure_pipeline.errors import Inconclusive, Unavailable
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.files import CHUNK_BYTES, fsync_directory, locked, sha256_bytes, sha256_file
from secure_pipeline.ports import Clock, Database
from secure_pipeline.tools.bolt import bucket_names
from secure_pipeline.tools.locate import LocatedTool
from secure_pipeline.tools.process import Command, Outcome, Processes

CONTENT, METADATA = "trivy.db", "metadata.json"
SCHEMA_VERSION = 2
MAX_CONTENT_BYTES = 8 << 30
MAX_METADATA_BYTES = 64 << 10
DOWNLOAD_SECONDS = 900.0
MARK_BUCKET = "secure-pipeline demonstration"
"""Bucket that tools/go/demodb writes: it stays when the metadata file is written anew."""
DEMONSTRATION = "demonstration database"
OFFICIAL = "mirror.gcr.io/aquasec/trivy-db:2"
_HINT = "give --database or SECURE_PIPELINE_DATABASE: a database directory or an OCI repository"


@dataclass(frozen=True)
class PreparedDatabase:
    """A database in the store."""

    directory: Path
    """Holds trivy.db and metadata.json, read-only."""
    record: Database
    buckets: frozenset[str]
    """What it has advisories for, such as ``debian 12`` and ``pip::…``."""

    def prepare(self, on_event: OnEvent) -> PreparedDatabase:
        """It is prepared: a prepared database is a source too."""
        return self

    def recheck(self, directory: Path) -> None:
        """Prove that the files a scan used are still this database (SCN-03).

        Raises: Inconclusive.
        """
        found = f"sha256:{_digest(directory / CONTENT)}", f"sha256:{_digest(directory / METADATA)}"
        if found != (self.record.digest, self.record.metadata_digest):
            raise Inconclusive(
                f"the vulnerability database changed during the scan: it was "
                f"{self.record.digest}, now {found[0]}",
                where=str(self.directory),
                hint="find out what writes there, then run the scan again",
            )


class DatabaseSource(Protocol):
    """Something that can provide the database."""

    def prepare(self, on_event: OnEvent) -> PreparedDatabase:
        """Provide it. Raises: Unavailable (missing, rate-limited), Inconclusive (unsound)."""


@dataclass(frozen=True)
class DatabaseStore:
    """A directory of databases, each under the digest of its two files."""

    root: Path

    def add(self, directory: Path, source: str) -> PreparedDatabase:
        """Take in the database of ``directory``; nothing is copied if it is here already.

        Raises: Unavailable if a file is missing or the store cannot be written, Inconclusive if
        it is no sound database.
        """
        self.make()
        metadata = _read_metadata(directory / METADATA)
        digest = _digest(directory / CONTENT)
        entry = self.root / sha256_bytes(f"{digest} {sha256_bytes(metadata)}".encode())
        with locked(self.root / "lock"):
            if not _holds(entry, digest, metadata):
                self._copy(directory / CONTENT, metadata, digest, entry)
        return _describe(entry, digest, metadata, source)

    def make(self) -> None:
        """Make the directory. Raises: Unavailable where it cannot be written."""
        with contextlib.suppress(OSError):
            self.root.mkdir(parents=True, exist_ok=True)
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise Unavailable(
                "vulnerability databases cannot be kept there",
                where=str(self.root),
                hint="make it writable: in a container, mount a volume there",
            )

    def _copy(self, content: Path, metadata: bytes, digest: str, entry: Path) -> None:
        temporary = Path(tempfile.mkdtemp(dir=self.root, prefix=".new."))
        try:
            if _copy_hashed(content, temporary / CONTENT) != digest:
                raise Inconclusive("the database changed while it was read", where=str(content))
            (temporary / METADATA).write_bytes(metadata)
            for name in (CONTENT, METADATA):
                (temporary / name).chmod(0o444)
            shutil.rmtree(entry, ignore_errors=True)
            os.replace(temporary, entry)
            fsync_directory(self.root)
        except OSError as error:
            raise Unavailable(f"cannot write: {error.strerror}", where=str(entry)) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@dataclass(frozen=True)
class DirectoryDatabase:
    """A database on this machine: a directory with the two files, ``db/`` or ``db.tar.gz``."""

    path: Path
    store: DatabaseStore

    def prepare(self, on_event: OnEvent) -> PreparedDatabase:
        """Take the database in. Raises: Unavailable, Inconclusive."""
        for directory in (self.path, self.path / "db"):
            if (directory / CONTENT).is_file():
                return self.store.add(directory, str(self.path))
        archive = self.path if self.path.is_file() else self.path / "db.tar.gz"
        if not archive.is_file():
            raise Unavailable("no vulnerability database there", where=str(self.path), hint=_HINT)
        with tempfile.TemporaryDirectory(prefix="trivy-db.") as temporary:
            _unpack(archive, Path(temporary))
            return self.store.add(Path(temporary), str(self.path))


@dataclass(frozen=True)
class RepositoryDatabase:
    """A database in an OCI repository, fetched by the scanner itself without credentials."""

    repository: str
    store: DatabaseStore
    tool: LocatedTool
    processes: Processes
    clock: Clock
    timeout: float = DOWNLOAD_SECONDS
    insecure: bool = False
    """Plain HTTP, for a registry on this machine."""

    def prepare(self, on_event: OnEvent) -> PreparedDatabase:
        """Fetch the database unless the kept one is the newest that there can be.

        A kept one also serves when fetching fails: its age is judged by the policy.
        Raises: Unavailable (missing, rate-limited), Inconclusive.
        """
        kept = self.store.root / f"repository-{sha256_bytes(self.repository.encode())[:32]}"
        if (kept / CONTENT).is_file() and self.clock.now() < _next_update(kept):
            return self.store.add(kept, self.repository)
        try:
            self._fetch(kept, on_event)
        except Unavailable as error:
            if not (kept / CONTENT).is_file():
                raise
            on_event(Progress("scan", f"{error.message}; using the database fetched before"))
        return self.store.add(kept, self.repository)

    def _fetch(self, kept: Path, on_event: OnEvent) -> None:
        on_event(Progress("scan", f"fetching the vulnerability database from {self.repository}"))
        self.store.make()
        with tempfile.TemporaryDirectory(dir=self.store.root, prefix=".fetch.") as temporary:
            outcome = self.processes.run(self._command(Path(temporary)))
            fetched = Path(temporary) / "cache" / "db"
            if not outcome.ok or not (fetched / CONTENT).is_file():
                raise _fetch_error(outcome, self.repository)
            with locked(self.store.root / "lock"):
                shutil.rmtree(kept, ignore_errors=True)
                os.replace(fetched, kept)

    def _command(self, work: Path) -> Command:
        argv = [str(self.tool.path), "image", "--download-db-only", "--no-progress"]
        argv += ["--db-repository", self.repository, "--cache-dir", str(work / "cache")]
        argv += ["--skip-version-check", "--disable-telemetry"]
        argv += ["--insecure"] if self.insecure else []
        # HOME without docker's configuration: the repository is public and gets no credential
        env = {"HOME": str(work), "TMPDIR": str(work), "DOCKER_CONFIG": str(work)}
        return Command(tuple(argv), cwd=work, env=env, timeout=self.timeout)


def _fetch_error(outcome: Outcome, repository: str) -> Unavailable:
    text = outcome.tail(40)
    if "TOOMANYREQUESTS" in text or "429" in text or "rate limit" in text.lower():
        message = "the repository of the vulnerability database limits our rate"
        hint = "wait, or name a mirror with --database"
    else:
        message, hint = "the vulnerability database cannot be fetched", _HINT
    last = text.splitlines()[-1:] or [outcome.describe()]
    return Unavailable(f"{message}: {last[0][-300:]}", where=repository, hint=hint)


def _describe(entry: Path, digest: str, metadata: bytes, source: str) -> PreparedDatabase:
    where = str(entry / METADATA)
    value = _parse_metadata(metadata, where)
    buckets = bucket_names(entry / CONTENT)
    demonstration = value.get("Demonstration") is True or MARK_BUCKET in buckets
    if "vulnerability" not in buckets or not any(_covers_something(name) for name in buckets):
        raise Inconclusive("the vulnerability database is empty", where=source, hint=_HINT)
    record = Database(
        digest=f"sha256:{digest}",
        version=value["Version"],
        updated=_time(value, "UpdatedAt", where),
        source=DEMONSTRATION if demonstration else source,
        demonstration=demonstration,
        metadata_digest=f"sha256:{sha256_bytes(metadata)}",
    )
    return PreparedDatabase(entry, record, buckets)


def _covers_something(bucket: str) -> bool:
    return bucket not in ("vulnerability", "data-source", MARK_BUCKET)


def _read_metadata(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_METADATA_BYTES + 1)
    except OSError as error:
        raise Unavailable(
            f"the vulnerability database has no {METADATA}: {error.strerror}",
            where=str(path),
            hint=_HINT,
        ) from error
    _parse_metadata(data, str(path))
    return data


def _parse_metadata(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = strictjson.loads(data, limit=MAX_METADATA_BYTES)
        if not isinstance(value, dict) or type(value.get("Version")) is not int:
            raise strictjson.InvalidJson("no schema version")
    except strictjson.InvalidJson as error:
        raise Inconclusive(f"metadata of the database: {error}", where=where) from None
    if value["Version"] != SCHEMA_VERSION:
        raise Inconclusive(
            f"the vulnerability database has schema {value['Version']}; {SCHEMA_VERSION} is read",
            where=where,
            hint=_HINT,
        )
    return value


def _time(value: dict[str, Any], name: str, where: str) -> datetime:
    try:
        return instant(str(value.get(name)))
    except ValueError:
        raise Inconclusive(
            f"metadata of the vulnerability database: no time in {name}", where=where
        ) from None


def _next_update(directory: Path) -> datetime:
    path = directory / METADATA
    return _time(_parse_metadata(_read_metadata(path), str(path)), "NextUpdate", str(path))


def _digest(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_CONTENT_BYTES:
            raise Inconclusive(f"larger than {MAX_CONTENT_BYTES} bytes", where=str(path))
        return sha256_file(path)
    except OSError as error:
        raise Unavailable(
            f"the vulnerability database cannot be read: {error.strerror}",
            where=str(path),
            hint=_HINT,
        ) from error


def _holds(entry: Path, digest: str, metadata: bytes) -> bool:
    try:
        return (
            sha256_file(entry / CONTENT) == digest and (entry / METADATA).read_bytes() == metadata
        )
    except OSError:
        return False


def _copy_hashed(source: Path, target: Path) -> str:
    hasher = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(CHUNK_BYTES):
            hasher.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return hasher.hexdigest()


def _unpack(archive: Path, target: Path) -> None:
    """Take the two files out of an archive by name, with a limit on each (REG-14, REG-15)."""
    wanted = {CONTENT: MAX_CONTENT_BYTES, METADATA: MAX_METADATA_BYTES}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                stream = tar.extractfile(member) if name in wanted and member.isreg() else None
                if stream is not None:
                    _write_limited(stream, target / name, wanted[name], archive)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Inconclusive(
            f"the archive of the vulnerability database is damaged: {error}", where=str(archive)
        ) from None


def _write_limited(stream: IO[bytes], target: Path, limit: int, archive: Path) -> None:
    written = 0
    with target.open("wb") as writer:
        while chunk := stream.read(CHUNK_BYTES):
            written += len(chunk)
            if written > limit:
                raise Inconclusive(f"{target.name} is larger than {limit}", where=str(archive))
            writer.write(chunk)
