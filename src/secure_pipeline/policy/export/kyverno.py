"""A ClusterPolicy with ``verifyImages`` for Kyverno (kyverno.io/v1).

Every attestation listed must be there; of an attestation's signers so many as ``count`` says.
Conditions must hold for *every* statement of a type that a signer signed, so that two test results
cannot be told apart by name. Source: Kyverno 1.15.2, api/kyverno/v1/image_verification_types.go,
pkg/engine/internal/imageverifier.go (``verifyAttestations``), pkg/cosign/cosign.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from secure_pipeline.attestations import predicates
from secure_pipeline.errors import ConfigError, UsageError
from secure_pipeline.policy.export.release import Release, Signer, exactly, whole
from secure_pipeline.policy.export.text import documents

FILE = "cluster-policy.yaml"
TIMEOUT = 30
"""Seconds, the most that an admission webhook may take; then it fails."""
_REFERENCE = re.compile(r"[a-zA-Z0-9_:/*?.@-]{1,500}")
_REKOR = "https://rekor.sigstore.dev"
_HEAD = (
    "What has to be signed beside an image, for Kyverno 1.15 (verifyImages, type Cosign).",
    "Written by 'secure-pipeline policy export kyverno' from {source}.",
    "It reads the .att tag and no bundles.",
)


def files(wanted: Release) -> dict[str, str]:
    """The one file.

    Raises: UsageError for an image pattern that is none of Kyverno's; ConfigError if identities
    are trusted by a trust root of the policy's own, which this kind of policy cannot name.
    """
    for image in wanted.images:
        if not _REFERENCE.fullmatch(image):
            raise UsageError(
                f"{image[:80]!r} is no image reference of Kyverno",
                hint="--image 'registry.example/team/*'",
            )
    if wanted.own_trust_root and any(s.identity for rule in wanted.rules for s in rule.signers):
        raise ConfigError(
            "trust-root: Kyverno's verifyImages would trust the public Sigstore instance instead",
            hint="use policy-controller, or keys",
        )
    comment = [line.format(source=wanted.source) for line in _HEAD]
    comment += ["It does not enforce:", *(f"- {line}" for line in (*wanted.untold, *_more(wanted)))]
    return {FILE: documents(comment, [_policy(wanted)])}


def _more(wanted: Release) -> Iterable[str]:
    names = [rule.test for rule in wanted.rules if rule.test is not None]
    if names:
        yield (
            f"names of test results ({', '.join(names)}): that all of them passed is asked, not"
            " that each is there"
        )


def _policy(wanted: Release) -> dict[str, Any]:
    told = dict.fromkeys((item.predicate, item.signers, item.quorum) for item in wanted.rules)
    rule = {
        "name": "evidence",
        "match": {"any": [{"resources": {"kinds": ["Pod"]}}]},
        "verifyImages": [
            {
                "type": "Cosign",
                "imageReferences": list(wanted.images),
                "failureAction": "Enforce",
                "required": True,
                "mutateDigest": True,
                "verifyDigest": True,
                "attestations": [
                    _attestation(wanted, f"evidence-{number}", *item)
                    for number, item in enumerate(told, start=1)
                ],
            }
        ],
    }
    return {
        "apiVersion": "kyverno.io/v1",
        "kind": "ClusterPolicy",
        "metadata": {"name": wanted.prefix},
        "spec": {
            "background": False,
            "webhookConfiguration": {"failurePolicy": "Fail", "timeoutSeconds": TIMEOUT},
            "rules": [rule],
        },
    }


def _attestation(
    wanted: Release, name: str, predicate: str, signers: tuple[Signer, ...], quorum: int
) -> dict[str, Any]:
    entries = [_keyless(who) if who.identity else _key(who) for who in signers]
    conditions = _conditions(wanted, predicate)
    return {
        "name": name,
        "type": predicate,
        "attestors": [{"count": quorum, "entries": entries}],
        **({"conditions": [{"all": conditions}]} if conditions else {}),
    }


def _conditions(wanted: Release, predicate: str) -> list[dict[str, Any]]:
    if predicate == predicates.TEST_RESULT:
        return [{"key": "{{ result }}", "operator": "Equals", "value": "PASSED"}]
    if predicate == predicates.PROVENANCE:
        found = "{{ runDetails.builder.id }}"
        return [{"key": found, "operator": "AnyIn", "value": list(wanted.builders)}]
    return []


def _key(who: Signer) -> dict[str, Any]:
    return {
        "keys": {
            "publicKeys": who.pem,
            "signatureAlgorithm": "sha384" if who.sha384 else "sha256",
            "rekor": {"url": _REKOR, "ignoreTlog": True},
            "ctlog": {"ignoreSCT": True},
        }
    }


def _keyless(who: Signer) -> dict[str, Any]:
    """An exact identity too is a regular expression here: Kyverno reads * and ? in the other."""
    assert who.identity is not None
    entry = who.identity
    pattern = entry.identity_pattern
    return {
        "keyless": {
            "issuerRegExp": exactly(entry.issuer),
            "subjectRegExp": exactly(entry.identity or "") if pattern is None else whole(pattern),
            "rekor": {"url": _REKOR},
        }
    }
