"""One attestation, and what any reader with a key would say of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from secure_pipeline import strictjson
from secure_pipeline.attestations import bundle, dsse
from secure_pipeline.attestations.forms import ATT_PREDICATE, ATT_SIGNATURE
from secure_pipeline.attestations.statement import Statement, parse_statement
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.interop.model import Answer
from secure_pipeline.interop.sight import BUNDLE_PREFIX, AttLayer, Referrer
from secure_pipeline.interop.traps import TRAPS, UNCERTAIN, bundle_traps, envelope_traps
from secure_pipeline.keys.verify import PublicKey
from secure_pipeline.oci.digest import Digest

ATT_LOG = "dev.sigstore.cosign/bundle"
ATT_CERTIFICATE = "dev.sigstore.cosign/certificate"


@dataclass(frozen=True)
class Check:
    """An answer and its reason."""

    answer: Answer
    why: str
    hint: str | None = None


@dataclass(frozen=True)
class Piece:
    """An attestation as it was found, its signature not yet checked."""

    form: Literal["bundle", "att"]
    listed: str
    """The artifact type of its referrer, as the list of referrers says it."""
    predicate_type: str | None
    """None where it could not be read."""
    envelope: dsse.Envelope | None = None
    statement: Statement | None = None
    trouble: Check | None = None
    """Why no reader, or not surely every one, takes it."""
    keyless: bool = False
    logged: bool = False
    """Whether an entry of a transparency log came with it."""
    traps: tuple[str, ...] = ()
    """Where cosign is stricter than we are (``traps.TRAPS``)."""
    ignored: str = ""
    """Why cosign does not take it for a bundle at all."""

    @property
    def certain(self) -> bool:
        """Whether cosign takes it for a bundle, for all that is known."""
        unread = self.trouble is not None and self.trouble.answer is Answer.UNKNOWN
        return not self.ignored and not unread


def of_referrer(referrer: Referrer, key: PublicKey | None) -> Piece | None:
    """Read a referrer; None if it holds no bundle in any sense.

    What cosign takes for a bundle: one layer, the media type's prefix, a bundle of version 0.3
    that protojson can read; else it is passed over without a word (cosign
    pkg/oci/remote/signatures.go ``Bundle``, pkg/cosign/verify.go ``GetBundles``).
    """
    listed = referrer.listed.artifact_type or ""
    layers = referrer.manifest.layers if referrer.manifest else ()
    form = len(layers) == 1 and referrer.layer_type.startswith(BUNDLE_PREFIX)
    if referrer.layer is None:
        unread = Check(Answer.UNKNOWN, "cannot be read")
        return Piece("bundle", listed, None, trouble=unread) if form else None
    if form and (problem := _surely_none(referrer.layer)):
        return Piece("bundle", listed, None, ignored=problem)
    piece = _read_bundle(referrer.layer, listed, key)
    if not form:
        wrong = "its manifest is not one layer of a bundle's media type"
        return replace(piece, ignored=wrong) if piece.predicate_type else None
    if "bundle-unknown-member" in piece.traps:
        return replace(piece, ignored=TRAPS["bundle-unknown-member"])
    return piece


def _read_bundle(data: bytes, listed: str, key: PublicKey | None) -> Piece:
    try:
        envelope = bundle.parse_bundle(data)
        statement = parse_statement(envelope.payload)
        traps = bundle_traps(data, key.der if key else None)
    except bundle.NotAnAttestation:
        return Piece("bundle", listed, None)
    except (VerificationFailed, strictjson.InvalidJson) as error:
        kind, trouble = _unreadable(data, str(error))
        return Piece("bundle", listed, kind, trouble=trouble)
    material = strictjson.loads(data)["verificationMaterial"]
    return Piece(
        "bundle",
        listed,
        statement.predicate_type,
        envelope,
        statement,
        keyless="publicKey" not in material,
        logged=bool(material.get("tlogEntries")),
        traps=traps,
    )


def _surely_none(data: bytes) -> str:
    """Why no parser takes these bytes for a bundle; nothing if one might."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return "it is not JSON"
    media_type = value.get("mediaType") if isinstance(value, dict) else None
    if not isinstance(media_type, str) or not media_type.startswith(BUNDLE_PREFIX):
        return "it is no bundle"
    return ""


def of_layer(layer: AttLayer) -> Piece:
    """Read one layer of an ``.att`` manifest."""
    notes = layer.listed.annotations
    kind = notes.get(ATT_PREDICATE)
    if ATT_SIGNATURE not in notes:
        why = f"its layer lacks the annotation {ATT_SIGNATURE}"
        return Piece("att", "", kind, trouble=Check(Answer.NO, why, "attach it again with sign"))
    if layer.data is None:
        return Piece("att", "", kind, trouble=Check(Answer.UNKNOWN, "cannot be read"))
    try:
        envelope = dsse.parse_envelope(layer.data)
        statement = parse_statement(envelope.payload)
        traps = envelope_traps(layer.data)
    except (VerificationFailed, strictjson.InvalidJson) as error:
        unread = Check(Answer.UNKNOWN, f"is not as we read it: {error}")
        return Piece("att", "", kind, trouble=unread)
    return Piece(
        "att",
        "",
        statement.predicate_type,
        envelope,
        statement,
        keyless=ATT_CERTIFICATE in notes,
        logged=bool(notes.get(ATT_LOG)),
        traps=traps,
    )


def signed_for(piece: Piece, image: Digest, key: PublicKey | None) -> Check:
    """What every reader asks first: readable, signed by the key, about this image.

    Of several subjects one has to fit (cosign pkg/cosign/verifiers.go
    ``IntotoSubjectClaimVerifier``), while our own verify wants exactly one.
    """
    if piece.trouble:
        return piece.trouble
    assert piece.envelope
    assert piece.statement
    if image.hex not in [item.digests.get("sha256") for item in piece.statement.subjects]:
        return Check(Answer.NO, "is about another image", "sign the evidence of this image")
    if piece.keyless:
        why = "is signed without a key: a certificate's identity decides"
        return Check(Answer.UNKNOWN, why, "try the reader itself, with the signer's identity")
    if key is None:
        return Check(Answer.UNKNOWN, "no key to check it with", "give --key PUBLIC_KEY")
    if not key.signed(piece.envelope):
        return Check(Answer.NO, f"is not signed by {key.id}", "give the key that signed it")
    return Check(Answer.YES, f"signed by {key.id}")


def strict(piece: Piece) -> Check | None:
    """What cosign with protojson refuses beyond that; None if nothing."""
    certain = [name for name in piece.traps if name not in UNCERTAIN]
    name = (*certain, *piece.traps, None)[0]
    if name is None:
        return None
    answer = Answer.NO if certain else Answer.UNKNOWN
    return Check(answer, TRAPS[name], f"see {name} in docs/reference/interop.md")


def _unreadable(data: bytes, error: str) -> tuple[str | None, Check]:
    """Type and trouble of a bundle that we refuse; several signatures are refused by all."""
    unread = Check(Answer.UNKNOWN, f"is not as we read it: {error}")
    try:
        envelope: Any = strictjson.loads(data)["dsseEnvelope"]
        signatures = envelope["signatures"]
        parsed = dsse.from_json(envelope, "bundle")
        kind = parse_statement(parsed.payload).predicate_type
    except (VerificationFailed, strictjson.InvalidJson, KeyError, TypeError):
        return None, unread
    if isinstance(signatures, list) and len(signatures) != 1:
        why = f"the bundle has {len(signatures)} signatures, and has to have one"
        return kind, Check(Answer.NO, why, "sign it with one key")
    return kind, unread


def by_type(pieces: tuple[Piece, ...]) -> Mapping[str, list[Piece]]:
    """The pieces of each predicate type that is known."""
    found: dict[str, list[Piece]] = {}
    for piece in pieces:
        if piece.predicate_type:
            found.setdefault(piece.predicate_type, []).append(piece)
    return found
