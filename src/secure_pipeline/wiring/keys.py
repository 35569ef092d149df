"""Keys in Vault: how old they are, and a new version of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secure_pipeline import config as configuration
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.errors import (
    ConfigError,
    ExitCode,
    Inconclusive,
    UsageError,
    VerificationFailed,
)
from secure_pipeline.keys.uri import KV
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.policy.rotation import Age, Issued, age_of
from secure_pipeline.wiring.auditing import ledger_path, open_ledger
from secure_pipeline.wiring.options import Options, World
from secure_pipeline.wiring.vault import pinned_keys, state_directory, vault_session
from secure_pipeline.wiring.verifying import load_policy

if TYPE_CHECKING:
    from secure_pipeline.adapters.vault import VaultSession
    from secure_pipeline.keys.state import KeyState

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """The age of one thing, or why there is none."""

    issued: Issued
    age: Age | None
    problem: str | None


@dataclass(frozen=True)
class KeyStatus:
    """A key and what it is used with."""

    state: KeyState
    key: Measured
    credentials: tuple[Measured, ...]
    pinned: bool | None
    """Whether the policy has this version's public key; None if that cannot be told."""

    @property
    def exit_code(self) -> ExitCode:
        """DENIED if anything is too old, INCONCLUSIVE if an age is not known."""
        every = (self.key, *self.credentials)
        if any(item.age is not None and item.age.over for item in every):
            return ExitCode.DENIED
        if any(item.age is None for item in every):
            return ExitCode.INCONCLUSIVE
        return ExitCode.PASS


@dataclass(frozen=True)
class Rotated:
    """A transit key before and after."""

    before: KeyState
    after: KeyState


def session_for(
    stage: str, policy: LoadedPolicy, options: Options, world: World, warn: Warn
) -> VaultSession:
    """A session that records what it does. Raises: UsageError, ConfigError."""
    return vault_session(
        world,
        state_directory(options, world),
        policy.policy.signing,
        stage=stage,
        warn=warn,
        ledger=open_ledger(ledger_path(options, world)),
    )


def status(key: str | None, options: Options, world: World, warn: Warn) -> KeyStatus:
    """Measure the key that was named, or the configured one. Raises: UsageError, Refused."""
    from secure_pipeline.keys import state

    ref = state.in_vault(key or _configured(options, world))
    policy = load_policy(options)
    with session_for("keys status", policy, options, world, warn) as session:
        found = state.state_of(session, ref)
        credentials = tuple(_measure(item, policy) for item in session.issued())
    pins = pinned_keys(policy)
    known = None if found.public is None or pins is None else found.public.der in pins
    return KeyStatus(found, _measure(found.issued, policy), credentials, known)


def rotate(key: str, options: Options, world: World, warn: Warn) -> Rotated:
    """Add a version to a transit key; recorded before it happens.

    Raises: UsageError (not a transit key, a version named), Refused, Unavailable;
    VerificationFailed if there is no new version afterwards.
    """
    from secure_pipeline.keys import state

    ref = state.in_vault(key)
    parts = state.located(ref)
    if ref.scheme == KV:
        raise UsageError(
            "a key that is fetched is rotated by writing a new one into its secret",
            hint=f"vault kv put -mount={parts.mount} {parts.path} {parts.field}=@FILE",
        )
    if parts.version is not None:
        raise UsageError("a version cannot be rotated", hint=f"{state.without_version(ref)}")
    policy = load_policy(options)
    with session_for("keys rotate", policy, options, world, warn) as session:
        before = state.state_of(session, ref)
        use = session.use("rotate", str(ref), {"version": before.latest})
        with session.recorded(use) as done:
            done["requestId"] = session.transit_rotate(parts.mount, parts.path)
            after = state.state_of(session, ref)
            if after.latest <= before.latest or after.public is None:
                raise VerificationFailed("Vault shows no new version", where=str(ref))
            done |= {"version": after.latest, "keyId": after.public.hint}
    return Rotated(before, after)


def _measure(issued: Issued, policy: LoadedPolicy) -> Measured:
    rules = policy.policy
    try:
        age = age_of(issued, rules.rotation, SystemClock().now(), rules.clock_skew)
    except Inconclusive as error:
        return Measured(issued, None, error.message)
    return Measured(issued, age, None)


def _configured(options: Options, world: World) -> str:
    """The key of the environment or of the configuration. Raises: UsageError."""
    found = options.key
    if found is None:
        try:
            path = options.config or configuration.find(world.directory)
            found = configuration.load(path.absolute()).sign.key
        except ConfigError:
            found = None
    if found is None:
        raise UsageError("no key is named", hint="secure-pipeline keys status KEY")
    return found
