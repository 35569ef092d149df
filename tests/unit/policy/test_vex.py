"""VEX documents: what they say, about what, and who may say it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.scanner import secret, vulnerability
from secure_pipeline.errors import ConfigError
from secure_pipeline.findings import Ignored
from secure_pipeline.policy.vex import Purl, Statement, Subject, apply_vex, load

DIGEST = "sha256:" + "1" * 64
IMAGE = Subject("registry.example/team/app", DIGEST)
OPENSSL = "pkg:deb/debian/openssl@3.0.9-1"


def openvex(tmp_path: Path, **statement: Any) -> Path:
    """A document of one statement about openssl."""
    default = {
        "vulnerability": {"name": "CVE-2024-0001"},
        "products": [{"@id": OPENSSL}],
        "status": "not_affected",
        "justification": "vulnerable_code_not_in_execute_path",
    }
    return write(tmp_path, [default | statement])


def write(tmp_path: Path, statements: list[dict[str, Any]]) -> Path:
    document = {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "timestamp": "2026-01-01T00:00:00Z",
        "statements": statements,
    }
    path = tmp_path / "app.openvex.json"
    path.write_text(json.dumps(document))
    return path


def ignored(statements: tuple[Statement, ...]) -> Ignored | None:
    findings, _ = apply_vex([vulnerability()], statements, IMAGE)
    return findings[0].ignored


def test_not_affected_sets_aside_with_its_reason(tmp_path: Path) -> None:
    """The finding stays, marked with status, justification and the document."""
    findings, documents = apply_vex([vulnerability()], load(openvex(tmp_path)), IMAGE)
    assert findings[0].ignored is Ignored.VEX
    assert findings[0].reason == "not_affected: vulnerable_code_not_in_execute_path"
    assert documents == {findings[0].fingerprint: "app.openvex.json"}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ({}, Ignored.VEX),
        ({"status": "fixed"}, Ignored.VEX),
        ({"status": "affected"}, None),
        ({"status": "under_investigation"}, None),
        ({"status": "made_up"}, None),
        ({"vulnerability": {"name": "CVE-2024-9999"}}, None),
        ({"vulnerability": {"name": "GHSA-1", "aliases": ["CVE-2024-0001"]}}, Ignored.VEX),
        ({"vulnerability": "CVE-2024-0001"}, Ignored.VEX),
        ({"products": []}, None),
        ({"products": [{"@id": "pkg:deb/debian/openssl"}]}, Ignored.VEX),
        ({"products": [{"@id": "pkg:deb/debian/openssl@3.0.10-1"}]}, None),
        ({"products": [{"@id": "pkg:deb/ubuntu/openssl@3.0.9-1"}]}, None),
        ({"products": [{"@id": f"{OPENSSL}?arch=amd64"}]}, Ignored.VEX),
        ({"products": [{"@id": f"{OPENSSL}?arch=arm64"}]}, None),
        ({"products": [{"@id": "https://example.com/app"}]}, None),
        ({"products": [{"identifiers": {"purl": OPENSSL}}]}, Ignored.VEX),
        ({"products": [{"@id": "pkg:oci/app"}]}, Ignored.VEX),
        ({"products": [{"@id": "pkg:oci/other"}]}, None),
        ({"products": [{"@id": f"pkg:oci/app@{DIGEST.replace(':', '%3A')}"}]}, Ignored.VEX),
        ({"products": [{"@id": "pkg:oci/app@sha256%3A" + "2" * 64}]}, None),
        ({"products": [{"@id": "x", "hashes": {"sha-256": "1" * 64}}]}, Ignored.VEX),
        (
            {"products": [{"@id": "pkg:oci/app", "subcomponents": [{"@id": OPENSSL}]}]},
            Ignored.VEX,
        ),
        (
            {
                "products": [
                    {"@id": "pkg:oci/app", "subcomponents": [{"@id": "pkg:deb/debian/tar"}]}
                ]
            },
            None,
        ),
        ({"products": [{"@id": "pkg:oci/app", "subcomponents": [{"@id": "unclear"}]}]}, None),
    ],
)
def test_a_statement_covers_exactly_what_it_names(
    tmp_path: Path, statement: dict[str, Any], expected: Ignored | None
) -> None:
    """Vulnerability, status and product must all fit; what is unclear covers nothing."""
    assert ignored(load(openvex(tmp_path, **statement))) is expected


def test_the_latest_statement_decides(tmp_path: Path) -> None:
    """A newer "affected" takes an older "not affected" back, in whatever order they stand."""
    base = {"vulnerability": {"name": "CVE-2024-0001"}, "products": [{"@id": OPENSSL}]}
    old = base | {"status": "not_affected", "justification": "component_not_present"}
    new = base | {"status": "affected", "timestamp": "2026-02-01T00:00:00Z"}
    assert ignored(load(write(tmp_path, [new, old]))) is None
    assert ignored(load(write(tmp_path, [old, new]))) is None


def test_secrets_are_never_set_aside(tmp_path: Path) -> None:
    """VEX is about vulnerabilities of packages."""
    statements = load(openvex(tmp_path, vulnerability={"name": "aws-access-key-id"}))
    findings, _ = apply_vex([secret(purl=OPENSSL)], statements, IMAGE)
    assert findings[0].ignored is None


def test_cyclonedx_is_read_too(tmp_path: Path) -> None:
    """Analysis states of CycloneDX, by package URL, by reference and by BOM-Link."""
    path = tmp_path / "vex.cdx.json"
    for ref in (OPENSSL, "component-1", f"urn:cdx:3e671687-395b/1#{OPENSSL.replace('@', '%40')}"):
        document = {
            "bomFormat": "CycloneDX",
            "components": [{"bom-ref": "component-1", "purl": OPENSSL}],
            "vulnerabilities": [
                {
                    "id": "CVE-2024-0001",
                    "analysis": {"state": "not_affected", "detail": "not built in"},
                    "affects": [{"ref": ref}],
                }
            ],
        }
        path.write_text(json.dumps(document))
        assert ignored(load(path)) is Ignored.VEX
        document["vulnerabilities"][0]["analysis"] = {"state": "in_triage"}  # type: ignore[index]
        path.write_text(json.dumps(document))
        assert ignored(load(path)) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"@context": "https://openvex.dev/ns/v0.2.0", "statements": 1}',
        '{"@context": "https://openvex.dev/ns/v0.2.0", "statements": [{}]}',
        '{"@context": "https://openvex.dev/ns/v0.2.0", '
        '"statements": [{"status": "fixed", "vulnerability": {}}]}',
        '{"bomFormat": "CycloneDX", "vulnerabilities": [{"id": 1}]}',
        '{"bomFormat": "CycloneDX", "vulnerabilities": '
        '[{"id": "CVE-1", "analysis": {"state": "not_affected"}}]}',
    ],
)
def test_an_unclear_document_is_an_error(tmp_path: Path, text: str) -> None:
    """A document that cannot be read is refused, never taken for one without statements."""
    (tmp_path / "vex.json").write_text(text)
    with pytest.raises(ConfigError):
        load(tmp_path / "vex.json")


def test_not_affected_needs_a_reason(tmp_path: Path) -> None:
    """OpenVEX asks for a justification or an impact statement; without one it is refused."""
    with pytest.raises(ConfigError, match="without justification"):
        load(openvex(tmp_path, justification=None))


@given(st.text(max_size=60))
def test_any_text_is_a_package_url_or_none(text: str) -> None:
    """Nothing that stands in a document makes the parser fail."""
    parsed = Purl.parse("pkg:" + text)
    assert parsed is None or (parsed.type and parsed.path)


def test_a_package_url_covers_itself() -> None:
    """Covering is reflexive, and a missing version covers every version."""
    purl, wide = Purl.parse(OPENSSL), Purl.parse("pkg:deb/debian/openssl")
    assert purl is not None
    assert wide is not None
    assert purl.covers(purl)
    assert wide.covers(purl)
    assert not purl.covers(wide)
