"""One version of a key in Vault: what it has signed, and how it goes out of trust."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from secure_pipeline.attestations.attachments import Attachment, collect
from secure_pipeline.attestations.signatures import collect_signatures, read_statement
from secure_pipeline.audit.entry import Value
from secure_pipeline.audit.usage import Usage, artifacts, usage
from secure_pipeline.errors import PipelineError, UsageError, VerificationFailed
from secure_pipeline.files import write_atomic
from secure_pipeline.keys.uri import KV, KeyRef
from secure_pipeline.keys.verify import PublicKey, read_public_key
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.store import Source
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.policy.retire import Proposal, last_trusted_day, propose
from secure_pipeline.policy.trust import TrustedSigner, trusted_signers
from secure_pipeline.shape import member, rfc3339
from secure_pipeline.wiring.auditing import ledger_path
from secure_pipeline.wiring.copying import LAYOUT, open_source
from secure_pipeline.wiring.keys import session_for
from secure_pipeline.wiring.options import Options, World
from secure_pipeline.wiring.stores import Stores
from secure_pipeline.wiring.verifying import load_policy

Warn = Callable[[str], None]
_EVIDENCE = re.compile(r"sha256-([0-9a-f]{64})(?:\.(?:att|sig|sbom))?")
"""Tags beside an image, of both layouts."""
ALWAYS_BLIND = (
    "what was signed without this ledger, on other machines or by whoever else could reach the "
    "key: Vault's own audit log has every request"
)


@dataclass(frozen=True)
class Seen:
    """An image in a store with statements that this version signed."""

    image: str
    """Place and digest."""
    types: tuple[str, ...]
    """Predicate types, one for each statement."""
    recorded: bool
    """Whether the ledger knows that this image was signed by this version."""


@dataclass(frozen=True)
class BlastRadius:
    """What one version of a key has signed, as far as it could be seen."""

    ref: KeyRef
    version: int
    key_id: str | None
    """Of the public key; None if nothing had to be verified with it."""
    usage: Usage
    seen: tuple[Seen, ...]
    blind: tuple[str, ...]
    """What should have been seen and could not; empty if all was read."""
    limits: tuple[str, ...]
    """What cannot be seen in this way at all."""


@dataclass(frozen=True)
class RevokeRequest:
    """Which version goes out of trust, since when, why, and where the proposal is written."""

    key: str
    since: datetime
    reason: str
    output: Path | None
    public_key: Path | None


@dataclass(frozen=True)
class Revoked:
    """What was done, and what is left to the operator."""

    ref: KeyRef
    version: int
    key_id: str
    newest: int
    proposal: Proposal | None
    """None if the policy does not trust this version at all."""
    written: Path | None
    least: int
    """The first version that Vault signs with from now on."""


def blast_radius(
    key: str, places: tuple[str, ...], public_key: Path | None, options: Options, world: World,
    stores: Stores, warn: Warn,
) -> BlastRadius:  # fmt: skip
    """Read the ledger, and look at the images that were named.

    Raises: UsageError, Inconclusive (no ledger); Refused, Unavailable where Vault is asked.
    """
    ref, version = versioned(key)
    used = usage(ledger_path(options, world), ref, version)
    if not places:
        return BlastRadius(ref, version, None, used, (), used.blind, (ALWAYS_BLIND,))
    public = _public(ref, version, public_key, options, world, warn)
    seen: list[Seen] = []
    blind = list(used.blind)
    known = artifacts(used.uses)
    for place in places:
        for name, source, digest in _images(place, stores):
            try:
                types = tuple(_types(source, digest, public))
            except PipelineError as error:
                blind.append(f"{name}: {error}")
                continue
            if types:
                seen.append(Seen(name, types, str(digest) in known))
    limits = (*filter(None, map(_untagged, places)), ALWAYS_BLIND)
    return BlastRadius(ref, version, public.hint, used, tuple(seen), tuple(blind), limits)


def revoke(request: RevokeRequest, options: Options, world: World, warn: Warn) -> Revoked:
    """Write the proposed policy, then let Vault sign with newer versions only; recorded.

    Raises: UsageError (newest version, no policy), ConfigError (entry), Refused, Unavailable.
    """
    ref, version = versioned(request.key)
    _check(request, ref, options)
    policy = load_policy(options)
    assert ref.vault is not None
    mount, path = ref.vault.mount, ref.vault.path
    with session_for("keys revoke", policy, options, world, warn) as session:
        data = session.transit_key(mount, path)
        newest = member(data, "latest_version", int, str(ref))
        if version >= newest:
            raise UsageError(
                f"version {version} is the newest: nothing would be left to sign with",
                hint=f"secure-pipeline keys rotate {replaced(ref)}, and then revoke {version}",
            )
        public = _shown(data, version, request.public_key, ref)
        proposal = _proposal(policy, public, request.since)
        written = _write(proposal, request.output, policy.source) if proposal else None
        details: dict[str, Value] = {
            "version": version,
            "keyId": public.hint,
            "from": rfc3339(request.since),
            "notAfter": str(last_trusted_day(request.since)),
            "reason": request.reason,
            "policy": policy.digest,
            "policyKey": proposal.key if proposal else None,
        }
        with session.recorded(session.use("revoke", str(replaced(ref)), details)) as done:
            least = max(version + 1, _least(data, ref))
            session.transit_least_version(mount, path, least)
            if _least(session.transit_key(mount, path), ref) < least:
                raise VerificationFailed("Vault still signs with old versions", where=str(ref))
            done["leastVersion"] = least
    return Revoked(replaced(ref), version, public.hint, newest, proposal, written, least)


def versioned(text: str) -> tuple[KeyRef, int]:
    """Parse ``KEY@VERSION`` of a key in Vault. Raises: UsageError."""
    ref = KeyRef.parse(text)
    if ref.vault is None or ref.vault.version is None:
        raise UsageError(
            f"{text[:80]!r} names no version of a key in Vault",
            hint="vault-transit://MOUNT/KEY@VERSION, or vault-kv://MOUNT/PATH@VERSION#FIELD",
        )
    return ref, ref.vault.version


def replaced(ref: KeyRef) -> KeyRef:
    """The key without a version."""
    from secure_pipeline.keys.state import without_version

    return without_version(ref)


def _check(request: RevokeRequest, ref: KeyRef, options: Options) -> None:
    if ref.scheme == KV:
        assert ref.vault is not None
        raise UsageError(
            "a key that was fetched cannot be called back: whoever has it can sign with it",
            hint="remove it from the policy; then vault kv destroy -versions="
            f"{ref.vault.version} -mount={ref.vault.mount} {ref.vault.path}",
        )
    if options.policy is None:
        raise UsageError("no policy is named to take the key out of", hint="--policy POLICY.yaml")
    if len(request.reason.strip()) < 10:
        raise UsageError("the reason is too short", hint="--reason, in at least 10 characters")


def _proposal(policy: LoadedPolicy, public: PublicKey, since: datetime) -> Proposal | None:
    signers: tuple[TrustedSigner, ...] = trusted_signers(policy)
    entry = next((item.window for item in signers if item.key.der == public.der), None)
    return propose(policy, entry, since) if entry else None


def _write(proposal: Proposal, output: Path | None, policy: Path) -> Path | None:
    """Write the proposal beside the policy, whose paths it keeps; never over it."""
    if not proposal.diff:
        return None
    path = output or policy.with_name(f"{policy.stem}.proposed{policy.suffix}")
    if path.resolve() == policy.resolve():
        raise UsageError("the trusted policy itself is not written to", hint="another --output")
    write_atomic(path, proposal.text)
    return path


def _public(
    ref: KeyRef, version: int, named: Path | None, options: Options, world: World, warn: Warn
) -> PublicKey:
    """The version's public key: a file, or what Vault shows."""
    if named is not None:
        return replace(read_public_key(world.directory / named), id=str(ref))
    if ref.scheme == KV:
        raise UsageError(
            "the public half of a fetched key is not shown by Vault", hint="--public-key FILE.pub"
        )
    assert ref.vault is not None
    policy = load_policy(options)
    with session_for("keys blast-radius", policy, options, world, warn) as session:
        return _shown(session.transit_key(ref.vault.mount, ref.vault.path), version, None, ref)


def _shown(data: dict[str, object], version: int, named: Path | None, ref: KeyRef) -> PublicKey:
    from secure_pipeline.keys.vault_transit import public_of

    if named is not None:
        return replace(read_public_key(named), id=str(ref))
    try:
        return public_of(data, version, str(ref))
    except VerificationFailed as error:
        raise UsageError(
            f"Vault does not show version {version} ({error.message})",
            where=str(ref),
            hint="--public-key FILE, if it was archived",
        ) from None


def _least(data: dict[str, object], ref: KeyRef) -> int:
    found: int = member(data, "min_encryption_version", int, str(ref))
    return found


def _images(place: str, stores: Stores) -> Iterator[tuple[str, Source, Digest]]:
    """The image that was named, or all of a layout or a repository.

    Raises: UsageError, VerificationFailed, Inconclusive, Unavailable.
    """
    if "@" in place:
        source, digest = open_source(place, stores)
        yield place, source, digest
    elif place.startswith(LAYOUT):
        layout = Layout.open(Path(place.removeprefix(LAYOUT)))
        listed = layout.manifests()
        images = [item.digest for item in listed if item.artifact_type is None and not item.tag]
        images += _tagged(layout, [item.tag for item in listed if item.tag])
        for digest in dict.fromkeys(images):
            yield f"{place}@{digest}", layout, digest
    else:
        repository = stores.repository(place)
        for digest in dict.fromkeys(_tagged(repository, repository.tags())):
            yield f"{place}@{digest}", repository, digest


def _untagged(place: str) -> str | None:
    """What a repository's list of tags leaves out."""
    if "@" in place or place.startswith(LAYOUT):
        return None
    return f"{place}: images without a tag, of their own or of their evidence"


def _tagged(source: Source, tags: Iterable[str]) -> Iterator[Digest]:
    """Images that tags name, and those whose evidence has a tag, tagged themselves or not."""
    for tag in tags:
        evidence = _EVIDENCE.fullmatch(tag)
        if evidence:
            yield Digest.parse(f"sha256:{evidence[1]}")
        elif found := source.tagged(tag):
            yield found.digest


def _types(source: Source, digest: Digest, public: PublicKey) -> Iterator[str]:
    """Predicate types of the statements, each once, that this key has signed."""
    found: dict[bytes, str] = {}
    for item in (*collect(source, digest), *collect_signatures(source, digest)):
        if public.signed(item.envelope):
            found.setdefault(item.envelope.payload, _type(item))
    yield from sorted(found.values())


def _type(item: Attachment) -> str:
    try:
        return read_statement(item).predicate_type
    except VerificationFailed:
        return "unreadable"
