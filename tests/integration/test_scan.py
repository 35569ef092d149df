"""scan with the real Trivy, on images built for it, with every database at hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fakes import realtrivy
from fakes.images import (
    AWS_KEY,
    GITHUB_TOKEN,
    OTHER_AWS_KEY,
    PRIVATE_KEY,
    Layer,
    build_image,
    build_index,
    debian,
    python_package,
)
from fakes.realtrivy import DATABASES, REAL, TickingClock
from secure_pipeline.attestations import predicates
from secure_pipeline.config import BuildConfig, ScanConfig
from secure_pipeline.errors import Inconclusive, Unavailable
from secure_pipeline.events import ignore
from secure_pipeline.findings import Finding, Ignored, Kind
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import CONFIG_TYPE, MANIFEST_TYPE, Descriptor
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.document import ScanGate
from secure_pipeline.stages.result import StageResult, Verdict
from secure_pipeline.stages.scan import ScanInputs, scan
from secure_pipeline.tools.process import Command, Outcome, Processes
from secure_pipeline.tools.trivy import Trivy
from secure_pipeline.tools.trivydb import DatabaseStore, DirectoryDatabase, PreparedDatabase

pytestmark = pytest.mark.integration
FIXED = {"openssl": "99.0-1"}
"""A version that no advisory is about."""
Entries = Sequence[Layer | str]


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreparedDatabase]:
    directory = tmp_path_factory.mktemp("databases")
    return {name: realtrivy.prepared(name, directory) for name in DATABASES}


@dataclass
class Bench:
    """Builds an image and scans it with the real scanner."""

    root: Path
    database: PreparedDatabase

    def scan(self, entries: Entries, **inputs: Any) -> StageResult:
        settings = inputs.pop("settings", None)
        return self.judge(build_image(self.root / "image", entries, settings=settings), **inputs)

    def judge(self, image: Descriptor, **inputs: Any) -> StageResult:
        clock = TickingClock(self.database.record.updated + timedelta(hours=1))
        values: dict[str, Any] = {
            "layout": self.root / "image",
            "image": ImageReference("team/app", image.digest),
            "config": ScanConfig(timeout=timedelta(minutes=2)),
            "gate": ScanGate(allow_demonstration_database=True),
            "exceptions": (),
            "today": clock.time.date(),
            "root": self.root,
        }
        scanner = inputs.pop("scanner", None) or self.scanner()
        return scan(ScanInputs(**(values | inputs)), scanner, clock, ignore)

    def scanner(self, processes: Processes | None = None) -> Trivy:
        clock = TickingClock(self.database.record.updated)
        real = realtrivy.scanner(self.database, self.root / "work", clock)
        return replace(real, processes=processes) if processes else real


@pytest.fixture(params=DATABASES)
def bench(
    request: pytest.FixtureRequest, tmp_path: Path, databases: dict[str, PreparedDatabase]
) -> Bench:
    """A bench for each database at hand."""
    return Bench(tmp_path, databases[request.param])


@pytest.fixture
def demo(tmp_path: Path, databases: dict[str, PreparedDatabase]) -> Bench:
    """A bench with the demonstration database alone."""
    return Bench(tmp_path, databases["demonstration"])


def secrets(result: StageResult) -> list[Finding]:
    return [item for item in result.findings if item.kind is Kind.SECRET]


def test_a_fixed_image_passes(bench: Bench) -> None:
    """An image of a fixed package passes, with both bills of materials and the database named."""
    result = bench.scan([debian(FIXED), 'CMD ["app"]'])
    assert result.verdict is Verdict.PASS, result.reasons
    assert result.figures["packages"] == 1
    assert result.figures["components"] >= 1
    assert result.figures["database"]["digest"] == bench.database.record.digest
    assert len(result.evidence) == 4


def test_known_vulnerabilities_fail_with_layer_and_line(bench: Bench) -> None:
    """Vulnerabilities of system and Python packages are found in the layers that brought them."""
    (bench.root / "Dockerfile").write_text("FROM debian\n\nCOPY wheels /usr/local/\nUSER app\n")
    copied = Layer(
        python_package("urllib3", "1.26.0"), created_by="COPY wheels /usr/local/ # buildkit"
    )
    result = bench.scan([debian({"openssl": "3.0.9-1"}), copied], build=BuildConfig())
    assert result.verdict is Verdict.FAIL
    assert result.code == 10
    found = {(item.rule, item.package): item for item in result.findings}
    openssl, urllib3 = found["CVE-2025-15467", "openssl"], found["CVE-2023-43804", "urllib3"]
    assert (openssl.dockerfile_line, urllib3.dockerfile_line) == (1, 3)
    assert openssl.fixed == "3.0.18-1~deb12u2"
    assert openssl.layer != urllib3.layer


def test_bld_01_a_secret_deleted_in_a_later_layer_is_found(bench: Bench) -> None:
    """Keys that a later layer deletes are still in the image for whoever pulls it."""
    entries = [
        debian(FIXED),
        Layer({"root/.ssh/id_rsa": PRIVATE_KEY, "app/.env": AWS_KEY}),
        Layer(deleted=["root/.ssh/id_rsa", "app/.env"], created_by="RUN rm key # buildkit"),
    ]
    result = bench.scan(entries)
    assert result.verdict is Verdict.FAIL
    places = {item.location.path for item in secrets(result) if item.location}
    assert places == {"root/.ssh/id_rsa", "app/.env"}
    assert all(item.layer for item in secrets(result))


def test_bld_01_a_secret_below_an_old_cmd_is_found(demo: Bench) -> None:
    """Layers that look like a base image's are searched too."""
    entries = [
        debian(FIXED),
        Layer({"app/.env": AWS_KEY}),
        'CMD ["bash"]',
        Layer(deleted=["app/.env"], created_by="RUN rm key # buildkit"),
        'CMD ["app"]',
    ]
    assert [item.rule for item in secrets(demo.scan(entries))] == ["aws-access-key-id"]


def test_bld_01_one_secret_does_not_hide_another(demo: Bench) -> None:
    """A file replaced by one with another secret is two findings, in two layers."""
    entries = [
        debian(FIXED),
        Layer({"app/.env": AWS_KEY}),
        Layer({"app/.env": OTHER_AWS_KEY}),
    ]
    assert len({item.layer for item in secrets(demo.scan(entries))}) == 2


def test_secrets_in_settings_and_history_are_found(demo: Bench) -> None:
    """Environment variables and build commands are part of the image as well."""
    history = Layer({"a": b"x"}, created_by=f"RUN /bin/sh -c curl -u {GITHUB_TOKEN} # buildkit")
    settings = {"User": "app", "Env": [AWS_KEY.decode().strip()]}
    result = demo.scan([debian(FIXED), history], settings=settings)
    assert {item.rule for item in secrets(result)} == {"aws-access-key-id", "github-pat"}


def test_no_secret_is_in_reports_or_evidence(demo: Bench) -> None:
    """What the scan writes can be published: no secret and no line around it is in there."""
    text = AWS_KEY + b"NEIGHBOUR=plain-password-beside-it\n"
    settings = {"User": "app", "Env": [f"TOKEN={GITHUB_TOKEN}"]}
    result = demo.scan([debian(FIXED), Layer({"app/.env": text})], settings=settings)
    assert len(secrets(result)) == 2
    written = json.dumps([dict(item.predicate) for item in result.evidence])
    written += "".join(item.content.decode() for item in result.reports)
    for word in ("plain-password", GITHUB_TOKEN, AWS_KEY.decode().strip().partition("=")[2]):
        assert word not in written


def test_a_root_user_fails_by_severity(demo: Bench) -> None:
    """Misconfiguration of the image gates: running as root is HIGH in Trivy's checks."""
    result = demo.scan([debian(FIXED)], settings={"User": "root"})
    assert [item.rule for item in result.findings if item.kind is Kind.MISCONFIGURATION] == [
        "DS-0002",
        "DS-0026",
    ]
    assert result.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([Layer({"hello": b"x"})], "operating system of the image is unknown"),
        ([debian({})], "no package was found"),
        (
            [Layer({**debian(FIXED).files, "etc/debian_version": b"99.1\n"})],
            "no advisories for debian 99.1",
        ),
    ],
)
def test_what_cannot_be_judged_is_inconclusive(
    demo: Bench, entries: list[Layer], words: str
) -> None:
    """Unknown systems, images without packages, and systems beyond the database are code 14."""
    result = demo.scan(entries)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.code == 14
    assert any(words in reason for reason in result.reasons), result.reasons


def test_scn_09_ignore_files_are_not_heeded(demo: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore files in the image, in the repository and in the working directory do nothing."""
    files = {
        ".trivyignore": b"CVE-2025-15467\n",
        "trivy.yaml": b"severity: [LOW]\nscan:\n  scanners: [license]\n",
        "trivy-secret.yaml": b"disable-rules: [aws-access-key-id]\n",
    }
    for name, content in files.items():
        (demo.root / name).write_bytes(content)
    monkeypatch.chdir(demo.root)
    monkeypatch.setenv("TRIVY_IGNOREFILE", str(demo.root / ".trivyignore"))
    result = demo.scan([debian({"openssl": "3.0.9-1"}), Layer({**files, "app/.env": AWS_KEY})])
    rules = {item.rule for item in result.findings}
    assert {"CVE-2025-15467", "aws-access-key-id"} <= rules


def test_scn_02_a_stale_database_is_inconclusive(demo: Bench) -> None:
    """The gate's maximum age decides about a clean result, with the age in the reason."""
    gate = ScanGate(allow_demonstration_database=True, max_database_age=timedelta(minutes=30))
    result = demo.scan([debian(FIXED)], gate=gate)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "the policy allows 0 h" in result.reasons[0]


def test_scn_01_without_a_database_there_is_no_scan(demo: Bench) -> None:
    """A path without a database is exit code 4, never zero findings."""
    missing = DirectoryDatabase(demo.root / "none", DatabaseStore(demo.root / "store"))
    scanner = replace(demo.scanner(), database=missing)
    with pytest.raises(Unavailable) as caught:
        demo.scan([debian(FIXED)], scanner=scanner)
    assert caught.value.exit_code == 4


def test_the_demonstration_database_needs_the_policy(demo: Bench) -> None:
    """The default gate does not accept it: exit code 14."""
    result = demo.scan([debian(FIXED)], gate=ScanGate())
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "demonstration database" in result.reasons[0]


def test_the_demonstration_database_is_the_same_every_time(
    demo: Bench, databases: dict[str, PreparedDatabase]
) -> None:
    """The same advisories give the same bytes, so a policy can pin the digest."""
    again = realtrivy.prepared("demonstration", demo.root / "again")
    assert again.record == databases["demonstration"].record
    assert again.record.demonstration


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "unexpected EOF"),
        ("{}", "Updated and Sources are needed"),
        ('{"Unknown": 1}', "unknown field"),
        ('{"Updated": "2026-01-01T00:00:00Z", "Sources": [{"Bucket": "debian 12"}]}', "no adv"),
    ],
)
def test_broken_advisories_make_no_database(demo: Bench, text: str, words: str) -> None:
    """What the file of advisories lacks is said, and nothing is taken in."""
    path = demo.root / "advisories.json"
    path.write_text(text)
    source = realtrivy.source("demonstration", demo.root)
    with pytest.raises(Unavailable, match=words):
        replace(source, advisories=path).prepare(ignore)  # type: ignore[type-var]


class Watched(Processes):
    """Runs every command under strace and keeps what it saw of sockets."""

    def __init__(self, log: Path) -> None:
        super().__init__(threading.Event())
        self.log = log
        self.lock = threading.Lock()
        self.commands: list[Command] = []

    def run(self, command: Command, on_line: Any = None) -> Outcome:
        strace = shutil.which("strace")
        assert strace, "strace is needed: apt-get install strace"
        with self.lock:
            self.commands.append(command)
            log = f"{self.log}.{len(self.commands)}"
        trace = (strace, "-f", "-qq", "-e", "trace=connect,sendto", "-o", log)
        return super().run(replace(command, argv=(*trace, *command.argv)), on_line)


def test_scn_04_the_scanner_reaches_no_network_and_knows_no_credential(
    demo: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No socket of Trivy's leaves the machine, and nothing secret is in its environment."""
    monkeypatch.setenv("VAULT_TOKEN", "sentinel-credential")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    watched = Watched(demo.root / "strace")
    result = demo.scan([debian(FIXED)], scanner=demo.scanner(watched))
    assert result.verdict is Verdict.PASS
    assert len(watched.commands) == 4
    _prove_that_sockets_are_seen(watched)
    for number, command in enumerate(watched.commands, start=1):
        assert not command.network
        assert "sentinel-credential" not in json.dumps(dict(command.env))
        assert "AF_INET" not in (demo.root / f"strace.{number}").read_text()


def _prove_that_sockets_are_seen(watched: Watched) -> None:
    """Without this a tracer that sees nothing would make the test pass."""
    other = Watched(watched.log.with_name("control"))
    code = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"
    other.run(Command((sys.executable, "-c", code), cwd=Path("/"), env={}, timeout=30))
    assert "AF_INET" in Path(f"{other.log}.1").read_text()


def test_scn_05_a_killed_scanner_is_inconclusive(demo: Bench) -> None:
    """Trivy that dies of too little memory gives no verdict."""

    class Starved(Processes):
        def run(self, command: Command, on_line: Any = None) -> Outcome:
            limits = replace(command.limits, address_space=64 << 20)
            return super().run(replace(command, limits=limits), on_line)

    with pytest.raises(Inconclusive) as caught:
        demo.scan([debian(FIXED)], scanner=demo.scanner(Starved(threading.Event())))
    assert caught.value.exit_code == 14


def test_scn_11_the_image_of_the_digest_is_scanned(demo: Bench) -> None:
    """Of two images in one layout the one asked for is judged, whatever the tags say."""
    bad = build_image(demo.root / "image", [debian({"openssl": "3.0.9-1"})], tag="latest")
    good = build_image(demo.root / "image", [debian(FIXED)], tag="old")
    assert demo.judge(bad).verdict is Verdict.FAIL
    assert demo.judge(good).verdict is Verdict.PASS


def test_all_platforms_of_an_index_are_scanned(demo: Bench) -> None:
    """One bad platform fails the whole image."""
    platforms = {"linux/amd64": [debian(FIXED)], "linux/arm64": [debian({"openssl": "3.0.9-1"})]}
    result = demo.judge(build_index(demo.root / "image", platforms))
    assert result.verdict is Verdict.FAIL
    assert result.figures["platforms"] == ["linux/amd64", "linux/arm64"]


def test_policy_vex_sets_a_real_finding_aside(demo: Bench) -> None:
    """A statement about the package URL that Trivy reports is matched."""
    rules = ["CVE-2025-15467", "CVE-2023-5363", "CVE-2023-2975"]
    statements = [
        {
            "vulnerability": {"name": rule},
            "products": [{"@id": "pkg:deb/debian/openssl?distro=debian-12.5"}],
            "status": "not_affected",
            "justification": "vulnerable_code_not_present",
        }
        for rule in rules
    ]
    document = {"@context": "https://openvex.dev/ns/v0.2.0", "statements": statements}
    (demo.root / "app.vex.json").write_text(json.dumps(document))
    gate = ScanGate(allow_demonstration_database=True, vex=("app.vex.json",))
    result = demo.scan([debian({"openssl": "3.0.9-1"})], gate=gate, policy_directory=demo.root)
    assert result.verdict is Verdict.PASS
    aside = {item.rule for item in result.findings if item.ignored is Ignored.VEX}
    assert aside == set(rules)


def test_bills_of_materials_are_pure(demo: Bench) -> None:
    """No finding stands in the bills, and every package that was scanned does."""
    entries = [debian({"openssl": "3.0.9-1"}), Layer(python_package("urllib3", "1.26.0"))]
    result = demo.scan(entries)
    bills = {item.predicate_type: item.predicate for item in result.evidence}
    cyclonedx, spdx = bills[predicates.CYCLONEDX], bills[predicates.SPDX]
    purls = {item.get("purl", "").partition("?")[0] for item in cyclonedx["components"]}
    assert {"pkg:deb/debian/openssl@3.0.9-1", "pkg:pypi/urllib3@1.26.0"} <= purls
    assert not cyclonedx.get("vulnerabilities")
    assert "CVE-" not in json.dumps([dict(cyclonedx), dict(spdx)])


if REAL.is_file():

    def test_the_known_image_has_its_known_findings(
        tmp_path: Path, databases: dict[str, PreparedDatabase]
    ) -> None:
        """The reference image beside the real database has the findings that are known of it."""
        image = _converted(REAL.parent / "tiny-image.tar", tmp_path)
        result = Bench(tmp_path, databases["real"]).judge(image)
        found = [item for item in result.findings if item.kind is Kind.VULNERABILITY]
        assert len(found) == 64


def _converted(archive: Path, directory: Path) -> Descriptor:
    """Take an image of Docker's archive form into a layout."""
    with tarfile.open(archive) as tar:
        files = {item.name: tar.extractfile(item) for item in tar if item.isreg()}
        content = {name: stream.read() for name, stream in files.items() if stream}
    (listed,) = json.loads(content["manifest.json"])
    layout = Layout.create(directory / "image")
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": layout.write_blob(content[listed["Config"]], CONFIG_TYPE).to_json(),
        "layers": [layout.write_blob(content[name], kind).to_json() for name in listed["Layers"]],
    }
    image = layout.write_blob(json.dumps(manifest).encode(), MANIFEST_TYPE)
    layout.add_manifest(image)
    return image


def test_golden_reports_are_what_trivy_writes_today(tmp_path: Path) -> None:
    """The recorded reports equal what their generator records now."""
    golden = realtrivy.ROOT / "tests" / "golden" / "trivy"
    copy = shutil.copytree(golden, tmp_path / "tests" / "golden" / "trivy")
    search = os.pathsep.join(str(realtrivy.ROOT / name) for name in ("src", "tests"))
    subprocess.run(
        [sys.executable, "generate.py"],
        cwd=copy,
        env={"PYTHONPATH": search, "HOME": os.environ["HOME"], "PATH": os.defpath},
        check=True,
        timeout=120,
    )
    for path in golden.glob("*.json"):
        assert (copy / path.name).read_bytes() == path.read_bytes(), path.name
