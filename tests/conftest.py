"""Fixtures for all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "project",
    deadline=None,
    max_examples=60,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("project")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may depend on the pipeline variables of whoever runs it."""
    for name in list(os.environ):
        ours = name.startswith(("SECURE_PIPELINE_", "COSIGN_", "TRIVY_", "SEMGREP_"))
        if ours and name != "SECURE_PIPELINE_TOOLS":
            monkeypatch.delenv(name)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long values by their place: some hold keys that differ from worker to worker."""
    return argname if isinstance(val, str | bytes) and len(val) > 80 else None
