"""Evidence into a registry, in both layouts, so that a concurrent writer loses nothing (SIG-29).

Each statement is a referrer of its own; only the ``.att`` tag, and the fallback tag of registries
without the referrers API, are read, modified and written. A writer that overwrites another's change
of one tag still meets it in the other place: whatever this key signed and one layout has and
the other lacks is added there, until one look at both finds nothing to add.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from secure_pipeline.attestations import bundle, dsse
from secure_pipeline.attestations.attachments import Limits, bundle_spots, check_spots
from secure_pipeline.attestations.author import Maker
from secure_pipeline.attestations.forms import (
    ENVELOPE_TYPE,
    Attested,
    att_form,
    att_tag,
    bundle_form,
)
from secure_pipeline.errors import Unavailable, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.form import Form
from secure_pipeline.oci.manifest import MANIFEST_TYPE, Descriptor, parse_manifest
from secure_pipeline.oci.store import Target

ROUNDS = 20
"""Looks at both layouts; each one after the first repairs what others overwrote."""


@dataclass(frozen=True)
class Published:
    """What was added, in numbers of statements."""

    bundles: int
    att: int


@dataclass(frozen=True)
class _Found:
    """What both layouts hold, by the digest of the layer."""

    bundles: Mapping[Digest, Descriptor]
    att: Mapping[Digest, Descriptor]


def publish(
    target: Target,
    image: Descriptor,
    envelopes: Sequence[dsse.Envelope],
    key: Maker,
    created: datetime,
) -> Published:
    """Attach envelopes that this key or identity signed; none is added twice.

    Raises: VerificationFailed if an envelope is malformed, about another image or by another
    key; Inconclusive over the limits of readers; Unavailable, also if other writers keep
    overwriting what was written.
    """
    session = _Publication(target, image, key, created)
    for envelope in envelopes:
        if len(envelope.signatures) != 1 or not key.signed(envelope):
            raise VerificationFailed(f"an envelope is not signed by key '{key.id}' alone")
        session.want(Attested.of(envelope, image.digest))
    for _ in range(ROUNDS):
        if not session.converge():
            return Published(session.added_bundles, session.added_att)
    raise Unavailable(
        "other writers keep overwriting the attestations",
        where=target.name,
        hint="run it again: what is there already is not added twice",
    )


class _Publication:
    """One publication; remembers what each layer of either layout holds."""

    def __init__(self, target: Target, image: Descriptor, key: Maker, created: datetime) -> None:
        self.target = target
        self.image = image
        self.key = key
        self.created = created
        self.added_bundles = 0
        self.added_att = 0
        self._wanted: dict[Digest, Attested] = {}
        """By digest of the envelope, which is the digest of its layer in ``.att``."""
        self._forms: dict[Digest, tuple[Digest, Form]] = {}
        """Envelope to (layer of its bundle, form)."""
        self._foreign: set[Digest] = set()
        """Layers of either layout that hold no envelope of this key."""

    def want(self, attested: Attested) -> None:
        """Add an envelope to what has to be in both layouts."""
        raw = attested.envelope.raw
        digest = Digest.of(raw)
        if digest not in self._wanted:
            form = bundle_form(self.image, attested, self.key.der, self.created)
            self._wanted[digest] = attested
            self._forms[digest] = (Digest.of(form.blobs[-1][0]), form)

    def converge(self) -> bool:
        """Look at both layouts and add what one of them lacks; False if none lacks anything."""
        found = self._look()
        self._learn(found)
        bundles = [d for d in self._wanted if self._forms[d][0] not in found.bundles]
        att = [d for d, w in self._wanted.items() if d not in found.att and not w.envelope.proof]
        for digest in bundles:
            self._write(self._forms[digest][1])
        if att:
            self.target.change_tag(att_tag(self.image.digest), MANIFEST_TYPE, self._with_all)
        self.added_bundles += len(bundles)
        self.added_att += len(att)
        return bool(bundles or att)

    def _look(self) -> _Found:
        """Read the older layout first: the order in which writers write, backwards."""
        tagged = self.target.tagged(att_tag(self.image.digest))
        layers = self.target.read_manifest(tagged).layers if tagged else ()
        att = {item.digest: item for item in layers if item.media_type == ENVELOPE_TYPE}
        listed = self.target.referrers(self.image.digest)
        spots = bundle_spots(self.target, listed, self.image.digest)
        found = _Found({layer.digest: layer for _, layer in spots}, att)
        check_spots([*found.bundles.values(), *att.values()], Limits(), self.image.digest)
        return found

    def _learn(self, found: _Found) -> None:
        """What else this key signed about the image belongs into both layouts too."""
        known = {*self._wanted, *self._foreign, *(layer for layer, _ in self._forms.values())}
        for digest, layer in {**found.bundles, **found.att}.items():
            if digest not in known:
                envelope = self._envelope(layer, in_bundle=digest in found.bundles)
                if envelope is None or not self.key.signed(envelope):
                    self._foreign.add(digest)
                else:
                    self.want(Attested.of(envelope, self.image.digest))

    def _envelope(self, layer: Descriptor, *, in_bundle: bool) -> dsse.Envelope | None:
        """Read an attachment; None for one that is none of ours, whatever is wrong with it."""
        data = self.target.read_blob(layer.digest, Limits().each, layer.size)
        where = str(layer.digest)
        try:
            if in_bundle and bundle.read_bundle(data, where).certificate is not None:
                return bundle.proven(data, where)
            parse = bundle.parse_bundle if in_bundle else dsse.parse_envelope
            envelope = parse(data, where)
        except VerificationFailed:
            return None
        if len(envelope.signatures) != 1:
            return None
        signature = dsse.EnvelopeSignature("", envelope.signatures[0].sig)
        plain = dsse.serialise(envelope.payload_type, envelope.payload, (signature,))
        return dsse.parse_envelope(plain if in_bundle else data)

    def _with_all(self, present: bytes | None) -> bytes | None:
        """The ``.att`` manifest with all that is wanted; its new blobs are stored first."""
        manifest = parse_manifest(present, att_tag(self.image.digest)) if present else None
        form = att_form(manifest, list(self._wanted.values()))
        if form is None:
            return None
        self._write_blobs(form)
        return form.manifest

    def _write(self, form: Form) -> None:
        self._write_blobs(form)
        self.target.write_manifest(form.manifest, MANIFEST_TYPE)

    def _write_blobs(self, form: Form) -> None:
        for data, media_type in form.blobs:
            if not self.target.has_blob(Digest.of(data), len(data)):
                self.target.write_blob(data, media_type)
