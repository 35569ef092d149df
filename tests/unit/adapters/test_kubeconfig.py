"""Kubeconfigs and service accounts: what is read, and what is refused with a hint."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cluster.credentials import Authority
from secure_pipeline.adapters.kubeconfig import KubernetesConfig
from secure_pipeline.errors import ConfigError

SERVER = "https://127.0.0.1:6443"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority") / "keys")
    made.issue("client", "someone")
    return made


@pytest.fixture
def document(authority: Authority) -> dict[str, Any]:
    """A kubeconfig with two contexts, as its parsed YAML."""
    ca = base64.b64encode(authority.certificate.read_bytes()).decode()
    keys = authority.directory
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "clusters": [
            {"name": "one", "cluster": {"server": SERVER, "certificate-authority-data": ca}},
            {
                "name": "two",
                "cluster": {
                    "server": "https://[::1]:443/prefix/",
                    "certificate-authority": str(authority.certificate),
                    "tls-server-name": "api.example",
                },
            },
        ],
        "users": [
            {"name": "by-token", "user": {"token": "abc.def"}},
            {
                "name": "by-key",
                "user": {
                    "client-certificate": str(keys / "client.crt"),
                    "client-key": str(keys / "client.key"),
                },
            },
        ],
        "contexts": [
            {"name": "first", "context": {"cluster": "one", "user": "by-token"}},
            {"name": "second", "context": {"cluster": "two", "user": "by-key"}},
        ],
        "current-context": "first",
    }


def write(directory: Path, document: object) -> Path:
    path = directory / "config"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def test_contexts_are_read(tmp_path: Path, document: dict[str, Any], authority: Authority) -> None:
    """The current context, or the one that is named; data inline and in files."""
    path = write(tmp_path, document)
    first = KubernetesConfig.from_kubeconfig(path)
    assert (first.server, first.token, first.certificate) == (SERVER, "abc.def", None)
    assert first.ca == authority.certificate.read_bytes()
    second = KubernetesConfig.from_kubeconfig(path, "second")
    assert (second.server, second.tls_name) == ("https://[::1]:443/prefix", "api.example")
    assert second.ca == first.ca
    assert second.token is None
    assert second.key == (authority.directory / "client.key").read_bytes()


def test_files_lie_beside_the_kubeconfig(
    tmp_path: Path, document: dict[str, Any], authority: Authority
) -> None:
    """Relative paths start at the kubeconfig, and a token's file wins over its text."""
    (tmp_path / "ca.pem").write_bytes(authority.certificate.read_bytes())
    (tmp_path / "token").write_text("from-file\n")
    document["clusters"][0]["cluster"] = {"server": SERVER, "certificate-authority": "ca.pem"}
    document["users"][0]["user"]["tokenFile"] = "token"
    assert KubernetesConfig.from_kubeconfig(write(tmp_path, document)).token == "from-file"


def test_secrets_are_not_shown(tmp_path: Path, document: dict[str, Any]) -> None:
    """The representation holds neither token nor key."""
    path = write(tmp_path, document)
    for context in ("first", "second"):
        shown = repr(KubernetesConfig.from_kubeconfig(path, context))
        assert "abc.def" not in shown
        assert "PRIVATE KEY" not in shown


Change = Callable[[dict[str, Any]], object]
CASES: dict[str, tuple[Change, str]] = {
    "no current context": (lambda d: d.pop("current-context"), "no current context"),
    "unknown context": (lambda d: d.update({"current-context": "x"}), "no context is called 'x'"),
    "unknown cluster": (lambda d: d["clusters"].pop(0), "no cluster is called 'one'"),
    "unknown user": (lambda d: d["users"].pop(0), "no user is called 'by-token'"),
    "two of one name": (
        lambda d: d["contexts"].append(copy.deepcopy(d["contexts"][0])),
        "a second context called 'first'",
    ),
    "no TLS": (
        lambda d: d["clusters"][0]["cluster"].update(server="http://127.0.0.1:8080"),
        "is not https://HOST",
    ),
    "credentials in the address": (
        lambda d: d["clusters"][0]["cluster"].update(server="https://a:b@host"),
        "is not https://HOST",
    ),
    "no CA": (
        lambda d: d["clusters"][0]["cluster"].pop("certificate-authority-data"),
        "nothing proves who answers",
    ),
    "skipped verification": (
        lambda d: d["clusters"][0]["cluster"].update({"insecure-skip-tls-verify": True}),
        "any server could answer",
    ),
    "a proxy": (
        lambda d: d["clusters"][0]["cluster"].update({"proxy-url": "http://127.0.0.1:1"}),
        "proxies are not supported",
    ),
    "a CA that is none": (
        lambda d: d["clusters"][0]["cluster"].update({"certificate-authority-data": "YWJj"}),
        "holds no PEM certificate",
    ),
    "data that is not base64": (
        lambda d: d["clusters"][0]["cluster"].update({"certificate-authority-data": "!"}),
        "is not base64",
    ),
    "a plugin": (
        lambda d: d["users"][0].update(user={"exec": {"command": "sh"}}),
        "credential plugins are not started",
    ),
    "a password": (
        lambda d: d["users"][0].update(user={"username": "a", "password": "s3cret"}),
        "passwords are not sent",
    ),
    "impersonation": (
        lambda d: d["users"][0]["user"].update({"as": "root"}),
        "impersonation is not supported",
    ),
    "no credential": (lambda d: d["users"][0].update(user={}), "no credential"),
    "a certificate without its key": (
        lambda d: d["users"][0]["user"].update(
            {"client-certificate-data": base64.b64encode(b"x").decode()}
        ),
        "go together",
    ),
    "a token of two lines": (
        lambda d: d["users"][0]["user"].update(token="a\nX-Other: b"),
        "characters that no token has",
    ),
    "a number for a token": (lambda d: d["users"][0]["user"].update(token=5), "must be text"),
    "no server": (lambda d: d["clusters"][0]["cluster"].pop("server"), "server is missing"),
    "a list for a mapping": (lambda d: d.update(users={}), "must be a list"),
    "an entry without a name": (lambda d: d["users"][0].pop("name"), "name is missing"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_refused(tmp_path: Path, document: dict[str, Any], case: str) -> None:
    """Each fault and each danger is a ConfigError of one line that shows no secret."""
    change, says = CASES[case]
    change(document)
    path = write(tmp_path, document)
    with pytest.raises(ConfigError, match=says) as caught:
        KubernetesConfig.from_kubeconfig(path)
    text = f"{caught.value} {caught.value.hint}"
    assert "s3cret" not in text
    assert "a:b" not in text
    assert "\n" not in text


def test_a_refused_entry_of_another_context_does_no_harm(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    """Only what the context uses is judged."""
    document["users"][1]["user"] = {"exec": {"command": "sh"}}
    assert KubernetesConfig.from_kubeconfig(write(tmp_path, document)).token == "abc.def"


@pytest.mark.parametrize("text", ["", "[]", "a: &b c", "{", "\x00", "users: []\nusers: []"])
def test_what_is_no_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    """Other YAML and no YAML name the file."""
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ConfigError, match=str(path)):
        KubernetesConfig.from_kubeconfig(path)


def test_a_missing_kubeconfig_names_it(tmp_path: Path) -> None:
    """No file is a ConfigError that says which."""
    with pytest.raises(ConfigError, match="config: cannot read"):
        KubernetesConfig.from_kubeconfig(tmp_path / "config")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    """No file makes anything but a ConfigError."""
    path = tmp_path_factory.getbasetemp() / "any-kubeconfig"
    path.write_bytes(data)
    with pytest.raises(ConfigError):
        KubernetesConfig.from_kubeconfig(path)


def test_a_service_account_is_read(tmp_path: Path, authority: Authority) -> None:
    """Token and CA of a pod's directory; IPv6 addresses get their brackets."""
    (tmp_path / "ca.crt").write_bytes(authority.certificate.read_bytes())
    (tmp_path / "token").write_text("abc\n")
    config = KubernetesConfig.from_service_account("fd00::1", "443", tmp_path)
    assert (config.server, config.token) == ("https://[fd00::1]:443", "abc")
    (tmp_path / "token").write_text("")
    with pytest.raises(ConfigError, match="the token is empty"):
        KubernetesConfig.from_service_account("fd00::1", "443", tmp_path)
    (tmp_path / "token").write_text("abc")
    with pytest.raises(ConfigError, match="is not https://HOST"):
        KubernetesConfig.from_service_account("fd00::1", "port", tmp_path)
