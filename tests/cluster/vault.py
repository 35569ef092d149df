"""A real Vault in the cluster's network, which lets in the service accounts of a pipeline's pods.

    with pod_vault(place, directory) as vault:     # inside cluster.network()
        place.start("one", vault.use, **vault.parameters("pipeline", "release"))

It asks the cluster's own API server whose a token is (TokenReview). Policies and roles are those
of ``policy export vault``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cluster.namespaces import NODE_ADDRESS, SERVICE_ADDRESS
from cluster.objects import CORE, RBAC
from cluster.pipelines import NAMESPACE, PipelinePlace
from cluster.settings import PODS
from fakes.vaultcommands import apply_exported
from fakes.vaultserver import RealVault, real_vault
from fakes.workplace import Workplace, environment

CONFIG_MAP = "vault-policy"
KEYS = ("release", "promotion")
ROLES = ("pipeline", "promoter")
_REVIEWER = "vault"
"""Service account, in the namespace ``default``, that Vault asks the API server with."""


@dataclass
class Watch:
    """What happened in Vault meanwhile."""

    accessors: set[str] = field(default_factory=set)
    """Of tokens that it knew only before or only afterwards."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path of each request of a pod, and what Vault calls its token."""


@dataclass(frozen=True)
class PodVault:
    """A Vault, and what a pod has to be told to use it."""

    vault: RealVault
    directory: Path

    def parameters(self, role: str, key: str) -> dict[str, str]:
        """Parameters of a run; the ConfigMap brings policy and authority."""
        return {
            "key": f"vault-transit://transit/{key}",
            "policy": "/workspace/policy/release.yaml",
            "vault-addr": self.vault.address,
            "vault-cacert": "/workspace/policy/vault-ca.pem",
            "vault-login": "kubernetes",
            "vault-role": f"secure-pipeline-{role}",
        }

    def use(self, spec: dict[str, Any]) -> None:
        """Change a run or a TaskRun: no key is bound to it, and the policy is Vault's."""
        spec["workspaces"] = [w for w in spec["workspaces"] if w["name"] != "keys"]
        (policy,) = (w for w in spec["workspaces"] if w["name"] == "policy")
        policy["configMap"] = {"name": CONFIG_MAP}

    @contextmanager
    def watched(self) -> Iterator[Watch]:
        """See what pods do with Vault until the block ends."""
        watch, before, already = Watch(), self.vault.accessors(), len(self._asked())
        yield watch
        watch.accessors |= self.vault.accessors() ^ before
        watch.asked += [(path, who) for path, who in self._asked()[already:] if who != "root"]

    def public(self, key: str) -> str:
        """PEM of a transit key, as the program exports it."""
        data = self.vault.api("GET", f"transit/keys/{key}")["data"]
        return str(data["keys"]["1"]["public_key"])

    @property
    def policy(self) -> Path:
        """The trusted policy that the pods have: of these keys, and of tokens of these roles."""
        return self.directory / "release.yaml"

    def _asked(self) -> list[tuple[str, str]]:
        return [
            (entry["request"]["path"], entry["auth"].get("display_name", ""))
            for entry in self.vault.audited()
            if entry["type"] == "response"
        ]


@contextmanager
def pod_vault(
    place: PipelinePlace, directory: Path, keys: Mapping[str, str] | None = None
) -> Iterator[PodVault]:
    """Run one until the block ends, with its keys, roles, login and ConfigMap.

    ``keys``: others that the policy trusts, id to PEM.
    """
    with real_vault(directory / "server", host=NODE_ADDRESS) as vault:
        vault.enable_audit()
        for key in KEYS:
            vault.transit_key(key)
        made = PodVault(vault, directory)
        _trust_cluster(place, vault)
        exported = Workplace(directory, environment(place.shared)).run(
            *("policy", "export", "vault", "--kubernetes", NAMESPACE, "--cidr", PODS),
            *("--output", "exported"),
        )
        assert exported.code == 0, exported.text
        apply_exported(vault, directory / "exported")
        _write_policy(place, made, keys or {})
        base = f"{CORE}/namespaces/{NAMESPACE}/configmaps"
        data = {
            "release.yaml": made.policy.read_text(),
            "vault-ca.pem": vault.authority.ca.read_text(),
        }
        place.tekton.api.create(base, {"metadata": {"name": CONFIG_MAP}, "data": data})
        try:
            yield made
        finally:
            place.tekton.api.delete(f"{base}/{CONFIG_MAP}")
            place.tekton.api.delete(f"{RBAC}/clusterrolebindings/{_REVIEWER}")


def _trust_cluster(place: PipelinePlace, vault: RealVault) -> None:
    """The login ``kubernetes``, and an account that may ask whose a token is."""
    config = json.loads(place.tekton.cluster.account("default", _REVIEWER).read_bytes())
    subject = {"kind": "ServiceAccount", "name": _REVIEWER, "namespace": "default"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "system:auth-delegator"}  # fmt: skip
    binding = {"metadata": {"name": _REVIEWER}, "roleRef": role, "subjects": [subject]}
    place.tekton.api.create(f"{RBAC}/clusterrolebindings", binding)
    vault.api("POST", "sys/auth/kubernetes", {"type": "kubernetes"})
    settings = {
        "kubernetes_host": f"https://{SERVICE_ADDRESS}",
        "kubernetes_ca_cert": (place.tekton.cluster.keys / "ca.crt").read_text(),
        "token_reviewer_jwt": config["users"][0]["user"]["token"],
        "disable_local_ca_jwt": True,
    }
    vault.api("POST", "auth/kubernetes/config", settings)


def _write_policy(place: PipelinePlace, made: PodVault, more: Mapping[str, str]) -> None:
    keys = {**{key: made.public(key) for key in KEYS}, **more}
    document = yaml.safe_load((place.shared / "policy/tekton.yaml").read_text())
    document["keys"] = [
        {"id": name, "algorithm": "ecdsa-p256-sha256", "public-key": pem}
        for name, pem in keys.items()
    ]
    document["signing"] = {"token-policies": [f"secure-pipeline-{role}" for role in ROLES]}
    made.policy.write_text(json.dumps(document))
