"""Admission controllers: Sigstore's policy-controller, and Kyverno in its three ways.

policy-controller 0.13.0 (with cosign 2.5's library): an authority with a key reads the ``.att``
tag only; ``signatureFormat: bundle`` needs a keyless authority (pkg/webhook/validator.go
``checkOptsFromAuthority``, ``ValidatePolicyAttestationsForAuthority``).

Kyverno 1.15.2 (with cosign 2.4's library):

* ``verifyImages`` with ``type: Cosign`` reads the ``.att`` tag with a key (pkg/cosign/cosign.go
  ``FetchAttestations``);
* ``type: SigstoreBundle`` verifies a certificate's identity and nothing else, and looks at no
  image with more than 50 referrers (pkg/cosign/sigstore.go ``buildPolicy``, ``fetchBundles``);
* an ``ImageValidatingPolicy`` reads the ``.att`` tag and refuses attestations without an entry in
  a transparency log, whatever ``insecureIgnoreTlog`` says (pkg/imageverification/
  imageverifiers/cosign/verifier.go ``VerifyAttestationSignature``).

Other versions may differ. tests/integration/test_interop.py holds the rules of policy-controller
against its own tester; Kyverno was not run.
"""

from __future__ import annotations

from secure_pipeline.interop.judging import (
    MAX_LAYERS,
    Judge,
    all_types,
    att_pieces,
    bundle_pieces,
    digest_needs,
    findings,
    nowhere,
)
from secure_pipeline.interop.model import Answer, Finding, Verdict
from secure_pipeline.interop.pieces import Check, Piece, of_referrer, signed_for
from secure_pipeline.interop.sight import BUNDLE_PREFIX, Sight
from secure_pipeline.keys.verify import PublicKey

POLICY_CONTROLLER = "policy-controller 0.13.0"
KYVERNO = "Kyverno 1.15.2"
MAX_REFERRERS = 50
MAX_BUNDLE_BYTES = 10_000_000
_ATTACH = "attach it in the older form too: secure-pipeline sign"


def policy_controller(sight: Sight, key: PublicKey | None) -> Verdict:
    """A ClusterImagePolicy whose authority has a key and lists attestations."""
    needs = ("no ctlog in the authority", *digest_needs(key, "key.hashAlgorithm: sha384"))
    found = _from_att(sight, key, lambda piece: signed_for(piece, sight.image.digest, key))
    return Verdict("policy-controller", POLICY_CONTROLLER, found, needs)


def kyverno_cosign(sight: Sight, key: PublicKey | None) -> Verdict:
    """``verifyImages`` of ``type: Cosign`` with a key."""
    needs = (
        *("rekor.ignoreTlog: true", "ctlog.ignoreSCT: true"),
        *digest_needs(key, "signatureAlgorithm: sha384"),
    )
    found = _from_att(sight, key, lambda piece: signed_for(piece, sight.image.digest, key))
    return Verdict("kyverno", f"{KYVERNO} verifyImages, type Cosign", found, needs)


def kyverno_ivp(sight: Sight, key: PublicKey | None) -> Verdict:
    """An ImageValidatingPolicy with a cosign attestor."""

    def judge(piece: Piece) -> Check:
        first = signed_for(piece, sight.image.digest, key)
        if first.answer is not Answer.YES:
            return first
        if not piece.logged:
            why = "has no entry of a transparency log, without which it is refused"
            return Check(Answer.NO, why, "use verifyImages with type Cosign")
        return Check(Answer.UNKNOWN, "its log entry is not checked here")

    needs = digest_needs(key, "key.hashAlgorithm: sha384")
    title = f"{KYVERNO} ImageValidatingPolicy"
    return Verdict("kyverno-ivp", title, _from_att(sight, key, judge), needs)


def kyverno_bundle(sight: Sight, key: PublicKey | None) -> Verdict:
    """``verifyImages`` of ``type: SigstoreBundle``."""
    types = all_types(sight, key)
    title = f"{KYVERNO} verifyImages, type SigstoreBundle"
    if len(sight.seen) > MAX_REFERRERS:
        why = f"{len(sight.seen)} referrers; it looks at no image with more than {MAX_REFERRERS}"
        hint = "remove referrers that are no longer needed"
        return Verdict("kyverno-bundle", title, nowhere(types, Check(Answer.NO, why, hint)))
    if any(item.layer and len(item.layer) > MAX_BUNDLE_BYTES for item in sight.seen):
        why = f"a bundle of more than {MAX_BUNDLE_BYTES} bytes makes it refuse them all"
        found = nowhere(types, Check(Answer.NO, why, "use type Cosign"))
    else:
        found = from_listed(sight, key, _keyless_only)
    return Verdict("kyverno-bundle", title, found)


def from_listed(sight: Sight, key: PublicKey | None, judge: Judge) -> tuple[Finding, ...]:
    """Judge bundles by the artifact type that the list itself tells: also gh's way.

    One of them that cannot be read ends it.
    """
    types = all_types(sight, key)
    listed = (item for item in sight.seen if _is_listed(item.listed.artifact_type))
    pieces = tuple(filter(None, (of_referrer(item, key) for item in listed)))
    if bad := [piece for piece in pieces if piece.ignored]:
        why = f"one bundle makes it refuse them all: {bad[0].ignored}"
        return nowhere(types, Check(Answer.NO, why, "remove that referrer"))
    others = bundle_pieces(sight, key)
    return findings(types, pieces, judge, lambda kind: _not_listed(kind, others))


def _not_listed(kind: str, seen: tuple[Piece, ...]) -> Check:
    for piece in seen:
        if piece.predicate_type == kind:
            why = f"the registry lists its bundle as {piece.listed or 'nothing'!r}"
            return Check(Answer.NO, why, "use a registry that tells a referrer's artifact type")
    return Check(Answer.NO, "no referrer of it is listed as a bundle", "copy the image again")


def _is_listed(artifact_type: str | None) -> bool:
    return (artifact_type or "").startswith(BUNDLE_PREFIX)


def _keyless_only(piece: Piece) -> Check:
    if piece.keyless:
        why = "its certificate's identity and log entry are not checked here"
        return Check(Answer.UNKNOWN, why, "try the reader itself")
    why = "is signed with a key, and only certificates with an identity are accepted"
    return Check(Answer.NO, why, "use type Cosign, or sign keyless")


def _from_att(sight: Sight, key: PublicKey | None, judge: Judge) -> tuple[Finding, ...]:
    types = all_types(sight, key)
    layers = att_pieces(sight)
    if len(layers) > MAX_LAYERS:
        why = f"the .att tag has {len(layers)} layers; {MAX_LAYERS} are read at most"
        return nowhere(types, Check(Answer.NO, why, "start a new image"))
    missing = Check(Answer.NO, "not under the .att tag, where alone it looks", _ATTACH)
    return findings(types, layers, judge, lambda kind: missing)
