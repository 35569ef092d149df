"""A scanner that tells what it is told, about the image that it really reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from secure_pipeline.events import OnEvent
from secure_pipeline.findings import Finding, Kind, Location, Severity
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.history import image_layers
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import parse_manifest
from secure_pipeline.ports import Clock, Database, ScanReport, ScanRequest, ToolIdentity

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DATABASE = Database(
    digest="sha256:" + "d" * 64,
    version=2,
    updated=datetime(2026, 3, 1, 6, tzinfo=UTC),
    source="registry.example/trivy-db:2",
    demonstration=False,
    metadata_digest="sha256:" + "e" * 64,
)


def vulnerability(rule: str = "CVE-2024-0001", **changes: Any) -> Finding:
    """A vulnerability with a fix in one package."""
    package = changes.pop("package", "openssl")
    finding = Finding(
        rule=rule,
        kind=Kind.VULNERABILITY,
        severity=Severity.HIGH,
        message="something is wrong",
        fingerprint=f"{rule}-{package}",
        package=package,
        installed="3.0.9-1",
        purl=f"pkg:deb/debian/{package}@3.0.9-1?arch=amd64&distro=debian-12.5",
        fixed="3.0.18-1",
    )
    return replace(finding, **changes)


def secret(path: str = "app/.env", **changes: Any) -> Finding:
    """A secret in a file."""
    finding = Finding(
        rule="aws-access-key-id",
        kind=Kind.SECRET,
        severity=Severity.CRITICAL,
        message="AWS Access Key ID",
        fingerprint=f"secret-{path}",
        location=Location(path, 1),
    )
    return replace(finding, **changes)


@dataclass(frozen=True)
class FakeScanner:
    """Answers every request with the same report but for the image's identity."""

    findings: tuple[Finding, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    clock: Clock | None = None
    edit: Callable[[ScanReport], ScanReport] = lambda report: report

    def scan(self, request: ScanRequest, on_event: OnEvent) -> ScanReport:
        """Check every byte of the image and report."""
        layout = Layout.open(request.layout)
        digest = Digest.parse(request.digest)
        manifest = parse_manifest(layout.read_blob(digest, 4 << 20), request.digest)
        config = layout.read_blob(manifest.config.digest, 8 << 20, manifest.config.size)
        for layer in image_layers(manifest, config, request.digest):
            layout.check_blob(layer.descriptor.digest, layer.descriptor.size)
        now = self.clock.now() if self.clock else NOON
        name = f"{request.name}@{request.digest}"
        report = ScanReport(
            tool=ToolIdentity("trivy", "0.72.0", "sha256:" + "a" * 64),
            database=DATABASE,
            artifact_digest=request.digest,
            os="debian 12.5",
            os_end_of_life=False,
            packages=2,
            findings=self.findings,
            started=now,
            finished=now,
            cyclonedx={
                "bomFormat": "CycloneDX",
                "metadata": {"component": {"name": name}},
                "components": [{"name": "openssl"}],
            },
            spdx={"spdxVersion": "SPDX-2.3", "name": name, "packages": []},
            raw=json.loads(json.dumps({"ArtifactName": name, "Results": []})),
        )
        return self.edit(replace(report, **self.changes))
