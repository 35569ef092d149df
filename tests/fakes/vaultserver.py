"""A real Vault server of its own for a test: TLS, a store on disk, sealed at will."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from fakes.authority import Authority, make_authority
from secure_pipeline.wiring import locate_tool

_SECONDS = 30
SIGNING_POLICY = """
path "transit/keys/{key}" {{ capabilities = ["read"] }}
path "transit/sign/{key}" {{ capabilities = ["update"] }}
path "transit/sign/{key}/*" {{ capabilities = ["update"] }}
path "secret/data/{key}" {{ capabilities = ["read"] }}
path "secret/data/{key}-*" {{ capabilities = ["read"] }}
path "auth/token/revoke-accessor" {{ capabilities = ["update"] }}
"""


@dataclass
class RealVault:
    """One server; ``kill`` and ``start`` may follow each other on the same store and port."""

    directory: Path
    authority: Authority
    port: int = 0
    unseal_keys: list[str] = field(default_factory=list)
    root: str = ""
    process: subprocess.Popen[str] | None = None
    plain: bool = False
    host: str = "127.0.0.1"

    @property
    def address(self) -> str:
        """What VAULT_ADDR is."""
        return f"{'http' if self.plain else 'https'}://{self.host}:{self.port}"

    @property
    def audit_log(self) -> Path:
        """What the audit device writes, once ``enable_audit`` was called."""
        return self.directory / "audit.log"

    def start(self) -> None:
        """Start the program and wait until it listens; it is sealed then."""
        command = [
            *(str(locate_tool("vault").path), "-store", str(self.directory / "store")),
            *("-certificate", str(self.authority.certificate), "-key", str(self.authority.key)),
            *("-address", f"{self.host}:{self.port}"),
            *(["-plain"] if self.plain else []),
        ]
        with (self.directory / "vault.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.directory
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.fullmatch(re.escape(self.host) + r":(\d+)\n", line)
        assert match, f"{line!r}; see {self.directory / 'vault.log'}"
        self.port = int(match[1])

    def kill(self) -> None:
        """End it at once, as a crash would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def restart(self, *, unseal: bool = True) -> None:
        """Kill it and start it on the same store and port."""
        self.kill()
        self.start()
        if unseal:
            self.unseal()

    def initialise(self) -> None:
        """Make the store's keys, which the test keeps."""
        answer = self.api("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1}, token="")
        self.unseal_keys, self.root = answer["keys_base64"], answer["root_token"]

    def unseal(self) -> None:
        """Unseal it and wait until it is active."""
        for key in self.unseal_keys:
            self.api("PUT", "sys/unseal", {"key": key}, token="")
        deadline = time.monotonic() + _SECONDS
        while self.health() != 200:
            assert time.monotonic() < deadline, "not active in time"
            time.sleep(0.05)

    def seal(self) -> None:
        """Seal it."""
        self.api("PUT", "sys/seal")

    def health(self) -> int:
        """Status of /sys/health."""
        return self._send("GET", "sys/health", None, "").status_code

    def api(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        **headers: str,
    ) -> dict[str, Any]:
        """One request, as root unless a token is given; its answer's object. It must succeed."""
        answer = self._send(method, path, body, self.root if token is None else token, headers)
        assert answer.status_code in (200, 204), f"{method} {path}: {answer.status_code}"
        return dict(answer.json()) if answer.content else {}

    def status(self, method: str, path: str, body: object, token: str) -> int:
        """The status alone, whatever it is."""
        return self._send(method, path, body, token).status_code

    def _send(
        self,
        method: str,
        path: str,
        body: object,
        token: str,
        headers: dict[str, str] | None = None,
    ) -> requests.Response:
        sent = {**({"X-Vault-Token": token} if token else {}), **(headers or {})}
        return requests.request(
            method, f"{self.address}/v1/{path}", json=body, headers=sent,
            verify=str(self.authority.ca), timeout=_SECONDS, allow_redirects=False,
        )  # fmt: skip

    def enable(self) -> None:
        """AppRole, the transit mount ``transit`` and the KV 2 mount ``secret``."""
        self.api("POST", "sys/auth/approle", {"type": "approle"})
        self.api("POST", "sys/mounts/transit", {"type": "transit"})
        self.api("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        deadline = time.monotonic() + _SECONDS
        while self.status("GET", "secret/config", None, self.root) != 200:
            assert time.monotonic() < deadline, "kv is not ready"
            time.sleep(0.05)

    def enable_audit(self) -> None:
        """Write what happens to ``audit_log``."""
        self.api(
            "PUT", "sys/audit/file", {"type": "file", "options": {"file_path": str(self.audit_log)}}
        )

    def audited(self) -> list[dict[str, Any]]:
        """Entries of the audit device."""
        return [json.loads(line) for line in self.audit_log.read_text().splitlines()]

    def transit_key(self, name: str, kind: str = "ecdsa-p256") -> None:
        """Make a transit key."""
        self.api("POST", f"transit/keys/{name}", {"type": kind})

    def role(self, name: str, key: str, *, ttl: str = "5m", **more: object) -> str:
        """Make an AppRole role that may sign with this key; return its role-id."""
        self.api("PUT", f"sys/policies/acl/{name}", {"policy": SIGNING_POLICY.format(key=key)})
        options = {
            "token_policies": [name], "token_ttl": ttl, "token_max_ttl": ttl,
            "secret_id_num_uses": 1, "secret_id_ttl": "10m", **more,
        }  # fmt: skip
        self.api("POST", f"auth/approle/role/{name}", options)
        data = self.api("GET", f"auth/approle/role/{name}/role-id")["data"]
        return str(data["role_id"])

    def wrapped_secret_id(self, role: str, ttl: str = "120s") -> str:
        """A response-wrapped, single-use secret-id of a role: the wrapping token."""
        headers = {"X-Vault-Wrap-TTL": ttl}
        answer = self.api("POST", f"auth/approle/role/{role}/secret-id", {}, **headers)
        return str(answer["wrap_info"]["token"])

    def lives(self, accessor: str) -> bool:
        """Whether the token with this accessor is still known."""
        body = {"accessor": accessor}
        return self.status("POST", "auth/token/lookup-accessor", body, self.root) == 200

    def accessors(self) -> set[str]:
        """Accessors of all living tokens but root's."""
        keys = self.api("LIST", "auth/token/accessors")["data"]["keys"]
        own = self.api("GET", "auth/token/lookup-self")["data"]["accessor"]
        return set(keys) - {own}


@contextmanager
def real_vault(
    directory: Path, *, ready: bool = True, plain: bool = False, host: str = "127.0.0.1"
) -> Iterator[RealVault]:
    """A Vault of its own below ``directory``; initialised, unsealed and enabled if ``ready``."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "store").mkdir(exist_ok=True)
    authority = make_authority(directory / "tls", host)
    vault = RealVault(directory, authority, plain=plain, host=host)
    vault.start()
    try:
        if ready:
            vault.initialise()
            vault.unseal()
            vault.enable()
        yield vault
    finally:
        assert vault.process is not None
        if vault.process.poll() is None:
            vault.kill()
