"""The ledger of this machine: where it lies, who writes to it, what it is checked against."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from secure_pipeline import config as configuration
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.audit import checkpoint
from secure_pipeline.audit.checkpoint import Checkpoint
from secure_pipeline.audit.entry import Actor, Value
from secure_pipeline.audit.log import FileLedger, Head
from secure_pipeline.audit.recording import recorded
from secure_pipeline.audit.verify import Checked, Damage, Fault, verify
from secure_pipeline.errors import ConfigError, UsageError, VerificationFailed
from secure_pipeline.files import sha256_file
from secure_pipeline.keys import local
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.keys.verify import PublicKey, read_public_key
from secure_pipeline.oci.digest import Digest
from secure_pipeline.policy.keyless import Keyless
from secure_pipeline.policy.trust import trusted_identities, trusted_signers
from secure_pipeline.ports import SecretUse
from secure_pipeline.wiring.copying import LAYOUT, open_source
from secure_pipeline.wiring.keyless import identity_verifier
from secure_pipeline.wiring.options import STATE, Options, World
from secure_pipeline.wiring.stores import Stores
from secure_pipeline.wiring.verifying import load_policy

LEDGER = "ledger.jsonl"
"""Name of the ledger in a state directory."""
MAX_HISTORY = 1000
"""Sealed ledgers that are followed back."""


@dataclass(frozen=True)
class AuditRequest:
    """What ``audit verify`` was asked for."""

    anchors: tuple[str, ...]
    """Files of heads, ``layout:DIR[@sha256:…]`` or ``HOST/NAME@sha256:…``."""
    keys: tuple[Path, ...]
    history: bool


class Audit:
    """The ledger that a command line means, and what can be done with it."""

    def __init__(self, options: Options, world: World, stores: Stores) -> None:
        self.path = ledger_path(options, world)
        self._options = options
        self._world = world
        self._stores = stores

    def ledger(self) -> FileLedger:
        """The ledger, for entries of the user that this process is."""
        return open_ledger(self.path)

    @contextmanager
    def pushing(
        self, destination: str, digest: Digest, run: str | None
    ) -> Iterator[dict[str, Value]]:
        """Record a copy into a registry before its first upload; a layout is no registry.

        Raises: Unavailable if it cannot be recorded; then nothing is uploaded.
        """
        if destination.startswith(LAYOUT):
            yield {}
            return
        use = SecretUse("push", "push", f"{destination}@{digest}", run)
        with recorded(self.ledger(), use) as details:
            yield details

    def verify(self, request: AuditRequest) -> list[Checked]:
        """Check the ledger, and with ``history`` the sealed ones before it, newest first.

        Raises: UsageError, ConfigError, Inconclusive, Unavailable; VerificationFailed for an
        anchor that is not signed by a trusted key.
        """
        heads = [item.head for item in self._anchors(request)]
        if not request.history:
            return [verify(self.path, heads)]
        results = list(_history(self.path))
        origins = {item.origin for item in results if item.origin}
        checked = []
        for index, item in enumerate(results):
            own = [head for head in heads if head.origin == item.origin]
            if index == 0:  # an anchor of a ledger that is not here is the first one's business
                own += [head for head in heads if head.origin not in origins]
            checked.append(verify(item.path, own) if own and item.damage is None else item)
        return checked

    def rotate(self, reason: str, *, damaged: bool) -> Path:
        """Seal the ledger and open a new one that commits to it; the sealed file's path.

        Raises: VerificationFailed for a damaged one without ``damaged``, UsageError for a whole
        one with it; Inconclusive, Unavailable.
        """
        found = verify(self.path).damage
        if found and not damaged:
            raise VerificationFailed(
                describe(found),
                where=f"{self.path}:{found.line}",
                hint="keep the file for whoever looks into it; --damaged seals it as it is",
            )
        if damaged and not found:
            raise UsageError("the ledger is not damaged", hint="leave --damaged out")
        damage = f"line {found.line}, {describe(found)}" if found else None
        return self.ledger().rotate(reason, damage=damage)

    def take_head(self, key: str, target: Path) -> Head:
        """Sign the present head with a key in a file and keep it in a file of heads.

        Raises: UsageError, ConfigError, Unavailable, VerificationFailed.
        """
        ref = KeyRef.parse(key)
        if ref.scheme != "file":
            raise UsageError("only a key in a file can sign a head here", hint="--key file:PATH")
        password = local.password_from(self._world.environment)
        if password is None:
            raise UsageError(
                "the key's password is not set", hint=f"set {local.PASSWORD_VARIABLES[0]}"
            )
        ledger = self.ledger()
        with recorded(ledger, SecretUse("sign", "audit", "ledger", None, {"key": str(ref)})):
            signer = local.load(self._world.directory / ref.path, password)
            head = ledger.head()
            envelope = checkpoint.sign_head(head, None, None, signer, SystemClock())
            checkpoint.keep(self._world.directory / target, envelope)
        return head

    def _anchors(self, request: AuditRequest) -> list[Checkpoint]:
        """The heads that were kept elsewhere. Raises: like ``verify``."""
        if not request.anchors:
            return []
        keys, keyless = _known(request.keys, self._options, self._world)
        found: list[Checkpoint] = []
        for text in request.anchors:
            if text.startswith(LAYOUT) or "@sha256:" in text:
                source, digest = open_source(text, self._stores)
                found += checkpoint.heads_beside(source, digest, keys, keyless)
            else:
                found += checkpoint.heads_in_file(self._world.directory / text, keys)
        return found


def ledger_path(options: Options, world: World) -> Path:
    """The ledger that was named, that of the repository's state, or the user's own."""
    if options.ledger is not None:
        return world.directory / options.ledger
    if options.state is not None:
        return options.state.absolute() / LEDGER
    try:
        found = options.config or configuration.find(world.directory)
        return found.absolute().parent / STATE / LEDGER
    except ConfigError:
        return _user_state(world.environment) / "secure-pipeline" / LEDGER


def open_ledger(path: Path) -> FileLedger:
    """The ledger, for entries of the user that this process is."""
    return FileLedger(path, os_user(), SystemClock())


def os_user() -> Actor:
    """Who the operating system says this is: nobody else vouches for it."""
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = "unknown"
    return Actor("os", f"{name}@{os.uname().nodename} uid={number}", verified=False)


def describe(damage: Damage) -> str:
    """What is wrong with an entry, in one line."""
    return f"entry {damage.seq} is {damage.fault.value}: {damage.message}"


def _history(path: Path) -> Iterator[Checked]:
    """The ledger and those before it; a sealed file must be what its successor committed to."""
    for _ in range(MAX_HISTORY):
        item = verify(path)
        yield item
        name = item.opening.get("previousFile")
        if not isinstance(name, str):
            return
        path = item.path.with_name(Path(name).name)
        if not path.exists() or sha256_file(path) != item.opening.get("previousSha256"):
            what = "is not what was sealed" if path.exists() else "is missing"
            fault = Damage(Fault.REPLACED, 0, 1, 0, f"the sealed ledger {what}")
            yield replace(_nothing(path), damage=fault)
            return
    raise UsageError(f"more than {MAX_HISTORY} ledgers before this one")


def _nothing(path: Path) -> Checked:
    return Checked(path, None, None, 0, 0, None, 0, 0)


def _known(
    named: Sequence[Path], options: Options, world: World
) -> tuple[tuple[PublicKey, ...], Keyless]:
    """Whose heads count: keys that were named, else the policy's keys and identities."""
    if named:
        paths = [world.directory / str(path).removeprefix("file:") for path in named]
        return tuple(read_public_key(path) for path in paths), Keyless()
    policy = load_policy(options)
    keys = tuple(item.key for item in trusted_signers(policy, ()))
    keyless = Keyless(trusted_identities(policy), identity_verifier(policy))
    if not keys and not keyless.identities:
        raise UsageError("no key is named to check the anchors with", hint="--key release.pub")
    return keys, keyless


def _user_state(environment: Mapping[str, str]) -> Path:
    home = environment.get("HOME") or "/"
    return Path(environment.get("XDG_STATE_HOME") or f"{home}/.local/state")
