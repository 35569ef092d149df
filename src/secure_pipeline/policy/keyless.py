"""Who signed without a key: certificates of identities that the policy names.

A certificate of another identity is no evidence, as an unknown key's signature is none. One that
claims a trusted identity and does not prove it refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secure_pipeline.attestations.attachments import Attachment
from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.keys.certificate import read_claim
from secure_pipeline.policy.decision import Rule, unsure, wrong
from secure_pipeline.policy.trust import KnownIdentity
from secure_pipeline.ports import Certified, IdentityVerifier

MAX_VERIFICATIONS = 500
"""Each takes some milliseconds, so the wall time stays near 10 s (SIG-15)."""


@dataclass(frozen=True)
class Keyless:
    """The identities that count, and what checks their signatures."""

    identities: tuple[KnownIdentity, ...] = ()
    verifier: IdentityVerifier | None = None

    def claimed(self, attachment: Attachment) -> KnownIdentity | None:
        """The trusted identity that an attachment claims, which proves nothing yet."""
        if attachment.certificate is None or not self.identities:
            return None
        try:
            claim = read_claim(attachment.certificate)
        except VerificationFailed:
            return None
        return self._known(claim.identity, claim.issuer)

    def certify(
        self, attachment: Attachment, where: str, claimed: KnownIdentity
    ) -> Certified | Rule:
        """Check everything about a claim; a rule says why it does not hold (SIG-16 to SIG-20)."""
        name = f"{where}: the certificate claims identity '{claimed.id}'"
        if self.verifier is None or attachment.bundle is None:
            return unsure("signature", f"{name}; nothing here can check it")
        try:
            certified = self.verifier.verify(attachment.bundle, attachment.envelope.payload)
        except VerificationFailed as error:
            return wrong("signature", f"{name} and does not prove it: {error.message}")
        except Inconclusive as error:
            return unsure("signature", f"{name}: {error.message}", hint=error.hint)
        if self._known(certified.identity, certified.issuer) is not claimed:
            return wrong("signature", f"{name} and is not its own")
        return certified

    def _known(self, identity: str, issuer: str) -> KnownIdentity | None:
        return next((k for k in self.identities if k.entry.matches(identity, issuer)), None)


def excess(claims: Sequence[KnownIdentity | None]) -> Rule | None:
    """Refuse to begin where too many claims would have to be checked."""
    count = sum(claim is not None for claim in claims)
    if count <= MAX_VERIFICATIONS:
        return None
    why = f"{count} certificates would have to be checked; the limit is {MAX_VERIFICATIONS}"
    return unsure("attachments", why)
