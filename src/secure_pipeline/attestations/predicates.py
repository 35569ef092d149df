"""Predicate types, and how each of them carries the run it belongs to (SIG-09)."""

from __future__ import annotations

from dataclasses import dataclass

NAMESPACE = "https://secure-pipeline.dev"

TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
PROVENANCE = "https://slsa.dev/provenance/v1"
VULNS = "https://in-toto.io/attestation/vulns/v0.2"
COSIGN_VULN = "https://cosign.sigstore.dev/attestation/vuln/v1"
CYCLONEDX = "https://cyclonedx.org/bom"
SPDX = "https://spdx.dev/Document"
VSA = "https://slsa.dev/verification_summary/v1"
SEAL = f"{NAMESPACE}/attestation/seal/v1"


@dataclass(frozen=True)
class RunContext:
    """What all statements of one run have in common, and what a verifier compares."""

    run_id: str
    commit: str | None
    """Source commit, hex; None outside git."""
    tree: str
    """``sha256:…`` of the working tree's content."""
    uncommitted: bool
    builder_id: str
