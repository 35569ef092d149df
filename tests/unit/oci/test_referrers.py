"""The fallback tag and its index (OCI distribution 1.1, referrers tag schema)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.errors import Inconclusive, PipelineError, VerificationFailed
from secure_pipeline.oci import referrers
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.manifest import (
    EMPTY_TYPE,
    INDEX_TYPE,
    MANIFEST_TYPE,
    MAX_ENTRIES,
    Descriptor,
    parse_index,
    parse_manifest,
)

SUBJECT = Digest.of(b"image")


def note(number: int, **more: Any) -> Descriptor:
    digest = Digest.of(str(number).encode())
    return Descriptor(MANIFEST_TYPE, digest, 100, artifact_type="a/b", **more)


def digests(data: bytes | None) -> list[Digest]:
    assert data is not None
    return [item.digest for item in parse_index(data, "test").manifests]


def built(numbers: list[int]) -> bytes | None:
    data: bytes | None = None
    for number in numbers:
        changed = referrers.merge(data, note(number), "test")
        data = data if changed is None else changed
    return data


def test_the_tag_is_the_digest_with_a_dash() -> None:
    """The name that every client of the specification uses."""
    assert referrers.fallback_tag(SUBJECT) == f"sha256-{SUBJECT.hex}"


def document(**more: Any) -> bytes:
    empty = {"mediaType": EMPTY_TYPE, "digest": str(Digest.of(b"{}")), "size": 2}
    base = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": empty, "layers": []}
    return json.dumps({**base, **more}).encode()


@pytest.mark.parametrize(
    ("more", "kind"),
    [({"artifactType": "x/y"}, "x/y"), ({}, EMPTY_TYPE), ({"artifactType": ""}, EMPTY_TYPE)],
)
def test_an_entry_says_the_kind_and_all_annotations(more: dict[str, Any], kind: str) -> None:
    """The artifactType of the manifest, the config's type only where it has none."""
    data = document(annotations={"a": "1", "b": "ü"}, **more)
    plain = Descriptor(MANIFEST_TYPE, Digest.of(data), len(data))
    entry = referrers.entry(parse_manifest(data, "test"), plain)
    assert entry.artifact_type == kind
    assert entry.annotations == {"a": "1", "b": "ü"}
    assert (entry.media_type, entry.digest, entry.size) == (MANIFEST_TYPE, plain.digest, plain.size)


def test_an_index_may_refer_too() -> None:
    """An index with a subject is listed with its own artifact type."""
    data = json.dumps(
        {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [], "artifactType": "i/x"}
    ).encode()
    plain = Descriptor(INDEX_TYPE, Digest.of(data), len(data))
    assert referrers.entry(parse_index(data, "test"), plain).artifact_type == "i/x"


def test_the_first_entry_makes_an_index() -> None:
    """Where there is nothing yet, the new document is a whole index."""
    data = referrers.merge(None, note(1), "test")
    assert data is not None
    assert json.loads(data)["mediaType"] == INDEX_TYPE
    assert digests(data) == [note(1).digest]


@given(st.lists(st.integers(0, 8), min_size=1, max_size=30))
def test_adding_again_adds_nothing(numbers: list[int]) -> None:
    """Whatever the order: each is listed once, and a second time changes nothing."""
    data = built(numbers)
    assert sorted(digests(data)) == sorted({note(number).digest for number in numbers})
    assert all(referrers.merge(data, note(number), "test") is None for number in numbers)


def test_what_others_wrote_is_kept() -> None:
    """Unknown members, other entries and their annotations survive."""
    theirs = {**note(1).to_json(), "annotations": {"x": "y"}, "data": "e30=", "custom": [1]}
    present = {
        **{"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [theirs]},
        "annotations": {"by": "others"},
    }
    data = referrers.merge(json.dumps(present).encode(), note(2), "test")
    assert data is not None
    after = json.loads(data)
    assert after["manifests"][0] == theirs
    assert after["annotations"] == {"by": "others"}


def test_a_poor_entry_of_ours_is_made_right() -> None:
    """Duplicates, and an entry without type and annotations, become the one right entry."""
    poor = {"mediaType": MANIFEST_TYPE, "digest": str(note(1).digest), "size": 100}
    present = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [poor, poor]}
    wanted = note(1, annotations={"a": "b"})
    data = referrers.merge(json.dumps(present).encode(), wanted, "test")
    assert data is not None
    assert parse_index(data, "test").manifests == (wanted,)


@pytest.mark.parametrize("present", [b"", b"{}", document(), b"[]", b'{"schemaVersion":2}'])
def test_something_else_under_the_tag_is_not_overwritten(present: bytes) -> None:
    """What is no index is left alone."""
    with pytest.raises(VerificationFailed):
        referrers.merge(present, note(1), "test")


def test_sig_15_the_list_has_a_limit() -> None:
    """One entry or one byte too many is refused before it is written."""
    entries = [note(number).to_json() for number in range(MAX_ENTRIES)]
    present = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}
    with pytest.raises(Inconclusive):
        referrers.merge(json.dumps(present).encode(), note(-1), "test")
    with pytest.raises(Inconclusive):
        referrers.merge(None, note(1, annotations={"x": "y" * (5 << 20)}), "test")


def test_reg_09_lists_are_joined_by_digest() -> None:
    """What is in either list is in the union, once; the first description stays."""
    first = [note(1, annotations={"from": "api"}), note(2)]
    second = [note(1, annotations={"from": "tag"}), note(3)]
    found = referrers.union((first, second), "test")
    assert [item.digest for item in found] == [note(n).digest for n in (1, 2, 3)]
    assert found[0].annotations == {"from": "api"}


def test_reg_09_one_digest_in_two_ways_fails() -> None:
    """Two sizes or types of one digest cannot both be true."""
    other = Descriptor(MANIFEST_TYPE, note(1).digest, 101)
    with pytest.raises(VerificationFailed, match="two ways"):
        referrers.union(([note(1)], [other]), "test")


def test_sig_15_a_union_has_a_limit() -> None:
    """Ten thousand referrers are fine, one more is not."""
    many = [note(number) for number in range(MAX_ENTRIES)]
    assert len(referrers.union((many, many[:5]), "test")) == MAX_ENTRIES
    with pytest.raises(Inconclusive):
        referrers.union((many, [note(-1)]), "test")


def test_sig_15_one_long_list_is_inconclusive_not_wrong() -> None:
    """Too many entries in one document is a limit; anything malformed stays a failure."""
    entries = [note(number).to_json() for number in range(MAX_ENTRIES + 1)]
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}
    with pytest.raises(Inconclusive):
        referrers.listed(json.dumps(index).encode(), "test")
    index["manifests"] = entries[:-1]
    assert len(referrers.listed(json.dumps(index).encode(), "test")) == MAX_ENTRIES
    with pytest.raises(VerificationFailed):
        referrers.listed(b'{"schemaVersion":2,"manifests":{}}', "test")


@given(st.binary(max_size=300))
def test_any_bytes_under_the_tag_are_merged_or_refused(present: bytes) -> None:
    """No content of the tag ends in anything but an index or an error for people."""
    try:
        data = referrers.merge(present, note(1), "test")
    except PipelineError:
        return
    assert note(1).digest in digests(data)
