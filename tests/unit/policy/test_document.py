"""The policy document refuses whatever would trust nothing, everything or the wrong thing."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from secure_pipeline.documents import decode, parse_yaml
from secure_pipeline.errors import ConfigError, ExitCode
from secure_pipeline.policy.document import Policy, load

TYPE = "https://in-toto.io/attestation/vulns/v0.2"
KEY = "keys:\n  - {id: a, public-key: a.pub, algorithm: ed25519}\n"


def read(text: str) -> Policy:
    return decode(Policy, parse_yaml(f"version: 1\n{text}".encode(), "policy.yaml"))


@pytest.mark.parametrize("value", ["0", "-1", "null", "", "1.5", "'1'", "true", ".nan"])
def test_sig_13_threshold_that_is_no_positive_number_is_a_config_error(value: str) -> None:
    """A quorum of 0, below 0, missing or of another type refuses with the config code."""
    text = f"{KEY}require:\n  - predicate: {TYPE}\n    quorum: {value}\n"
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert caught.value.exit_code is ExitCode.CONFIG
    assert "quorum" in caught.value.message
    assert caught.value.where is not None
    assert caught.value.where.startswith("policy.yaml:")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"require: [{{predicate: '{TYPE}', keys: []}}]", "nobody could satisfy"),
        (f"{KEY}require: [{{predicate: '{TYPE}', keys: [a, a], quorum: 2}}]", "only 1 keys"),
        (f"require: [{{predicate: '{TYPE}', keys: [b]}}]", "unknown key 'b'"),
        (f"require: [{{predicate: '{TYPE}'}}, {{predicate: '{TYPE}'}}]", "required twice"),
        ("require: [{predicate: vulns}]", "not a predicate type URI"),
        (f"require: [{{predicate: '{TYPE}', name: ''}}]", "name is empty"),
        ("seal: {keys: []}", "nobody could seal"),
        ("seal: {keys: [b]}", "unknown key 'b'"),
        ("keys: [{id: operator, public-key: a.pub, algorithm: ed25519}]", "kept for keys"),
        ("keys: [{id: '', public-key: a.pub, algorithm: ed25519}]", "not a short name"),
        ("keys: [{id: a, public-key: ' ', algorithm: ed25519}]", "public-key is empty"),
        ("keys: [{id: a, public-key: a.pub}]", "'algorithm' is missing"),
        ("keys: [{id: a, public-key: a.pub, algorithm: hs256}]", "is not one of"),
        (
            "keys: [{id: a, public-key: a.pub, algorithm: ed25519, "
            "not-before: 2027-01-02, not-after: 2027-01-01}]",
            "never be trusted",
        ),
        (f"{KEY}{KEY.splitlines()[1]}\n", "same id"),
        ("builders: ['']", "empty builder id"),
        ("clock-skew: 2h", "more than an hour"),
        ("gates: {scan: {severity: unknown}}", "is no gate"),
        ("gates: {analyze: {severity: unknown}}", "is no gate"),
        ("exceptions: [{id: '*', reason: everything is fine, expires: 2027-01-01}]", "wildcard"),
        ("exceptions: [{id: X, reason: ok, expires: 2027-01-01}]", "at least 10 characters"),
        (
            "exceptions: [{id: X, reason: not reachable here, expires: 2027-01-01, package: ''}]",
            "package is empty",
        ),
        ("exceptions: [{id: X, reason: not reachable here}]", "'expires' is missing"),
        ("kyes: []", "unknown key 'kyes'"),
    ],
)
def test_cli_07_what_could_trust_by_accident_is_a_config_error(text: str, words: str) -> None:
    """Empty lists, wildcards, unknown names and switched-off gates are refused when read."""
    with pytest.raises(ConfigError, match=r"^policy\.yaml:") as caught:
        read(text)
    assert words in caught.value.message


def test_cli_07_unreadable_policy_file_is_a_config_error(tmp_path: Path) -> None:
    """A policy that is missing or a directory never becomes a default one."""
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError):
            load(path)


def test_empty_policy_trusts_nobody() -> None:
    """A policy with nothing but its version has no key, no requirement and no builder."""
    policy = read("")
    assert (policy.keys, policy.require, policy.builders) == ((), (), ())


def test_key_window_counts_both_days_whole() -> None:
    """A key is trusted from the first second of not-before to the last of not-after, in UTC."""
    policy = read(
        "keys: [{id: a, public-key: a.pub, algorithm: ed25519, "
        "not-before: 2027-01-02, not-after: 2027-01-03}]"
    )
    key, start = policy.keys[0], datetime(2027, 1, 2, tzinfo=UTC)
    second = timedelta(seconds=1)
    assert [
        key.trusted_at(moment)
        for moment in (start - second, start, start + 2 * timedelta(1) - second)
    ] == [False, True, True]
    assert not key.trusted_at(start + 2 * timedelta(1))
