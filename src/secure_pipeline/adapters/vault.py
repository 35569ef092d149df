"""A session with Vault: logged in, checked, bounded in time, and ended whatever happens.

The login and each use of a secret are recorded in the ledger where there is one. The end is not:
nothing may keep it from happening.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from hvac.api.auth_methods import Token as TokenApi
from hvac.api.secrets_engines import KvV2, Transit

from secure_pipeline.adapters.vaulthealth import require_health
from secure_pipeline.adapters.vaultlogin import Auth, Login, PersonToken, log_in
from secure_pipeline.adapters.vaultpending import PendingToken, PendingTokens, pending_token
from secure_pipeline.adapters.vaultwire import Refused, VaultServer, VaultWire, check_path
from secure_pipeline.audit.entry import Actor, Outcome, Value
from secure_pipeline.audit.recording import recorded
from secure_pipeline.errors import PipelineError, PolicyDenied, Unavailable
from secure_pipeline.policy.rotation import Issued
from secure_pipeline.ports import Clock, Ledger, SecretUse
from secure_pipeline.shape import member

ENDED = ("revoked", "gone already")
"""What became of a token that is no more."""


class ActingLedger(Ledger, Protocol):
    """A ledger that can be written to in the name of somebody who was verified."""

    def acting_as(self, actor: Actor) -> Ledger:
        """The same ledger for entries of another caller."""


@dataclass(frozen=True)
class TokenRule:
    """What a token may be at most; more is refused and revoked at once."""

    seconds: int = 900
    policies: tuple[str, ...] | None = None
    """Names of Vault policies that it may carry; None accepts all but root."""


class VaultSession:
    """One login and what is done with it. Use it in a ``with``; safe for several threads."""

    def __init__(
        self,
        server: VaultServer,
        login: Login,
        clock: Clock,
        pending: PendingTokens,
        *,
        rule: TokenRule | None = None,
        ledger: ActingLedger | None = None,
        stage: str = "sign",
        run: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        """``pending``: where tokens are noted until they are revoked. ``warn`` tells people.

        ``ledger``: where uses are recorded, after the login as those of the verified entity.
        """
        self.server = server
        self._login = login
        self._clock = clock
        self._pending = pending
        self._rule = rule or TokenRule()
        self._ledger: Ledger | None = ledger
        self._acting = ledger
        self._stage = stage
        self._run = run
        self._sleep = sleep
        self._warn = warn
        self._wire = VaultWire(server, clock)
        self._auth: Auth | None = None
        self._note: PendingToken | None = None
        self._until = 0.0
        self._logged_in = clock.now()
        self._closed = False
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"VaultSession({self.server.address})"

    def __enter__(self) -> VaultSession:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def require_serving(self) -> None:
        """Check, without a login, that the server can be used. Raises: Unavailable."""
        require_health(self._wire, self._sleep)

    def open(self) -> None:
        """Log in, unless that was done.

        Raises: Unavailable (health), VerificationFailed (stolen secret-id), PolicyDenied.
        """
        with self._lock:
            if self._closed:
                raise Unavailable("the session has ended", where=self.server.address)
            if self._auth is not None:
                return
            self.require_serving()
            use = SecretUse("login", self._stage, self.server.address, self._run, self._who())
            with self.recorded(use) as details:
                self._take(log_in(self._wire, self._login, self._rule.seconds))
                details.update(self._identity())
            self._be_known()

    def close(self) -> None:
        """Revoke the token. What cannot be revoked stays noted, and people are told."""
        with self._lock:
            self._closed = True
            auth, self._auth = self._auth, None
            if auth is None:
                return
            try:
                # A token without an accessor is a batch token, which nobody can revoke.
                if auth.owned and auth.accessor:
                    self._revoke_self(auth)
            finally:
                self._wire.token = None

    def require(self, seconds: int = 60) -> None:
        """Check that the token lives for ``seconds`` more, renewing it where it may be (VLT-07).

        Called before each step that cannot be undone. Raises: Unavailable.
        """
        with self._lock:
            auth = self._open_auth()
            if self._left() >= seconds:
                return
            if auth.renewable:
                answer = TokenApi(self._wire).renew_self(increment=f"{self._rule.seconds}s")
                lease = member(
                    member(answer, "auth", dict, "renew"), "lease_duration", int, "renew"
                )
                self._until = self._clock.monotonic() + lease
            if self._left() < seconds:
                raise Unavailable(
                    f"the Vault token has {max(0, int(self._left()))} seconds left, "
                    f"{seconds} are needed",
                    where=self.server.address,
                    hint="nothing was published by this step; log in again, or let tokens of the "
                    "role live longer (token_ttl)",
                )

    def transit_key(self, mount: str, key: str) -> dict[str, Any]:
        """Public data of a transit key. Raises: Refused, Unavailable."""
        self._open_auth()
        check_path(mount, "the mount")
        check_path(key, "the key")
        answer = Transit(self._wire).read_key(name=key, mount_point=mount)
        return dict(member(answer, "data", dict, f"{mount}/keys/{key}"))

    def transit_rotate(self, mount: str, key: str) -> str:
        """Add a version to a transit key; the request's id. Raises: Refused, Unavailable."""
        self.require()
        check_path(mount, "the mount")
        check_path(key, "the key")
        answer = Transit(self._wire).rotate_key(name=key, mount_point=mount)
        return str(answer.get("request_id") or "")

    def transit_least_version(self, mount: str, key: str, version: int) -> None:
        """Let no version below this one sign. Raises: Refused, Unavailable."""
        self.require()
        check_path(mount, "the mount")
        check_path(key, "the key")
        Transit(self._wire).update_key_configuration(
            name=key, min_encryption_version=version, mount_point=mount
        )

    def transit_sign(self, mount: str, key: str, parameters: Mapping[str, Any]) -> tuple[str, str]:
        """Sign with a transit key; return the signature as Vault writes it and the request's id.

        ``parameters`` as ``sign_data`` of hvac takes them. Raises: Refused, Unavailable.
        """
        self.require()
        check_path(mount, "the mount")
        check_path(key, "the key")
        answer = Transit(self._wire).sign_data(name=key, mount_point=mount, **parameters)
        where = f"{mount}/sign/{key}"
        signature = member(member(answer, "data", dict, where), "signature", str, where)
        return signature, str(answer.get("request_id") or "")

    def kv_read(self, mount: str, path: str, version: int | None) -> dict[str, Any]:
        """The ``data`` of a KV version 2 read: ``data`` and ``metadata``. Raises: Refused."""
        self._open_auth()
        check_path(mount, "the mount")
        check_path(path, "the path")
        answer = KvV2(self._wire).read_secret_version(
            path=path, version=version, mount_point=mount, raise_on_deleted_version=True
        )
        return dict(member(answer, "data", dict, f"{mount}/data/{path}"))

    def kv_metadata(self, mount: str, path: str) -> dict[str, Any]:
        """What a KV version 2 mount says about a secret's versions. Raises: Refused."""
        self._open_auth()
        check_path(mount, "the mount")
        check_path(path, "the path")
        answer = KvV2(self._wire).read_secret_metadata(path=path, mount_point=mount)
        return dict(member(answer, "data", dict, f"{mount}/metadata/{path}"))

    def issued(self) -> tuple[Issued, ...]:
        """What was logged in with, and when it was made: the token, and an AppRole's secret-id.

        Raises: like ``open``.
        """
        auth = self._open_auth()
        # A person's token is as old as the one it was made from; others were made by the login.
        personal = isinstance(self._login, PersonToken)
        created = auth.created if personal else self._logged_in
        token = Issued("token", "the Vault token", created)
        return (token, auth.secret_id) if auth.secret_id else (token,)

    def revoke_pending(self) -> tuple[tuple[PendingToken, str], ...]:
        """Revoke every noted token of this server but this session's own.

        Returns each with what became of it: 'revoked', 'gone already' or why not.
        """
        self._open_auth()
        return tuple(
            (token, self._recorded_revocation(token))
            for token in self._pending.all()
            if token != self._note
        )

    def recorded(self, use: SecretUse) -> AbstractContextManager[dict[str, Value]]:
        """Record a use before it happens and how it ended; yields details to add at the end."""
        return nullcontext({}) if self._ledger is None else recorded(self._ledger, use)

    def use(self, action: str, subject: str, details: Mapping[str, Value]) -> SecretUse:
        """A use of a secret by this session's stage and run."""
        return SecretUse(action, self._stage, subject, self._run, {**details, **self._who()})

    def _take(self, auth: Auth) -> None:
        """Note the token, then check it; one that is too much is revoked at once."""
        self._wire.token = auth.token
        self._auth = auth
        self._until = self._clock.monotonic() + auth.seconds
        self._logged_in = self._clock.now()
        if auth.owned and auth.accessor:
            self._note = pending_token(
                self.server.address, self.server.namespace, auth.accessor, auth.seconds, self._clock
            )
            self._pending.note(self._note)
        wrong = _objection(auth, self._rule)
        if wrong:
            self.close()
            raise PolicyDenied(
                f"the token that the login gave {wrong}; it was not used",
                where=self.server.address,
                hint="change the role in Vault: token_ttl, token_max_ttl, token_type=service",
            )

    def _be_known(self) -> None:
        """From here on the ledger names whom Vault has verified, instead of this machine's user."""
        if self._acting is not None and self._auth is not None and self._auth.entity:
            self._ledger = self._acting.acting_as(Actor("vault", self._auth.entity, verified=True))

    def _revoke_self(self, auth: Auth) -> None:
        try:
            TokenApi(self._wire).revoke_self()
        except PipelineError as error:
            if isinstance(error, Refused) and error.words in ("invalid token", "bad token"):
                # It has expired, or somebody else has revoked it.
                self._forget()
                return
            self._warn(
                f"the Vault token with the accessor {auth.accessor} could not be revoked "
                f"({error.message}); it ends by itself in {max(0, int(self._left()))} seconds, or "
                "now by 'secure-pipeline vault revoke-pending'"
            )
            return
        self._forget()

    def _forget(self) -> None:
        if self._note is not None:
            self._pending.forget(self._note)
            self._note = None

    def _recorded_revocation(self, token: PendingToken) -> str:
        use = self.use("revoke", f"{token.address}#{token.accessor}", {})
        with self.recorded(use) as details:
            ended = details["ended"] = self._revoke(token)
            if ended not in ENDED:
                details["outcome"] = Outcome.FAILED.value
        return ended

    def _revoke(self, token: PendingToken) -> str:
        if (token.address, token.namespace) != (self.server.address, self.server.namespace):
            return f"not revoked: it is of another server, {token.address}"
        try:
            answer = TokenApi(self._wire).revoke_accessor(token.accessor)
        except PipelineError as error:
            return f"not revoked: {error.message}"
        self._pending.forget(token)
        # Vault warns where it knows no such token: it has expired or was revoked.
        return "gone already" if answer.get("warnings") else "revoked"

    def _open_auth(self) -> Auth:
        with self._lock:
            self.open()
            assert self._auth is not None
            return self._auth

    def _left(self) -> float:
        return self._until - self._clock.monotonic()

    def _who(self) -> dict[str, Value]:
        if self.server.plain_http:
            return {**self._identity(), "plainHttp": True}
        return self._identity()

    def _identity(self) -> dict[str, Value]:
        auth = self._auth
        if auth is None:
            return {}
        return {
            "accessor": auth.accessor,
            "entity": auth.entity,
            "seconds": auth.seconds,
            "requestId": auth.request_id,
        }


def _objection(auth: Auth, rule: TokenRule) -> str | None:
    """Why a token is too much, or None."""
    if auth.kind != "service":
        return f"is a {auth.kind[:20]} token, which cannot be revoked"
    if not auth.accessor:
        return "has no accessor, so that it could not be revoked later"
    if "root" in auth.policies:
        return "is a root token"
    if auth.seconds <= 0:
        return "never expires"
    if auth.seconds > rule.seconds:
        return f"lives for {auth.seconds} seconds; the policy allows {rule.seconds}"
    if rule.policies is not None:
        others = sorted(set(auth.policies) - set(rule.policies))
        if others:
            return f"has the policies {', '.join(others)[:200]}, which are not expected"
    return None
