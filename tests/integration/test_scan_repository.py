"""The vulnerability database from a real registry on loopback, fetched by the real Trivy."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fakes import realtrivy
from fakes.registry import debian_registry, push_layout
from secure_pipeline.errors import Unavailable
from secure_pipeline.events import Event, Progress, ignore
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import MANIFEST_TYPE
from secure_pipeline.tools.process import Processes
from secure_pipeline.tools.trivydb import CONTENT, METADATA, DatabaseStore, RepositoryDatabase

pytestmark = pytest.mark.integration
CONFIG = "application/vnd.aquasec.trivy.config.v1+json"
LAYER = "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip"
TITLE = "org.opencontainers.image.title"


def artifact(directory: Path, path: Path) -> Layout:
    """Put a database into a layout in the form in which Trivy publishes it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name in (CONTENT, METADATA):
            tar.add(directory / name, name)
    layout = Layout.create(path)
    layer = layout.write_blob(stream.getvalue(), LAYER)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": layout.write_blob(b"{}", CONFIG).to_json(),
        "layers": [layer.to_json() | {"annotations": {TITLE: "db.tar.gz"}}],
    }
    layout.replace("2", layout.write_blob(json.dumps(manifest).encode(), MANIFEST_TYPE))
    return layout


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[RepositoryDatabase]:
    """The demonstration database, published in a registry."""
    prepared = realtrivy.prepared("demonstration", tmp_path / "made")
    layout = artifact(prepared.directory, tmp_path / "artifact")
    with debian_registry(Path("/usr/bin/docker-registry"), tmp_path) as host:
        push_layout(layout, host, "trivy-db")
        yield RepositoryDatabase(
            repository=f"{host}/trivy-db:2",
            store=DatabaseStore(tmp_path / "store"),
            tool=realtrivy.trivy_tool(),
            processes=Processes(threading.Event()),
            clock=realtrivy.TickingClock(prepared.record.updated + timedelta(hours=1)),
            timeout=60,
        )


def test_a_published_database_is_fetched(repository: RepositoryDatabase, tmp_path: Path) -> None:
    """What comes out of the registry is byte for byte the database that went in, mark and all."""
    made = realtrivy.prepared("demonstration", tmp_path / "made")
    fetched = repository.prepare(ignore)
    assert fetched.record.digest == made.record.digest
    assert fetched.record.demonstration
    assert "Demonstration" not in (fetched.directory / METADATA).read_text()


def test_scn_01_a_repository_without_the_database_says_so(repository: RepositoryDatabase) -> None:
    """A repository that is not there is exit code 4 and leaves nothing behind."""
    missing = replace(repository, repository=repository.repository.replace("trivy-db", "other"))
    with pytest.raises(Unavailable, match="cannot be fetched") as caught:
        missing.prepare(ignore)
    assert caught.value.exit_code == 4
    assert [item.name for item in missing.store.root.iterdir()] in ([], ["lock"])


def test_scn_01_an_unreachable_repository_leaves_the_kept_database(
    repository: RepositoryDatabase,
) -> None:
    """When the registry answers no more, the database fetched before is used and that is said."""
    kept = repository.prepare(ignore)
    events: list[Event] = []
    name = repository.repository
    broken = replace(repository, tool=replace(repository.tool, path=Path("/bin/false")))
    assert broken.prepare(events.append).record == kept.record
    lines = [event.message for event in events if isinstance(event, Progress)]
    assert lines[0].endswith(name)
    assert "using the database fetched before" in lines[1]
