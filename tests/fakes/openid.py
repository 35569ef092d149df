"""An OpenID Connect issuer on loopback (TLS): its discovery document, its keys, its tokens."""

from __future__ import annotations

import json
import ssl
from http.server import BaseHTTPRequestHandler

from fakes.authority import Authority
from fakes.issuer import Issuer
from fakes.loopback import Loopback


class OpenIdIssuer(Loopback):
    """Serves what a certificate authority asks an issuer for; use it in a ``with``."""

    def __init__(self, authority: Authority) -> None:
        super().__init__()
        self.authority = authority
        self._issuer = Issuer()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.certificate, authority.key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.port}"

    def token(self, **claims: object) -> str:
        """A token of this issuer for Sigstore."""
        return self._issuer.token(**{"iss": self.url, "aud": "sigstore", **claims})

    def handler(self) -> type[BaseHTTPRequestHandler]:
        documents = {
            "/.well-known/openid-configuration": {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "id_token_signing_alg_values_supported": ["RS256"],
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
            },
            "/keys": {"keys": [self._issuer.jwk]},
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                document = documents.get(self.path)
                data = json.dumps(document).encode()
                self.send_response(200 if document else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler
