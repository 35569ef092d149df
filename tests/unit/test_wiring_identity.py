"""Where the identity token comes from, and who may say which services get it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.virtualservices import VirtualServices
from fakes.virtualsigstore import IDENTITY, ISSUER
from secure_pipeline.errors import ConfigError, PolicyDenied, UsageError
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.policy.document import LoadedPolicy, load
from secure_pipeline.tools.locate import ToolStore
from secure_pipeline.wiring.identity import TOKEN, TOKEN_FILE, identity_token, known_signer
from secure_pipeline.wiring.options import World

JOB = {
    "ACTIONS_ID_TOKEN_REQUEST_URL": "http://127.0.0.1:1/token",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-token",
}


@pytest.fixture
def services() -> Iterator[VirtualServices]:
    with VirtualServices() as made:
        yield made


def world(directory: Path, **environment: str) -> World:
    return World(environment, "/usr/bin", ToolStore(directory / "tools"), directory)


def policy(directory: Path, text: str) -> LoadedPolicy:
    path = directory / "policy.yaml"
    path.write_text(f"version: 1\n{text}")
    return load(path)


def test_the_file_comes_first_and_is_read_anew(tmp_path: Path) -> None:
    """A projected token changes under the same name: each certificate gets the present one."""
    (tmp_path / "token").write_text("first\n")
    token = identity_token({TOKEN_FILE: "token", TOKEN: "value", **JOB}, tmp_path)
    assert token() == "first"
    (tmp_path / "token").write_text("second\n")
    assert token() == "second"
    assert identity_token({TOKEN: "value", **JOB}, tmp_path)() == "value"


@pytest.mark.parametrize("text", ["", "two words", "a\nb", "\x00"])
def test_what_is_no_token_is_told_without_it(tmp_path: Path, text: str) -> None:
    """A file with anything but one token is a configuration error that does not quote it."""
    (tmp_path / "token").write_text(text)
    with pytest.raises(ConfigError) as caught:
        identity_token({TOKEN_FILE: "token"}, tmp_path)()
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("left_out", [*JOB, None])
def test_without_any_token_nothing_begins(tmp_path: Path, left_out: str | None) -> None:
    """Half of what GitHub gives, or nothing, is no identity."""
    environment = {name: JOB[name] for name in JOB if left_out and name != left_out}
    with pytest.raises(UsageError, match="identity token"):
        identity_token({**environment, TOKEN: "", TOKEN_FILE: ""}, tmp_path)


@pytest.mark.parametrize(
    ("signers", "known"),
    [
        ("", True),
        (f"identities: [{{id: ci, issuer: {ISSUER}, identity: '{IDENTITY}'}}]\n", True),
        (f"identities: [{{id: ci, issuer: {ISSUER}, identity: 'https://ci.invalid/x'}}]\n", False),
        (f"identities: [{{id: ci, issuer: 'https://x.invalid', identity: '{IDENTITY}'}}]\n", False),
    ],
    ids=["none named", "named", "another identity", "another issuer"],
)
def test_a_policy_that_names_signers_names_this_one(
    services: VirtualServices, tmp_path: Path, signers: str, known: bool
) -> None:
    """Where the policy names who signs, nobody else's certificate is used."""
    (tmp_path / "trust.json").write_text(json.dumps(services.trust_config()))
    (tmp_path / "root.json").write_bytes(services.sigstore.trusted_root())
    rules = policy(tmp_path, f"{signers}trust-root: root.json\n")
    here, ref = world(tmp_path, **{TOKEN: services.token()}), KeyRef.parse("keyless:trust.json")
    if known:
        assert known_signer(ref, rules, here).identity == (IDENTITY, ISSUER)
        return
    with pytest.raises(PolicyDenied, match="none of the policy's identities"):
        known_signer(ref, rules, here)


@pytest.mark.parametrize("text", ["", "{}", '{"mediaType": "x"}', "version: 1\n"])
def test_a_file_of_other_content_names_no_services(tmp_path: Path, text: str) -> None:
    """A file that is no signing configuration is told before any token is asked for."""
    (tmp_path / "trust.json").write_text(text)
    here = world(tmp_path, **{TOKEN_FILE: "missing"})
    with pytest.raises(ConfigError, match="no signing configuration"):
        known_signer(KeyRef.parse("keyless:trust.json"), policy(tmp_path, ""), here)
