"""The services of a Sigstore of our own over HTTP: Fulcio, Rekor of version 1, time-stamps.

Each answers as the real one does (tests/contracts compare them), or wrong on purpose.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

from cryptography import x509

from fakes.fulcio import Holder, pem
from fakes.issuer import Issuer
from fakes.loopback import Loopback
from fakes.timestamps import answer
from fakes.virtualsigstore import IDENTITY, ISSUER, Faults, VirtualSigstore, body_of
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.http import Transport
from secure_pipeline.adapters.sigstore import SigstoreVerifier
from secure_pipeline.adapters.sigstoresigning import LIMITS, SigstoreSigner, read_services

Answer = tuple[int, bytes]


@dataclass
class Service:
    """What the services do; the empty one is right."""

    faults: Faults = field(default_factory=Faults)
    stamp_after: timedelta = timedelta(0)
    """How late the time-stamp authority's clock is."""
    before: dict[str, list[Answer]] = field(default_factory=dict)
    """By path, answers that are given instead, each once."""
    identity: str = IDENTITY


class VirtualServices(Loopback):
    """Serves one instance on loopback; use it in a ``with``."""

    def __init__(self) -> None:
        super().__init__()
        self.sigstore = VirtualSigstore(datetime.now(UTC).replace(microsecond=0))
        self.service = Service()
        self.asked: list[str] = []
        """Paths of the requests, in their order."""
        self._issuer = Issuer()
        self.url = f"http://127.0.0.1:{self.port}"

    def token(self, **claims: object) -> str:
        """A token for Sigstore."""
        return self._issuer.token(**{"iss": ISSUER, "aud": "sigstore", **claims})

    def trust_config(self) -> dict[str, Any]:
        """Services and trust root."""
        return {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": json.loads(self.sigstore.trusted_root()),
            "signingConfig": {
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls": [self._named(self.url)],
                "oidcUrls": [],
                "rekorTlogUrls": [self._named(self.url)],
                "tsaUrls": [self._named(f"{self.url}/stamp")],
                "rekorTlogConfig": {"selector": "ANY"},
                "tsaConfig": {"selector": "ANY"},
            },
        }

    def signer(self) -> SigstoreSigner:
        """Who signs with these services, and waits for nothing."""
        config = self.trust_config()
        clock = SystemClock()
        return SigstoreSigner(
            read_services(json.dumps(config).encode(), "config"),
            SigstoreVerifier(json.dumps(config["trustedRoot"]).encode(), "root", clock.now()),
            self.token,
            Transport(clock, limits=LIMITS, sleep=lambda seconds: None),
            clock,
        )

    def _named(self, url: str) -> dict[str, object]:
        window = {"start": "2020-01-01T00:00:00Z"}
        return {"url": url, "majorApiVersion": 1, "validFor": window, "operator": "virtual"}

    def _certify(self, data: bytes) -> Answer:
        request = x509.load_pem_x509_csr(
            base64.b64decode(json.loads(data)["certificateSigningRequest"])
        )
        begins = datetime.now(UTC).replace(microsecond=0)
        holder = Holder(request, self.service.identity, ISSUER, begins)  # type: ignore[arg-type]
        faults, ours = self.service.faults, self.sigstore
        by = None if not faults.sct else ours.fulcio.key if faults.sct_key else ours.ct_key
        chain = [ours.fulcio.leaf(holder, ours.ct_key, by), ours.fulcio.issuer, ours.fulcio.root]
        signed = {"chain": {"certificates": [pem(one).decode() for one in chain]}}
        return 200, json.dumps({"signedCertificateEmbeddedSct": signed}).encode()

    def _log(self, data: bytes) -> Answer:
        content = json.loads(data)["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        payload = base64.b64decode(envelope["payload"])
        signature = base64.b64decode(envelope["signatures"][0]["sig"])
        body = body_of(
            self.service.faults.entry_of or payload,
            signature,
            base64.b64decode(content["verifiers"][0]),
            content["envelope"].encode(),
        )
        entry = self.sigstore.entry(body, datetime.now(UTC), self.service.faults)
        proof = entry["inclusionProof"]
        document = {
            "body": entry["canonicalizedBody"],
            "integratedTime": int(entry["integratedTime"]),
            "logID": _hex(entry["logId"]["keyId"]),
            "logIndex": int(entry["logIndex"]),
            "verification": {
                "signedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
                "inclusionProof": {
                    "logIndex": int(proof["logIndex"]),
                    "treeSize": int(proof["treeSize"]),
                    "rootHash": _hex(proof["rootHash"]),
                    "hashes": [_hex(text) for text in proof["hashes"]],
                    "checkpoint": proof["checkpoint"]["envelope"],
                },
            },
        }
        return 201, json.dumps({"0" * 80: document}).encode()

    def _stamp(self, data: bytes) -> Answer:
        at = data.index(b"\x04\x20") + 2  # the hash of the request, an OCTET STRING of 32 bytes
        moment, ours = datetime.now(UTC) + self.service.stamp_after, self.sigstore
        digest = data[at : at + 32]
        return 201, answer(digest, moment, ours.tsa_leaf, ours.tsa.issuer, ours.tsa_key)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self
        routes: dict[str, Callable[[bytes], Answer]] = {
            "/api/v2/signingCert": self._certify,
            "/api/v1/log/entries": self._log,
            "/stamp": self._stamp,
        }

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append(self.path)
                instead = outer.service.before.get(self.path)
                status, content = instead.pop(0) if instead else routes[self.path](data)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler


def _hex(text: str) -> str:
    return base64.b64decode(text).hex()
