"""What every scanner owes the scan stage; the fake and the real one alike."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from fakes import realtrivy
from fakes.images import Layer, blob, build_image, debian
from fakes.scanner import FakeScanner
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.events import ignore
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.manifest import Descriptor
from secure_pipeline.ports import Scanner, ScanReport, ScanRequest
from secure_pipeline.tools.trivydb import PreparedDatabase

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> PreparedDatabase:
    return realtrivy.prepared("demonstration", tmp_path_factory.mktemp("database"))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contract")


@pytest.fixture(scope="module", params=["fake", "trivy"])
def scanner(request: pytest.FixtureRequest, directory: Path, database: PreparedDatabase) -> Scanner:
    clock = realtrivy.TickingClock(database.record.updated + timedelta(hours=1))
    if request.param == "fake":
        return FakeScanner(clock=clock)
    return realtrivy.scanner(database, directory / "work", clock)


@pytest.fixture(scope="module")
def image(directory: Path) -> Descriptor:
    return make_image(directory)


@pytest.fixture(scope="module")
def report(scanner: Scanner, directory: Path, image: Descriptor) -> ScanReport:
    return run(scanner, directory, image.digest)


def make_image(directory: Path) -> Descriptor:
    packages = {"openssl": "99.0-1", "tar": "99.0-1"}
    return build_image(directory / "image", [debian(packages), Layer({"app/main.py": b"x"})])


def run(scanner: Scanner, directory: Path, digest: Digest) -> ScanReport:
    request = ScanRequest(directory / "image", str(digest), "team/app", timedelta(minutes=2))
    return scanner.scan(request, ignore)


def test_the_report_names_the_image_asked_for(report: ScanReport, image: Descriptor) -> None:
    """Digest, system, packages, tool and database are those of this scan."""
    assert report.artifact_digest == str(image.digest)
    assert report.os == "debian 12.5"
    assert report.packages == 2
    assert report.uncovered == ()
    assert report.tool.name == "trivy"
    assert report.database.digest.startswith("sha256:")
    assert report.database.metadata_digest.startswith("sha256:")


def test_times_are_in_order(report: ScanReport) -> None:
    """The scan starts, ends, and the database is older than both."""
    assert report.database.updated < report.started <= report.finished


def test_bills_of_materials_name_the_image(report: ScanReport, image: Descriptor) -> None:
    """CycloneDX and SPDX are about the image by name and digest, and list its packages."""
    name = f"team/app@{image.digest}"
    assert report.cyclonedx["bomFormat"] == "CycloneDX"
    assert report.cyclonedx["metadata"]["component"]["name"] == name
    assert "openssl" in [item["name"] for item in report.cyclonedx["components"]]
    assert str(report.spdx["spdxVersion"]).startswith("SPDX-2")
    assert report.spdx["name"] == name


def test_nothing_of_this_machine_is_in_the_report(report: ScanReport, directory: Path) -> None:
    """Reports and bills of materials are published: no path of the scan stands in them."""
    text = json.dumps([report.raw, report.cyclonedx, report.spdx])
    assert str(directory) not in text


def test_another_digest_is_refused(scanner: Scanner, tmp_path: Path) -> None:
    """An image that the layout does not hold is never replaced by one that it holds."""
    make_image(tmp_path)
    with pytest.raises(VerificationFailed):
        run(scanner, tmp_path, Digest("0" * 64))


def test_reg_02_an_altered_layer_is_refused(scanner: Scanner, tmp_path: Path) -> None:
    """One altered byte of a layer, and there is no report."""
    image = make_image(tmp_path)
    manifest = json.loads(blob(tmp_path / "image", image.digest).read_bytes())
    path = blob(tmp_path / "image", Digest.parse(manifest["layers"][1]["digest"]))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerificationFailed):
        run(scanner, tmp_path, image.digest)
