"""Who the stages are in a cluster, and what differs between clusters.

No stage talks to Kubernetes, except that ``promote`` may move traffic of a Gateway: the Role for
that is in the namespace of the route (``policy export kubernetes``). Whoever starts runs may do
that and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secure_pipeline.plan.model import PROGRAM
from secure_pipeline.plan.tekton_text import labelled, text

STARTER = f"{PROGRAM}-start"
_RBAC = "rbac.authorization.k8s.io"
_KUSTOMIZE = "kustomize.config.k8s.io/v1beta1"
_NAMESPACE = PROGRAM


def files(resources: Sequence[str]) -> Mapping[str, str]:
    """Accounts, Roles and overlays; ``resources`` are the other files of the base."""
    rbac = {
        "tekton/rbac/accounts.yaml": text(
            ("An identity each for what signs and what promotes: Vault tells them apart.",),
            _account(PROGRAM),
            _account(f"{PROGRAM}-sign"),
            # Its token is what the Gateway's API is asked with.
            _account(f"{PROGRAM}-promote", token=True),
            _account(STARTER, token=True),
        ),
        "tekton/rbac/start.yaml": text(
            ("May start a run and read how it goes, nothing else.",), *_start()
        ),
    }
    names = sorted((*resources, *(name.removeprefix("tekton/") for name in rbac)))
    return {
        **rbac,
        "tekton/kustomization.yaml": text((), _kustomization(names)),
        "tekton/overlays/dev/kustomization.yaml": text(
            (
                "For a cluster to try it on: the builder's container is privileged, though its user"
                " is not root, because elsewhere its /proc is masked and no container can be made"
                " in it. Not for a cluster that others use.",
            ),
            {**_kustomization(["../.."]), "patches": [_privileged()]},
        ),
        "tekton/overlays/production/kustomization.yaml": text(
            ("A namespace of its own, because whoever starts runs chooses their service account.",),
            {**_kustomization(["../..", "network.yaml"]), "namespace": _NAMESPACE},
        ),
        "tekton/overlays/production/network.yaml": text(
            ("Nobody has to reach a stage.",),
            labelled(
                "networking.k8s.io/v1",
                "NetworkPolicy",
                PROGRAM,
                {"podSelector": {}, "policyTypes": ["Ingress"]},
            ),
        ),
    }


def _account(name: str, *, token: bool = False) -> dict[str, Any]:
    return {
        **labelled("v1", "ServiceAccount", name, None),
        "automountServiceAccountToken": token,
    }


def _start() -> tuple[dict[str, Any], dict[str, Any]]:
    rules = [
        {"apiGroups": ["tekton.dev"], "resources": ["pipelineruns"], "verbs": ["create", "get"]}
    ]
    role = {**labelled(f"{_RBAC}/v1", "Role", STARTER, None), "rules": rules}
    binding = {
        **labelled(f"{_RBAC}/v1", "RoleBinding", STARTER, None),
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": STARTER},
        "subjects": [{"kind": "ServiceAccount", "name": STARTER}],
    }
    return role, binding


def _kustomization(resources: Sequence[str]) -> dict[str, Any]:
    return {"apiVersion": _KUSTOMIZE, "kind": "Kustomization", "resources": list(resources)}


def _privileged() -> dict[str, Any]:
    path = "/spec/steps/0/securityContext"
    operations = (
        {"op": "add", "path": f"{path}/privileged", "value": True},
        {"op": "remove", "path": f"{path}/capabilities"},
    )
    patch = "".join(
        f"- {{op: {o['op']}, path: {o['path']}"
        + (f", value: {str(o['value']).lower()}" if "value" in o else "")
        + "}\n"
        for o in operations
    )
    return {"target": {"kind": "Task", "name": "build"}, "patch": patch}
