"""Baseline files: what is written is read, anything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.errors import ConfigError
from secure_pipeline.findings import Finding, Kind, Location, Severity
from secure_pipeline.policy.baseline import baseline_document, read_baseline

HEX = st.text(alphabet="0123456789abcdef", min_size=64, max_size=64)


def finding(fingerprint: str) -> Finding:
    return Finding("r", Kind.CODE, Severity.LOW, "m", fingerprint, Location("a.py", 1))


@given(st.lists(HEX, max_size=10))
def test_what_is_written_is_read(fingerprints: list[str]) -> None:
    """Every fingerprint comes back, and the file does not depend on the order."""
    data = baseline_document(finding(f) for f in fingerprints)
    assert read_baseline(data, "b.json") == frozenset(fingerprints)
    assert data == baseline_document(finding(f) for f in reversed(fingerprints))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"version": 1}',
        b'{"version": 2, "findings": {}}',
        b'{"version": true, "findings": {}}',
        b'{"version": 1, "findings": {}, "more": 1}',
        b'{"version": 1, "findings": ["a"]}',
        b'{"version": 1, "findings": {"*": {"rule": "r", "path": "p"}}}',
        b'{"version": 1, "findings": {"%s": {}}}' % (b"a" * 64),
        b'{"version": 1, "version": 1, "findings": {}}',
        b'{"version": 1, "findings": {}} trailing',
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    """An unknown, half or doubled file is an error that names it."""
    with pytest.raises(ConfigError) as caught:
        read_baseline(data, "b.json")
    assert caught.value.where == "b.json"
