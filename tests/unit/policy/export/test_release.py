"""A policy as controllers can be told it: what is refused, what is said, what is read alike."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.evidence import public_key
from secure_pipeline.errors import ConfigError, UsageError
from secure_pipeline.policy.document import LoadedPolicy, load
from secure_pipeline.policy.export.release import exactly, release, whole

KEY = "".join(f"      {line}\n" for line in public_key().pem.decode().splitlines())
KEYS = f"keys:\n  - id: one\n    algorithm: ecdsa-p256-sha256\n    public-key: |\n{KEY}"
REQUIRE = "require:\n  - predicate: https://slsa.dev/provenance/v1\n"
BUILDERS = "builders: [https://example.com/builder]\n"


def policy(tmp_path: Path, text: str) -> LoadedPolicy:
    path = tmp_path / "policy.yaml"
    path.write_text(f"version: 1\n{text}")
    return load(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (REQUIRE + BUILDERS, "keys is empty"),
        (KEYS + BUILDERS, "require is empty"),
        (KEYS + REQUIRE, "builders is empty"),
    ],
)
def test_a_policy_that_lets_nothing_pass_is_not_exported(
    tmp_path: Path, text: str, says: str
) -> None:
    """What our own verify refuses must not become a controller's 'nothing is required'."""
    with pytest.raises(ConfigError, match=says):
        release(policy(tmp_path, text), ["x"], "release")


@pytest.mark.parametrize("prefix", ["", "A", "a b", "a_b", "-a", "a" * 41, "a\nb"])
def test_a_prefix_is_a_name_of_objects(tmp_path: Path, prefix: str) -> None:
    """Nothing that brings YAML or a path along."""
    with pytest.raises(UsageError, match="is no plain name"):
        release(policy(tmp_path, KEYS + REQUIRE + BUILDERS), ["x"], prefix)


def test_the_seal_is_required_unless_the_policy_says_otherwise(tmp_path: Path) -> None:
    """The seal's type is asked for beside those in 'require', by the seal's keys."""
    sealed = release(policy(tmp_path, KEYS + REQUIRE + BUILDERS), ["x"], "release")
    assert [rule.name for rule in sealed.rules] == ["provenance", "seal"]
    unsealed = KEYS + REQUIRE + BUILDERS + "seal: {required: false}\n"
    wanted = release(policy(tmp_path, unsealed), ["x"], "release")
    assert [rule.name for rule in wanted.rules] == ["provenance"]


def test_names_of_objects_are_different(tmp_path: Path) -> None:
    """Two names of test results that are no names of objects do not become one object."""
    kind = "https://in-toto.io/attestation/test-result/v0.1"
    names = ("Übung", "a b", "plain", "PLAIN")
    require = "".join(f"  - {{predicate: '{kind}', name: '{name}'}}\n" for name in names)
    wanted = release(policy(tmp_path, f"{KEYS}require:\n{require}{BUILDERS}"), ["x"], "release")
    found = [rule.name for rule in wanted.rules]
    assert len(set(found)) == len(found) == 5
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in found)


def identities(pattern: str) -> str:
    return (
        "identities:\n  - id: who\n    issuer: https://issuer.example\n"
        f"    identity-pattern: '{pattern}'\n"
    )


@pytest.mark.parametrize(
    "pattern",
    [
        r"https://e\.example/(?!x).*", r"https://(e)\.example/\1", r"(?i)https://e\.example",
        r"https://e\.example/\W", r"https://e\.example/[^\w]", r"https://e\.example/a++",
        r"https://e\.example/a{,3}", r"https://e\.example/\Z",
        r"(?P<a>https://e\.example)", r"https://e\.example/\bx", r"(?>https)://e\.example",
        r"https://e\.example/(?#x)", r"https://é\.example/.*",
    ],
)  # fmt: skip
def test_patterns_that_are_read_in_two_ways_are_refused(tmp_path: Path, pattern: str) -> None:
    """Python's own constructs would mean something else, or nothing, to a controller."""
    text = identities(pattern) + REQUIRE + BUILDERS
    with pytest.raises(ConfigError, match="cannot be said in RE2"):
        release(policy(tmp_path, text), ["x"], "release")


@pytest.mark.parametrize(
    "pattern",
    [
        r"https://github\.com/team/[^/]+/\.github/workflows/r\.ya?ml@refs/(?:heads/main|tags/v.+)",
        r"[a-z.]+@example\.com", r"^(a|b)\w{2,5}@example\.com$", r"a{3}\d+?@x\.example",
    ],
)  # fmt: skip
def test_plain_patterns_are_exported(tmp_path: Path, pattern: str) -> None:
    """What people write for workflows and addresses goes through, and must match wholly."""
    text = identities(pattern) + REQUIRE + BUILDERS
    wanted = release(policy(tmp_path, text), ["x"], "release")
    assert wanted.rules[0].signers[0].identity is not None
    assert whole("a|b") == "^(?:a|b)$"


@given(st.text(max_size=40), st.text(max_size=40))
def test_exactly_matches_one_text(text: str, other: str) -> None:
    """Whatever stands in an identity, no other one matches."""
    pattern = exactly(text)
    assert re.fullmatch(pattern, text)
    assert (re.fullmatch(pattern, other) is not None) == (other == text)
