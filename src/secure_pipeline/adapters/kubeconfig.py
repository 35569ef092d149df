"""Which Kubernetes cluster to ask and as whom: from a kubeconfig or from inside a pod.

Format: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/. What would make a wrong
server look right (no CA, ``insecure-skip-tls-verify``, plain http) is refused, and so is what
would start a program or send a password.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from secure_pipeline.documents import MAX_BYTES, Node, parse_yaml
from secure_pipeline.errors import ConfigError
from secure_pipeline.files import read_bounded

MAX_CREDENTIAL_BYTES = 1 << 18
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token, its CA and its namespace."""

_REFUSED_CLUSTER = {
    "insecure-skip-tls-verify": "any server could answer in its place",
    "proxy-url": "proxies are not supported",
}
_REFUSED_USER = {
    "exec": "credential plugins are not started",
    "auth-provider": "auth providers are not supported",
    "username": "passwords are not sent",
    "password": "passwords are not sent",
    "as": "impersonation is not supported",
    "as-uid": "impersonation is not supported",
    "as-groups": "impersonation is not supported",
    "as-user-extra": "impersonation is not supported",
}
_TOKEN_HINT = (
    "make a token for a service account (kubectl create token NAME) and give the context a user"
    " with it (kubectl config set-credentials USER --token=…)"
)


@dataclass(frozen=True)
class KubernetesConfig:
    """An API server, the authority that signed its certificate, and one credential for it."""

    server: str
    """``https://host:port[/path]`` without a slash at its end."""
    ca: bytes
    """PEM: the only authorities that may have signed the server's certificate."""
    token: str | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    """PEM of the client's certificate."""
    key: bytes | None = field(default=None, repr=False)
    """PEM of its private key."""
    tls_name: str | None = None
    """The name in the server's certificate where it is not the host of ``server``."""

    def __post_init__(self) -> None:
        _check_server(self.server)
        _check_ca(self.ca, self.server)
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("a client certificate and its key go together", where=self.server)
        if self.token is None and self.certificate is None:
            raise ConfigError(
                "no credential: neither a token nor a client certificate",
                where=self.server,
                hint=_TOKEN_HINT,
            )
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise ConfigError("the token holds characters that no token has", where=self.server)

    @classmethod
    def from_kubeconfig(cls, path: Path, context: str | None = None) -> KubernetesConfig:
        """Read one context (the current one by default) of the kubeconfig at ``path``.

        Raises: ConfigError naming file and line, with what to type.
        """
        return _Kubeconfig(path).config(context)

    @classmethod
    def from_service_account(
        cls, host: str, port: str, directory: Path = SERVICE_ACCOUNT
    ) -> KubernetesConfig:
        """Read what Kubernetes puts into a pod; ``host`` and ``port`` are its API server's.

        Raises: ConfigError.
        """
        shown = f"[{host}]" if ":" in host else host
        token = read_bounded(directory / "token", MAX_CREDENTIAL_BYTES)
        return cls(
            server=f"https://{shown}:{port}",
            ca=read_bounded(directory / "ca.crt", MAX_CREDENTIAL_BYTES),
            token=_token(token, str(directory / "token")),
        )


def _check_server(server: str) -> None:
    try:
        parts = urlsplit(server)
        sound = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        sound = False
    if not sound or any(c in server for c in "@?#\\") or not server.isprintable():
        shown = server.partition("?")[0].rpartition("@")[2]
        raise ConfigError(f"{shown[:200]!r} is not https://HOST[:PORT], the address of a cluster")


def _check_ca(ca: bytes, where: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=ca.decode("ascii"))
    except (UnicodeDecodeError, ValueError, ssl.SSLError):
        raise ConfigError("the cluster's CA holds no PEM certificate", where=where) from None


class _Kubeconfig:
    """One file, read strictly; values keep their lines for errors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = _mapping(parse_yaml(read_bounded(path, MAX_BYTES), str(path)), "a kubeconfig")

    def config(self, context: str | None) -> KubernetesConfig:
        chosen = self._context(context)
        cluster = self._named("clusters", "cluster", _required(chosen, "cluster"))
        user = self._named("users", "user", _required(chosen, "user"))
        _refuse(cluster, _REFUSED_CLUSTER, "remove it, and give the cluster its CA")
        _refuse(user, _REFUSED_USER, _TOKEN_HINT)
        token = self._text_token(user)
        return KubernetesConfig(
            server=_text(_required(cluster, "server")).rstrip("/"),
            ca=self._ca(cluster),
            token=token,
            certificate=self._data(user, "client-certificate"),
            key=self._data(user, "client-key"),
            tls_name=_text(cluster["tls-server-name"]) if "tls-server-name" in cluster else None,
        )

    def _context(self, name: str | None) -> Mapping[str, Node]:
        if name is not None:
            return self._named("contexts", "context", Node(name, 1, str(self.path)))
        current = self.root.get("current-context")
        if current is None or not current.value:
            raise ConfigError(
                "no current context", where=str(self.path), hint="kubectl config use-context NAME"
            )
        return self._named("contexts", "context", current)

    def _named(self, section: str, kind: str, wanted: Node) -> Mapping[str, Node]:
        """The body of the one entry of a list of named things.

        kubectl takes the first of several with one name; here nobody guesses.
        """
        name = _text(wanted)
        listed = self.root.get(section)
        entries = [] if listed is None or listed.value is None else _list(listed)
        named = {}
        for entry in entries:
            content = _mapping(entry, f"an entry of {section}")
            known = _text(_required(content, "name", entry))
            if known in named:
                entry.fail(f"a second {kind} called {known!r}")
            named[known] = _required(content, kind, entry)
        if name not in named:
            names = ", ".join(sorted(named)[:20]) or "none"
            wanted.fail(f"no {kind} is called {name!r}", f"there is: {names}")
        return _mapping(named[name], kind)

    def _ca(self, cluster: Mapping[str, Node]) -> bytes:
        found = self._data(cluster, "certificate-authority")
        if found is None:
            cluster["server"].fail(
                "the cluster has no certificate-authority, so nothing proves who answers",
                "kubectl config set-cluster NAME --certificate-authority=FILE",
            )
        return found

    def _data(self, entry: Mapping[str, Node], name: str) -> bytes | None:
        """The bytes of ``NAME-data`` (base64), else of the file NAME, as kubectl prefers them."""
        inline, file = entry.get(f"{name}-data"), entry.get(name)
        if inline is not None and inline.value:
            try:
                return base64.b64decode(_text(inline), validate=True)
            except binascii.Error:
                inline.fail(f"{name}-data is not base64")
        if file is not None and file.value:
            return read_bounded(self.path.parent / _text(file), MAX_CREDENTIAL_BYTES)
        return None

    def _text_token(self, user: Mapping[str, Node]) -> str | None:
        """The file wins over the text, as with kubectl: it is the one that is renewed."""
        file, text = user.get("tokenFile"), user.get("token")
        if file is not None and file.value:
            path = self.path.parent / _text(file)
            return _token(read_bounded(path, MAX_CREDENTIAL_BYTES), str(path))
        return _text(text) if text is not None and text.value else None


def _token(data: bytes, where: str) -> str:
    try:
        token = data.decode("ascii").strip()
    except UnicodeDecodeError:
        raise ConfigError("not a token", where=where) from None
    if not token:
        raise ConfigError("the token is empty", where=where)
    return token


def _refuse(entry: Mapping[str, Node], refused: Mapping[str, str], hint: str) -> None:
    for name, reason in refused.items():
        if name in entry and entry[name].value not in (None, False, "", [], {}):
            entry[name].fail(f"{name}: {reason}", hint)


def _mapping(node: Node, what: str) -> Mapping[str, Node]:
    if not isinstance(node.value, dict):
        node.fail(f"{what} must be a mapping")
    return node.value


def _list(node: Node) -> list[Node]:
    if not isinstance(node.value, list):
        node.fail("must be a list")
    return node.value


def _required(entry: Mapping[str, Node], name: str, parent: Node | None = None) -> Node:
    if name in entry and entry[name].value not in (None, ""):
        return entry[name]
    _missing(entry, name, parent)


def _missing(entry: Mapping[str, Node], name: str, parent: Node | None) -> NoReturn:
    place = parent or next(iter(entry.values()), None)
    if place is None:
        raise ConfigError(f"{name} is missing in an empty entry of the kubeconfig")
    place.fail(f"{name} is missing")


def _text(node: Node) -> str:
    if not isinstance(node.value, str):
        node.fail("must be text; put it in quotes")
    return node.value
