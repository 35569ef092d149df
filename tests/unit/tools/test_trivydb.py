"""Where the vulnerability database comes from and what is refused."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fakes.database import NOON, FixedClock, make_database
from secure_pipeline.errors import Inconclusive, Unavailable
from secure_pipeline.events import Event, Progress, ignore
from secure_pipeline.tools.locate import LocatedTool
from secure_pipeline.tools.process import Processes
from secure_pipeline.tools.trivydb import (
    CONTENT,
    MARK_BUCKET,
    METADATA,
    DatabaseStore,
    DirectoryDatabase,
    RepositoryDatabase,
)


@pytest.fixture
def store(tmp_path: Path) -> DatabaseStore:
    return DatabaseStore(tmp_path / "store")


def script(path: Path, body: str) -> LocatedTool:
    """A program in the scanner's place."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return LocatedTool("trivy", path, "0.72.0", "sha256:" + "0" * 64)


def archive(path: Path, files: dict[str, bytes], link: str | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        if link:
            member = tarfile.TarInfo(CONTENT)
            member.type, member.linkname = tarfile.SYMTYPE, link
            tar.addfile(member)
    return path


def test_a_directory_is_taken_in_by_digest(tmp_path: Path, store: DatabaseStore) -> None:
    """A database is described by digest, time and what it covers, and kept read-only."""
    prepared = DirectoryDatabase(make_database(tmp_path / "given"), store).prepare(ignore)
    assert prepared.record.digest.startswith("sha256:")
    assert prepared.record.updated == datetime(2026, 3, 1, 6, tzinfo=UTC)
    assert not prepared.record.demonstration
    assert "debian 12" in prepared.buckets
    assert (prepared.directory / CONTENT).stat().st_mode & 0o222 == 0


def test_the_same_database_is_kept_once(tmp_path: Path, store: DatabaseStore) -> None:
    """Taking in the same bytes again gives the same entry and copies nothing."""
    source = DirectoryDatabase(make_database(tmp_path / "given"), store)
    first = source.prepare(ignore)
    inode = (first.directory / CONTENT).stat().st_ino
    second = source.prepare(ignore)
    assert second.directory == first.directory
    assert (second.directory / CONTENT).stat().st_ino == inode


def test_an_altered_entry_of_the_store_is_replaced(tmp_path: Path, store: DatabaseStore) -> None:
    """What was altered in the store is never used again."""
    source = DirectoryDatabase(make_database(tmp_path / "given"), store)
    entry = source.prepare(ignore).directory / CONTENT
    good = entry.read_bytes()
    entry.chmod(0o644)
    entry.write_bytes(good + b"x")
    assert (source.prepare(ignore).directory / CONTENT).read_bytes() == good


@pytest.mark.parametrize("form", ["flat", "db", "archive", "file"])
def test_all_forms_of_a_given_path_are_read(
    tmp_path: Path, store: DatabaseStore, form: str
) -> None:
    """The two files, a db directory, and the archive all give the same database."""
    made = make_database(tmp_path / "made")
    files = {f"./{name}": (made / name).read_bytes() for name in (CONTENT, METADATA)}
    given = tmp_path / "given"
    if form in ("flat", "db"):
        make_database(given / "db" if form == "db" else given)
    else:
        given.mkdir()
        given = archive(given / "db.tar.gz", files)
        given = given if form == "file" else given.parent
    expected = DirectoryDatabase(made, store).prepare(ignore)
    assert DirectoryDatabase(given, store).prepare(ignore).record.digest == expected.record.digest


def test_a_store_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    """As in a container with a read-only root and no volume: exit 4 with what to do."""
    (tmp_path / "file").touch()
    store = DatabaseStore(tmp_path / "file" / "databases")
    with pytest.raises(Unavailable, match="cannot be kept") as caught:
        DirectoryDatabase(make_database(tmp_path / "given"), store).prepare(ignore)
    assert "volume" in str(caught.value.hint)


def test_scn_01_a_missing_database_is_unavailable(tmp_path: Path, store: DatabaseStore) -> None:
    """No database is an error that says what to give, with exit code 4."""
    with pytest.raises(Unavailable) as caught:
        DirectoryDatabase(tmp_path / "nothing", store).prepare(ignore)
    assert "no vulnerability database" in caught.value.message
    assert "--database" in (caught.value.hint or "")
    assert caught.value.exit_code == 4


def test_scn_01_a_database_without_metadata_is_unavailable(
    tmp_path: Path, store: DatabaseStore
) -> None:
    """Without metadata the age is unknown, so the database is not used."""
    (make_database(tmp_path / "given") / METADATA).unlink()
    with pytest.raises(Unavailable, match="no metadata"):
        DirectoryDatabase(tmp_path / "given", store).prepare(ignore)


@pytest.mark.parametrize(
    "metadata",
    [
        b"",
        b"{}",
        b"[]",
        b'{"Version": 2}',
        b'{"Version": 1, "UpdatedAt": "2026-03-01T06:00:00Z"}',
        b'{"Version": true, "UpdatedAt": "2026-03-01T06:00:00Z"}',
        b'{"Version": 2, "UpdatedAt": "yesterday"}',
        b'{"Version": 2, "UpdatedAt": "2026-03-01T06:00:00"}',
        b'{"Version": 2, "Version": 2, "UpdatedAt": "2026-03-01T06:00:00Z"}',
        b" " * (65 << 10),
    ],
)
def test_unsound_metadata_is_inconclusive(
    tmp_path: Path, store: DatabaseStore, metadata: bytes
) -> None:
    """Metadata without a schema version or a time is no answer to "how old"."""
    (make_database(tmp_path / "given") / METADATA).write_bytes(metadata)
    with pytest.raises(Inconclusive):
        DirectoryDatabase(tmp_path / "given", store).prepare(ignore)


@pytest.mark.parametrize("buckets", [["x"], ["vulnerability"], ["data-source", "vulnerability"]])
def test_scn_01_an_empty_database_is_inconclusive(
    tmp_path: Path, store: DatabaseStore, buckets: list[str]
) -> None:
    """A database that covers nothing would find nothing."""
    with pytest.raises(Inconclusive, match="empty"):
        DirectoryDatabase(make_database(tmp_path / "given", buckets), store).prepare(ignore)


def test_the_demonstration_mark_survives_new_metadata(tmp_path: Path, store: DatabaseStore) -> None:
    """The mark inside the database counts too, since a download rewrites the metadata."""
    given = make_database(tmp_path / "given", ["debian 12", "vulnerability", MARK_BUCKET])
    record = DirectoryDatabase(given, store).prepare(ignore).record
    assert record.demonstration
    assert record.source == "demonstration database"
    marked = make_database(tmp_path / "marked", Demonstration=True)
    assert DirectoryDatabase(marked, store).prepare(ignore).record.demonstration


@pytest.mark.parametrize("name", [CONTENT, METADATA])
def test_scn_03_a_swapped_file_is_noticed(tmp_path: Path, store: DatabaseStore, name: str) -> None:
    """After the scan both files must still have the digests of before."""
    prepared = DirectoryDatabase(make_database(tmp_path / "given"), store).prepare(ignore)
    prepared.recheck(prepared.directory)
    (prepared.directory / name).chmod(0o644)
    (prepared.directory / name).write_bytes(b"other")
    with pytest.raises(Inconclusive, match="changed during the scan"):
        prepared.recheck(prepared.directory)


def test_reg_14_an_archive_cannot_write_elsewhere(tmp_path: Path, store: DatabaseStore) -> None:
    """Members are taken by their exact names; links and other paths are passed over."""
    made = make_database(tmp_path / "made")
    files = {
        "../escaped": b"x",
        f"{tmp_path}/absolute": b"x",
        METADATA: (made / METADATA).read_bytes(),
    }
    given = archive(tmp_path / "db.tar.gz", files, link="/etc/passwd")
    with pytest.raises(Unavailable, match="cannot be read"):
        DirectoryDatabase(given, store).prepare(ignore)
    assert not (tmp_path / "absolute").exists()
    assert not list(tmp_path.rglob("escaped"))


def test_reg_15_metadata_in_an_archive_has_a_limit(tmp_path: Path, store: DatabaseStore) -> None:
    """An archive that unpacks to more than the limit is refused."""
    given = archive(tmp_path / "db.tar.gz", {METADATA: b" " * (1 << 20)})
    with pytest.raises(Inconclusive, match="larger"):
        DirectoryDatabase(given, store).prepare(ignore)


def test_a_damaged_archive_is_inconclusive(tmp_path: Path, store: DatabaseStore) -> None:
    """Half an archive is no database."""
    made = make_database(tmp_path / "made")
    data = archive(
        tmp_path / "whole.tar.gz",
        {CONTENT: os.urandom(9000), METADATA: (made / METADATA).read_bytes()},
    ).read_bytes()
    (tmp_path / "db.tar.gz").write_bytes(data[:5000])
    with pytest.raises(Inconclusive, match="damaged"):
        DirectoryDatabase(tmp_path / "db.tar.gz", store).prepare(ignore)


def repository(
    tmp_path: Path, store: DatabaseStore, body: str, now: datetime = NOON
) -> RepositoryDatabase:
    tool = script(tmp_path / "trivy", body)
    processes = Processes(threading.Event())
    return RepositoryDatabase("registry.example/db:2", store, tool, processes, FixedClock(now))


def copying(source: Path, log: Path) -> str:
    """A script that puts a database into --cache-dir and notes its environment."""
    return (
        f'env > "{log}"; echo x >> "{log}.calls"; while [ "$1" != --cache-dir ]; do shift; done; '
        f'mkdir -p "$2/db" && cp "{source}"/* "$2/db/"'
    )


def test_a_repository_is_fetched_without_credentials_and_kept(
    tmp_path: Path, store: DatabaseStore
) -> None:
    """The fetch sees no variable of ours, and is not repeated before the next update."""
    log = tmp_path / "log"
    source = repository(tmp_path, store, copying(make_database(tmp_path / "given"), log))
    first = source.prepare(ignore)
    assert first.record.source == "registry.example/db:2"
    names = {line.partition("=")[0] for line in log.read_text().splitlines()}
    assert names <= {"HOME", "TMPDIR", "DOCKER_CONFIG", "PWD", "_", "SHLVL", "OLDPWD"}
    assert source.prepare(ignore).record == first.record
    assert (tmp_path / "log.calls").read_text() == "x\n"


def test_a_kept_database_is_fetched_anew_when_due(tmp_path: Path, store: DatabaseStore) -> None:
    """After NextUpdate the repository is asked again."""
    body = copying(make_database(tmp_path / "given"), tmp_path / "log")
    late = datetime(2026, 3, 3, tzinfo=UTC)
    source = repository(tmp_path, store, body, late)
    source.prepare(ignore)
    source.prepare(ignore)
    assert (tmp_path / "log.calls").read_text() == "x\nx\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("TOOMANYREQUESTS: retry later", "limits our rate"),
        ("status code 429", "limits our rate"),
        ("connection refused", "cannot be fetched"),
    ],
)
def test_scn_01_a_failed_fetch_says_why(
    tmp_path: Path, store: DatabaseStore, words: str, message: str
) -> None:
    """A repository that limits the rate and one that cannot be reached are told apart."""
    with pytest.raises(Unavailable, match=message) as caught:
        repository(tmp_path, store, f"echo 'FATAL {words}' >&2; exit 1").prepare(ignore)
    assert caught.value.where == "registry.example/db:2"


def test_scn_01_a_fetch_that_brings_nothing_fails(tmp_path: Path, store: DatabaseStore) -> None:
    """Exit code 0 without a database is no success."""
    with pytest.raises(Unavailable):
        repository(tmp_path, store, "exit 0").prepare(ignore)


def test_a_failed_fetch_leaves_the_kept_database_and_says_so(
    tmp_path: Path, store: DatabaseStore
) -> None:
    """The one fetched before serves; the policy judges its age."""
    log = tmp_path / "log"
    repository(tmp_path, store, copying(make_database(tmp_path / "given"), log)).prepare(ignore)
    events: list[Event] = []
    late = datetime(2026, 3, 9, tzinfo=UTC)
    failing = repository(tmp_path, store, "echo TOOMANYREQUESTS >&2; exit 1", late)
    assert failing.prepare(events.append).record.updated == datetime(2026, 3, 1, 6, tzinfo=UTC)
    lines = [event.message for event in events if isinstance(event, Progress)]
    assert any("using the database fetched before" in line for line in lines)
