"""What a release needs, in the form that admission controllers can be told.

A controller sees one image and what is signed beside it. What it cannot see is kept as sentences,
which stand in every file: an enforced part of a policy must not be taken for the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from secure_pipeline.attestations import predicates
from secure_pipeline.errors import ConfigError, UsageError
from secure_pipeline.policy.document import LoadedPolicy, Policy, Requirement, TrustedIdentity
from secure_pipeline.policy.trust import TrustedSigner, trusted_identities, trusted_signers

_SHORT = {
    predicates.TEST_RESULT: "test-result",
    predicates.PROVENANCE: "provenance",
    predicates.VULNS: "vulns",
    predicates.COSIGN_VULN: "cosign-vuln",
    predicates.CYCLONEDX: "cyclonedx",
    predicates.SPDX: "spdx",
    predicates.SEAL: "seal",
}
_PLAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_ESCAPE = r"\\[!-/:-@\[-`{-~]"
_LITERAL = rf"[A-Za-z0-9 /:@_%~#=,;&!<>'\"-]|{_ESCAPE}|\\[dw]"
_CLASS = rf"\[\^?(?:[A-Za-z0-9 /:@_%~#=,;.+*?()|$-]|{_ESCAPE})+\]"
_REPEATED = r"(?:[*+?]|\{[0-9]{1,3}(?:,[0-9]{0,3})?\})\??"
_PORTABLE = re.compile(
    rf"(?:(?:{_LITERAL}|{_CLASS}|\.|\))(?:{_REPEATED})?|\((?:\?:|(?!\?))|\||\^|\$)+"
)
"""What Python and RE2, which controllers use, read alike."""


@dataclass(frozen=True)
class Signer:
    """A key or an identity that may sign."""

    id: str
    pem: str | None
    """Public key; None for an identity."""
    sha384: bool = False
    identity: TrustedIdentity | None = None


@dataclass(frozen=True)
class Rule:
    """One predicate type that has to be there, by one or several of some signers."""

    name: str
    """For names of objects: lower-case letters, digits and hyphens."""
    predicate: str
    test: str | None
    """For test results: configuration[0].name."""
    signers: tuple[Signer, ...]
    quorum: int


@dataclass(frozen=True)
class Release:
    """A policy as controllers can be told it."""

    source: str
    """Name and digest of the policy file."""
    images: tuple[str, ...]
    prefix: str
    """What names of objects begin with."""
    rules: tuple[Rule, ...]
    builders: tuple[str, ...]
    own_trust_root: bool
    untold: tuple[str, ...]
    """What no controller enforces, one sentence each."""


def release(loaded: LoadedPolicy, images: Sequence[str], prefix: str) -> Release:
    """Translate a policy for some image patterns.

    Raises: UsageError for a prefix that is no name; ConfigError if the policy lets nothing pass,
    or names identities by a pattern that controllers would read in another way.
    """
    policy = loaded.policy
    if not _PLAIN.fullmatch(prefix):
        raise UsageError(f"{prefix[:80]!r} is no plain name", hint="--prefix secure-pipeline")
    signers = _signers(loaded)
    for missing, what in ((not signers, "keys"), (not policy.require, "require")):
        if missing:
            raise ConfigError(
                f"{what} is empty, so that no image could pass",
                where=str(loaded.source),
                hint="copy the built-in policy and add your keys: docs/reference/policy.md",
            )
    if not policy.builders:
        raise ConfigError("builders is empty, which refuses every image", where=str(loaded.source))
    rules = tuple(
        Rule(name, item.predicate, item.name, _who(signers, item.keys), item.quorum)
        for name, item in _named(_required(policy))
    )
    return Release(
        source=f"{loaded.source.name} ({loaded.digest})",
        images=tuple(images),
        prefix=prefix,
        rules=rules,
        builders=policy.builders,
        own_trust_root=policy.trust_root is not None,
        untold=tuple(_untold(policy)),
    )


def exactly(text: str) -> str:
    """A regular expression of RE2 that matches one text and no other."""
    return "^" + re.sub(r"([.+*?()|{}^$\[\]\\])", r"\\\1", text) + "$"


def whole(pattern: str) -> str:
    """A pattern of the policy, which must match wholly, for readers that search."""
    return f"^(?:{pattern})$"


def _signers(loaded: LoadedPolicy) -> tuple[Signer, ...]:
    keys = [_key(item) for item in trusted_signers(loaded)]
    identities = [_identity(known.entry, loaded) for known in trusted_identities(loaded)]
    return (*keys, *identities)


def _key(item: TrustedSigner) -> Signer:
    sha384 = item.key.algorithm.value.endswith("sha384")
    return Signer(item.id, item.key.pem.decode(), sha384)


def _identity(entry: TrustedIdentity, loaded: LoadedPolicy) -> Signer:
    pattern = entry.identity_pattern
    if pattern is not None and not _PORTABLE.fullmatch(pattern):
        raise ConfigError(
            f"identity-pattern of {entry.id!r} cannot be said in RE2, which controllers use",
            where=str(loaded.source),
            hint="use letters, digits, [classes], groups, |, . and * + ? {n,m} without extensions",
        )
    return Signer(entry.id, None, identity=entry)


def _who(signers: tuple[Signer, ...], ids: tuple[str, ...] | None) -> tuple[Signer, ...]:
    return tuple(item for item in signers if ids is None or item.id in ids)


def _required(policy: Policy) -> tuple[Requirement, ...]:
    """What is required, and the seal, which is required elsewhere in the policy."""
    if not policy.seal.required or any(r.predicate == predicates.SEAL for r in policy.require):
        return policy.require
    return (*policy.require, Requirement(predicates.SEAL, keys=policy.seal.keys))


def _named(required: Iterable[Requirement]) -> Iterable[tuple[str, Requirement]]:
    seen: set[str] = set()
    for number, item in enumerate(required, start=1):
        name = _SHORT.get(item.predicate, f"predicate-{number}")
        if item.name is not None:
            name += f"-{item.name if _PLAIN.fullmatch(item.name) else number}"
        if name in seen:
            name += f"-{number}"
        seen.add(name)
        yield name, item


def _untold(policy: Policy) -> Iterable[str]:
    yield "one run: evidence of different runs, commits and trees of one image may be mixed"
    if policy.seal.required:
        yield "seal: that one is there is asked, not that it lists the evidence beside it"
    yield "quarantine: a quarantined image is admitted; list it where images are chosen"
    for key in policy.keys:
        if key.not_before or key.not_after:
            window = f"{key.not_before or 'ever'} to {key.not_after or 'ever'}"
            yield f"key {key.id}: trusted from {window}; take it out when that is over"
    for item in policy.require:
        if item.max_age:
            days = item.max_age.total_seconds() / 86400
            yield f"max-age of {item.title}: {days:g} days; evidence of any age is admitted"
    if policy.seal.max_age:
        yield "max-age of the seal: a seal of any age is admitted"
    yield "gates: findings, coverage, rules of builds and exceptions are not evaluated again"
    yield "source: whether a commit was built, and nothing beside it, is not asked"
