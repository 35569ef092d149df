"""Identities in the policy and on the command line: exact, whole, never everybody (CLI-07)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.foreign import open_policy
from secure_pipeline.documents import decode, parse_yaml
from secure_pipeline.errors import ConfigError, UsageError
from secure_pipeline.policy.document import Policy, TrustedIdentity
from secure_pipeline.policy.names import OPERATOR
from secure_pipeline.policy.trust import OperatorIdentity, trust_root, trusted_identities
from secure_pipeline.wiring.keyless import identity_verifier, operator_identity

ISSUER = "https://token.actions.githubusercontent.com"
WORKFLOW = "https://github.com/team/app/.github/workflows/release.yml@refs/tags/v1"


def read(entry: str, more: str = "") -> Policy:
    text = f"version: 1\nidentities: [{{id: ci, {entry}}}]\n{more}"
    return decode(Policy, parse_yaml(text.encode(), "policy.yaml"))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (f"issuer: '{ISSUER}'", "exactly one of identity and identity-pattern"),
        (f"issuer: '{ISSUER}', identity: a, identity-pattern: b", "exactly one of"),
        ("identity: a@b.invalid", "'issuer' is missing"),
        ("issuer: '', identity: a", "not the https:// URL"),
        ("issuer: 'http://a.invalid', identity: a", "not the https:// URL"),
        ("issuer: 'https://*', identity: a", "not the https:// URL"),
        (f"issuer: '{ISSUER}', identity: ''", "is not one identity"),
        (f"issuer: '{ISSUER}', identity: '*'", "without wildcards"),
        (f"issuer: '{ISSUER}', identity: 'a b'", "is not one identity"),
        (f"issuer: '{ISSUER}', identity-pattern: ''", "matches strangers"),
        (f"issuer: '{ISSUER}', identity-pattern: '.*'", "matches strangers"),
        (f"issuer: '{ISSUER}', identity-pattern: '^.+$'", "matches strangers"),
        (f"issuer: '{ISSUER}', identity-pattern: '(team|.*)'", "matches strangers"),
        (f"issuer: '{ISSUER}', identity-pattern: 'https://.*'", "matches strangers"),
        (f"issuer: '{ISSUER}', identity-pattern: '.*@.*'", "matches strangers"),
        (f"issuer: '{ISSUER}', identity-pattern: 'https://github.com/.*'", "name the owner"),
        (f"issuer: '{ISSUER}', identity-pattern: '('", "no regular expression"),
        (f"issuer: '{ISSUER}', identity-pattern: 'e/[[:alpha:]]'", "read in two ways"),
        (f"issuer: '{ISSUER}', identity-pattern: 'e/[a||b]'", "read in two ways"),
        (f"issuer: '{ISSUER}', identity-pattern: '{'a' * 501}'", "longer than"),
    ],
)
def test_cli_07_an_identity_that_is_empty_or_everybody_is_a_config_error(
    entry: str, words: str
) -> None:
    """Half an identity, an empty one, and one that strangers have too are refused with the line."""
    with pytest.raises(ConfigError) as caught:
        read(entry)
    assert words in caught.value.message
    assert str(caught.value.where).startswith("policy.yaml:")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("keys: [{id: ci, public-key: x, algorithm: ed25519}]", "have the same id 'ci'"),
        ("seal: {keys: [other]}", "unknown key 'other'"),
        ("trust-root: ' '", "trust-root is empty"),
    ],
)
def test_ids_are_unique_among_keys_and_identities(more: str, words: str) -> None:
    """Requirements name keys and identities alike, so the names are in one space."""
    with pytest.raises(ConfigError, match=words):
        read(f"issuer: '{ISSUER}', identity: a", more)


def test_one_identity_under_two_ids_is_refused() -> None:
    """It would count twice towards a quorum."""
    entry = f"issuer: '{ISSUER}', identity: a}}, {{id: two, issuer: '{ISSUER}', identity: a"
    with pytest.raises(ConfigError, match="count twice"):
        read(entry)


def test_requirements_and_the_seal_may_name_identities() -> None:
    """An identity's id stands where a key's may stand."""
    more = "require: [{predicate: 'https://x/y', keys: [ci]}]\nseal: {keys: [ci]}\n"
    assert read(f"issuer: '{ISSUER}', identity: a", more).seal.keys == ("ci",)


@pytest.mark.parametrize(
    ("identity", "issuer", "fits"),
    [
        (WORKFLOW, ISSUER, True),
        (WORKFLOW + "x", ISSUER, False),
        ("x" + WORKFLOW, ISSUER, False),
        (WORKFLOW + "\n", ISSUER, False),
        (WORKFLOW, ISSUER + "/", False),
        (WORKFLOW, ISSUER.upper(), False),
        (WORKFLOW, "", False),
        ("", ISSUER, False),
    ],
)
def test_cli_07_identity_and_issuer_match_whole(identity: str, issuer: str, fits: bool) -> None:
    """Exactly, and by a pattern over the whole text; empty claims never match."""
    exact = TrustedIdentity("ci", ISSUER, identity=WORKFLOW)
    pattern = WORKFLOW.replace(".", r"\.")
    regular = TrustedIdentity("ci", ISSUER, identity_pattern=pattern)
    assert exact.matches(identity, issuer) is fits
    assert regular.matches(identity, issuer) is fits


@given(st.text(max_size=20), st.text(max_size=20))
def test_cli_07_nothing_but_the_identity_matches(identity: str, issuer: str) -> None:
    """Random claims are not the one."""
    assert not TrustedIdentity("ci", ISSUER, identity=WORKFLOW).matches(identity, issuer)


def entries(first: str, second: str) -> str:
    return f"[{{id: a, issuer: '{ISSUER}', {first}}}, {{id: b, issuer: '{ISSUER}', {second}}}]"


def test_exact_identities_stand_before_patterns(tmp_path: Path) -> None:
    """Of two that fit one certificate the exact one counts, and only it."""
    listed = entries("identity-pattern: 'https://github.com/team/.*'", f"identity: '{WORKFLOW}'")
    known = trusted_identities(open_policy(tmp_path, identities=listed))
    assert [item.id for item in known] == ["b", "a"]


def test_the_operators_identity_is_added_and_named_operator(tmp_path: Path) -> None:
    """It stands beside the policy's; one that the policy has already adds nothing."""
    loaded = open_policy(tmp_path, identities=entries("identity: x", "identity: y"))
    added = trusted_identities(loaded, OperatorIdentity(WORKFLOW, ISSUER))
    assert [item.id for item in added] == ["a", "b", OPERATOR]
    assert len(trusted_identities(loaded, OperatorIdentity("x", ISSUER))) == 2


@pytest.mark.parametrize(
    ("identity", "issuer"),
    [("*", ISSUER), ("", ISSUER), (WORKFLOW, ""), (WORKFLOW, "https://*")],
)
def test_cli_07_the_operators_identity_is_one_identity(
    tmp_path: Path, identity: str, issuer: str
) -> None:
    """The command line takes no wildcard and nothing empty either."""
    with pytest.raises(ConfigError):
        trusted_identities(open_policy(tmp_path), OperatorIdentity(identity, issuer))


@pytest.mark.parametrize(("identity", "issuer"), [("a", None), (None, "b"), ("", "b"), ("a", "")])
def test_cli_07_identity_and_issuer_are_given_together(
    identity: str | None, issuer: str | None
) -> None:
    """One without the other is a wrong argument, with the words to type."""
    with pytest.raises(UsageError) as caught:
        operator_identity(identity, issuer)
    assert "--certificate-oidc-issuer" in str(caught.value.hint)
    assert operator_identity(None, None) is None


@pytest.mark.parametrize("name", ["/etc/root.json", "../root.json", "a/../../root.json"])
def test_sig_23_the_trust_root_is_a_file_beside_the_policy(tmp_path: Path, name: str) -> None:
    """No path leads elsewhere."""
    loaded = open_policy(tmp_path, more=f"trust-root: {name}")
    with pytest.raises(ConfigError, match="beside the policy"):
        trust_root(loaded)


def test_sig_24_a_trust_root_that_is_missing_is_a_config_error(tmp_path: Path) -> None:
    """Never the public one instead."""
    identities = f"[{{id: a, issuer: '{ISSUER}', identity: x}}]"
    loaded = open_policy(tmp_path, identities=identities, more="trust-root: missing.json")
    with pytest.raises(ConfigError, match="cannot read"):
        identity_verifier(loaded)


def test_the_library_is_opened_only_for_identities(tmp_path: Path) -> None:
    """A policy of keys needs no trust root at all."""
    assert identity_verifier(open_policy(tmp_path)) is None
    identities = f"[{{id: a, issuer: '{ISSUER}', identity: x}}]"
    assert identity_verifier(open_policy(tmp_path / "b", identities=identities)) is not None
    assert identity_verifier(open_policy(tmp_path), OperatorIdentity("x", ISSUER)) is not None


def test_rule_3_sigstore_is_not_loaded_without_identities(tmp_path: Path) -> None:
    """A verification by keys starts without the library for keyless signatures."""
    loaded = open_policy(tmp_path)
    program = (
        "import sys; from pathlib import Path\n"
        "from secure_pipeline.policy.document import load\n"
        "from secure_pipeline.wiring.keyless import identity_verifier\n"
        "assert identity_verifier(load(Path(sys.argv[1]))) is None\n"
        "assert not {'sigstore', 'pydantic', 'requests'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program, str(loaded.source)], check=True)
