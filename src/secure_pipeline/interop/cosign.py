"""cosign 2.6, cosign 3.0, and Conforma, which reads with cosign 3's library.

Rules of ``cosign verify-attestation --key``, each with the function it was read in:

* both look for bundles first: one page of the referrers API, or the fallback tag where there is
  no API (go-containerregistry pkg/v1/remote/referrers.go ``fetchReferrers``); whatever is no
  bundle is passed over (cosign pkg/cosign/verify.go ``GetBundles``);
* where there is one bundle of any kind, the ``.att`` tag is not read at all; else it is, and more
  than 1000 layers are refused (cmd/cosign/cli/verify/verify_attestation.go ``Exec``,
  pkg/oci/remote/signatures.go ``Get``);
* cosign 2 additionally wants a trusted root for bundles, from the network or by option, even
  where a key is given (v2 verify_attestation.go: "trusted root is required").

tests/integration/test_interop.py holds these rules against both programs.
"""

from __future__ import annotations

from collections.abc import Callable

from secure_pipeline.interop.judging import (
    MAX_LAYERS,
    all_types,
    att_pieces,
    bundle_pieces,
    digest_needs,
    findings,
    nowhere,
)
from secure_pipeline.interop.model import Answer, Finding, Verdict
from secure_pipeline.interop.pieces import Check, Piece, signed_for, strict
from secure_pipeline.interop.sight import Sight
from secure_pipeline.keys.verify import PublicKey

COSIGN_2 = "cosign 2.6.3"
COSIGN_3 = "cosign 3.0.6"
CONFORMA = "Conforma (ec), main branch of 2026 with cosign 3"
PROVENANCE = "https://slsa.dev/provenance/v1"
IGNORE_LOG = "--insecure-ignore-tlog"
_WHO = ("--certificate-identity NAME", "--certificate-oidc-issuer ISSUER")
_ATTACH = "attach it in both forms: secure-pipeline sign"


def cosign_3(sight: Sight, key: PublicKey | None) -> Verdict:
    """``cosign verify-attestation --key``, version 3."""
    proof = _proof(_taken(bundle_pieces(sight, key)))
    needs = (*proof, *digest_needs(key, "--signature-digest-algorithm=sha384"))
    return Verdict("cosign-3", COSIGN_3, _verify_attestation(sight, key, strict), needs)


def cosign_2(sight: Sight, key: PublicKey | None) -> Verdict:
    """``cosign verify-attestation --key``, the last version 2."""
    taken = _taken(bundle_pieces(sight, key))
    needs = [*_proof(taken), *digest_needs(key, "--signature-digest-algorithm=sha384")]
    if taken:
        needs.append("--trusted-root FILE, or the network")
    found = _verify_attestation(sight, key, _strict_in_bundles)
    return Verdict("cosign-2", COSIGN_2, found, tuple(needs))


def conforma(sight: Sight, key: PublicKey | None) -> Verdict:
    """``ec validate image --public-key``.

    Attestations as cosign 3 finds them; before that the image's own signature, for which any
    bundle that verifies counts, and else the tag ``sha256-….sig``. Its policy, and its schema
    of SLSA provenance, are not emulated (conforma/cli internal/evaluation_target/
    application_snapshot_image/application_snapshot_image.go ``ValidateImageSignature``,
    ``ValidateAttestationSignature``, ``ValidateAttestationSyntax``; the key: internal/policy/
    policy.go ``signatureVerifier``).
    """
    needs = ["--ignore-rekor"]
    found = _verify_attestation(sight, key, strict)
    if not _taken(bundle_pieces(sight, key)) and not sight.signed:
        needs.append("--skip-image-sig-check: there is no bundle and no .sig")
    if digest_needs(key, "sha384"):
        why = "it verifies with SHA-256 only, and this key signs SHA-384"
        hint = "sign with a P-256 key"
        found = nowhere(all_types(sight, key), Check(Answer.NO, why, hint))
    schema = "; its schema of provenance is not emulated"
    found = tuple(
        _unsure(item, item.why + schema) if item.predicate_type == PROVENANCE else item
        for item in found
    )
    return Verdict("conforma", CONFORMA, found, tuple(needs))


def _proof(bundles: tuple[Piece, ...]) -> tuple[str, ...]:
    """What a key's signatures lack is a log entry; what an identity's ask for is the identity."""
    return _WHO if bundles and all(piece.keyless for piece in bundles) else (IGNORE_LOG,)


def _unsure(finding: Finding, why: str) -> Finding:
    if finding.accepted is not Answer.YES:
        return finding
    hint = "run ec validate image with your policy"
    return Finding(finding.predicate_type, finding.found, Answer.UNKNOWN, why, hint)


def _strict_in_bundles(piece: Piece) -> Check | None:
    """The older form's statements are read with encoding/json by version 2, which is lenient."""
    return strict(piece) if piece.form == "bundle" else None


def _verify_attestation(
    sight: Sight, key: PublicKey | None, stricter: Callable[[Piece], Check | None]
) -> tuple[Finding, ...]:
    types = all_types(sight, key)
    referrers = bundle_pieces(sight, key)
    bundles = _taken(referrers)
    layers = att_pieces(sight)

    def judge(piece: Piece) -> Check:
        first = signed_for(piece, sight.image.digest, key)
        return (stricter(piece) or first) if first.answer is Answer.YES else first

    # (1) any bundle, of whatever type, and the .att tag is not read
    if bundles and not any(piece.certain for piece in bundles):
        why = "a referrer cannot be read here; if it is a bundle, the .att tag is not read"
        return _maybe(types, Check(Answer.UNKNOWN, why, "remove it, or try cosign"))
    if bundles:
        return findings(types, bundles, judge, lambda kind: _not_taken(kind, referrers, layers))
    # (2) else the .att tag, whole or not at all
    if len(layers) > MAX_LAYERS:
        why = f"the .att tag has {len(layers)} layers; {MAX_LAYERS} are read at most"
        return nowhere(types, Check(Answer.NO, why, "keep only bundles, or start a new image"))
    return findings(types, layers, judge, lambda kind: _not_taken(kind, referrers, ()))


def _maybe(types: tuple[str, ...], check: Check) -> tuple[Finding, ...]:
    return tuple(Finding(kind, check.answer, check.answer, check.why, check.hint) for kind in types)


def _taken(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    return tuple(piece for piece in pieces if not piece.ignored)


def _not_taken(kind: str, referrers: tuple[Piece, ...], layers: tuple[Piece, ...]) -> Check:
    for piece in referrers:
        if piece.predicate_type == kind and piece.ignored:
            return Check(Answer.NO, f"its bundle is passed over: {piece.ignored}", _ATTACH)
    if any(piece.predicate_type == kind for piece in layers):
        why = "only in the .att tag, which is not read where there is any bundle"
        return Check(Answer.NO, why, _ATTACH)
    why = "neither in the list of referrers that it reads nor in the .att tag"
    return Check(Answer.NO, why, "copy the image to this registry again")
