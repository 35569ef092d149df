"""From pieces to findings: the part that all readers' rules share."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from secure_pipeline.interop.model import Answer, Finding
from secure_pipeline.interop.pieces import Check, Piece, by_type, of_layer, of_referrer
from secure_pipeline.interop.sight import Sight
from secure_pipeline.keys.verify import PublicKey
from secure_pipeline.policy.document import Algorithm

MAX_LAYERS = 1000
"""Layers that cosign's library reads of an ``.att`` (cosign pkg/oci/remote/signatures.go)."""

Judge = Callable[[Piece], Check]
_FORMS = {"bundle": "bundles", "att": "the .att tag"}


def all_types(sight: Sight, key: PublicKey | None) -> tuple[str, ...]:
    """Every predicate type beside the image, in either form, seen or not; sorted."""
    referrers = (of_referrer(item, key) for item in sight.referrers)
    return tuple(sorted(by_type((*att_pieces(sight), *filter(None, referrers)))))


def att_pieces(sight: Sight) -> tuple[Piece, ...]:
    """The pieces of the ``.att`` tag."""
    return tuple(of_layer(item) for item in sight.att or ())


def bundle_pieces(sight: Sight, key: PublicKey | None) -> tuple[Piece, ...]:
    """The pieces that clients see as referrers, those too that cosign's library passes over."""
    return tuple(filter(None, (of_referrer(item, key) for item in sight.seen)))


def findings(
    types: Iterable[str],
    pieces: tuple[Piece, ...],
    judge: Judge,
    missing: Callable[[str], Check],
) -> tuple[Finding, ...]:
    """Judge each type by the best of its pieces; ``missing`` says why one has none."""
    found = by_type(pieces)
    made = []
    for kind in types:
        if kind in found:
            made.append(_finding(kind, [(piece, judge(piece)) for piece in found[kind]]))
        else:
            made += nowhere([kind], missing(kind))
    return tuple(made)


def nowhere(types: Iterable[str], check: Check) -> tuple[Finding, ...]:
    """The same answer for every type: not found, not accepted."""
    return tuple(Finding(kind, check.answer, Answer.NO, check.why, check.hint) for kind in types)


def digest_needs(key: PublicKey | None, setting: str) -> tuple[str, ...]:
    """What a reader needs for a key that signs SHA-384: all of them assume SHA-256."""
    sha384 = key is not None and key.algorithm is Algorithm.ECDSA_P384_SHA384
    return (setting,) if sha384 else ()


def _finding(kind: str, judged: list[tuple[Piece, Check]]) -> Finding:
    order = [Answer.YES, Answer.UNKNOWN, Answer.NO]
    piece, best = min(judged, key=lambda item: order.index(item[1].answer))
    why = f"in {_FORMS[piece.form]}; {best.why}"
    return Finding(kind, Answer.YES, best.answer, why, best.hint)
