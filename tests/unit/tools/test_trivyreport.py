"""Trivy's report, from what the real program wrote (tests/golden/trivy)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.errors import VerificationFailed
from secure_pipeline.findings import Kind, Severity
from secure_pipeline.tools.trivyreport import IMAGE_CONFIG, TrivyReport, parse_report

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "trivy"
DEBIAN = (GOLDEN / "debian.json").read_bytes()


def golden(name: str) -> TrivyReport:
    return parse_report((GOLDEN / f"{name}.json").read_bytes())


def edited(**members: Any) -> bytes:
    return json.dumps(json.loads(DEBIAN) | members).encode()


def with_severity(severity: Any) -> bytes:
    document = json.loads(DEBIAN)
    for result in document["Results"]:
        for item in result.get("Vulnerabilities", ()):
            item["Severity"] = severity
    return json.dumps(document).encode()


def test_vulnerabilities_name_package_fix_and_layer() -> None:
    """Each vulnerability carries its package, versions, purl and the layer that brought it."""
    report = golden("debian")
    found = {(item.rule, item.package): item for item in report.findings}
    openssl = found["CVE-2025-15467", "openssl"]
    assert openssl.kind is Kind.VULNERABILITY
    assert openssl.severity is Severity.HIGH
    assert openssl.installed == "3.0.9-1"
    assert openssl.fixed == "3.0.18-1~deb12u2"
    assert openssl.purl == "pkg:deb/debian/openssl@3.0.9-1?arch=amd64&distro=debian-12.5"
    layers = json.loads(DEBIAN)["Metadata"]["Layers"]
    assert openssl.layer == layers[0]["Digest"]
    assert found["CVE-2023-43804", "urllib3"].layer == layers[3]["Digest"]
    assert found["CVE-2016-2781", "coreutils"].fixed is None


def test_os_and_packages_are_counted() -> None:
    """System, number of packages by kind, and identity come from the report."""
    report = golden("debian")
    assert report.os == ("debian", "12.5")
    assert not report.end_of_life
    assert report.packages == {"debian": 3, "python-pkg": 1}
    assert report.version == "0.72.0"
    assert len(report.diff_ids) == 4


def test_scn_10_unknown_severity_stays_unknown() -> None:
    """Trivy's UNKNOWN and anything else that cannot be read is UNKNOWN, which no gate lets by."""
    found = {item.rule: item for item in golden("debian").findings}
    assert found["CVE-2023-29383"].severity is Severity.UNKNOWN
    for severity in (None, "", "SEVERE", 7):
        report = parse_report(with_severity(severity))
        kinds = {f.severity for f in report.findings if f.kind is Kind.VULNERABILITY}
        assert kinds == {Severity.UNKNOWN}


def test_secrets_name_file_line_and_layer_but_not_the_secret() -> None:
    """A secret is told by place; neither its text nor the lines beside it are handed on."""
    report = golden("debian")
    secrets = [item for item in report.findings if item.kind is Kind.SECRET]
    places = {str(item.location) for item in secrets}
    assert {"app/.env:1", "root/.ssh/id_rsa:2"} <= places
    assert any(item.location and item.location.path == IMAGE_CONFIG for item in secrets)
    text = json.dumps(report.document)
    assert "Match" not in text
    assert "GITHUB_TOKEN" not in text
    assert "GITHUB_TOKEN" in DEBIAN.decode()


def test_misconfiguration_of_the_image() -> None:
    """Settings of the image that fail a check are findings with the check's severity."""
    found = {f.rule: f for f in golden("debian").findings if f.kind is Kind.MISCONFIGURATION}
    assert found["DS-0002"].severity is Severity.HIGH
    assert found["DS-0026"].severity is Severity.LOW


def test_unknown_os_and_no_packages_are_told() -> None:
    """A report without a system says None, and one without packages counts none."""
    assert golden("unknown-os").os is None
    assert golden("unknown-os").packages == {"python-pkg": 1}
    assert golden("empty").packages == {}


def test_end_of_life_is_told() -> None:
    """EOSL of the report becomes end_of_life."""
    metadata = json.loads(DEBIAN)["Metadata"]
    metadata["OS"]["EOSL"] = True
    assert parse_report(edited(Metadata=metadata)).end_of_life


def test_fingerprints_are_unique() -> None:
    """No two findings of a report share a fingerprint."""
    prints = [item.fingerprint for item in golden("debian").findings]
    assert len(prints) == len(set(prints))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        edited(SchemaVersion=3),
        edited(SchemaVersion=None),
        edited(ArtifactType="filesystem"),
        edited(Metadata=None),
        edited(Metadata={"DiffIDs": []}),
        edited(Results=[{"Target": 1}]),
        edited(Results=[{"Target": "a", "Vulnerabilities": [{"VulnerabilityID": "CVE-1"}]}]),
        edited(Results="none"),
        DEBIAN + b"{}",
    ],
)
def test_scn_05_another_shape_is_no_report(data: bytes) -> None:
    """A report that lacks a part is refused, never read as no findings."""
    with pytest.raises(VerificationFailed):
        parse_report(data)


@given(st.integers(0, len(DEBIAN.rstrip()) - 1))
def test_scn_05_half_a_report_is_no_report(length: int) -> None:
    """A report cut off anywhere is refused."""
    with pytest.raises(VerificationFailed):
        parse_report(DEBIAN[:length])
