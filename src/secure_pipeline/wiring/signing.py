"""Single statements made later: the key that signs them, and their way to the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from secure_pipeline.adapters.registry import Repository
from secure_pipeline.attestations import dsse
from secure_pipeline.attestations.author import author
from secure_pipeline.attestations.publishing import Published, publish
from secure_pipeline.errors import UsageError
from secure_pipeline.keys import local
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.keys.verify import PublicKey
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.oci.store import Source
from secure_pipeline.policy.document import Algorithm, LoadedPolicy
from secure_pipeline.ports import AnySigner, Clock, Signer
from secure_pipeline.wiring.identity import known_signer
from secure_pipeline.wiring.keys import session_for
from secure_pipeline.wiring.options import Options, World
from secure_pipeline.wiring.vault import young_signer

Warn = Callable[[str], None]


@contextmanager
def opened_signer(
    stage: str, ref: KeyRef, policy: LoadedPolicy, options: Options, world: World, warn: Warn
) -> Iterator[AnySigner]:
    """A key, wherever it is, or an identity; what was opened for it is ended.

    Raises: UsageError, ConfigError, PolicyDenied, Inconclusive, Unavailable, VerificationFailed.
    """
    if ref.keyless:
        yield known_signer(ref, policy, world)
        return
    with opened_key(stage, ref, policy, options, world, warn) as signer:
        yield signer


@contextmanager
def opened_key(
    stage: str, ref: KeyRef, policy: LoadedPolicy, options: Options, world: World, warn: Warn
) -> Iterator[Signer]:
    """A key, wherever it is; what was opened for it is ended.

    Raises: UsageError, ConfigError, PolicyDenied, Inconclusive, Unavailable.
    """
    if ref.keyless:
        raise UsageError(f"{stage} takes a key, not an identity", hint="--key file:PATH")
    if ref.vault is None:
        password = local.password_from(world.environment)
        if password is None:
            hint = f"set {local.PASSWORD_VARIABLES[0]}"
            raise UsageError("the key's password is not set", hint=hint)
        yield local.load(world.directory / ref.path, password)
        return
    with session_for(stage, policy, options, world, warn) as session:
        yield young_signer(session, ref, policy, world.environment)


def publish_statements(
    source: Source,
    image: ImageReference,
    envelopes: Sequence[dsse.Envelope],
    signer: AnySigner,
    clock: Clock,
) -> Published:
    """Attach envelopes of this signer to an image where it is.

    Raises: UsageError if nothing can be attached there; VerificationFailed, Inconclusive,
    Unavailable.
    """
    if not isinstance(source, Layout | Repository):
        raise UsageError("nothing can be attached there", where=source.name)
    return publish(source, source.find(image.digest), envelopes, author(signer), clock.now())


def public_half(signer: Signer) -> PublicKey:
    """The public key of a signer."""
    return PublicKey("signer", Algorithm(signer.algorithm), signer.public_key_der)
