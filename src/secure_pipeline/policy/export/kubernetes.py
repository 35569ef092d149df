"""Roles as Kubernetes enforces them: Roles and RoleBindings in two namespaces.

Runs have a namespace of their own, because whoever may start a run there chooses its service
account, and so may do what any service account of that namespace may. RBAC only allows; what no
binding gives is refused. Source: Kubernetes 1.30, "Using RBAC authorization".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secure_pipeline.errors import UsageError
from secure_pipeline.policy.export.text import documents

FILE = "roles.yaml"
ROLES = ("engineer", "reviewer", "operator")
PROMOTER = "promoter"
"""What promotes in a pod; has no one by default."""
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_PERSON = re.compile(r"[^\s:][^\s]{0,252}")
_RBAC = "rbac.authorization.k8s.io"
_READ = ["get", "list"]
_FOLLOW = ["get", "list", "watch"]
_RUNNING = (
    {"apiGroups": [""], "resources": ["pods"], "verbs": _READ},
    {
        "apiGroups": ["apps"],
        "resources": ["deployments", "statefulsets", "daemonsets", "replicasets"],
        "verbs": _READ,
    },
    {"apiGroups": ["batch"], "resources": ["jobs", "cronjobs"], "verbs": _READ},
)
"""What ``verify running`` asks for."""
_RUNS = (
    {"apiGroups": ["tekton.dev"], "resources": ["pipelineruns", "taskruns"], "verbs": _FOLLOW},
    {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": _READ},
)
_START = {"apiGroups": ["tekton.dev"], "resources": ["pipelineruns"], "verbs": ["create"]}
_ACCESS = {"apiGroups": [_RBAC], "resources": ["roles", "rolebindings"], "verbs": _READ}


@dataclass(frozen=True)
class KubernetesRoles:
    """What the file is made for."""

    namespace: str
    """Where the application runs."""
    runs: str
    """Where Tekton runs the pipeline."""
    routes: tuple[str, ...]
    """HTTPRoutes that operators promote with."""
    subjects: Mapping[str, tuple[str, ...]]
    """Role to ``group:NAME``, ``user:NAME`` or ``serviceaccount:NAMESPACE:NAME``."""
    prefix: str = "secure-pipeline"

    def __post_init__(self) -> None:
        for option, name in (("--namespace", self.namespace), ("--runs-namespace", self.runs)):
            _check(option, name, _LABEL)
        _check("--prefix", self.prefix, _LABEL)
        for route in self.routes:
            _check("--route", route, _SUBDOMAIN)
        if self.subjects.get(PROMOTER) and not self.routes:
            raise UsageError("a promoter needs a route", hint="--route web")
        if self.namespace == self.runs:
            raise UsageError(
                "runs and the application in one namespace: whoever starts runs could use the"
                " application's service accounts",
                hint="--runs-namespace pipelines",
            )

    def name(self, role: str) -> str:
        """How a role is called in Kubernetes."""
        return f"{self.prefix}-{role}"


def files(roles: KubernetesRoles) -> dict[str, str]:
    """The one file. Raises: UsageError for a subject that is none."""
    made: list[dict[str, Any]] = []
    named = (PROMOTER,) if roles.subjects.get(PROMOTER) else ()
    for role in (*ROLES, *named):
        subjects = [_subject(text) for text in roles.subjects.get(role, ())]
        subjects = subjects or [_subject(f"group:{roles.name(role)}s")]
        for namespace, rules in _rules(roles, role).items():
            made += _pair(roles.name(role), namespace, rules, subjects)
    return {FILE: documents(_comment(roles), made)}


def _rules(roles: KubernetesRoles, role: str) -> dict[str, list[dict[str, Any]]]:
    """Namespace to what a role may do there."""
    running: list[dict[str, Any]] = [*_RUNNING]
    runs: list[dict[str, Any]] = [*_RUNS]
    if role == "engineer":
        runs.append(_START)
    if role == "reviewer":
        running.append(_ACCESS)
        runs.append(_ACCESS)
    if role in ("operator", PROMOTER) and roles.routes:
        running.append(
            {
                "apiGroups": ["gateway.networking.k8s.io"],
                "resources": ["httproutes"],
                "resourceNames": list(roles.routes),
                "verbs": ["get", "patch"],
            }
        )
    if role == PROMOTER:
        return {roles.namespace: running}
    return {roles.namespace: running, roles.runs: runs}


def _pair(
    name: str, namespace: str, rules: Sequence[dict[str, Any]], subjects: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    metadata = {"name": name, "namespace": namespace}
    version = f"{_RBAC}/v1"
    reference = {"apiGroup": _RBAC, "kind": "Role", "name": name}
    return [
        {"apiVersion": version, "kind": "Role", "metadata": metadata, "rules": list(rules)},
        {
            "apiVersion": version,
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": reference,
            "subjects": list(subjects),
        },
    ]


def _subject(text: str) -> dict[str, Any]:
    kind, _, name = text.partition(":")
    if kind in ("group", "user") and _PERSON.fullmatch(name):
        return {"apiGroup": _RBAC, "kind": kind.capitalize(), "name": name}
    namespace, _, account = name.partition(":")
    if kind == "serviceaccount" and _LABEL.fullmatch(namespace) and _SUBDOMAIN.fullmatch(account):
        return {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    raise UsageError(
        f"{text[:80]!r} is nobody that a role can be given to",
        hint="group:NAME, user:NAME or serviceaccount:NAMESPACE:NAME",
    )


def _check(option: str, name: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(name):
        raise UsageError(f"{name[:80]!r} is no name in Kubernetes", hint=f"{option} shop")


def _comment(roles: KubernetesRoles) -> list[str]:
    lines = [
        "Roles of people, for Kubernetes. Written by 'secure-pipeline policy export kubernetes'.",
        f"engineer: sees what runs in {roles.namespace}, starts and follows runs in {roles.runs}.",
        "reviewer: sees what runs, the runs, and who has which role. Approving and releasing from",
        "  quarantine are signatures beside images, which Kubernetes has no part in.",
        f"operator: sees what runs and the runs, changes the routes {', '.join(roles.routes)}."
        if roles.routes
        else "operator: sees what runs and the runs. No --route was named, so none can be changed.",
        *_promoter(roles),
        "Nobody gets secrets, a shell in a pod, or rights over roles. Whoever starts runs can use",
        f"every service account of {roles.runs}: keep those narrow, and nothing else there.",
    ]
    return lines


def _promoter(roles: KubernetesRoles) -> list[str]:
    if not roles.subjects.get(PROMOTER):
        return []
    return [
        f"promoter: sees what runs in {roles.namespace}, changes the same routes; nothing else."
    ]
