"""GitHub's ``gh attestation verify oci://… --bundle-from-oci``, version 2.83.0.

It lists referrers as cosign does, by the artifact type that the list tells, fails as a whole if
one bundle cannot be read, filters by ``--predicate-type`` (SLSA provenance v1 by default) and
verifies certificates only: a bundle with a bare key ends with "leaf cert not found"
(pkg/cmd/attestation/artifact/oci/client.go ``GetAttestations``, api/attestation.go
``FilterAttestations``, verification/sigstore.go ``getBundleIssuer``). It was not run.
"""

from __future__ import annotations

from secure_pipeline.interop.admission import from_listed
from secure_pipeline.interop.model import Answer, Verdict
from secure_pipeline.interop.pieces import Check, Piece
from secure_pipeline.interop.sight import Sight
from secure_pipeline.keys.verify import PublicKey

GH = "gh 2.83.0"


def gh(sight: Sight, key: PublicKey | None) -> Verdict:
    """``gh attestation verify`` of an image in a registry."""
    found = from_listed(sight, key, _judge)
    needs = ("--bundle-from-oci", "--predicate-type TYPE", "--owner or --repo")
    return Verdict("gh", GH, found, needs)


def _judge(piece: Piece) -> Check:
    if piece.keyless:
        why = "its certificate's issuer and workflow are not checked here"
        return Check(Answer.UNKNOWN, why, "try the reader itself")
    why = "is signed with a key, and only certificates of GitHub workflows are accepted"
    return Check(Answer.NO, why, "sign keyless in a workflow, or use another reader")
