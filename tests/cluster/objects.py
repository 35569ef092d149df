"""Kubernetes objects that tests make, and waiting for what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.api import Api, until

APPS = "/apis/apps/v1"
BATCH = "/apis/batch/v1"
CORE = "/api/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


def container(name: str, image: str, **more: Any) -> dict[str, Any]:
    """A container that starts at once and is killed at once."""
    return {"name": name, "image": image, "imagePullPolicy": "IfNotPresent", **more}


def pod_spec(*containers: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The specification of a pod that does not linger when it is deleted."""
    return {"containers": list(containers), "terminationGracePeriodSeconds": 0, **more}


def workload(name: str, spec: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A Deployment, StatefulSet, DaemonSet or ReplicaSet."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **more},
    }


def make_namespace(api: Api, name: str) -> None:
    """Make a namespace that pods can be made in."""
    api.create(f"{CORE}/namespaces", {"metadata": {"name": name}})
    account = f"{CORE}/namespaces/{name}/serviceaccounts/default"
    until("service account", lambda: api.call("GET", account).ok)


def running_pods(api: Api, namespace: str, label: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait until so many pods run with all their containers; return them."""

    def ready() -> list[dict[str, Any]]:
        query = f"?labelSelector=app%3D{label}"
        pods: list[dict[str, Any]] = api.get(f"{CORE}/namespaces/{namespace}/pods{query}")["items"]
        return pods if len(pods) == count and all(map(_is_ready, pods)) else []

    return until(f"{count} pods of {label}", ready)


def allow(api: Api, namespace: str, account: str, rules: list[dict[str, Any]]) -> None:
    """Give a service account rules in its namespace."""
    base = f"{RBAC}/namespaces/{namespace}"
    api.create(f"{base}/roles", {"metadata": {"name": account}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account}
    binding = {"metadata": {"name": account}, "roleRef": reference, "subjects": [subject]}
    api.create(f"{base}/rolebindings", binding)


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return ("Ready", "True") in {(item["type"], item["status"]) for item in conditions}
