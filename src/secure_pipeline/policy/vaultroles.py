"""Roles as Vault enforces them: ACL policies and login roles, as files for an operator to apply.

Whoever can reach a signing key is decided by Vault and by nothing in this program. A ``deny`` wins
over every grant of the same path or a wider one, so that a second policy gives no signature.
Source: Vault's documentation of policies, of the AppRole API and of the Kubernetes login.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from secure_pipeline.errors import UsageError
from secure_pipeline.keys.uri import TRANSIT, KeyRef, VaultKey

SECRET_ID_TTL = "10m"
WRAPPING = ("10s", "300s")
"""How long a wrapped secret-id may wait to be unwrapped, at least and at most."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MOST_USES = 1000
_HASHES = (
    *("sha1", "sha2-224", "sha2-256", "sha2-384", "sha2-512"),
    *("sha3-224", "sha3-256", "sha3-384", "sha3-512", "none"),
)
_CHANGES = ("rotate", "config", "trim", "import_version")
_EXPORTS = (
    *("export/signing-key", "export/encryption-key", "export/hmac-key", "export/public-key"),
    "byok-export/+",
)
_LOGINS = ("role-id", "secret-id", "custom-secret-id", "secret-id/lookup", "secret-id/destroy")
PEOPLE = ("engineer", "reviewer", "operator")
MACHINES = ("pipeline", "operator")
"""Roles that log in by AppRole; people log in by whatever the organisation has."""
PODS = {"pipeline": "secure-pipeline-sign", "promoter": "secure-pipeline-promote"}
"""Roles that log in from a pod, and the service account each is bound to (tekton/rbac)."""
AUDIENCE = "vault"
"""Whom the pods' tokens are made for (tekton/tasks)."""


@dataclass(frozen=True)
class VaultRoles:
    """What the files are made for."""

    key: VaultKey
    """The release key, of a transit mount: the pipeline alone signs with it."""
    promotion: VaultKey
    """The key that operators sign promotions with."""
    cidrs: tuple[str, ...]
    """Networks that logins and tokens of AppRole are bound to."""
    token_ttl: timedelta = timedelta(minutes=15)
    token_uses: int = 50
    """Requests that one token is good for; a run makes about fifteen."""
    prefix: str = "secure-pipeline"
    approle: str = "approle"
    """Mount of AppRole."""
    pods: str | None = None
    """Namespace of the runs whose pods log in by their service account; None: no such role."""

    def __post_init__(self) -> None:
        for what, name in (("--prefix", self.prefix), ("--approle", self.approle)):
            if not _NAME.fullmatch(name):
                raise UsageError(f"{name[:80]!r} is no plain name", hint=f"{what} secure-pipeline")
        if self.pods is not None and not _NAMESPACE.fullmatch(self.pods):
            raise UsageError(
                f"{self.pods[:80]!r} is no namespace", hint="--kubernetes secure-pipeline"
            )
        if not 3 <= self.token_uses <= _MOST_USES:
            raise UsageError(
                f"{self.token_uses} uses of a token: a run needs some, and no run needs very many",
                hint="--token-uses 50",
            )
        if (self.key.mount, self.key.path) == (self.promotion.mount, self.promotion.path):
            raise UsageError(
                "one key for releases and promotions: whoever promotes could sign a release",
                hint="--promotion-key vault-transit://transit/promotion",
            )

    def name(self, role: str) -> str:
        """How a role's policy and AppRole are called in Vault."""
        return f"{self.prefix}-{role}"


def vault_roles(
    key: str,
    promotion: str | None,
    cidrs: Sequence[str],
    *,
    token_ttl: timedelta,
    token_uses: int,
    prefix: str,
    approle: str,
    pods: str | None = None,
) -> VaultRoles:
    """Check what the operator said. Raises: UsageError."""
    release = _transit(key)
    second = _transit(promotion) if promotion else VaultKey(release.mount, "promotion")
    networks = _networks(cidrs)
    return VaultRoles(release, second, networks, token_ttl, token_uses, prefix, approle, pods)


def files(roles: VaultRoles) -> dict[str, str]:
    """Every file by its path: policies in HCL, login roles in JSON, and how to apply them."""
    policies = {
        "pipeline": _pipeline(roles),
        "issuer": _issuer(roles),
        "engineer": _engineer(roles),
        "reviewer": _reviewer(roles),
        "operator": _operator(roles),
        **({"promoter": _promoter(roles)} if roles.pods else {}),
    }
    made = {f"policies/{roles.name(role)}.hcl": text for role, text in policies.items()}
    for role in MACHINES:
        made[f"approle/{roles.name(role)}.json"] = _approle(roles, role)
    for role in PODS if roles.pods else ():
        made[f"kubernetes/{roles.name(role)}.json"] = _kubernetes(roles, role)
    return {**made, "README.md": _readme(roles, tuple(policies))}


def _pipeline(roles: VaultRoles) -> str:
    return _signer("Runs: sign with the release key", roles.key)


def _promoter(roles: VaultRoles) -> str:
    return _signer("Promotions in a pod: sign with the promotion key", roles.promotion)


def _signer(about: str, key: VaultKey) -> str:
    return _policy(
        f"{about}, read its public half, end the token; nothing else.",
        _path(f"{key.mount}/keys/{key.path}", "read"),
        _path(f"{key.mount}/sign/{key.path}", "update"),
        _path("auth/token/revoke-self", "update"),
    )


def _issuer(roles: VaultRoles) -> str:
    role = f"auth/{roles.approle}/role/{roles.name('pipeline')}"
    least, most = WRAPPING
    return _policy(
        "What starts runs: hands out wrapped secret-ids, and never sees one itself.",
        _path(f"{role}/role-id", "read"),
        _path(
            f"{role}/secret-id",
            "update",
            f'min_wrapping_ttl = "{least}"',
            f'max_wrapping_ttl = "{most}"',
        ),
        _path("auth/token/revoke-self", "update"),
    )


def _engineer(roles: VaultRoles) -> str:
    key = roles.key
    return _policy(
        "Engineers: check signatures. The key itself stays out of reach, whatever else they have.",
        _path(f"{key.mount}/keys/{key.path}", "read"),
        _path(f"{key.mount}/verify/{key.path}", "update"),
        *_no_signing(roles),
        *_no_logins(roles),
    )


def _reviewer(roles: VaultRoles) -> str:
    acl = f"sys/policies/acl/{roles.prefix}-*"
    machines = [f"auth/{roles.approle}/role/{roles.name(role)}" for role in MACHINES]
    return _policy(
        "Reviewers: read keys' public halves, these policies and roles, and which logins are out.",
        *(_path(f"{key.mount}/keys/{key.path}", "read") for key in (roles.key, roles.promotion)),
        _path(acl, "read"),
        *(_path(path, "read") for path in (*machines, *_pod_roles(roles))),
        *(_path(f"{path}/secret-id", "list") for path in machines),
        *_no_signing(roles),
    )


def _operator(roles: VaultRoles) -> str:
    """Promote with the promotion key, rotate both, end credentials; sign no release."""
    lines: list[str] = []
    for key in (roles.key, roles.promotion):
        at = f"{key.mount}/keys/{key.path}"
        lines += [
            _path(at, "read"),
            _path(f"{at}/rotate", "update"),
            _path(
                f"{at}/config", "update", 'allowed_parameters = { "min_encryption_version" = [] }'
            ),
        ]
    lines.append(_path(f"{roles.promotion.mount}/sign/{roles.promotion.path}", "update"))
    role = f"auth/{roles.approle}/role/{roles.name('pipeline')}"
    lines += [
        _path(f"{role}/secret-id", "list"),
        _path(f"{role}/secret-id-accessor/lookup", "update"),
        _path(f"{role}/secret-id-accessor/destroy", "update"),
        _path("auth/token/lookup-accessor", "update"),
        _path("auth/token/revoke-accessor", "update"),
        _path("auth/token/revoke-self", "update"),
        *_no_signature(roles.key),
        *_no_copies(roles.key),
        *_no_copies(roles.promotion),
    ]
    return _policy(
        "Operators: promote, rotate and retire keys, end credentials. They sign no release.", *lines
    )


def _no_signing(roles: VaultRoles) -> list[str]:
    lines: list[str] = []
    for key in (roles.key, roles.promotion):
        lines += [*_no_signature(key), *_no_copies(key)]
        lines += _denied(f"{key.mount}/keys/{key.path}", _CHANGES)
    return lines


def _no_signature(key: VaultKey) -> list[str]:
    at = f"{key.mount}/sign/{key.path}"
    return [_path(at, "deny"), *_denied(at, _HASHES)]


def _no_copies(key: VaultKey) -> list[str]:
    """Ways by which a key leaves Vault or another one takes its name."""
    lines = [_path(f"{key.mount}/{verb}/{key.path}", "deny") for verb in ("backup", "restore")]
    for verb in _EXPORTS:
        at = f"{key.mount}/{verb}/{key.path}"
        lines += [_path(at, "deny"), _path(f"{at}/*", "deny")]
    return lines


def _no_logins(roles: VaultRoles) -> list[str]:
    lines: list[str] = []
    for role in MACHINES:
        at = f"auth/{roles.approle}/role/{roles.name(role)}"
        lines += [_path(at, "deny"), *_denied(at, _LOGINS)]
    return lines + [_path(at, "deny") for at in _pod_roles(roles)]


def _pod_roles(roles: VaultRoles) -> list[str]:
    return [f"auth/kubernetes/role/{roles.name(role)}" for role in (PODS if roles.pods else ())]


def _denied(at: str, names: Sequence[str]) -> list[str]:
    """Deny all below a path. Vault lets the longest match decide, so what is known stands alone."""
    return [_path(f"{at}/{name}", "deny") for name in (*names, "*")]


def _path(path: str, capability: str, *more: str) -> str:
    lines = "".join(f"  {line}\n" for line in (f'capabilities = ["{capability}"]', *more))
    return f'path "{path}" {{\n{lines}}}\n'


def _policy(about: str, *paths: str) -> str:
    return f"# {about}\n" + "\n".join(("", *paths))


def _approle(roles: VaultRoles, role: str) -> str:
    return _json(
        bind_secret_id=True,
        secret_id_bound_cidrs=list(roles.cidrs),
        secret_id_num_uses=1,
        secret_id_ttl=SECRET_ID_TTL,
        **_token(roles, role),
    )


def _kubernetes(roles: VaultRoles, role: str) -> str:
    return _json(
        audience=AUDIENCE,
        bound_service_account_names=[PODS[role]],
        bound_service_account_namespaces=[roles.pods],
        **_token(roles, role),
    )


def _token(roles: VaultRoles, role: str) -> dict[str, Any]:
    ttl = f"{int(roles.token_ttl.total_seconds())}s"
    return {
        "token_bound_cidrs": list(roles.cidrs),
        "token_explicit_max_ttl": ttl,
        "token_max_ttl": ttl,
        "token_no_default_policy": True,
        "token_num_uses": roles.token_uses,
        "token_policies": [roles.name(role)],
        "token_ttl": ttl,
        "token_type": "service",
    }


def _json(**members: Any) -> str:
    return json.dumps(members, indent=2, sort_keys=True) + "\n"


def _readme(roles: VaultRoles, policies: Sequence[str]) -> str:
    commands = [
        f"vault policy write {roles.name(role)} policies/{roles.name(role)}.hcl"
        for role in policies
    ]
    commands += [
        f"vault write auth/{roles.approle}/role/{roles.name(role)} @approle/{roles.name(role)}.json"
        for role in MACHINES
    ]
    commands += [
        f"vault write {at} @kubernetes/{at.rpartition('/')[2]}.json" for at in _pod_roles(roles)
    ]
    groups = [
        f"vault write identity/group name={roles.name(role)}s policies={roles.name(role)}"
        for role in PEOPLE
    ]
    pipeline = roles.name("pipeline")
    return _README.format(
        key=f"{roles.key.mount}/{roles.key.path}",
        promotion=f"{roles.promotion.mount}/{roles.promotion.path}",
        commands="\n".join(commands),
        groups="\n".join(groups),
        least=WRAPPING[0],
        most=WRAPPING[1],
        promoter=_PROMOTER if roles.pods else "",
        issue=f"vault write -wrap-ttl=120s -f auth/{roles.approle}/role/{pipeline}/secret-id",
        pipeline=pipeline,
        role=f"auth/{roles.approle}/role/{pipeline}",
    )


_PROMOTER = "| promoter | no | yes | reads the public key, ends its token |\n"
_README = """\
# Vault policies and roles

Written by `secure-pipeline policy export vault`. Read them, then apply them in this directory
with a token that may write policies:

```sh
{commands}
```

People get a policy by a group of their own login method, for instance:

```sh
{groups}
```

| role | signs releases ({key}) | signs promotions ({promotion}) | besides |
|---|---|---|---|
| pipeline | yes | no | reads the public key, ends its token |
| issuer | no | no | makes wrapped secret-ids of the pipeline ({least} to {most}) |
| engineer | denied | denied | reads the public key, checks signatures |
| reviewer | denied | denied | reads public keys, policies, roles, which secret-ids are out |
| operator | denied | yes | rotates and retires keys, ends secret-ids and tokens |
{promoter}
The secret-id of one run, already wrapped, by the issuer:

```sh
{issue}
```

Then say in the trusted policy which Vault policies a token may have:

```yaml
signing:
  token-policies: [{pipeline}]
```

Whoever holds the issuer's token can log in as the pipeline from the networks that the role is bound
to: give it to the machine that starts runs, and to nobody else. Whoever may write policies, or
`{role}`, can undo all of this; Vault's audit log shows it.
"""


def _transit(text: str) -> VaultKey:
    ref = KeyRef.parse(text)
    if ref.scheme != TRANSIT or ref.vault is None:
        raise UsageError(
            f"{text[:80]!r} is no transit key: Vault can keep only those from who uses them",
            hint="vault-transit://MOUNT/KEY",
        )
    if ref.vault.version is not None:
        raise UsageError("Vault's policies know no versions", hint="leave @VERSION out")
    return ref.vault


def _networks(cidrs: Sequence[str]) -> tuple[str, ...]:
    if not cidrs:
        raise UsageError(
            "no network is named that the pipeline logs in from",
            hint="--cidr 10.20.0.0/16, once for each network of the runners",
        )
    for text in cidrs:
        try:
            network = ipaddress.ip_network(text)
        except ValueError:
            raise UsageError(
                f"{text[:80]!r} is no network", hint="--cidr 10.20.0.0/16, without host bits"
            ) from None
        if network.prefixlen == 0:
            raise UsageError(f"{text} binds to nothing", hint="name the runners' networks")
    return tuple(cidrs)
