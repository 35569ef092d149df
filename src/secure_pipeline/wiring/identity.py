"""What signs without a key, as the identity that this process can prove to have.

The library behind it is loaded only where somebody signs so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.errors import PolicyDenied, UsageError
from secure_pipeline.files import read_bounded
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.policy.trust import trust_root, trusted_identities
from secure_pipeline.ports import KeylessSigner
from secure_pipeline.wiring.options import World
from secure_pipeline.wiring.stores import proxies_of
from secure_pipeline.wiring.vault import github_job, read_secret

TOKEN = "SECURE_PIPELINE_IDENTITY_TOKEN"
TOKEN_FILE = f"{TOKEN}_FILE"
CA = "SECURE_PIPELINE_SIGSTORE_CA"
AUDIENCE = "sigstore"
_TOKEN_SECONDS = 30.0


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

    named, value = environment.get(TOKEN_FILE), environment.get(TOKEN)
    job = github_job(environment)
    if named:
        return lambda: read_secret(directory / named, "identity token")
    if value:
        return lambda: check_text(value, "identity token", TOKEN)
    if job:
        return lambda: github_token(job, AUDIENCE, SystemClock(), _TOKEN_SECONDS)
    raise UsageError(
        "nothing here says who signs: there is no identity token",
        hint=f"set {TOKEN_FILE} to a file with a token for the audience '{AUDIENCE}'; on GitHub"
        " give the job 'permissions: id-token: write'",
    )
