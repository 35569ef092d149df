"""The scanner's adapter, with programs in Trivy's place that misbehave in every way."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from fakes.database import NOON, FixedClock, make_database
from fakes.images import Layer, build_image, debian
from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.events import ignore
from secure_pipeline.oci.digest import Digest
from secure_pipeline.ports import ScanReport, ScanRequest
from secure_pipeline.tools.locate import LocatedTool
from secure_pipeline.tools.process import Processes
from secure_pipeline.tools.trivy import Trivy
from secure_pipeline.tools.trivydb import DatabaseStore, DirectoryDatabase

PROGRAM = """#!{python}
import json, os, pathlib, sys
arguments = sys.argv[1:]
value = lambda name: arguments[arguments.index(name) + 1]
output = pathlib.Path(value("--output"))
log = pathlib.Path({log!r})
with log.open("a") as stream:
    entry = dict(arguments=arguments, cwd=os.getcwd(), here=os.listdir("."), env=dict(os.environ))
    stream.write(json.dumps(entry) + "\\n")
def report(**changes):
    where, _, digest = value("--input").partition("@")
    blobs = pathlib.Path(where, "blobs", "sha256")
    manifest = json.loads((blobs / digest[7:]).read_bytes())
    config = manifest["config"]["digest"]
    diff_ids = json.loads((blobs / config[7:]).read_bytes())["rootfs"]["diff_ids"]
    document = dict(
        SchemaVersion=2,
        Trivy=dict(Version="0.72.0"),
        ArtifactName=value("--input"),
        ArtifactType="container_image",
        Metadata=dict(ImageID=config, DiffIDs=diff_ids, OS=dict(Family="debian", Name="12.5")),
        Results=[dict(Target="x", Class="os-pkgs", Type="debian", Packages=[dict(Name="a")])],
    )
    return document | changes
def good():
    if arguments[0] == "convert":
        bill = dict(bomFormat="CycloneDX") if "cyclonedx" in arguments else dict(spdxVersion="2")
        output.write_text(json.dumps(bill))
    else:
        output.write_text(json.dumps(report()))
{body}
"""


class Bench:
    """An image, a database, and a program that behaves as told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.image = build_image(directory / "image", [debian(), Layer({"app": b"x"})])
        self.store = DatabaseStore(directory / "store")
        self.database = DirectoryDatabase(make_database(directory / "database"), self.store)

    def scan(self, body: str, seconds: float = 30, digest: str | None = None) -> ScanReport:
        import sys

        program = self.directory / "trivy"
        text = PROGRAM.format(python=sys.executable, log=str(self.log), body=body)
        program.write_text(text)
        program.chmod(0o755)
        trivy = Trivy(
            LocatedTool("trivy", program, "0.72.0", "sha256:" + "0" * 64),
            Processes(threading.Event()),
            self.database,
            self.directory / "work",
            FixedClock(NOON),
        )
        request = ScanRequest(
            layout=self.directory / "image",
            digest=digest or str(self.image.digest),
            name="team/app",
            timeout=timedelta(seconds=seconds),
        )
        return trivy.scan(request, ignore)

    def calls(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_whole_report_is_an_answer(bench: Bench) -> None:
    """The well-behaved program gives a report about the image asked for, under its name."""
    report = bench.scan("good()")
    assert report.artifact_digest == str(bench.image.digest)
    assert report.packages == 1
    assert report.raw["ArtifactName"] == f"team/app@{bench.image.digest}"
    assert str(bench.directory) not in json.dumps(report.raw)
    assert list((bench.directory / "work").iterdir()) == []


def test_scn_04_the_scanner_sees_no_credential_and_no_file_of_ours(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its environment is ours alone, its directory empty, its home new, telemetry off."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sentinel")
    monkeypatch.setenv("TRIVY_PASSWORD", "sentinel")
    monkeypatch.setenv("TRIVY_INSECURE", "sentinel")
    bench.scan("good()")
    calls = bench.calls()
    assert len(calls) == 4
    for call in calls:
        assert call["here"] == []
        environment = call["env"]
        assert isinstance(environment, dict)
        assert "sentinel" not in json.dumps(environment)
        # LC_CTYPE is set by the interpreter that runs the program of this test
        assert set(environment) - {"LC_CTYPE"} == {"HOME", "TMPDIR", "PATH", "LC_ALL"}
        assert environment["HOME"].startswith(str(bench.directory))
    images = [call["arguments"] for call in calls if "image" in str(call["arguments"])]
    for flag in ("--offline-scan", "--disable-telemetry", "--skip-db-update"):
        assert all(flag in str(arguments) for arguments in images[:2])


@pytest.mark.parametrize(
    "body",
    [
        "sys.exit(1)",
        "good(); sys.exit(1)",
        "good(); sys.exit(2)",
        "good(); sys.stdout.flush(); os.kill(os.getpid(), 9)",
        "os.kill(os.getpid(), 11)",
        "pass",
        'output.write_text("")',
        'output.write_text("{}")',
        "output.write_text(json.dumps(report())[:-20])",
        'output.write_text(json.dumps(report(Trivy=dict(Version="0.71.0"))))',
        'output.write_text(json.dumps(report(ArtifactType="filesystem")))',
        'output.write_text(json.dumps(report(Metadata=dict(ImageID="", DiffIDs=[]))))',
    ],
)
def test_scn_05_no_whole_report_is_inconclusive(bench: Bench, body: str) -> None:
    """A crash, a signal, another exit code, no report or half of one never counts as clean."""
    with pytest.raises(Inconclusive) as caught:
        bench.scan(body)
    assert caught.value.exit_code == 14


def test_scn_05_a_bill_that_is_none_is_inconclusive(bench: Bench) -> None:
    """The bills of materials must be what they are called."""
    with pytest.raises(Inconclusive):
        bench.scan('good() if arguments[0] == "image" else output.write_text("{}")')


def test_scn_05_a_hanging_scanner_is_ended(bench: Bench) -> None:
    """A scanner that does not end is ended at its deadline, with no verdict."""
    bench_seconds = -4.0  # the adapter adds five seconds for the scanner's own deadline
    with pytest.raises(Inconclusive, match="timed out"):
        bench.scan("import time; time.sleep(60)", seconds=bench_seconds)


@pytest.mark.parametrize(
    "change",
    [
        'ArtifactName="other@sha256:" + "0" * 64',
        'ArtifactName="other:latest"',
        'Metadata=dict(ImageID="sha256:" + "0" * 64, DiffIDs=report()["Metadata"]["DiffIDs"])',
        'Metadata=dict(report()["Metadata"], DiffIDs=report()["Metadata"]["DiffIDs"][:1])',
    ],
)
def test_scn_11_a_report_on_another_image_is_inconclusive(bench: Bench, change: str) -> None:
    """The report must name the digest, the configuration and all layers that were asked for."""
    with pytest.raises(Inconclusive, match="trivy reports on"):
        bench.scan(f"output.write_text(json.dumps(report({change})))")


def test_scn_03_a_database_swapped_during_the_scan_is_inconclusive(bench: Bench) -> None:
    """A database that is another one after the scan makes the result worthless."""
    body = (
        "good()\n"
        'if arguments[0] == "image":\n'
        '    path = pathlib.Path(value("--cache-dir"), "db", "trivy.db")\n'
        "    if path.exists():\n"
        "        os.chmod(path, 0o644); path.write_bytes(b'other')\n"
    )
    with pytest.raises(Inconclusive, match="changed during the scan"):
        bench.scan(body)


def test_scn_03_a_link_swapped_during_the_scan_is_inconclusive(bench: Bench) -> None:
    """Pointing the scanner's copy at another database is noticed too."""
    make_database(bench.directory / "evil", ["debian 12", "vulnerability", "x"])
    body = (
        "good()\n"
        'path = pathlib.Path(value("--cache-dir") if "--cache-dir" in arguments else ".", "db")\n'
        'if (path / "trivy.db").exists():\n'
        '    (path / "trivy.db").unlink()\n'
        f'    (path / "trivy.db").symlink_to({str(bench.directory / "evil" / "trivy.db")!r})\n'
    )
    with pytest.raises(Inconclusive, match="changed during the scan"):
        bench.scan(body)


def test_an_image_that_is_not_there_is_refused(bench: Bench) -> None:
    """A digest that the layout lacks is never replaced by what the layout has."""
    with pytest.raises(VerificationFailed):
        bench.scan("good()", digest=str(Digest("0" * 64)))
    assert not bench.log.exists()


def test_packages_without_advisories_are_told(bench: Bench) -> None:
    """What the database does not cover is part of the report."""
    make_database(bench.directory / "database", ["alpine 3.19", "vulnerability"])
    assert bench.scan("good()").uncovered == ("debian 12.5 (1 package)",)
