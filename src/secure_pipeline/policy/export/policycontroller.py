"""ClusterImagePolicies for Sigstore's policy-controller (policy.sigstore.dev/v1beta1).

All policies that match an image must pass, and of a policy one authority: so every required type
is a policy, and everyone who may sign it an authority. Several keys in one authority would all
have to sign. Source: policy-controller 0.13.0, pkg/webhook/validator.go (``ValidatePolicy``,
``ValidatePolicyAttestationsForAuthority``) and pkg/apis/policy/v1beta1.
"""

from __future__ import annotations

import json
import re
from typing import Any

from secure_pipeline.attestations import predicates
from secure_pipeline.errors import UsageError
from secure_pipeline.policy.export.release import Release, Rule, Signer, whole
from secure_pipeline.policy.export.text import documents

FILE = "cluster-image-policies.yaml"
_GLOB = re.compile(r"[a-zA-Z0-9_:/*.@-]{1,500}")
_FULCIO = "https://fulcio.sigstore.dev"
_REKOR = "https://rekor.sigstore.dev"
_HEAD = (
    "What has to be signed beside an image, for Sigstore's policy-controller 0.13.",
    "Written by 'secure-pipeline policy export policy-controller' from {source}.",
    "It reads the .att tag for keys, and bundles for identities.",
    "Namespaces take part by the label policy.sigstore.dev/include=true.",
)

_FAILURES = "failures: a failed statement beside a good one of the same type is not seen"


def files(wanted: Release) -> dict[str, str]:
    """The one file. Raises: UsageError for an image pattern that is no glob of the controller."""
    for image in wanted.images:
        if not _GLOB.fullmatch(image):
            raise UsageError(
                f"{image[:80]!r} is no glob of policy-controller",
                hint="--image 'registry.example/team/**'",
            )
    comment = [line.format(source=wanted.source) for line in _HEAD]
    comment += ["It does not enforce:", *(f"- {line}" for line in (*wanted.untold, _FAILURES))]
    if wanted.own_trust_root:
        comment.append(
            f"Make the policy's trust-root a TrustRoot named {wanted.prefix}; without it no"
            " identity is accepted."
        )
    return {FILE: documents(comment, [_policy(wanted, rule) for rule in wanted.rules])}


def _policy(wanted: Release, rule: Rule) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "mode": "enforce",
        "images": [{"glob": image} for image in wanted.images],
        "authorities": [_authority(wanted, rule, who) for who in rule.signers],
    }
    if rule.quorum > 1:
        matches = f"count(input.authorityMatches) >= {rule.quorum}"
        spec["policy"] = {"type": "rego", "data": _rego(matches)}
    return {
        "apiVersion": "policy.sigstore.dev/v1beta1",
        "kind": "ClusterImagePolicy",
        "metadata": {"name": f"{wanted.prefix}-{rule.name}"},
        "spec": spec,
    }


def _authority(wanted: Release, rule: Rule, who: Signer) -> dict[str, Any]:
    attestation: dict[str, Any] = {"name": rule.name, "predicateType": rule.predicate}
    conditions = _conditions(wanted, rule)
    if conditions:
        attestation["policy"] = {"type": "rego", "data": _rego(*conditions)}
    return {
        "name": who.id,
        **(_keyless(wanted, who) if who.identity else _key(who)),
        "attestations": [attestation],
    }


def _conditions(wanted: Release, rule: Rule) -> list[str]:
    """What can be seen in the statement itself."""
    lines = []
    if rule.predicate == predicates.TEST_RESULT:
        lines.append('input.predicate.result == "PASSED"')
        if rule.test is not None:
            lines.append(f"input.predicate.configuration[0].name == {json.dumps(rule.test)}")
    if rule.predicate == predicates.PROVENANCE:
        builders = ", ".join(json.dumps(builder) for builder in wanted.builders)
        lines.append(f"{{{builders}}}[input.predicate.runDetails.builder.id]")
    return lines


def _rego(*conditions: str) -> str:
    body = "".join(f"  {line}\n" for line in conditions)
    return f"package sigstore\n\ndefault isCompliant = false\n\nisCompliant {{\n{body}}}\n"


def _key(who: Signer) -> dict[str, Any]:
    return {"key": {"data": who.pem, **({"hashAlgorithm": "sha384"} if who.sha384 else {})}}


def _keyless(wanted: Release, who: Signer) -> dict[str, Any]:
    assert who.identity is not None
    entry = who.identity
    subject = (
        {"subject": entry.identity}
        if entry.identity_pattern is None
        else {"subjectRegExp": whole(entry.identity_pattern)}
    )
    root = {"trustRootRef": wanted.prefix} if wanted.own_trust_root else {}
    return {
        "keyless": {
            "url": _FULCIO,
            **root,
            "identities": [{"issuer": entry.issuer, **subject}],
        },
        "ctlog": root or {"url": _REKOR},
        "signatureFormat": "bundle",
    }
