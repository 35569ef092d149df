"""Statements."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.attestations.predicates import PROVENANCE, VULNS
from secure_pipeline.attestations.statement import make_statement, parse_statement
from secure_pipeline.errors import PipelineError, VerificationFailed
from secure_pipeline.oci.digest import Digest

IMAGE, OTHER = Digest.of(b"image"), Digest.of(b"other")
PAYLOAD = make_statement("app", IMAGE, VULNS, {"scanner": {}})

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)  # fmt: skip


def altered(**changes: Any) -> bytes:
    """The statement with members replaced; None removes one."""
    members = json.loads(PAYLOAD) | changes
    return json.dumps({name: item for name, item in members.items() if item is not None}).encode()


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), JSON))
def test_a_statement_reads_what_it_writes(predicate: dict[str, Any]) -> None:
    """Any predicate comes back, about the same image, and equal input gives equal bytes."""
    payload = make_statement("app", IMAGE, VULNS, predicate)
    parsed = parse_statement(payload)
    assert (parsed.predicate, parsed.payload) == (predicate, payload)
    parsed.require_subject(IMAGE)
    parsed.require_type(VULNS)
    assert make_statement("app", IMAGE, VULNS, dict(reversed(predicate.items()))) == payload


def test_the_older_version_is_read() -> None:
    """Cosign still writes Statement/v0.1; it is read like v1."""
    parse_statement(altered(_type="https://in-toto.io/Statement/v0.1")).require_subject(IMAGE)


@pytest.mark.parametrize(
    "changes",
    [
        {"_type": None},
        {"_type": "https://in-toto.io/Statement/v2"},
        {"_type": "https://in-toto.io/Statement/v1 "},
        {"_type": 1},
        {"predicateType": None},
        {"predicateType": ""},
        {"predicateType": ["x"]},
        {"predicate": None},
        {"predicate": "text"},
        {"subject": []},
        {"subject": None},
        {"subject": {}},
        {"subject": ["app"]},
        {"subject": [{"name": "app"}]},
        {"subject": [{"name": "app", "digest": {}}]},
        {"subject": [{"name": "app", "digest": {"sha256": IMAGE.hex.upper()}}]},
        {"subject": [{"name": "app", "digest": {"sha256": IMAGE.hex[:-1]}}]},
        {"subject": [{"name": "app", "digest": {"sha256": None}}]},
        {"subject": [{"name": "a", "digest": {"sha256": IMAGE.hex}}] * 1001},
    ],
)
def test_sig_03_a_malformed_statement_is_refused(changes: dict[str, Any]) -> None:
    """A statement with a member missing, empty or of another type is refused."""
    with pytest.raises(VerificationFailed):
        parse_statement(altered(**changes))


def test_sig_03_the_predicate_type_is_matched_exactly() -> None:
    """Another type, a longer or a differently spelled one is not the expected one."""
    for wanted in (PROVENANCE, VULNS + "/", VULNS.upper(), "", VULNS[:-1]):
        with pytest.raises(VerificationFailed, match="predicate type"):
            parse_statement(PAYLOAD).require_type(wanted)


def test_sig_04_another_subject_names_both_digests() -> None:
    """A statement about another image is refused, naming expected and found."""
    with pytest.raises(VerificationFailed) as caught:
        parse_statement(PAYLOAD).require_subject(OTHER)
    assert str(OTHER) in str(caught.value)
    assert str(IMAGE) in str(caught.value)


@pytest.mark.parametrize("digest", [{"sha512": "0" * 128}, {"gitCommit": "0" * 40}])
def test_sig_04_a_subject_without_sha256_is_not_the_image(digest: dict[str, str]) -> None:
    """A subject that no SHA-256 digest identifies matches nothing."""
    statement = parse_statement(altered(subject=[{"name": "app", "digest": digest}]))
    with pytest.raises(VerificationFailed, match="no sha256"):
        statement.require_subject(IMAGE)


def test_sig_04_a_second_subject_is_refused() -> None:
    """Exactly the image is the subject: one more could be anything."""
    subjects = [{"name": "app", "digest": {"sha256": digest.hex}} for digest in (IMAGE, OTHER)]
    with pytest.raises(VerificationFailed, match="exactly"):
        parse_statement(altered(subject=subjects)).require_subject(IMAGE)


TEXT = PAYLOAD.decode()
AMBIGUOUS = {
    "subject twice": TEXT.replace("{", '{"subject":[],', 1),
    "digest twice": TEXT.replace('"sha256":', f'"sha256":"{OTHER.hex}","sha256":', 1),
    "predicate twice": TEXT.replace("{", '{"predicate":{},', 1),
    "trailing": TEXT + "\n{}",
    "mark": "\ufeff" + TEXT,
    "NaN": TEXT.replace('"scanner":{}', '"scanner":NaN'),
    "Infinity": TEXT.replace('"scanner":{}', '"scanner":Infinity'),
    "surrogate": TEXT.replace('"scanner":{}', '"scanner":"\\udfff"'),
    "deep": TEXT.replace('"scanner":{}', '"scanner":' + '{"a":' * 100_000 + "1" + "}" * 100_000),
    "infinite": TEXT.replace('"scanner":{}', '"scanner":1e999'),
    "huge number": TEXT.replace('"scanner":{}', '"scanner":' + "9" * 100_000),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_sig_05_sig_07_ambiguous_json_is_refused(case: str) -> None:
    """Duplicates, trailing data, marks, NaN, surrogates and depth are refused in statements."""
    with pytest.raises(VerificationFailed):
        parse_statement(AMBIGUOUS[case].encode())


def test_sig_07_other_encodings_are_refused() -> None:
    """Only UTF-8 is JSON here."""
    for encoding in ("utf-16", "utf-32"):
        with pytest.raises(VerificationFailed):
            parse_statement(TEXT.encode(encoding))
    with pytest.raises(VerificationFailed):
        parse_statement(PAYLOAD.replace(b"app", b"\xff"))


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_statement_or_a_refusal(data: bytes) -> None:
    """No bytes make the parser fail in another way."""
    with pytest.raises(PipelineError):
        parse_statement(data)
