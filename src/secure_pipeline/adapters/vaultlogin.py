"""The ways to log in to Vault; each gives a token whose answer is checked before it is used."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from hvac.api import auth_methods

from secure_pipeline.adapters.identitytoken import GithubJob, github_token
from secure_pipeline.adapters.vaultwire import Refused, VaultWire, check_path
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.policy.rotation import Issued, read_moment
from secure_pipeline.shape import member, optional


@dataclass(frozen=True)
class AppRole:
    """A role-id, and a single-use secret-id that comes response-wrapped."""

    role: str
    """Name of the role; the wrapping token must have been made for it."""
    role_id: str
    wrapped: str = field(repr=False)
    """The wrapping token."""
    mount: str = "approle"
    creation_path: str | None = None
    """Where the secret-id must have been made; ``auth/MOUNT/role/ROLE/secret-id`` by default."""

    @property
    def expected_path(self) -> str:
        """The one creation path that is accepted (VLT-06)."""
        return self.creation_path or f"auth/{self.mount}/role/{self.role}/secret-id"


@dataclass(frozen=True)
class JwtRole:
    """A JSON Web Token of an OpenID Connect issuer, such as GitHub Actions."""

    role: str
    jwt: str = field(repr=False)
    mount: str = "jwt"


@dataclass(frozen=True)
class GithubRole:
    """Like JwtRole; the token is asked for where GitHub Actions gives it out."""

    role: str
    job: GithubJob
    audience: str = ""
    mount: str = "jwt"


@dataclass(frozen=True)
class KubernetesRole:
    """The token of a Kubernetes service account."""

    role: str
    jwt: str = field(repr=False)
    mount: str = "kubernetes"


@dataclass(frozen=True)
class PersonToken:
    """A token that a person logged in for; it stays theirs and is never revoked by us."""

    token: str = field(repr=False)


Login = AppRole | JwtRole | GithubRole | KubernetesRole | PersonToken


@dataclass(frozen=True)
class Auth:
    """What a login gave."""

    token: str = field(repr=False)
    accessor: str
    seconds: int
    """Time to live; 0 means for ever."""
    renewable: bool
    kind: str
    """'service' or 'batch'."""
    policies: tuple[str, ...]
    entity: str | None
    """Id of the Vault entity: whose login it was."""
    request_id: str | None = None
    owned: bool = True
    """Whether it was made for this session, which then ends it."""
    created: datetime | None = None
    """Of a person's token, when it was made; None for one that the login has made just now."""
    secret_id: Issued | None = None
    """Of an AppRole, the secret-id and when it was made."""


def log_in(wire: VaultWire, login: Login, maximum: int) -> Auth:
    """Log in. Nothing is repeated that can be done once only.

    ``maximum``: seconds that a token made from a person's own may live.
    Raises: VerificationFailed (the secret-id may have been stolen), Refused, Unavailable.
    """
    if isinstance(login, PersonToken):
        return _person(wire, login, maximum)
    check_path(login.role, "the role")
    check_path(login.mount, "the mount of the login")
    if isinstance(login, AppRole):
        secret, made = _unwrap(wire, login)
        answer = auth_methods.AppRole(wire).login(login.role_id, secret, False, login.mount)
        return replace(read_auth(answer, f"auth/{login.mount}/login"), secret_id=made)
    if isinstance(login, KubernetesRole):
        answer = auth_methods.Kubernetes(wire).login(login.role, login.jwt, False, login.mount)
    else:
        jwt = login.jwt if isinstance(login, JwtRole) else _asked_for(login, wire)
        answer = auth_methods.JWT(wire).jwt_login(
            login.role, jwt, use_token=False, path=login.mount
        )
    return read_auth(answer, f"auth/{login.mount}/login")


def _unwrap(wire: VaultWire, login: AppRole) -> tuple[str, Issued]:
    """Unwrap the secret-id: looked at first, taken once. It was made with its wrapping token."""
    where = f"{wire.server.address}: {login.expected_path}"
    # (1) a wrapping token that is gone was unwrapped by somebody else, or expired unused
    try:
        looked = wire.request("post", "/v1/sys/wrapping/lookup", json={"token": login.wrapped})
    except Refused as error:
        raise _stolen("the wrapping token is not known any more", error, where) from None
    # (2) one that was made elsewhere was put in place of the operator's (VLT-06)
    data = member(looked, "data", dict, where)
    path = member(data, "creation_path", str, where)
    if path != login.expected_path:
        raise VerificationFailed(
            f"the wrapping token was made by another request than {login.expected_path}",
            where=wire.server.address,
            hint="do not use it: revoke it, and find out who put it there",
        )
    # (3) between the look and this somebody else may have been faster
    try:
        unwrapped = wire.request(
            "post", "/v1/sys/wrapping/unwrap", headers={"X-Vault-Token": login.wrapped}
        )
    except Refused as error:
        raise _stolen("the wrapping token was used by somebody else", error, where) from None
    secret = str(member(member(unwrapped, "data", dict, where), "secret_id", str, where))
    made = read_moment(data.get("creation_time"))
    return secret, Issued("secret-id", f"the secret-id of the role {login.role}", made)


def _stolen(message: str, error: Refused, where: str) -> VerificationFailed:
    said = f" ({error.words})" if error.words else ""
    return VerificationFailed(
        f"{message}{said}: it has expired, or the secret-id may have been stolen",
        where=where,
        hint="look for 'sys/wrapping/unwrap' in Vault's audit log; destroy the role's secret-ids"
        " if it was not you; then make a new wrapped secret-id",
    )


def _asked_for(login: GithubRole, wire: VaultWire) -> str:
    return github_token(login.job, login.audience, wire.transport.clock, wire.server.seconds)


def _person(wire: VaultWire, login: PersonToken, maximum: int) -> Auth:
    """A person's token if it is short-lived, otherwise a child of it that is."""
    wire.token = login.token
    try:
        own = _looked_up(wire, login.token)
        if 0 < own.seconds <= maximum:
            return own
        options = {
            "ttl": f"{maximum}s",
            "explicit_max_ttl": f"{maximum}s",
            "renewable": False,
            "display_name": "secure-pipeline",
        }
        answer = wire.request("post", "/v1/auth/token/create", json=options)
    finally:
        wire.token = None
    return replace(read_auth(answer, "auth/token/create"), created=own.created)


def _looked_up(wire: VaultWire, token: str) -> Auth:
    where = "auth/token/lookup-self"
    data = member(wire.request("get", f"/v1/{where}"), "data", dict, where)
    policies = member(data, "policies", list, where) + (data.get("identity_policies") or [])
    return Auth(
        token=token,
        accessor=optional(data, "accessor", str, where) or "",
        seconds=member(data, "ttl", int, where),
        renewable=bool(optional(data, "renewable", bool, where)),
        kind=member(data, "type", str, where),
        policies=tuple(str(policy) for policy in policies),
        entity=optional(data, "entity_id", str, where) or None,
        owned=False,
        created=read_moment(data.get("creation_time")),
    )


def read_auth(answer: dict[str, Any], where: str) -> Auth:
    """Read the ``auth`` of a login's answer. Raises: VerificationFailed."""
    auth = member(answer, "auth", dict, where)
    policies = optional(auth, "policies", list, where) or []
    if not all(isinstance(policy, str) for policy in policies):
        raise VerificationFailed("policies are not texts", where=where)
    return Auth(
        token=member(auth, "client_token", str, where),
        accessor=optional(auth, "accessor", str, where) or "",
        seconds=member(auth, "lease_duration", int, where),
        renewable=bool(optional(auth, "renewable", bool, where)),
        kind=member(auth, "token_type", str, where),
        policies=tuple(policies),
        entity=optional(auth, "entity_id", str, where) or None,
        request_id=optional(answer, "request_id", str, where),
    )
