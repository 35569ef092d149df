"""A token service as distribution's registries know it: signed JWTs for scopes (loopback, TLS)."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from fakes.authority import Authority

ISSUER, SERVICE = "test issuer", "test registry"
USER, PASSWORD, IDENTITY = "alice", "only for tests", "identity-token-only-for-tests"


@dataclass
class TokenService:
    """What it was asked, and what it answers."""

    authority: Authority
    port: int = 0
    seconds: int = 300
    """Life of the tokens it gives."""
    announced: int = 300
    """What it says of their life."""
    anonymous: bool = False
    """Whether those without credentials may pull."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Scope and Authorization (or refresh token) of each request."""

    @property
    def realm(self) -> str:
        return f"https://127.0.0.1:{self.port}/token"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def registry_settings(self) -> dict[str, object]:
        """What a registry's configuration says of it."""
        token = {
            "realm": self.realm,
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(self.authority.ca),
        }
        return {"auth": {"token": token}}

    def token(self, scopes: list[str], actions: set[str]) -> str:
        """A JWT that grants what was asked, as far as it is among ``actions``."""
        now = int(time.time())
        access = [_access(scope, actions) for scope in scopes]
        claims = {
            **{"iss": ISSUER, "aud": SERVICE, "sub": USER, "iat": now, "nbf": now - 60},
            **{"exp": now + self.seconds, "jti": f"{time.monotonic_ns()}", "access": access},
        }
        return _sign(self.authority, claims)


@contextmanager
def token_service(authority: Authority, **settings: object) -> Iterator[TokenService]:
    """Serve on 127.0.0.1."""
    service = TokenService(authority, **settings)  # type: ignore[arg-type]
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(service))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate, authority.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    service.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _handler(service: TokenService) -> type[BaseHTTPRequestHandler]:
    expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        timeout = 20

        def do_GET(self) -> None:
            shown = self.headers.get("Authorization")
            query = parse_qs(urlsplit(self.path).query)
            self._grant(query, "token", shown, {expected: {"pull", "push"}})

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            shown = form.get("refresh_token", [""])[0]
            assert form["grant_type"] == ["refresh_token"]
            form["scope"] = form["scope"][0].split()
            self._grant(form, "access_token", shown, {IDENTITY: {"pull", "push"}})

        def _grant(
            self,
            query: dict[str, list[str]],
            member: str,
            shown: str | None,
            known: dict[str, set[str]],
        ) -> None:
            scopes = query.get("scope", [])
            service.asked.append((" ".join(scopes), shown))
            actions = known.get(shown or "", {"pull"} if service.anonymous and not shown else None)
            if actions is None or query.get("service") != [SERVICE]:
                self._answer(401, {"details": f"no token for {shown}"})
                return
            self._answer(
                200,
                {member: service.token(scopes, actions), "expires_in": service.announced},
            )

        def _answer(self, status: int, document: dict[str, object]) -> None:
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _access(scope: str, actions: set[str]) -> dict[str, object]:
    kind, name, asked = scope.split(":")
    return {"type": kind, "name": name, "actions": sorted(set(asked.split(",")) & actions)}


def _sign(authority: Authority, claims: dict[str, object]) -> str:
    """A JWS with ES256 whose header carries the certificate of its key (RFC 7515, 4.1.6)."""
    key = load_pem_private_key(authority.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    leaf = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    chain = [base64.b64encode(leaf.public_bytes(Encoding.DER)).decode()]
    header = {"typ": "JWT", "alg": "ES256", "x5c": chain}
    signed = ".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
    r, s = utils.decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(SHA256())))
    return f"{signed}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
