"""Signed heads: what they say, who may say it, and where they are found."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from fakes.evidence import StepClock, make_image, public_key, run_context, sign_inputs, signer
from fakes.ledgers import USE, ledger
from secure_pipeline.attestations import dsse, predicates
from secure_pipeline.attestations.statement import make_statement, parse_statement
from secure_pipeline.audit.checkpoint import (
    attach_head,
    heads_beside,
    heads_in_file,
    keep,
    sign_head,
)
from secure_pipeline.audit.log import Head
from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.reference import ImageReference

SCHEMA = Path(__file__).parents[3] / "docs/reference/predicates/ledger-head-v1.schema.json"
HEAD = Head("a" * 64, 41, "b" * 64)
KEYS = [public_key()]


def signed(head: Head = HEAD, image: ImageReference | None = None) -> dsse.Envelope:
    return sign_head(head, image, run_context("run-1") if image else None, signer(), StepClock())


@pytest.mark.parametrize("image", [None, ImageReference("service", Digest("c" * 64))])
def test_a_head_is_as_its_schema_says(image):
    """The published schema accepts it; subject and run are the image's, or the ledger's own."""
    statement = parse_statement(signed(image=image).payload)
    jsonschema.validate(statement.predicate, json.loads(SCHEMA.read_bytes()))
    assert statement.predicate_type == predicates.LEDGER_HEAD
    (subject,) = statement.subjects
    assert subject.digests["sha256"] == (image.digest.hex if image else HEAD.hash)
    assert (predicates.RUN_MEMBER in statement.predicate) == (image is not None)


def test_heads_are_kept_in_a_file_one_a_line(tmp_path):
    """Each is added; all come back in order."""
    for seq in range(3):
        keep(tmp_path / "heads", signed(Head("a" * 64, seq, "b" * 64)))
    assert [item.head.seq for item in heads_in_file(tmp_path / "heads", KEYS)] == [0, 1, 2]
    assert (tmp_path / "heads").read_bytes().count(b"\n") == 3


def test_a_file_with_anything_else_is_refused(tmp_path):
    """Another key, a torn line, another statement: named by line. No head at all: not decided."""
    good = signed()
    foreign = sign_head(HEAD, None, None, signer(1), StepClock())
    other = make_statement("ledger", Digest("b" * 64), predicates.VSA, {"x": 1})
    cases = {
        "not signed": foreign.raw,
        "not JSON": good.raw[:100],
        "predicate type": dsse.sign_envelope(other, signer()),
    }
    path = tmp_path / "heads"
    for reason, line in cases.items():
        path.write_bytes(good.raw + b"\n" + line + b"\n")
        with pytest.raises(VerificationFailed, match=reason) as caught:
            heads_in_file(path, KEYS)
        if reason != "predicate type":
            assert str(caught.value.where).endswith("heads:2")
    path.write_bytes(b"\n")
    with pytest.raises(Inconclusive):
        heads_in_file(path, KEYS)


@pytest.mark.parametrize(
    "change",
    [
        {"seq": -1},
        {"seq": True},
        {"seq": 2**60},
        {"origin": "x"},
        {"hash": "B" * 64},
        {"takenAt": 1},
    ],
)
def test_a_head_that_says_something_else_is_refused(tmp_path, change):
    """A signature does not make nonsense a head."""
    good = parse_statement(signed().payload)
    predicate = {**good.predicate, **change}
    payload = make_statement("ledger", Digest("b" * 64), predicates.LEDGER_HEAD, predicate)
    (tmp_path / "heads").write_bytes(dsse.sign_envelope(payload, signer()) + b"\n")
    with pytest.raises(VerificationFailed):
        heads_in_file(tmp_path / "heads", KEYS)


def test_heads_beside_an_image_are_those_of_the_key(tmp_path):
    """A head that somebody else attached counts for nothing; without any it is not decided."""
    inputs = sign_inputs(tmp_path / "image", make_image(tmp_path / "image"))
    layout, digest = Layout.open(inputs.layout), inputs.image.digest
    with pytest.raises(Inconclusive):
        heads_beside(layout, digest, KEYS)
    foreign = sign_head(HEAD, inputs.image, None, signer(1), StepClock())
    attach_head(layout, inputs.image, foreign, signer(1), StepClock())
    with pytest.raises(Inconclusive):
        heads_beside(layout, digest, KEYS)
    log = ledger(tmp_path)
    log.intend(USE)
    own = sign_head(log.head(), inputs.image, inputs.context, signer(), StepClock())
    attach_head(layout, inputs.image, own, signer(), StepClock())
    assert [item.head for item in heads_beside(layout, digest, KEYS)] == [log.head()]
