"""A small image, the results of a run about it, and what signs them."""

from __future__ import annotations

import io
import json
import tarfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from secure_pipeline.attestations import predicates
from secure_pipeline.attestations.predicates import RunContext
from secure_pipeline.keys.local import LocalSigner
from secure_pipeline.keys.verify import PublicKey
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import CONFIG_TYPE, MANIFEST_TYPE, Descriptor, Platform
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.document import Algorithm
from secure_pipeline.stages.result import Evidence, StageResult, Verdict
from secure_pipeline.stages.sign import SignInputs

NAME = "inference-service"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


class StepClock:
    """A clock that moves one second whenever it is asked."""

    def __init__(self, start: datetime = NOON) -> None:
        self._now = start

    def now(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now

    def monotonic(self) -> float:
        return self.now().timestamp()


@cache
def signer(number: int = 0) -> LocalSigner:
    """A P-256 key; another one for each number."""
    return LocalSigner(ec.generate_private_key(ec.SECP256R1()), Algorithm.ECDSA_P256_SHA256)


def public_key(of: LocalSigner | None = None) -> PublicKey:
    """The public half of a signer, bound to its algorithm."""
    chosen = of or signer()
    return PublicKey("release", Algorithm(chosen.algorithm), chosen.public_key_der)


def run_context(run_id: str = "run-1", **changes: Any) -> RunContext:
    """The context of a run at a git commit."""
    values: dict[str, Any] = {
        "commit": "c" * 40,
        "tree": "sha256:" + "7" * 64,
        "uncommitted": False,
        "builder_id": f"{predicates.NAMESPACE}/builders/local/v1",
    }
    return RunContext(run_id=run_id, **(values | changes))


def make_image(path: Path, content: bytes = b"hello\n") -> Descriptor:
    """Put an image of one layer with one file into the layout at ``path``, and list it."""
    layout = Layout.create(path)
    layer = layout.write_blob(_tar("greeting", content), LAYER_TYPE)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [str(layer.digest)]},
    }
    described = layout.write_blob(json.dumps(config).encode(), CONFIG_TYPE)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": described.to_json(),
        "layers": [layer.to_json()],
    }
    image = layout.write_blob(json.dumps(manifest).encode(), MANIFEST_TYPE)
    listed = Descriptor(
        image.media_type, image.digest, image.size, platform=Platform("linux", "amd64")
    )
    layout.replace("latest", listed)
    return image


def _tar(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def evidence() -> dict[str, Evidence]:
    """One piece of evidence of each type that the stages write, by predicate type."""
    scanned = {"scanStartedOn": "2026-03-01T11:50:00Z", "scanFinishedOn": "2026-03-01T11:51:00Z"}
    values: dict[str, dict[str, Any]] = {
        predicates.TEST_RESULT: {
            "result": "PASSED",
            "configuration": [{"name": "unit", "digest": {"sha256": "a" * 64}}],
            "passedTests": ["tests/test_api.py::test_answers"],
        },
        predicates.PROVENANCE: {
            "buildDefinition": {
                "buildType": f"{predicates.NAMESPACE}/build/dockerfile/v1",
                "externalParameters": {"dockerfile": "Dockerfile", "target": None},
                "resolvedDependencies": [
                    {"name": "base", "uri": "debian", "digest": {"sha256": "b" * 64}}
                ],
            },
            "runDetails": {"builder": {"id": "unset"}, "byproducts": []},
        },
        predicates.VULNS: {
            "scanner": {
                "uri": "pkg:golang/github.com/aquasecurity/trivy@0.72.0",
                "version": "0.72.0",
                "db": {"lastUpdate": "2026-03-01T06:00:00Z"},
                "result": [
                    {"id": "CVE-2024-0001", "severity": [{"method": "nvd", "score": "5.0"}]}
                ],
            },
            "metadata": dict(scanned),
        },
        predicates.COSIGN_VULN: {
            "invocation": {"parameters": ["--offline-scan"], "uri": "", "event_id": ""},
            "scanner": {
                "uri": "pkg:golang/github.com/aquasecurity/trivy@0.72.0",
                "version": "0.72.0",
                "db": {"uri": "", "version": "2", "lastUpdate": "2026-03-01T06:00:00Z"},
                "result": {"Results": []},
            },
            "metadata": dict(scanned),
        },
        predicates.CYCLONEDX: {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"timestamp": "2026-03-01T11:51:00Z", "properties": []},
            "components": [],
        },
        predicates.SPDX: {
            "spdxVersion": "SPDX-2.3",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": NAME,
            "dataLicense": "CC0-1.0",
            "documentNamespace": "https://example.invalid/spdx/1",
            "creationInfo": {"created": "2026-03-01T11:51:00Z", "creators": ["Tool: trivy"]},
            "packages": [],
        },
    }
    return {kind: Evidence(kind, value) for kind, value in values.items()}


def stage_results(digest: str) -> tuple[StageResult, ...]:
    """PASS results of analyze, test, build and scan about one image."""
    made = evidence()
    analysis = Evidence(
        predicates.TEST_RESULT, {"result": "PASSED", "configuration": [{"name": "analyze"}]}
    )
    scans = [predicates.VULNS, predicates.COSIGN_VULN, predicates.CYCLONEDX, predicates.SPDX]
    parts: dict[str, tuple[tuple[Evidence, ...], dict[str, Any]]] = {
        "analyze": ((analysis,), {}),
        "test": ((made[predicates.TEST_RESULT],), {}),
        "build": ((made[predicates.PROVENANCE],), {"digest": digest}),
        "scan": (tuple(made[kind] for kind in scans), {"digest": digest}),
    }
    return tuple(
        StageResult(
            stage=stage,
            verdict=Verdict.PASS,
            summary="passed",
            started=NOON - timedelta(minutes=10),
            finished=NOON - timedelta(minutes=9),
            seconds=60.0,
            evidence=items,
            figures=figures,
        )
        for stage, (items, figures) in parts.items()
    )


def sign_inputs(path: Path, image: Descriptor, run_id: str = "run-1") -> SignInputs:
    """Everything that sign needs about an image in the layout at ``path``."""
    return SignInputs(
        layout=path,
        image=ImageReference(NAME, image.digest),
        context=run_context(run_id),
        results=stage_results(str(image.digest)),
        required=(predicates.PROVENANCE, predicates.TEST_RESULT, predicates.VULNS),
    )
