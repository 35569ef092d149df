"""A private Sigstore on loopback: real Fulcio, certificate log, Rekor and time-stamp authority."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from fakes.authority import make_authority
from fakes.fulcio import Chain, Key, der, new_key, pem, spki
from fakes.openid import OpenIdIssuer
from fakes.prometheus import Program, free_port
from secure_pipeline.keys.verify import to_der
from secure_pipeline.wiring import locate_tool

REPOSITORY = "team/service"
WORKFLOW = f"{REPOSITORY}/.github/workflows/release.yml@refs/heads/main"
IDENTITY = f"https://github.com/{WORKFLOW}"
"""Whom Fulcio certifies for the job of ``workflow_claims()``."""
ACCOUNT, NAMESPACE = "secure-pipeline-sign", "pipelines"
POD = f"https://kubernetes.io/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}"
"""Whom it certifies for ``pod_token()``."""
_DAY = timedelta(days=1)
_SECONDS = 30
_WINDOW = {"start": "2020-01-01T00:00:00Z"}
_PASSWORD = "only for tests"


@dataclass
class PrivateSigstore:
    """One instance; each of its programs may be killed and started again on its port."""

    directory: Path
    issuer: OpenIdIssuer
    """Of a forge's jobs."""
    cluster: OpenIdIssuer
    """Of a cluster's service accounts."""
    authority: Chain
    ct_key: Key
    log_key: Ed25519PrivateKey
    programs: dict[str, Program] = field(default_factory=dict)
    """By name: ``ct``, ``fulcio``, ``rekor``, ``tsa``."""

    def url(self, name: str) -> str:
        """Address of one of the programs."""
        return f"http://127.0.0.1:{self.programs[name].port}"

    def token(self, **claims: object) -> str:
        """The identity token of a job of a GitHub workflow, for an hour."""
        lasting = {"exp": int(time.time()) + 3600}
        return self.issuer.token(**{**workflow_claims(), **lasting, **claims})

    def pod_token(self, account: str = ACCOUNT) -> str:
        """The token of a service account, as a kubelet projects it."""
        name = {"namespace": NAMESPACE, "serviceaccount": {"name": account, "uid": "1"}}
        subject = f"system:serviceaccount:{NAMESPACE}:{account}"
        return self.cluster.token(**{"sub": subject, "kubernetes.io": name})

    def trusted_root(self) -> dict[str, Any]:
        """trusted_root.json of this instance."""
        answer = requests.get(f"{self.url('tsa')}/api/v1/timestamp/certchain", timeout=_SECONDS)
        stamping = x509.load_pem_x509_certificates(answer.content)
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [self._rekor()],
            "certificateAuthorities": [
                _chain(self.url("fulcio"), [self.authority.issuer, self.authority.root])
            ],
            "ctlogs": [
                _log(self.url("ct"), spki(self.ct_key), hashlib.sha256(spki(self.ct_key)).digest())
            ],
            "timestampAuthorities": [_chain(self.url("tsa"), stamping)],
        }

    def signing_config(self) -> dict[str, Any]:
        """signing_config.v0.2.json of this instance."""
        return {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [_service(self.url("fulcio"), 1)],
            "oidcUrls": [_service(self.issuer.url, 1)],
            "rekorTlogUrls": [_service(self.url("rekor"), 2)],
            "tsaUrls": [_service(f"{self.url('tsa')}/api/v1/timestamp", 1)],
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaConfig": {"selector": "ANY"},
        }

    def trust_config(self) -> dict[str, Any]:
        """Both of them in one, as sigstore's own client takes them."""
        return {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": self.trusted_root(),
            "signingConfig": self.signing_config(),
        }

    def write(self, name: str, document: dict[str, Any]) -> Path:
        """Write one of them, or a changed one, into the directory."""
        path = self.directory / name
        path.write_text(json.dumps(document))
        return path

    def _rekor(self) -> dict[str, Any]:
        """The log's id is that of its signed notes (C2SP signed-note, Ed25519)."""
        public = self.log_key.public_key()
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        identity = hashlib.sha256(b"127.0.0.1\n\x01" + raw).digest()
        return _log(self.url("rekor"), to_der(public), identity, "PKIX_ED25519")


def workflow_claims() -> dict[str, str]:
    """What GitHub says of a job of the release workflow."""
    commit = "0" * 40
    return {
        "sub": f"repo:{REPOSITORY}:ref:refs/heads/main",
        "job_workflow_ref": WORKFLOW,
        "job_workflow_sha": commit,
        "workflow_ref": WORKFLOW,
        "workflow_sha": commit,
        "workflow": "release",
        "sha": commit,
        "ref": "refs/heads/main",
        "event_name": "push",
        "repository": REPOSITORY,
        "repository_id": "1",
        "repository_owner": "team",
        "repository_owner_id": "2",
        "repository_visibility": "private",
        "runner_environment": "self-hosted",
        "run_id": "3",
        "run_attempt": "1",
    }


@contextmanager
def private_sigstore(directory: Path) -> Iterator[PrivateSigstore]:
    """Start one, wait until each part answers, and end it with everything it started."""
    directory.mkdir(exist_ok=True)
    now = datetime.now(UTC).replace(microsecond=0)
    authority = Chain("fulcio", ExtendedKeyUsageOID.CODE_SIGNING, now - _DAY, now + 30 * _DAY)
    certified = make_authority(directory / "issuers")
    with OpenIdIssuer(certified) as issuer, OpenIdIssuer(certified) as cluster:
        keys = (new_key(), Ed25519PrivateKey.generate())
        made = PrivateSigstore(directory, issuer, cluster, authority, *keys)
        try:
            _start(made)
            yield made
        finally:
            for program in made.programs.values():
                program.kill()


def _start(made: PrivateSigstore) -> None:
    directory, ports = made.directory, {name: free_port() for name in ("ct", "fulcio", "rekor")}
    tsa = free_port()
    _write_keys(made)
    issuers = {
        "OIDCIssuers": {
            issuer.url: {
                "IssuerURL": issuer.url,
                "ClientID": "sigstore",
                "Type": kind,
                "CACert": issuer.authority.ca.read_text(),
            }
            for issuer, kind in ((made.issuer, "github-workflow"), (made.cluster, "kubernetes"))
        }
    }
    (directory / "issuers.json").write_text(json.dumps(issuers))
    commands: dict[str, tuple[str, list[str]]] = {
        "ct": (
            "tesseract",
            [
                *("--http_endpoint", f"127.0.0.1:{ports['ct']}", "--origin", "ct.invalid"),
                *("--roots_pem_file", "root.pem", "--private_key", "ct.key"),
                *("--storage_dir", "ct", "--checkpoint_interval", "100ms"),
                *("--batch_max_age", "20ms", "--path_prefix", "ct.invalid"),
            ],
        ),
        "fulcio": (
            "fulcio",
            [
                *("-config", "issuers.json", "-certificate", "chain.pem", "-key", "fulcio.key"),
                *("-password", _PASSWORD, "-ct-log", f"http://127.0.0.1:{ports['ct']}/ct.invalid"),
                *("-ct-log-key", "ct.pub", "-address", f"127.0.0.1:{ports['fulcio']}"),
            ],
        ),
        "rekor": (
            "rekor-server",
            [
                *("serve", "--http-address", "127.0.0.1", "--http-port", str(ports["rekor"])),
                *("--grpc-address", "127.0.0.1", "--grpc-port", str(free_port())),
                *("--http-metrics-port", str(free_port()), "--hostname", "127.0.0.1"),
                *("--storage-dir", "log", "--signer-filepath", "log.key"),
                *("--checkpoint-interval", "100ms", "--batch-max-age", "20ms"),
            ],
        ),
        "tsa": ("timestamp-server", ["-port", str(tsa)]),
    }
    for name, (tool, arguments) in commands.items():
        command = ["env", "-C", str(directory), str(locate_tool(tool).path), *arguments]
        port = ports.get(name, tsa)
        made.programs[name] = Program(command, directory / f"{name}.log", port)
        made.programs[name].start()
    _wait(f"{made.url('rekor')}/healthz")
    _wait(f"{made.url('tsa')}/ping")


def _write_keys(made: PrivateSigstore) -> None:
    directory, chain = made.directory, made.authority
    (directory / "root.pem").write_bytes(pem(chain.root))
    (directory / "chain.pem").write_bytes(pem(chain.issuer) + pem(chain.root))
    locked = BestAvailableEncryption(_PASSWORD.encode())
    files = {
        "fulcio.key": chain.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked),
        "ct.key": made.ct_key.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        ),
        "ct.pub": made.ct_key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        ),
        "log.key": made.log_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    }
    for name, data in files.items():
        (directory / name).write_bytes(data)


def _wait(url: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.RequestException:
            pass
        assert time.monotonic() < deadline, f"{url} does not answer"
        time.sleep(0.05)


def _log(url: str, key: bytes, identity: bytes, kind: str = "PKIX_ECDSA_P256_SHA_256") -> Any:
    return {
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {"rawBytes": _text(key), "keyDetails": kind, "validFor": _WINDOW},
        "logId": {"keyId": _text(identity)},
    }


def _chain(uri: str, certificates: list[x509.Certificate]) -> dict[str, Any]:
    return {
        "subject": {"organization": "private", "commonName": "private"},
        "uri": uri,
        "certChain": {"certificates": [{"rawBytes": _text(der(one))} for one in certificates]},
        "validFor": _WINDOW,
    }


def _service(url: str, version: int) -> dict[str, Any]:
    return {"url": url, "majorApiVersion": version, "validFor": _WINDOW, "operator": "private"}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
