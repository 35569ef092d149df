"""The program against a real Vault, outside of any repository: logins, variables, policies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fakes.faultproxy import FaultProxy
from fakes.vaultserver import RealVault
from fakes.workplace import Ended, Workplace, environment
from secure_pipeline.policy.document import Algorithm

MANAGING = """
path "transit/keys/{key}" {{ capabilities = ["read"] }}
path "transit/keys/{key}/rotate" {{ capabilities = ["update"] }}
path "transit/keys/{key}/config" {{ capabilities = ["update"] }}
path "transit/sign/{key}" {{ capabilities = ["update"] }}
path "secret/metadata/{key}" {{ capabilities = ["read"] }}
path "secret/data/{key}" {{ capabilities = ["read"] }}
"""


@dataclass(frozen=True)
class VaultCommands:
    """A directory to run the program in, and the Vault that its variables name."""

    vault: RealVault
    root: Path
    proxy: FaultProxy | None = None

    @property
    def ledger(self) -> Path:
        return self.root / "state" / "ledger.jsonl"

    def managing_role(self, key: str) -> None:
        """The role ``manager`` may read, rotate and configure a key, and sign with it."""
        self.vault.role("manager", key)
        self.vault.api("PUT", "sys/policies/acl/manager", {"policy": MANAGING.format(key=key)})

    def run(self, *arguments: str, role: str = "manager", **more: str) -> Ended:
        """Run the program with a fresh login of a role."""
        wrapped = self.root / "wrapped"
        wrapped.write_text(self.vault.wrapped_secret_id(role))
        role_id = self.vault.api("GET", f"auth/approle/role/{role}/role-id")["data"]["role_id"]
        address = f"http://{self.proxy.host}" if self.proxy else self.vault.address
        variables = {
            name: value
            for name, value in environment(self.root).items()
            if not name.startswith("SECURE_PIPELINE_") or name == "SECURE_PIPELINE_TOOLS"
        } | {
            "SECURE_PIPELINE_STATE": str(self.root / "state"),
            "VAULT_ADDR": address,
            "VAULT_CACERT": str(self.vault.authority.ca),
            "SECURE_PIPELINE_VAULT_ROLE": role,
            "SECURE_PIPELINE_VAULT_ROLE_ID": str(role_id),
            "SECURE_PIPELINE_VAULT_WRAPPED_SECRET_ID_FILE": str(wrapped),
        }
        if self.proxy:
            variables["SECURE_PIPELINE_VAULT_PLAIN_HTTP"] = "1"
        return Workplace(self.root, variables).run(*arguments, timeout=120, **more)

    def public(self, key: str, version: int) -> str:
        """PEM of a version of a transit key."""
        versions = self.vault.api("GET", f"transit/keys/{key}")["data"]["keys"]
        return str(versions[str(version)]["public_key"])

    def policy(self, text: str = "", name: str = "policy.yaml", **keys: str) -> Path:
        """A policy with these keys, by id, and further text."""
        path = self.root / name
        entries = "".join(
            f"  - id: {key_id.replace('_', '-')}\n"
            f"    algorithm: {Algorithm.ECDSA_P256_SHA256.value}\n"
            f"    public-key: {json.dumps(pem)}\n"
            for key_id, pem in keys.items()
        )
        path.write_text(f"version: 1\n{f'keys:{chr(10)}{entries}' if entries else ''}{text}")
        return path


def apply_exported(vault: RealVault, directory: Path) -> None:
    """Do what the README of exported policies says, each command once and no file left over."""
    text = (directory / "README.md").read_text()
    block = text.split("```sh\n")[1].partition("```")[0]
    applied = set()
    for line in block.splitlines():
        words = line.split()
        if words[1:3] == ["policy", "write"]:
            policy = (directory / words[4]).read_text()
            vault.api("PUT", f"sys/policies/acl/{words[3]}", {"policy": policy})
            applied.add(words[4])
        else:
            assert words[:2] == ["vault", "write"]
            body = json.loads((directory / words[3].removeprefix("@")).read_text())
            vault.api("POST", words[2], body)
            applied.add(words[3].removeprefix("@"))
    files = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert applied == files - {"README.md"}
