"""Identities instead of keys: what checks their signatures, and what signs as one.

The library behind both is loaded only where somebody names an identity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.errors import PolicyDenied, UsageError
from secure_pipeline.files import read_bounded
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.policy.trust import (
    MAX_TRUST_ROOT_BYTES,
    OperatorIdentity,
    trust_root,
    trusted_identities,
)
from secure_pipeline.ports import IdentityVerifier, KeylessSigner
from secure_pipeline.wiring.options import World
from secure_pipeline.wiring.stores import proxies_of
from secure_pipeline.wiring.vault import github_job

TOKEN = "SECURE_PIPELINE_IDENTITY_TOKEN"
TOKEN_FILE = f"{TOKEN}_FILE"
CA = "SECURE_PIPELINE_SIGSTORE_CA"
AUDIENCE = "sigstore"
_MAX_TOKEN_FILE = 64 << 10
_TOKEN_SECONDS = 30.0


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


def keyless_signer(ref: KeyRef, policy: LoadedPolicy, world: World) -> KeylessSigner:
    """What signs as the identity that this process has; nothing is asked for yet.

    What it signs is checked against the policy's trust root, else the one beside the services,
    else the built-in one. Raises: UsageError (no identity), ConfigError.
    """
    from secure_pipeline.adapters.http import Transport
    from secure_pipeline.adapters.sigstore import PRODUCTION, SigstoreVerifier
    from secure_pipeline.adapters.sigstoresigning import (
        LIMITS,
        MAX_CONFIG_BYTES,
        SigstoreSigner,
        read_services,
    )

    clock, environment = SystemClock(), world.environment
    token = identity_token(environment, world.directory)
    path = world.directory / ref.value if ref.value else None
    where = str(path) if path else PRODUCTION
    services = read_services(read_bounded(path, MAX_CONFIG_BYTES) if path else None, where)
    root, root_where = trust_root(policy) or (services.root, where)
    verifier = SigstoreVerifier(root, root_where, clock.now())
    ca = environment.get(CA)
    transport = Transport(
        clock,
        ca=world.directory / ca if ca else None,
        proxies=proxies_of(environment),
        limits=LIMITS,
    )
    return SigstoreSigner(services, verifier, token, transport, clock)


def known_signer(ref: KeyRef, policy: LoadedPolicy, world: World) -> KeylessSigner:
    """Like ``keyless_signer``, once the certificate is one whose signatures would count.

    Raises: PolicyDenied if the policy names signers and this identity is none; Unavailable.
    """
    signer = keyless_signer(ref, policy, world)
    identity, issuer = signer.identity
    rules = policy.policy
    known = any(one.entry.matches(identity, issuer) for one in trusted_identities(policy))
    if (rules.keys or rules.identities) and not known:
        raise PolicyDenied(
            f"the certificate names '{identity}' of {issuer}, none of the policy's identities",
            where=str(policy.source),
            hint="put it under 'identities' of the policy",
        )
    return signer


def identity_token(environment: Mapping[str, str], directory: Path) -> Callable[[], str]:
    """What gives the token that says who runs: a file, a variable, or GitHub's own for the job.

    Raises: UsageError if there is none of them.
    """
    from secure_pipeline.adapters.identitytoken import check_text, github_token

    named, value, job = (
        environment.get(TOKEN_FILE),
        environment.get(TOKEN),
        github_job(environment),
    )
    if named:
        path = directory / named

        def read() -> str:
            data = read_bounded(path, _MAX_TOKEN_FILE)
            return check_text(data.decode("ascii", "replace"), "identity token", str(path))

        return read
    if value:
        return lambda: check_text(value, "identity token", TOKEN)
    if job:
        return lambda: github_token(job, AUDIENCE, SystemClock(), _TOKEN_SECONDS)
    raise UsageError(
        "nothing here says who signs: there is no identity token",
        hint=f"set {TOKEN_FILE} to a file with a token for the audience '{AUDIENCE}'; on GitHub"
        " give the job 'permissions: id-token: write'",
    )
