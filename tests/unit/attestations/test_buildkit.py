"""Statements inside an index, as BuildKit leaves them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.foreign import Foreign
from secure_pipeline.attestations import buildkit
from secure_pipeline.attestations.attachments import Limits
from secure_pipeline.attestations.buildkit import collect_contained
from secure_pipeline.errors import Inconclusive, VerificationFailed
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout


@pytest.fixture
def foreign(tmp_path: Path) -> Foreign:
    return Foreign(tmp_path / "image")


def test_statements_come_with_the_image_they_are_about(foreign: Foreign) -> None:
    """Each layer of an attestation manifest, and the image manifest of the same index."""
    platform = foreign.image.digest
    first, second = foreign.statement(), foreign.statement("https://spdx.dev/Document", {})
    foreign.index(first, second)
    found = collect_contained(foreign.layout, foreign.image.digest)
    assert [(item.payload, item.about) for item in found] == [(first, platform), (second, platform)]


def test_an_image_of_one_platform_holds_none(foreign: Foreign) -> None:
    """Only an index can."""
    assert collect_contained(foreign.layout, foreign.image.digest) == ()


def test_a_reference_out_of_the_index_is_left_out(foreign: Foreign) -> None:
    """Whatever it says is not about this image."""
    foreign.index(foreign.statement(), refers=Digest("1" * 64))
    assert collect_contained(foreign.layout, foreign.image.digest) == ()


def test_rev_an_altered_statement_is_refused(foreign: Foreign) -> None:
    """Every byte is reached by digest from the index."""
    payload = foreign.statement()
    foreign.index(payload)
    path = foreign.path / "blobs/sha256" / Digest.of(payload).hex
    path.write_bytes(payload.replace(b"42", b"43"))
    with pytest.raises(VerificationFailed):
        collect_contained(Layout.open(foreign.path), foreign.image.digest)


def test_sig_15_limits_hold_before_reading(
    foreign: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many statements, too large ones, or too many manifests are no answer."""
    foreign.index(foreign.statement(), foreign.statement("https://x/y"))
    for limits in (Limits(count=1), Limits(each=10), Limits(total=10)):
        with pytest.raises(Inconclusive):
            collect_contained(foreign.layout, foreign.image.digest, limits)
    monkeypatch.setattr(buildkit, "MAX_MANIFESTS", 0)
    with pytest.raises(Inconclusive, match="attestation manifests"):
        collect_contained(foreign.layout, foreign.image.digest)
