"""The sample service, ready to be signed, and two real Vaults: with TLS, and behind faults."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fakes.faultproxy import FaultProxy, fault_proxy
from fakes.vaultserver import RealVault, real_vault
from fakes.workplace import Ended, Workplace, make_workplace
from secure_pipeline.keys.local import generate

PASSWORD = "only for tests"
TRANSIT = "vault-transit://transit/release"
FETCHED = "vault-kv://secret/release#key"
PLAIN_PEM = "vault-kv://secret/release#pem"


@dataclass(frozen=True)
class VaultPlace:
    """A workplace whose stages before ``sign`` have passed, and how to reach a Vault from it."""

    workplace: Workplace
    vault: RealVault
    proxy: FaultProxy | None = None
    secrets: list[str] = field(default_factory=list)
    """What must appear nowhere."""

    @property
    def root(self) -> Path:
        return self.workplace.root

    def variables(self, key: str = TRANSIT, role: str = "signer") -> dict[str, str]:
        """The operator's variables, with a fresh wrapped secret-id in a file."""
        wrapped = self.vault.wrapped_secret_id(role)
        path = self.root.parent / "wrapped"
        path.write_text(f"{wrapped}\n")
        self.secrets.append(wrapped)
        role_id = self.vault.api("GET", f"auth/approle/role/{role}/role-id")["data"]["role_id"]
        where = (
            {
                "VAULT_ADDR": f"http://{self.proxy.host}",
                "SECURE_PIPELINE_VAULT_PLAIN_HTTP": "1",
            }
            if self.proxy
            else {
                "VAULT_ADDR": self.vault.address,
                "VAULT_CACERT": str(self.vault.authority.ca),
            }
        )
        return {
            **where,
            "SECURE_PIPELINE_KEY": key,
            "SECURE_PIPELINE_KEY_PASSWORD": PASSWORD,
            "SECURE_PIPELINE_VAULT_ROLE": role,
            "SECURE_PIPELINE_VAULT_ROLE_ID": str(role_id),
            "SECURE_PIPELINE_VAULT_WRAPPED_SECRET_ID_FILE": str(path),
        }

    def run(self, *arguments: str, **changes: str) -> Ended:
        """Run the program once with fresh variables; ``changes`` go over them."""
        return self.workplace.run(*arguments, timeout=120, **{**self.variables(), **changes})

    def copied(self, directory: Path) -> VaultPlace:
        """A copy that a test may sign."""
        root = directory / "service"
        ignored = shutil.ignore_patterns("builder")
        shutil.copytree(self.root, root, symlinks=True, ignore=ignored)
        (directory / "bases").symlink_to((self.root.parent / "bases").resolve())
        environment = self.workplace.environment
        return VaultPlace(Workplace(root, environment), self.vault, self.proxy, [*self.secrets])

    def behind(self, vault: RealVault, proxy: FaultProxy) -> VaultPlace:
        """The same workplace with the other Vault."""
        return VaultPlace(self.workplace, vault, proxy, self.secrets)


@dataclass(frozen=True)
class Keys:
    """The two fetched keys, as they lie in KV."""

    encrypted: str
    encrypted_public: str
    pem: str
    pem_public: str


def make_keys(directory: Path) -> Keys:
    """A key in cosign's encrypted format, and one in plain PEM."""
    directory.mkdir(parents=True, exist_ok=True)
    public = generate(directory / "kv.key", PASSWORD)
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem_public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    encrypted = (directory / "kv.key").read_text()
    return Keys(encrypted, public.pem.decode(), pem.decode(), pem_public.decode())


def prepare_vault(vault: RealVault, keys: Keys) -> str:
    """A transit key, the fetched keys and the role; returns the transit key's public PEM."""
    vault.transit_key("release")
    vault.role("signer", "release")
    data = {"key": keys.encrypted, "pem": keys.pem}
    vault.api("POST", "secret/data/release", {"data": data})
    return str(vault.api("GET", "transit/keys/release")["data"]["keys"]["1"]["public_key"])


@contextmanager
def vault_places(directory: Path, shared: Path) -> Iterator[tuple[VaultPlace, VaultPlace]]:
    """The workplace with the Vault of TLS, and with the one behind faults; one policy for both."""
    keys = make_keys(directory / "keys")
    plain = real_vault(directory / "plain", plain=True)
    with real_vault(directory / "tls") as vault, plain as other:
        publics = [prepare_vault(each, keys) for each in (vault, other)]
        pems = [*publics, keys.encrypted_public, keys.pem_public]
        policy = directory / "release.yaml"
        policy.write_text(_policy((shared / "policy/quick.yaml").read_text(), pems))
        place = make_workplace(directory / "work", shared)
        environment = {**place.environment, "SECURE_PIPELINE_POLICY": str(policy)}
        workplace = Workplace(place.root, environment)
        for stage in ("analyze", "test", "build", "scan"):
            ended = workplace.run(stage)
            assert ended.code == 0, ended.text
        secret = [*keys.pem.splitlines()[1:-1], *keys.encrypted.splitlines()[1:-1], PASSWORD]
        with fault_proxy(f"127.0.0.1:{other.port}") as proxy:
            first = VaultPlace(workplace, vault, None, secret)
            yield first, first.behind(other, proxy)


def _policy(text: str, pems: list[str]) -> str:
    entries = "".join(
        f"  - id: vault-{number}\n    algorithm: ecdsa-p256-sha256\n"
        f"    public-key: {json.dumps(pem)}\n"
        for number, pem in enumerate(pems)
    )
    before, _, rest = text.partition("keys:\n")
    after = rest[rest.index("\n\n") :]
    return f"{before}signing:\n  allow-fetched-keys: true\n\nkeys:\n{entries}{after}"
