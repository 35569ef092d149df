"""Envelopes and bundles that differ from real ones in one to three ways, from a seed.

What is changed inside a statement is signed again by the right key, so that the parser of
statements is reached and not only the check of the signature.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass

from fakes.jsontext import Members, read, write
from fakes.mutations.draft import Draft, FixedSigner, Mutation, Origin, Random
from fakes.mutations.envelopes import ENVELOPES
from fakes.mutations.statements import STATEMENTS
from secure_pipeline.attestations import bundle, dsse
from secure_pipeline.attestations.statement import make_statement

__all__ = ["MUTATIONS", "Case", "FixedSigner", "Origin", "cases"]

MUTATIONS: dict[str, Mutation] = STATEMENTS | ENVELOPES
"""Name to change; every one of them occurs among some hundred cases."""


@dataclass(frozen=True)
class Case:
    """One document, and how it came to be."""

    number: int
    form: str
    """``bundle`` or ``envelope``."""
    kind: str
    """The predicate type that a reader asks for."""
    data: bytes
    steps: tuple[str, ...]

    def __str__(self) -> str:
        return f"case {self.number} ({self.form}, {', '.join(self.steps) or 'unchanged'})"


def cases(origin: Origin, form: str, count: int, seed: int) -> Iterator[Case]:
    """Yield ``count`` documents; equal arguments give equal documents."""
    kinds = sorted(origin.predicates)
    for number in range(count):
        random_ = Random(f"{seed}:{form}:{number}")
        kind = kinds[number % len(kinds)]
        predicate = origin.predicates[kind] | {"case": f"{form} {number}"}
        statement = read(make_statement("service", origin.image, kind, predicate))
        draft = Draft(statement, origin.image, kind)
        names = random_.choices(sorted(MUTATIONS), k=random_.choice((0, 1, 1, 1, 1, 1, 2, 2, 3)))
        for name in names:
            MUTATIONS[name](random_, draft, origin)
        yield Case(number, form, kind, _finish(random_, draft, origin, form), tuple(names))


def _finish(random_: Random, draft: Draft, origin: Origin, form: str) -> bytes:
    """Sign the payload and put the document together."""
    payload = draft.payload
    message = dsse.pae(draft.payload_type, payload)
    signature = Members([("keyid", ""), ("sig", _base64(origin.signer.sign(message)))])
    envelope = Members(
        [
            ("payloadType", draft.payload_type),
            ("payload", _base64(payload)),
            ("signatures", [signature]),
        ]
    )
    document = envelope
    if form == "bundle":
        document = Members()
        document.put("mediaType", bundle.MEDIA_TYPE)
        hint = Members([("hint", dsse.key_id(origin.signer.public_key_der))])
        document.put("verificationMaterial", Members([("publicKey", hint)]))
        document.put("dsseEnvelope", envelope)
    for change in draft.envelope:
        change(random_, envelope, draft, origin)
    for change in draft.outer:
        change(random_, document, draft, origin)
    data = write(document).encode("utf-8", "surrogatepass")
    for edit in draft.raw:
        data = edit(random_, data)
    return data


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
