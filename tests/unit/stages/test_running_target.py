"""What can be named to look at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.errors import UsageError
from secure_pipeline.stages.running_target import DockerTarget, KubernetesTarget, parse_target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("docker://", DockerTarget(None)),
        ("docker://web", DockerTarget("web")),
        ("docker://419c4ba88cd2", DockerTarget("419c4ba88cd2")),
        ("k8s://prod", KubernetesTarget("prod")),
        ("k8s://prod/deployment/web", KubernetesTarget("prod", "deployment", "web")),
    ],
)
def test_targets(text: str, target: object) -> None:
    """Each form gives its own type."""
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    [
        "", "web", "docker:web", "docker:///web", "docker://a/../b", "docker://a?x=1",
        "docker://-web", "Docker://web", "k8s://", "k8s://a/b", "k8s://a/b/c/d", "k8s://a//c",
        "k8s://a/pod/..", "https://web", "docker://web\n",
    ],
)  # fmt: skip
def test_what_is_no_target(text: str) -> None:
    """Anything else is a usage error that says what to write."""
    with pytest.raises(UsageError) as caught:
        parse_target(text)
    assert "docker://NAME" in str(caught.value.hint)


@given(st.text() | st.text().map("docker://".__add__) | st.text().map("k8s://".__add__))
def test_any_text_is_a_target_or_a_usage_error(text: str) -> None:
    """No text makes a path of an API's address."""
    try:
        target = parse_target(text)
    except UsageError:
        return
    words = (target.name,) if isinstance(target, DockerTarget) else vars(target).values()
    for word in filter(None, words):
        assert word.isascii()
        assert not set("/?#%@: \n") & set(word)
        assert word not in (".", "..")
