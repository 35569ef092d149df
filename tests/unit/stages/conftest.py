"""Fixtures of the stages' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.release import Release, policy
from secure_pipeline.policy.document import LoadedPolicy


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """An image without evidence."""
    return Release(tmp_path / "image")


@pytest.fixture
def trusted(tmp_path: Path) -> LoadedPolicy:
    """A policy that trusts the key of the tests."""
    return policy(tmp_path / "policy")
