"""Changes of an envelope or a bundle around a signed statement."""

from __future__ import annotations

import base64
from typing import Any

from fakes import signatures
from fakes.jsontext import Members, read
from fakes.mutations.draft import Change, Draft, Mutation, Origin, Random
from fakes.mutations.trees import TREE, edit_bytes
from secure_pipeline.attestations import dsse


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _envelope(change: Change) -> Mutation:
    def mutate(random_: Random, draft: Draft, origin: Origin) -> None:
        draft.envelope.append(change)

    return mutate


def _document_tree(name: str) -> Mutation:
    def mutate(random_: Random, draft: Draft, origin: Origin) -> None:
        draft.outer.append(lambda random_, document, draft, origin: TREE[name](random_, document))

    return mutate


def _document_bytes(random_: Random, draft: Draft, origin: Origin) -> None:
    draft.raw.append(edit_bytes)


def _payload_type(random_: Random, draft: Draft, origin: Origin) -> None:
    kind = dsse.PAYLOAD_TYPE
    types = (f"{kind} ", kind.upper(), f"{kind};v=1", "application/json", "", "text/plain", "é")
    chosen = random_.choice(types)
    if random_.random() < 0.5:
        draft.payload_type = chosen  # signed with it
    else:
        draft.envelope.append(
            lambda random_, envelope, draft, origin: envelope.put("payloadType", chosen)
        )


def _spelling(random_: Random, text: str) -> str:
    """Another spelling of base64, mostly of the same bytes."""
    middle = len(text) // 2
    return random_.choice(
        (
            *(text.replace("+", "-").replace("/", "_"), text.rstrip("="), f"{text}=", f"{text}\n"),
            *(f"{text[:middle]}\n{text[middle:]}", f"{text[:middle]}\r\n{text[middle:]}"),
            *(f"{text[:middle]} {text[middle:]}", f" {text}", "", text[:-1], f"{text}AA", "!!!!"),
            _loose_bits(text),
        )
    )


def _loose_bits(text: str) -> str:
    """Set bits of the last character that decode to nothing."""
    body = text.rstrip("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    if body == text:
        return text
    return body[:-1] + alphabet[alphabet.index(body[-1]) | 1] + text[len(body) :]


def _payload_spelling(random_: Random, envelope: Members, draft: Draft, origin: Origin) -> None:
    envelope.put("payload", _spelling(random_, str(envelope.get("payload"))))


def _first(envelope: Members) -> Members | None:
    items = envelope.get("signatures")
    first = items[0] if isinstance(items, list) and items else None
    return first if isinstance(first, Members) else None


def _sig_spelling(random_: Random, envelope: Members, draft: Draft, origin: Origin) -> None:
    if first := _first(envelope):
        first.put("sig", _spelling(random_, str(first.get("sig"))))


def _sig_form(random_: Random, envelope: Members, draft: Draft, origin: Origin) -> None:
    """Other encodings of the same signature, and near misses."""
    if first := _first(envelope):
        made = origin.signer.sign(dsse.pae(draft.payload_type, draft.payload))
        first.put("sig", _base64(random_.choice(signatures.FORMS)(made)))


def _keyid(random_: Random, envelope: Members, draft: Draft, origin: Origin) -> None:
    der = origin.signer.public_key_der
    ids: tuple[Any, ...] = (
        *(dsse.key_id(der), signatures.ssh_fingerprint(der), "x", " ", None, 5, [], "é"),
        signatures.ssh_fingerprint(origin.other.public_key_der),
    )
    if first := _first(envelope):
        first.put("keyid", random_.choice(ids))


def _several(random_: Random, envelope: Members, draft: Draft, origin: Origin) -> None:
    first = _first(envelope)
    if first is None:
        return
    message = dsse.pae(draft.payload_type, draft.payload)
    foreign = Members([("keyid", ""), ("sig", _base64(origin.other.sign(message)))])
    again = Members([("keyid", ""), ("sig", _base64(origin.signer.sign(message)))])
    broken = Members([("keyid", ""), ("sig", "AA==")])
    envelope.put(
        "signatures",
        random_.choice(
            (
                *([first, foreign], [foreign, first], [first, again], [broken, first], [foreign]),
                *([], None, [None], [first, None], first, [first] * 33, [foreign] * 31 + [first]),
                *([Members([("sig", first.get("sig"))])], [Members([("keyid", "")])]),
            )
        ),
    )


def _untrusted(random_: Random, envelope: Members, draft: Draft, origin: Origin) -> None:
    if first := _first(envelope):
        message = dsse.pae(draft.payload_type, draft.payload)
        first.put("sig", _base64(origin.other.sign(message)))


# ---- bundles (an envelope that is one has no such members; then they are only unknown ones) ---


def _bundle_members(random_: Random, draft: Draft, origin: Origin) -> None:
    draft.outer.append(_change_bundle)


def _change_bundle(random_: Random, document: Members, draft: Draft, origin: Origin) -> None:
    base = "application/vnd.dev.sigstore.bundle"
    hint = Members([("publicKey", Members([("hint", "x")]))])
    certificate = ("certificate", Members([("rawBytes", "AAAA")]))
    message = read('{"messageDigest":{"algorithm":"SHA2_256","digest":"AA=="},"signature":"AA=="}')
    changes: tuple[tuple[str, Any], ...] = (
        *(("mediaType", f"{base}+json;version=0.{n}") for n in (1, 2, 3, 4)),
        *(("mediaType", f"{base}.v0.{n}+json") for n in (1, 2, 4)),
        *(("mediaType", value) for value in (None, "", f"{base}.v0.3.1+json", f"{base}.V0.3+json")),
        *(("verificationMaterial", value) for value in (None, Members(), hint, "x")),
        ("verificationMaterial", Members([*hint, ("tlogEntries", [])])),
        ("verificationMaterial", Members([*hint, ("tlogEntries", [Members()])])),
        ("verificationMaterial", Members([*hint, ("timestampVerificationData", Members())])),
        ("verificationMaterial", Members([*hint, ("timestampVerificationData", "x")])),
        ("verificationMaterial", Members([*hint, certificate])),
        ("verificationMaterial", Members([certificate])),
        ("verificationMaterial", Members([("publicKey", Members())])),
        ("verificationMaterial", Members([("publicKey", Members([("hint", 5)]))])),
        ("verificationMaterial", Members([("x509CertificateChain", Members())])),
        ("messageSignature", message),
        ("messageSignature", None),
        ("dsseEnvelope", None),
    )
    document.put(*random_.choice(changes))


ENVELOPES: dict[str, Mutation] = {
    **{f"document: {name}": _document_tree(name) for name in TREE},
    "document: bytes": _document_bytes,
    "envelope: payload type": _payload_type,
    "envelope: payload's spelling": _envelope(_payload_spelling),
    "envelope: signature's spelling": _envelope(_sig_spelling),
    "envelope: signature's form": _envelope(_sig_form),
    "envelope: key id": _envelope(_keyid),
    "envelope: several signatures": _envelope(_several),
    "envelope: another key": _envelope(_untrusted),
    "bundle: members": _bundle_members,
}
