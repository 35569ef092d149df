"""``quarantine``: statements that an image must not serve, or that it may again."""

from __future__ import annotations

from collections.abc import Sequence

from secure_pipeline.attestations import dsse, predicates
from secure_pipeline.attestations.predicates import RunContext
from secure_pipeline.attestations.statement import make_statement
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.keys.verify import PublicKey
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.document import Algorithm
from secure_pipeline.ports import Signer
from secure_pipeline.stages.result import Evidence

STAGE = "quarantine"


def signed_statements(
    image: ImageReference, items: Sequence[Evidence], context: RunContext | None, signer: Signer
) -> list[dsse.Envelope]:
    """Sign one statement per predicate about an image, bound to its sealed run if there is one.

    The digest that other statements name one by is ``Digest.of(envelope.payload)``.
    Raises: what the signer raises; VerificationFailed if a signature is not the key's own.
    """
    key = PublicKey("signer", Algorithm(signer.algorithm), signer.public_key_der)
    envelopes = []
    for item in items:
        predicate = predicates.bind(item, context) if context else item.predicate
        payload = make_statement(image.name, image.digest, item.predicate_type, predicate)
        envelope = dsse.parse_envelope(dsse.sign_envelope(payload, signer))
        if not key.signed(envelope):
            raise VerificationFailed(
                "the signer's signature does not verify with its own public key",
                where=item.predicate_type,
            )
        envelopes.append(envelope)
    return envelopes
