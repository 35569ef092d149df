"""Roots of trust come from the policy and the operator, each bound to one algorithm."""

from pathlib import Path

import pytest

from fakes.evidence import NOON, public_key, signer
from fakes.release import policy
from secure_pipeline.data import data_path
from secure_pipeline.errors import ConfigError
from secure_pipeline.policy.document import Algorithm, LoadedPolicy, load
from secure_pipeline.policy.trust import trusted_signers

P256 = Algorithm.ECDSA_P256_SHA256


def with_key(directory: Path, value: str) -> LoadedPolicy:
    loaded = policy(directory)
    text = loaded.source.read_text().replace("release.pub", value)
    loaded.source.write_text(text)
    return load(loaded.source)


def test_pem_text_and_file_are_the_same_key(tmp_path: Path) -> None:
    """A key may stand in the policy or in a file beside it."""
    from_file = trusted_signers(policy(tmp_path / "a"))
    pem = public_key().pem.decode().replace("\n", "\\n")
    from_text = trusted_signers(with_key(tmp_path / "b", f'"{pem}"'))
    assert [s.key for s in from_file] == [s.key for s in from_text]


@pytest.mark.parametrize("value", ["../release.pub", "/etc/hostname", "a/../../release.pub"])
def test_sig_23_keys_from_elsewhere_are_refused(tmp_path: Path, value: str) -> None:
    """A path that leaves the policy's directory is a configuration error."""
    with pytest.raises(ConfigError, match="beside the policy"):
        trusted_signers(with_key(tmp_path, value))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a key",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        public_key().pem * 2,
        b"x" * (65 << 10),
    ],
    ids=["empty", "text", "damaged", "two", "huge"],
)
def test_broken_key_files_name_the_key(tmp_path: Path, content: bytes) -> None:
    """What is not one PEM public key is a configuration error that names key or file."""
    loaded = policy(tmp_path)
    (tmp_path / "release.pub").write_bytes(content)
    with pytest.raises(ConfigError, match="release"):
        trusted_signers(loaded)


def test_missing_key_file_is_a_config_error(tmp_path: Path) -> None:
    """A policy whose key file is gone trusts nobody silently: it refuses to load keys."""
    loaded = policy(tmp_path)
    (tmp_path / "release.pub").unlink()
    with pytest.raises(ConfigError, match=r"release\.pub"):
        trusted_signers(loaded)


def test_operator_keys_get_ids_of_their_own(tmp_path: Path) -> None:
    """Operator's keys join the policy's under reserved ids and have no window."""
    extra = tuple((public_key(signer(number)).pem, P256) for number in (1, 2))
    signers = trusted_signers(policy(tmp_path), extra)
    assert [s.id for s in signers] == ["release", "operator", "operator-2"]
    assert all(s.trusted_at(NOON) for s in signers[1:])


def test_operator_key_of_the_policy_keeps_its_window(tmp_path: Path) -> None:
    """Naming the policy's own key with --key does not lift its last day."""
    lapsed = policy(tmp_path, window=", not-after: 2025-01-01")
    (only,) = trusted_signers(lapsed, ((public_key().pem, P256),))
    assert (only.id, only.trusted_at(NOON)) == ("release", False)


def test_sig_22_operator_key_of_another_algorithm_is_refused(tmp_path: Path) -> None:
    """The algorithm given with a key is checked against the key."""
    with pytest.raises(ConfigError, match="--key"):
        trusted_signers(policy(tmp_path), ((public_key(signer(1)).pem, Algorithm.ED25519),))


def test_built_in_policy_is_strict() -> None:
    """The policy that ships trusts nobody, accepts no builder and relaxes nothing."""
    shipped = load(data_path("policies") / "release.yaml").policy
    assert (shipped.keys, shipped.builders) == ((), ())
    assert len(shipped.require) == 7
    assert all(requirement.quorum == 1 for requirement in shipped.require)
    assert (shipped.source.require_commit, shipped.source.allow_uncommitted) == (True, False)
    assert shipped.gates.build.allow == ()
    assert not shipped.gates.scan.allow_demonstration_database
    assert (shipped.exceptions, shipped.gates.scan.vex) == ((), ())
