"""Vault as the operator's environment names it; hvac is loaded only where a key is in Vault."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.audit.log import FileLedger
from secure_pipeline.data import data_path
from secure_pipeline.errors import ConfigError, PolicyDenied, UsageError
from secure_pipeline.files import read_bounded
from secure_pipeline.keys import local
from secure_pipeline.keys.uri import KV, KeyRef
from secure_pipeline.policy import document
from secure_pipeline.policy.document import LoadedPolicy, SigningRule
from secure_pipeline.policy.rotation import check_ages
from secure_pipeline.policy.trust import trusted_signers
from secure_pipeline.wiring.auditing import ledger_path, open_ledger
from secure_pipeline.wiring.options import Options, World

if TYPE_CHECKING:
    from secure_pipeline.adapters.identitytoken import GithubJob
    from secure_pipeline.adapters.vault import TokenRule, VaultSession
    from secure_pipeline.adapters.vaultlogin import Login
    from secure_pipeline.adapters.vaultpending import PendingToken
    from secure_pipeline.adapters.vaultwire import VaultServer
    from secure_pipeline.keys.vault_kv import VaultKvSigner
    from secure_pipeline.keys.vault_transit import VaultTransitSigner
    from secure_pipeline.keys.verify import PublicKey

PREFIX = "SECURE_PIPELINE_VAULT_"
PENDING = "vault-tokens"
"""Directory in the state directory that notes tokens until they are revoked."""
_MAX_TOKEN_FILE = 64 << 10
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_TRUE, _FALSE = ("1", "true", "yes"), ("", "0", "false", "no")
_LOGINS = "approle, github, jwt, kubernetes or token"


def vault_session(
    world: World, state: Path, rule: SigningRule, *, stage: str, warn: Callable[[str], None],
    run: str | None = None, ledger: FileLedger | None = None,
) -> VaultSession:  # fmt: skip
    """A session that logs in when it is first used.

    Raises: UsageError, ConfigError (address, login, an unsafe variable).
    """
    from secure_pipeline.adapters.vault import VaultSession
    from secure_pipeline.adapters.vaultpending import PendingTokens

    return VaultSession(
        server(world.environment, world.directory),
        login(world.environment, world.directory),
        SystemClock(),
        PendingTokens(state / PENDING),
        rule=token_rule(rule),
        ledger=ledger,
        stage=stage,
        run=run,
        warn=warn,
    )


def vault_signer(
    session: VaultSession, ref: KeyRef, rule: SigningRule, environment: Mapping[str, str],
    pinned: tuple[bytes, ...] | None,
) -> VaultTransitSigner | VaultKvSigner:  # fmt: skip
    """The signer of a key in Vault, whatever its age.

    Raises: PolicyDenied where the policy forbids fetched keys.
    """
    from secure_pipeline.keys import vault_kv, vault_transit

    check_rule(ref, rule)
    if ref.scheme == KV:
        return vault_kv.fetch(session, ref, lambda: _password(environment), pinned)
    return vault_transit.VaultTransitSigner(session, ref, pinned)


def young_signer(
    session: VaultSession, ref: KeyRef, policy: LoadedPolicy, environment: Mapping[str, str]
) -> VaultTransitSigner | VaultKvSigner:
    """The signer of a key that the policy pins, once nothing that is used is too old.

    Raises: PolicyDenied (too old, not pinned), Inconclusive (age unknown); like ``vault_signer``.
    """
    rules, now = policy.policy, SystemClock().now
    check_ages(session.issued(), rules.rotation, now(), rules.clock_skew)
    signer = vault_signer(session, ref, rules.signing, environment, pinned_keys(policy))
    check_ages([signer.issued], rules.rotation, now(), rules.clock_skew)
    return signer


def pinned_keys(policy: LoadedPolicy) -> tuple[bytes, ...] | None:
    """DER of the keys that the policy names; None if it names none."""
    if not policy.policy.keys:
        return None
    return tuple(signer.key.der for signer in trusted_signers(policy))


def public_key(key: str, options: Options, world: World, warn: Callable[[str], None]) -> PublicKey:
    """Log in and export the public half of a key. Raises: like ``vault_signer``."""
    ref = KeyRef.parse(key)
    rule = _policy(options).policy.signing
    state = state_directory(options, world)
    ledger = open_ledger(ledger_path(options, world))
    opened = vault_session(world, state, rule, stage="keys show", warn=warn, ledger=ledger)
    with opened as session:
        signer = vault_signer(session, ref, rule, world.environment, None)
        return signer.public_key(str(ref))


def pending_tokens(options: Options, world: World) -> tuple[PendingToken, ...]:
    """What is noted and not revoked yet. Raises: ConfigError for a note that cannot be read."""
    from secure_pipeline.adapters.vaultpending import PendingTokens

    return PendingTokens(state_directory(options, world) / PENDING).all()


def revoke_pending(
    options: Options, world: World, warn: Callable[[str], None]
) -> Sequence[tuple[str, str]]:
    """Log in and revoke what earlier runs left. Raises: UsageError, ConfigError, Unavailable."""
    from secure_pipeline.adapters.vaultpending import PendingTokens

    state = state_directory(options, world)
    if not PendingTokens(state / PENDING).all():
        return ()
    rule = _policy(options).policy.signing
    ledger = open_ledger(ledger_path(options, world))
    stage = "vault revoke-pending"
    with vault_session(world, state, rule, stage=stage, warn=warn, ledger=ledger) as session:
        return tuple((token.accessor, ended) for token, ended in session.revoke_pending())


def _policy(options: Options) -> LoadedPolicy:
    return document.load(options.policy or data_path("policies") / "release.yaml")


def check_rule(ref: KeyRef, rule: SigningRule) -> None:
    """Check that the policy allows a key of this kind. Raises: PolicyDenied."""
    if ref.scheme == KV and not rule.allow_fetched_keys:
        raise PolicyDenied(
            "the policy allows no key that leaves Vault",
            where=str(ref),
            hint="use vault-transit://MOUNT/KEY, or set signing.allow-fetched-keys in the policy",
        )


def server(environment: Mapping[str, str], directory: Path) -> VaultServer:
    """Where Vault is: VAULT_ADDR, VAULT_CACERT, VAULT_NAMESPACE.

    Raises: UsageError, ConfigError.
    """
    from secure_pipeline.adapters.vaultwire import VaultServer

    if environment.get("VAULT_SKIP_VERIFY", "").lower() not in _FALSE:
        raise ConfigError(
            "VAULT_SKIP_VERIFY would hand the token to anybody who answers; it is not honoured",
            hint="unset it, and name the authority's file: VAULT_CACERT=ca.pem",
        )
    address = environment.get("VAULT_ADDR")
    if not address:
        raise UsageError("no Vault server is named", hint="set VAULT_ADDR=https://HOST:8200")
    ca = environment.get("VAULT_CACERT")
    peers = environment.get(f"{PREFIX}PEERS", "")
    return VaultServer(
        address.rstrip("/"),
        ca=directory / ca if ca else None,
        namespace=environment.get("VAULT_NAMESPACE", "").strip("/") or None,
        plain_http=environment.get(f"{PREFIX}PLAIN_HTTP", "").lower() in _TRUE,
        peers=tuple(peer.strip().rstrip("/") for peer in peers.split(",") if peer.strip()),
    )


def login(environment: Mapping[str, str], directory: Path) -> Login:
    """How to log in, as ``SECURE_PIPELINE_VAULT_LOGIN=METHOD[:MOUNT]`` and its companions say.

    Raises: UsageError, ConfigError (a file that holds no token).
    """
    from secure_pipeline.adapters import vaultlogin

    found = environment.get(f"{PREFIX}LOGIN") or _default_login(environment)
    method, _, named = found.partition(":")
    if method == "token":
        return vaultlogin.PersonToken(_person(environment, directory))
    if method == "approle":
        path = _needed(environment, "WRAPPED_SECRET_ID_FILE")
        return vaultlogin.AppRole(
            role=_needed(environment, "ROLE"),
            role_id=_needed(environment, "ROLE_ID"),
            wrapped=read_secret(directory / path, "wrapping token"),
            mount=named or "approle",
            creation_path=environment.get(f"{PREFIX}CREATION_PATH") or None,
        )
    if method == "github":
        return _github(environment, named or "jwt")
    if method == "kubernetes":
        path = environment.get(f"{PREFIX}JWT_FILE") or str(_SERVICE_ACCOUNT)
        jwt = read_secret(directory / path, "service account token")
        return vaultlogin.KubernetesRole(_needed(environment, "ROLE"), jwt, named or "kubernetes")
    if method == "jwt":
        jwt = read_secret(directory / _needed(environment, "JWT_FILE"), "JSON Web Token")
        return vaultlogin.JwtRole(_needed(environment, "ROLE"), jwt, named or "jwt")
    raise UsageError(f"{PREFIX}LOGIN is {method[:40]!r}", hint=f"one of {_LOGINS}")


def token_rule(rule: SigningRule) -> TokenRule:
    """What the policy says about tokens."""
    from secure_pipeline.adapters.vault import TokenRule

    return TokenRule(rule.max_token_ttl // timedelta(seconds=1), rule.token_policies)


def state_directory(options: Options, world: World) -> Path:
    """Where commands of no run note tokens: beside the ledger that they write to by default."""
    return ledger_path(replace(options, ledger=None), world).parent


def _default_login(environment: Mapping[str, str]) -> str:
    if environment.get(f"{PREFIX}ROLE_ID"):
        return "approle"
    if environment.get("VAULT_TOKEN") and not environment.get(f"{PREFIX}TOKEN_FILE"):
        raise UsageError(
            "a token in VAULT_TOKEN is seen by every program that is started; it is not used",
            hint=f"put it into a file of mode 0600, and set {PREFIX}TOKEN_FILE",
        )
    return "token"


def _github(environment: Mapping[str, str], mount: str) -> Login:
    from secure_pipeline.adapters import vaultlogin

    job = github_job(environment)
    if job is None:
        raise UsageError(
            "this job has no identity token to ask for",
            hint="give the job 'permissions: id-token: write'",
        )
    audience = environment.get(f"{PREFIX}AUDIENCE", "")
    return vaultlogin.GithubRole(_needed(environment, "ROLE"), job, audience, mount)


def github_job(environment: Mapping[str, str]) -> GithubJob | None:
    """Where this job of GitHub Actions asks for its token; None if it may not, or is none."""
    from secure_pipeline.adapters.identitytoken import GithubJob

    url = environment.get("ACTIONS_ID_TOKEN_REQUEST_URL")
    bearer = environment.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    return GithubJob(url, bearer) if url and bearer else None


def _person(environment: Mapping[str, str], directory: Path) -> str:
    named = environment.get(f"{PREFIX}TOKEN_FILE")
    path = directory / named if named else Path(environment.get("HOME", "/")) / ".vault-token"
    if not path.exists():
        raise UsageError(
            f"no login to Vault is configured, and there is no {path}",
            hint=f"vault login, or set {PREFIX}LOGIN to {_LOGINS}",
        )
    return read_secret(path, "token")


def _needed(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(f"{PREFIX}{name}")
    if not value:
        raise UsageError(f"{PREFIX}{name} is not set", hint="see docs/how-to/vault.md")
    return value


def read_secret(path: Path, what: str) -> str:
    """Read a file of one token. Raises: ConfigError, never quoting it."""
    from secure_pipeline.adapters.identitytoken import check_text

    data = read_bounded(path, _MAX_TOKEN_FILE)
    return check_text(data.decode("ascii", "replace"), what, str(path))


def _password(environment: Mapping[str, str]) -> str:
    password = local.password_from(environment)
    if password is None:
        raise UsageError("the key's password is not set", hint=f"set {local.PASSWORD_VARIABLES[0]}")
    return password
