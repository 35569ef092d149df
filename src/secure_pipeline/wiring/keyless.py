"""What checks signatures of identities; its library is loaded only where somebody names one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.errors import UsageError
from secure_pipeline.files import read_bounded
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.policy.trust import MAX_TRUST_ROOT_BYTES, OperatorIdentity, trust_root
from secure_pipeline.ports import IdentityVerifier


@dataclass(frozen=True)
class Trust:
    """Who may sign without a key besides the policy's identities, as typed."""

    identity: OperatorIdentity | None = None
    root: Path | None = None
    """A trusted_root.json that stands for the policy's."""

    def verifier(self, policy: LoadedPolicy) -> IdentityVerifier | None:
        """What checks identities. Raises: like ``identity_verifier``."""
        return identity_verifier(policy, self.identity, self.root)


def operator_identity(identity: str | None, issuer: str | None) -> OperatorIdentity | None:
    """Return the identity given on the command line; None if there is none.

    Raises: UsageError for one half of it: without its issuer a name means nothing.
    """
    if identity is None and issuer is None:
        return None
    if not identity or not issuer:
        raise UsageError(
            "an identity and its issuer are needed together, and neither may be empty",
            hint="--certificate-identity NAME --certificate-oidc-issuer https://ISSUER",
        )
    return OperatorIdentity(identity, issuer)


def identity_verifier(
    policy: LoadedPolicy, operator: OperatorIdentity | None = None, root: Path | None = None
) -> IdentityVerifier | None:
    """Return what checks the identities of a policy and the operator's; None if there are none.

    The trust root is ``root`` (of the operator), else the policy's, else the built-in one of the
    public instance; never one that is fetched (SIG-23).
    Raises: ConfigError for a trust root that cannot be used or is expired (SIG-24).
    """
    if not policy.policy.identities and operator is None:
        return None
    from secure_pipeline.adapters.sigstore import PRODUCTION, SigstoreVerifier

    now = SystemClock().now()
    if root is not None:
        return SigstoreVerifier(read_bounded(root, MAX_TRUST_ROOT_BYTES), str(root), now)
    data, where = trust_root(policy) or (None, PRODUCTION)
    return SigstoreVerifier(data, where, now)
