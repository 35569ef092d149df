"""Trivy's JSON report, schema 2, read into findings. Pure: bytes in, values out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from secure_pipeline import shape
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.files import canonical_json, sha256_bytes
from secure_pipeline.findings import Finding, Kind, Location, Severity

SCHEMA_VERSION = 2
MAX_REPORT_BYTES = 256 << 20
MAX_ITEMS = 1_000_000
IMAGE_CONFIG = "image configuration"
"""Path of findings that are about the image's settings and not about a file in it."""
_WHERE = "report of trivy"
_SEVERITIES = {
    "LOW": Severity.LOW,
    "MEDIUM": Severity.MEDIUM,
    "HIGH": Severity.HIGH,
    "CRITICAL": Severity.CRITICAL,
}


@dataclass(frozen=True)
class TrivyReport:
    """What one report says."""

    version: str
    """Of the program that wrote it."""
    artifact_name: str
    image_id: str
    """Digest of the image's configuration."""
    diff_ids: tuple[str, ...]
    os: tuple[str, str] | None
    """Family and version, such as debian and 12.5."""
    end_of_life: bool
    packages: Mapping[str, int]
    """Number by kind, such as ``debian`` or ``python-pkg``."""
    findings: tuple[Finding, ...]
    document: dict[str, Any]
    """The report without the text around secrets."""


def parse_report(data: bytes) -> TrivyReport:
    """Read a report.

    Raises: VerificationFailed for half a report or anything else of another shape.
    """
    document = shape.parse_object(data, _WHERE, limit=MAX_REPORT_BYTES)
    if shape.member(document, "SchemaVersion", int, _WHERE) != SCHEMA_VERSION:
        raise VerificationFailed(f"SchemaVersion is not {SCHEMA_VERSION}", where=_WHERE)
    if shape.member(document, "ArtifactType", str, _WHERE) != "container_image":
        raise VerificationFailed("no container image was scanned", where=_WHERE)
    metadata = shape.member(document, "Metadata", dict, _WHERE)
    results = shape.objects(document, "Results", _WHERE, limit=MAX_ITEMS)
    name = shape.member(document, "ArtifactName", str, _WHERE)
    os_member = shape.optional(metadata, "OS", dict, _WHERE) or {}
    family = shape.optional(os_member, "Family", str, _WHERE)
    return TrivyReport(
        version=shape.member(shape.member(document, "Trivy", dict, _WHERE), "Version", str, _WHERE),
        artifact_name=name,
        image_id=shape.member(metadata, "ImageID", str, _WHERE),
        diff_ids=tuple(shape.member(metadata, "DiffIDs", list, _WHERE)),
        os=(family, shape.optional(os_member, "Name", str, _WHERE) or "") if family else None,
        end_of_life=bool(shape.optional(os_member, "EOSL", bool, _WHERE)),
        packages=_packages(results),
        findings=tuple(finding for item in results for finding in _findings(item, name)),
        document=_without_secrets(document, results),
    )


def _packages(results: list[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in results:
        kind = shape.optional(item, "Type", str, _WHERE)
        number = len(shape.objects(item, "Packages", _WHERE, limit=MAX_ITEMS))
        if kind and number:
            counts[kind] = counts.get(kind, 0) + number
    return counts


def _findings(result: dict[str, Any], artifact: str) -> Iterator[Finding]:
    target = shape.member(result, "Target", str, _WHERE)
    path = IMAGE_CONFIG if target == artifact else target.lstrip("/")
    for item in shape.objects(result, "Vulnerabilities", _WHERE, limit=MAX_ITEMS):
        os_package = result.get("Class") == "os-pkgs"
        yield _vulnerability(item, None if os_package else path)
    for item in shape.objects(result, "Secrets", _WHERE, limit=MAX_ITEMS):
        yield _secret(item, path)
    for item in shape.objects(result, "Misconfigurations", _WHERE, limit=MAX_ITEMS):
        if item.get("Status") == "FAIL":
            yield _misconfiguration(item, path)


def _vulnerability(item: dict[str, Any], target: str | None) -> Finding:
    rule, package = _text(item, "VulnerabilityID"), _text(item, "PkgName")
    identifier = shape.optional(item, "PkgIdentifier", dict, _WHERE) or {}
    path = shape.optional(item, "PkgPath", str, _WHERE) or target
    return Finding(
        rule=rule,
        kind=Kind.VULNERABILITY,
        severity=_severity(item),
        message=shape.optional(item, "Title", str, _WHERE) or rule,
        fingerprint=_fingerprint(Kind.VULNERABILITY, rule, package, path or ""),
        location=Location(path) if path else None,
        package=package,
        installed=_text(item, "InstalledVersion"),
        purl=shape.optional(identifier, "PURL", str, _WHERE),
        fixed=shape.optional(item, "FixedVersion", str, _WHERE) or None,
        layer=_layer(item),
        url=shape.optional(item, "PrimaryURL", str, _WHERE),
    )


def _secret(item: dict[str, Any], path: str) -> Finding:
    rule, layer = _text(item, "RuleID"), _layer(item)
    line = shape.optional(item, "StartLine", int, _WHERE)
    severity = _severity(item)
    return Finding(
        rule=rule,
        kind=Kind.SECRET,
        severity=max(severity, Severity.HIGH),
        message=shape.optional(item, "Title", str, _WHERE) or rule,
        fingerprint=_fingerprint(Kind.SECRET, rule, path, str(line), layer or ""),
        location=Location(path, line or None),
        layer=layer,
    )


def _misconfiguration(item: dict[str, Any], path: str) -> Finding:
    rule = _text(item, "ID")
    cause = shape.optional(item, "CauseMetadata", dict, _WHERE) or {}
    line = shape.optional(cause, "StartLine", int, _WHERE) if path != IMAGE_CONFIG else None
    return Finding(
        rule=rule,
        kind=Kind.MISCONFIGURATION,
        severity=_severity(item),
        message=shape.optional(item, "Message", str, _WHERE) or _text(item, "Title"),
        fingerprint=_fingerprint(Kind.MISCONFIGURATION, rule, path, str(line)),
        location=Location(path, line or None),
        layer=_layer(item),
        url=shape.optional(item, "PrimaryURL", str, _WHERE),
    )


def _text(item: dict[str, Any], name: str) -> str:
    value: str = shape.member(item, name, str, _WHERE)
    return value


def _severity(item: dict[str, Any]) -> Severity:
    """What is missing or not known is UNKNOWN, which no gate lets pass (SCN-10)."""
    return _SEVERITIES.get(str(item.get("Severity")), Severity.UNKNOWN)


def _layer(item: dict[str, Any]) -> str | None:
    """The layer by its digest; by its diff id where the image is not compressed."""
    layer = shape.optional(item, "Layer", dict, _WHERE) or {}
    return (
        shape.optional(layer, "Digest", str, _WHERE)
        or shape.optional(layer, "DiffID", str, _WHERE)
        or None
    )


def _fingerprint(kind: Kind, *parts: str) -> str:
    return sha256_bytes(canonical_json([kind.value, *parts]))[:32]


def _without_secrets(document: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any]:
    """Trivy masks what it matched, not the lines beside it: neither is handed on."""
    cleaned = []
    for item in results:
        secrets = item.get("Secrets")
        if secrets:
            hidden = ("Match", "Code")
            kept = [{k: v for k, v in secret.items() if k not in hidden} for secret in secrets]
            item = {**item, "Secrets": kept}
        cleaned.append(item)
    metadata = dict(document["Metadata"])
    metadata.pop("ImageConfig", None)  # environment variables may hold a secret
    return {**document, "Metadata": metadata, "Results": cleaned}
